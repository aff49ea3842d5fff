//! WebRTC out: one UDP port for all viewers, one sans-IO connection per viewer.
//!
//! [`Port`] owns the socket and tells datagrams apart; [`crate::whep`] turns an offer into an
//! answer and a session; a session drives its connection, reads its cursors and sends each frame
//! as one burst.
//!
//! Invariants
//! - No channel and no wake-up per outgoing packet.
//! - A frame is cut into RTP payloads once, by the first viewer that needs it.
//!
//! Not here: routes; who may watch.

pub mod message;
pub(crate) mod packetise;
pub(crate) mod peer;
mod port;
pub mod sdp;
mod tap;
#[cfg(test)]
mod tests;

pub(crate) use self::port::{Burst, Datagram, Inbox};
pub use self::port::{Port, PortConfig};
