//! Feeds [`lamplight_media::fuzzing::twcc`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::twcc(data));
