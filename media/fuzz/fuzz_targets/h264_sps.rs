//! Feeds [`lamplight_media::fuzzing::h264_sps`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::h264_sps(data));
