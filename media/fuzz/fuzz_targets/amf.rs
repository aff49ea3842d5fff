//! Feeds [`lamplight_media::fuzzing::amf`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::amf(data));
