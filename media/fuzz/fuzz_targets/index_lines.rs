//! Feeds [`lamplight_media::fuzzing::index_lines`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::index_lines(data));
