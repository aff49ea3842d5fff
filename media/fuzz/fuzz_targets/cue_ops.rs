//! Feeds [`lamplight_media::fuzzing::cue_ops`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::cue_ops(data));
