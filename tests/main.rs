//! The server over HTTP and as a process: one binary, one folder per module.

mod creators;
mod http;
mod rooms;
mod serve;
mod support;
