//! What a room is, and the ways it may go.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::ids::{CreatorId, RoomId};

/// Characters of a title.
pub(super) const TITLE: RangeInclusive<usize> = 1..=80;
pub(super) const CARD_LEAD_MS: RangeInclusive<i64> = 100..=2_000;
pub(super) const PRICE_HONOUR_MS: RangeInclusive<i64> = 0..=15_000;
pub(super) const INTERRUPT_GRACE_S: RangeInclusive<i64> = 10..=1_800;
pub(super) const CARD_LEAD_MS_DEFAULT: i64 = 300;
pub(super) const PRICE_HONOUR_MS_DEFAULT: i64 = 8_000;
pub(super) const INTERRUPT_GRACE_S_DEFAULT: i64 = 600;
/// The grace of a room that never ends by itself; no request may ask for it.
pub(crate) const GRACE_FOR_EVER: i64 = 0;
/// How far ahead a show may be announced.
pub(super) const AHEAD_MAX: Duration = Duration::from_secs(60 * 24 * 60 * 60);
/// Announced shows of one creator.
pub(super) const SCHEDULED_MAX: i64 = 20;
/// A room without a publisher for this long is interrupted.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(5);
/// A show that is this late is cancelled.
pub(super) const MISSED_AFTER: Duration = Duration::from_secs(30 * 60);

/// The state of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Scheduled,
    Rehearsal,
    Live,
    Interrupted,
    Ended,
    Cancelled,
}

impl State {
    pub(super) const ALL: [Self; 6] = [
        Self::Scheduled,
        Self::Rehearsal,
        Self::Live,
        Self::Interrupted,
        Self::Ended,
        Self::Cancelled,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Rehearsal => "rehearsal",
            Self::Live => "live",
            Self::Interrupted => "interrupted",
            Self::Ended => "ended",
            Self::Cancelled => "cancelled",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// No way leads on from here.
    pub(crate) const fn is_over(self) -> bool {
        matches!(self, Self::Ended | Self::Cancelled)
    }
}

/// What the job sees of a room's media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    /// Frames come in.
    Sending,
    /// None, for this long.
    Gone(Duration),
}

/// A step of a room along its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Rehearse,
    GoLive,
    Interrupt,
    Resume,
    End(Ending),
    Cancel(Ending),
}

/// Why a room is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    ByHand,
    GraceOver,
    Missed,
}

impl Ending {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::ByHand => "by_hand",
            Self::GraceOver => "interrupt_grace_over",
            Self::Missed => "missed",
        }
    }
}

/// What an operator asks of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Start,
    End,
    Cancel,
}

/// A wish for a room.
#[derive(Clone, Debug)]
pub(crate) struct NewRoom {
    pub(crate) creator: CreatorId,
    pub(crate) title: String,
    pub(crate) starts_at: Option<Timestamp>,
    pub(crate) auto_start: bool,
    pub(crate) card_lead_ms: i64,
    pub(crate) price_honour_ms: i64,
    pub(crate) interrupt_grace_s: i64,
}

/// What is to change of a room; nothing where nothing is said.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    pub(super) title: Option<String>,
    pub(super) starts_at: Option<Option<Timestamp>>,
    pub(super) auto_start: Option<bool>,
    pub(super) card_lead_ms: Option<i64>,
    pub(super) price_honour_ms: Option<i64>,
    pub(super) interrupt_grace_s: Option<i64>,
}

impl NewRoom {
    /// A room that goes live with its publisher and waits for it for ever.
    pub(crate) fn open_ended(creator: CreatorId, title: &str) -> Self {
        Self {
            creator,
            title: title.into(),
            starts_at: None,
            auto_start: true,
            card_lead_ms: CARD_LEAD_MS_DEFAULT,
            price_honour_ms: PRICE_HONOUR_MS_DEFAULT,
            interrupt_grace_s: GRACE_FOR_EVER,
        }
    }
}

/// A room as stored.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    pub(crate) id: RoomId,
    pub(crate) creator: CreatorId,
    pub(crate) creator_name: String,
    pub(crate) creator_handle: String,
    pub(crate) title: String,
    pub(crate) state: State,
    pub(crate) starts_at: Option<Timestamp>,
    pub(crate) auto_start: bool,
    pub(crate) card_lead_ms: i64,
    pub(crate) price_honour_ms: i64,
    pub(crate) interrupt_grace_s: i64,
    pub(crate) live_at: Option<Timestamp>,
    pub(crate) interrupted_at: Option<Timestamp>,
    pub(crate) ended_at: Option<Timestamp>,
    pub(crate) version: i64,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

impl Room {
    /// The way on, if there is one now (commerce.md 7).
    pub(super) fn next(&self, media: Media, now: Timestamp) -> Option<Move> {
        let is_missed = self
            .starts_at
            .is_some_and(|at| now.since(at) >= MISSED_AFTER);
        match (self.state, media) {
            (State::Scheduled, Media::Sending) if self.auto_start => Some(Move::GoLive),
            (State::Scheduled, Media::Sending) => Some(Move::Rehearse),
            (State::Scheduled | State::Rehearsal, Media::Gone(_)) if is_missed => {
                Some(Move::Cancel(Ending::Missed))
            }
            (State::Live, Media::Gone(since)) if since >= LOST_AFTER => Some(Move::Interrupt),
            (State::Interrupted, Media::Sending) => Some(Move::Resume),
            (State::Interrupted, Media::Gone(_)) if self.is_grace_over(now) => {
                Some(Move::End(Ending::GraceOver))
            }
            _ => None,
        }
    }

    /// The step an order asks for; `None` when the room is not in a state for it.
    pub(super) const fn ordered(&self, order: Order) -> Option<Move> {
        match (order, self.state) {
            (Order::Start, State::Rehearsal) => Some(Move::GoLive),
            (Order::End, State::Live | State::Interrupted) => Some(Move::End(Ending::ByHand)),
            (Order::Cancel, State::Scheduled | State::Rehearsal) => {
                Some(Move::Cancel(Ending::ByHand))
            }
            _ => None,
        }
    }

    fn is_grace_over(&self, now: Timestamp) -> bool {
        let grace = u64::try_from(self.interrupt_grace_s).unwrap_or(0);
        self.interrupt_grace_s != GRACE_FOR_EVER
            && self
                .interrupted_at
                .is_some_and(|at| now.since(at) >= Duration::from_secs(grace))
    }
}
