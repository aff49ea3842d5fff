//! Feeds [`lamplight_media::fuzzing::mp4_parts`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::mp4_parts(data));
