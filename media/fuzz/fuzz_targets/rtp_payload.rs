//! Feeds [`lamplight_media::fuzzing::rtp_payload`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::rtp_payload(data));
