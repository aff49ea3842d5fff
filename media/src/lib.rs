//! The live media core of Lamplight: RTMP and WHIP in, WHEP and LL-HLS out, on one timeline.
//!
//! The path of a frame: a listener ([`rtmp`], [`whip`]) turns a publisher's bytes into
//! [`frame::Sample`]s ([`flv`]); the [`broadcast::Publisher`] places each on T and appends it to
//! the ring of its track; readers ([`whep`], [`hls`], [`transcode`]) each hold a
//! [`broadcast::Cursor`] and send on what they find there.
//!
//! Invariants
//! - The ring is the only queue between publisher and viewer; no viewer slows a publisher.
//! - The crate spawns no task: it returns futures, the server runs them. Only codecs own threads.
//! - Clocks are arguments: state machines take `now`, drivers read tokio's `Instant`.
//!
//! Deliberately absent: users, rooms, prices, SQL, an HTTP framework.
#![warn(missing_docs)]

pub mod bitstream;
pub mod broadcast;
pub mod cue;
pub mod doctor;
pub mod flv;
pub mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod hls;
mod meter;
pub mod pattern;
pub mod record;
pub mod request;
pub mod rtmp;
pub mod stats;
mod sync;
pub mod time;
pub mod transcode;
pub mod webrtc;
pub mod whep;
pub mod whip;

/// The example of the crate's README, kept true by the doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
