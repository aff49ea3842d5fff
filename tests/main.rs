//! The server over HTTP and as a process: one binary, one folder per module.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod accounts;
mod broadcasts;
mod creators;
mod http;
mod orders;
mod payments;
mod robustness;
mod rooms;
mod serve;
mod support;
