//! RTMP payloads to samples.
