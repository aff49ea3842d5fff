//! Feeds [`lamplight_media::fuzzing::srtp_unprotect`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::srtp_unprotect(data));
