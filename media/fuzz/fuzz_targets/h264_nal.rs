//! Feeds [`lamplight_media::fuzzing::h264_nal`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::h264_nal(data));
