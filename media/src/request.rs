//! The questions a listener puts to the server, and the server's answers.
//!
//! Not here: who may publish or watch. The media core knows no user; it hands out a
//! [`PublishRequest`] or a [`PlayRequest`] and waits at most [`DECISION_TIMEOUT`] for the answer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::broadcast::{BroadcastKey, Publisher};
use crate::flv::viewer::{Control, Terms};

/// How long whoever asks waits for the server's decision before it is told to try again.
pub const DECISION_TIMEOUT: Duration = Duration::from_secs(5);

/// How many publish requests may wait, and as many to play, for a decision (spec media.md 8.5).
pub const DECISIONS_WAITING_MAX: usize = 256;

/// The protocol a publisher speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// RTMP over TCP.
    Rtmp,
    /// WHIP, RFC 9725.
    Whip,
}

impl Protocol {
    /// The word for logs and counters.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Rtmp => "rtmp",
            Self::Whip => "whip",
        }
    }
}

/// Somebody asks to publish. Dropping it refuses with "try again".
#[derive(Debug)]
pub struct PublishRequest {
    /// The protocol the publisher speaks.
    pub protocol: Protocol,
    /// RTMP application, for example `live`.
    pub app: String,
    /// RTMP `tcUrl`, as sent; empty when it was not.
    pub tc_url: String,
    /// The raw stream name or bearer, at most 512 bytes. A secret: never log it.
    pub stream_name: String,
    /// Who asks.
    pub peer: SocketAddr,
    /// Where the decision goes.
    pub reply: oneshot::Sender<Decision>,
}

/// The server's answer to a [`PublishRequest`].
#[derive(Debug)]
pub enum Decision {
    /// Publish into this broadcast.
    Accept(Publisher),
    /// Do not publish.
    Reject(Refusal),
}

/// Where a listener puts its questions; each of the two has [`DECISIONS_WAITING_MAX`] places, so
/// that no rush of viewers keeps a publisher out.
#[derive(Clone, Debug)]
pub struct Requests {
    /// To publish.
    pub publish: mpsc::Sender<PublishRequest>,
    /// To play.
    pub play: mpsc::Sender<PlayRequest>,
}

/// Somebody asks to watch over RTMP. Dropping it refuses with "try again".
#[derive(Debug)]
pub struct PlayRequest {
    /// RTMP application, for example `live`.
    pub app: String,
    /// The name of the room, as sent; at most 512 bytes.
    pub room: String,
    /// What stood behind the name's or the application's `?`; at most 1 024 bytes. It may hold a
    /// token: never log it.
    pub query: String,
    /// Who asks.
    pub peer: SocketAddr,
    /// Where the decision goes.
    pub reply: oneshot::Sender<PlayDecision>,
}

/// The server's answer to a [`PlayRequest`].
#[derive(Debug)]
pub enum PlayDecision {
    /// Play this, as soon as somebody publishes it.
    Accept(PlayGrant),
    /// Do not play.
    Reject(Refusal),
}

/// What a viewer may watch.
#[derive(Debug)]
pub struct PlayGrant {
    /// The broadcast, live or not yet.
    pub broadcast: BroadcastKey,
    /// What is settled for it.
    pub terms: Terms,
    /// Told when it begins; dropped when it never does.
    pub opened: oneshot::Sender<Control>,
}

/// Why a publisher or a player is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalCode {
    /// No such key. RTMP `NetStream.Publish.BadName`, WHIP 401.
    UnknownKey,
    /// No such room to watch. RTMP `NetStream.Play.StreamNotFound`.
    UnknownRoom,
    /// Nobody publishes what is asked for. RTMP `NetStream.Play.StreamNotFound`.
    NotLive,
    /// Known, but not allowed now: banned or expired. RTMP `.Denied`, WHIP 403; a player hears
    /// `NetStream.Play.Failed` for this and all that follows.
    NotAllowed,
    /// Somebody publishes with this key already. RTMP `.Denied`, WHIP 409.
    Busy,
    /// A limit, drain, or an internal fault: try again. RTMP `.Rejected`, WHIP 503.
    TryAgain,
    /// The stream is of a kind that is not taken. RTMP `.Rejected`, WHIP 422.
    Unsupported,
}

impl RefusalCode {
    /// The stable word used in logs and counters.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::UnknownKey => "unknown_key",
            Self::UnknownRoom => "unknown_room",
            Self::NotLive => "not_live",
            Self::NotAllowed => "not_allowed",
            Self::Busy => "busy",
            Self::TryAgain => "try_again",
            Self::Unsupported => "unsupported",
        }
    }
}

/// A refusal: a code for programs and one plain sentence, with what to do, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people: what is wrong and what to do.
    pub sentence: String,
}
