//! Feeds [`lamplight_media::fuzzing::opus_toc`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::opus_toc(data));
