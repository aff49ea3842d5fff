//! Feeds [`lamplight_media::fuzzing::av1_obu`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::av1_obu(data));
