//! Feeds [`lamplight_media::fuzzing::rtcp_compound`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lamplight_media::fuzzing::rtcp_compound(data));
