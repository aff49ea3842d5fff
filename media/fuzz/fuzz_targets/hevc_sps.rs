//! Feeds [`lamplight_media::fuzzing::hevc_sps`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::hevc_sps(data));
