//! Feeds [`lamplight_media::fuzzing::aac_config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::aac_config(data));
