//! Feeds [`lamplight_media::fuzzing::enhanced_flv`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::enhanced_flv(data));
