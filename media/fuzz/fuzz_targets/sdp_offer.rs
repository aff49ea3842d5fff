//! Feeds [`lamplight_media::fuzzing::sdp_offer`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::sdp_offer(data));
