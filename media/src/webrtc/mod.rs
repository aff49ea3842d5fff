//! WebRTC out: one UDP port for all viewers, one connection without IO per viewer.
//!
//! [`Port`] owns the socket and tells datagrams apart; [`crate::whep`] turns an offer into an
//! answer and a session; a session drives its connection, reads its cursors and sends each frame
//! as one burst. A connection is put together from the parts of `rtc`: its DTLS, SRTP, SCTP and
//! RTCP; the lite end of ICE, what of the offer is taken and the way of a packet are here.
//!
//! Invariants
//! - No channel and no wake-up per outgoing packet.
//! - A frame is cut into RTP payloads once, by the first viewer that needs it.
//!
//! Not here: routes; who may watch.

mod answer;
pub(crate) mod arrivals;
mod burst;
pub(crate) mod channel;
mod delay;
pub(crate) mod dtls;
pub(crate) mod estimate;
pub(crate) mod feedback;
pub(crate) mod flight;
pub(crate) mod history;
mod ice;
pub mod message;
pub(crate) mod packetise;
pub(crate) mod peer;
mod penalty;
mod port;
pub mod sdp;
pub(crate) mod srtp;
mod stream;
pub(crate) mod stun;
#[cfg(test)]
mod tests;

pub(crate) use self::answer::{Answer, candidate_lines, fragment};
pub(crate) use self::burst::Burst;
pub(crate) use self::ice::{Credentials, Dropped, Lite, Names};
pub(crate) use self::port::{Address, Inbox, Letter, Untold};
pub use self::port::{Port, PortConfig};
