//! What can be asked of the sequencer, and what it answers; pure.

use crate::clock::Timestamp;
use crate::ids::{AccountId, OrderId, ReservationId, VariantId};

/// The largest counter (commerce.md 14).
pub(crate) const COUNTER_MAX: i64 = 1_000_000_000_000;

/// One wish and who has it; decided as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    /// An account, a key or `system`.
    pub(crate) actor: String,
    pub(crate) what: What,
}

/// What is wished.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// Holds stock for orders: all lines of all of them, or none.
    Reserve {
        buyer: AccountId,
        expires_at: Timestamp,
        holds: Vec<Hold>,
    },
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "its first caller is a late payment")
    )]
    /// Reserves and confirms in one: an order that was paid after its stock went back.
    Revive { buyer: AccountId, hold: Hold },
    /// What was held is sold.
    Confirm { reservations: Vec<ReservationId> },
    /// What was held goes back.
    Release {
        reservations: Vec<ReservationId>,
        reason: Released,
    },
    /// Changes what lies on the shelf by hand.
    Adjust {
        variant: VariantId,
        delta: i64,
        reason: Reason,
        note: Option<String>,
    },
    /// The same, compared and set.
    Set {
        variant: VariantId,
        on_hand: i64,
        change_from: i64,
        reason: Reason,
    },
    /// Changes what is not a counter.
    Settings {
        variant: VariantId,
        /// None: whatever it is
        if_version: Option<i64>,
        settings: Settings,
    },
    /// Sold units leave.
    Ship { order: OrderId, lines: Vec<Units> },
    #[cfg_attr(not(test), expect(dead_code, reason = "its first caller is a refund"))]
    /// Sold units of an order come back, or are given up.
    Restock {
        order: OrderId,
        lines: Vec<(Units, Back)>,
    },
}

/// Stock to be held for one order.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) reservation: ReservationId,
    pub(crate) order: OrderId,
    pub(crate) lines: Vec<Units>,
}

/// So many of a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Units {
    pub(crate) variant: VariantId,
    /// At least 1
    pub(crate) quantity: i64,
}

/// How sold units come back.
#[cfg_attr(not(test), expect(dead_code, reason = "its first caller is a refund"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Back {
    /// Never sent: on sale again.
    Unshipped,
    /// Never sent, and not to be sold again.
    Lost,
    /// Sent and returned: on sale again.
    Returned,
}

/// Why held stock went back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Released {
    Expired,
    Cancelled,
}

impl Released {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why stock was changed by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    Receive,
    Correct,
    Damage,
    Return,
    Other,
}

impl Reason {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Correct => "correct",
            Self::Damage => "damage",
            Self::Return => "return",
            Self::Other => "other",
        }
    }
}

/// A change of what is not a counter; what is absent stays.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) safety: Option<i64>,
    pub(crate) incoming: Option<i64>,
    pub(crate) per_buyer_limit: Option<Option<i64>>,
}

/// The counters of a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stock {
    pub(crate) on_hand: i64,
    pub(crate) reserved: i64,
    pub(crate) committed: i64,
    pub(crate) ring_fenced: i64,
    pub(crate) safety: i64,
    pub(crate) incoming: i64,
    pub(crate) per_buyer_limit: Option<i64>,
    pub(crate) movement_seq: i64,
    pub(crate) version: i64,
}

impl Stock {
    /// What can still be sold, at least 0.
    pub(crate) fn available(&self) -> i64 {
        (self.unbound() - self.safety).max(0)
    }

    /// What nobody holds.
    pub(crate) const fn unbound(&self) -> i64 {
        self.on_hand - self.reserved - self.committed - self.ring_fenced
    }
}

/// A change of counters that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Movement {
    pub(crate) id: crate::ids::MovementId,
    pub(crate) variant: VariantId,
    pub(crate) seq: i64,
    pub(crate) kind: MovementKind,
    pub(crate) by: Delta,
    pub(crate) reason: &'static str,
    pub(crate) note: Option<String>,
    /// The order it was for.
    pub(crate) order: Option<OrderId>,
    /// Who asked for it.
    pub(crate) actor: String,
    pub(crate) created_at: Timestamp,
}

/// What a movement adds to the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delta {
    pub(crate) on_hand: i64,
    pub(crate) reserved: i64,
    pub(crate) committed: i64,
    pub(crate) ring_fenced: i64,
}

/// The kinds of movements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MovementKind {
    Receive,
    Adjust,
    Reserve,
    Release,
    Confirm,
    Ship,
    Restock,
}

impl MovementKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Adjust => "adjust",
            Self::Reserve => "reserve",
            Self::Release => "release",
            Self::Confirm => "confirm",
            Self::Ship => "ship",
            Self::Restock => "restock",
        }
    }
}

/// What an admitted command did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) movements: Vec<Movement>,
    /// The counters afterwards of what it touched.
    pub(crate) stock: Vec<(VariantId, Stock)>,
}

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{variant} is sold out")]
    SoldOut {
        variant: VariantId,
        /// Unpaid reservations exist.
        restock_possible: bool,
    },
    #[error("{variant} has {left} left")]
    Insufficient { variant: VariantId, left: i64 },
    #[error("a buyer may have at most {limit} of {variant}")]
    PurchaseLimit { variant: VariantId, limit: i64 },
    #[error("nothing is counted under {0}")]
    NoStock(VariantId),
    #[error("a reservation is not in a state for this")]
    InvalidState,
    #[error("on_hand is {on_hand} by now")]
    Changed { on_hand: i64 },
    #[error("version {version} is the current one")]
    Stale { version: i64 },
    #[error("the stock desk is busy; try again")]
    Busy,
}
