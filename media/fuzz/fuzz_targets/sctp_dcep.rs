//! Feeds [`lamplight_media::fuzzing::sctp_dcep`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::sctp_dcep(data));
