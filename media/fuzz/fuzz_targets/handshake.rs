//! Feeds [`lamplight_media::fuzzing::handshake`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::handshake(data));
