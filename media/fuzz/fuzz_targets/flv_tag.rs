//! Feeds [`lamplight_media::fuzzing::flv_tag`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::flv_tag(data));
