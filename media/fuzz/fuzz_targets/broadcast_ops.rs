//! Feeds [`lamplight_media::fuzzing::broadcast_ops`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::broadcast_ops(data));
