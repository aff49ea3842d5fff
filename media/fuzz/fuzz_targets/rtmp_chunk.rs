//! Feeds [`lamplight_media::fuzzing::rtmp_chunk`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::rtmp_chunk(data));
