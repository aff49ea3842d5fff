//! RTMP: bytes of a publisher to samples in the hub, and what a viewer is sent.
//!
//! [`chunk`] reads chunks within bounds, [`amf`] reads values within bounds, [`session`] holds the
//! dialogue (around `rml_rtmp`, which never sees raw network bytes), [`listener`] drives sockets.
//!
//! The other way round, [`client`] publishes to a server.
//!
//! Not here: who may publish or play ([`crate::request`]), what the payloads mean and which frames
//! a viewer is sent ([`crate::flv`]).

mod aggregate;
pub mod amf;
pub mod chunk;
pub mod client;
mod close;
mod gate;
mod inner;
pub mod listener;
mod outbox;
pub mod session;
#[cfg(test)]
pub(crate) mod tests;
