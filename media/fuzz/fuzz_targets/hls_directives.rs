//! Feeds [`lamplight_media::fuzzing::hls_directives`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::hls_directives(data));
