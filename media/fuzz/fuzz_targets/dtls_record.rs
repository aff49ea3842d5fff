//! Feeds [`lamplight_media::fuzzing::dtls_record`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::dtls_record(data));
