//! Feeds [`lamplight_media::fuzzing::sdpfrag`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::sdpfrag(data));
