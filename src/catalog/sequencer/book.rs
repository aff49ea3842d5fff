//! What the sequencer decides, on counters in memory; pure. The store loads what a batch touches,
//! and writes what changed.
//!
//! Invariant: a command changes everything it asks for, or nothing; a batch gives what its commands
//! one at a time would (commerce.md 10 Q1).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::command::{
    Back, COUNTER_MAX, Command, Delta, Effect, Hold, Movement, MovementKind, Reason, Refused,
    Released, Settings, Stock, Units, What,
};
use crate::clock::Timestamp;
use crate::ids::{AccountId, MerchantId, MovementId, OrderId, ReservationId, VariantId};

/// Where a reservation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Active,
    Confirmed,
    Released,
}

impl State {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Confirmed => "confirmed",
            Self::Released => "released",
        }
    }
}

/// Stock held for an order.
#[derive(Clone, Debug)]
pub(super) struct Reservation {
    pub(super) order: OrderId,
    pub(super) buyer: AccountId,
    pub(super) state: State,
    pub(super) reason: Option<Released>,
    pub(super) expires_at: Timestamp,
    pub(super) lines: Vec<Units>,
}

/// The counters kept from batch to batch, and what one batch changes.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) stock: HashMap<VariantId, Stock>,
    /// Whose it is.
    pub(super) merchants: HashMap<VariantId, MerchantId>,
    /// Counters that did not agree with their movements: nothing is decided on them.
    pub(super) frozen: HashSet<VariantId>,
    pub(super) units: HashMap<(AccountId, VariantId), i64>,
    pub(super) reservations: HashMap<ReservationId, Reservation>,
    pub(super) changes: Changes,
    /// Who asked for what is decided now.
    actor: String,
}

/// What a batch has to write.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) movements: Vec<Movement>,
    /// Made in this batch, in order.
    pub(super) made: Vec<ReservationId>,
    /// Ended in this batch, made before it.
    pub(super) ended: BTreeSet<ReservationId>,
    pub(super) units: BTreeMap<(AccountId, VariantId), i64>,
    /// With what was available before the batch.
    pub(super) touched: BTreeMap<VariantId, i64>,
}

impl Book {
    /// Forgets what belongs to one batch.
    pub(super) fn begin(&mut self) {
        self.units.clear();
        self.reservations.clear();
        self.changes = Changes::default();
    }

    /// Forgets the counters of what the batch touched: they may not be what is stored.
    pub(super) fn drop_touched(&mut self) {
        let touched = std::mem::take(&mut self.changes.touched);
        self.stock
            .retain(|variant, _| !touched.contains_key(variant));
    }

    /// Decides a command.
    pub(super) fn decide(&mut self, now: Timestamp, command: &Command) -> Result<Effect, Refused> {
        self.actor.clone_from(&command.actor);
        match &command.what {
            What::Reserve {
                buyer,
                expires_at,
                holds,
            } => {
                self.admit(*buyer, holds)?;
                let moves = holds
                    .iter()
                    .flat_map(|hold| self.hold(*buyer, *expires_at, hold));
                let moves: Vec<Step> = moves.collect();
                Ok(self.make(now, moves))
            }
            What::Revive { buyer, hold } => {
                self.admit(*buyer, std::slice::from_ref(hold))?;
                let mut moves = self.hold(*buyer, now, hold);
                moves.extend(self.end(hold.reservation, State::Confirmed, None));
                Ok(self.make(now, moves))
            }
            What::Confirm { reservations } => self.end_all(now, reservations, None),
            What::Release {
                reservations,
                reason,
            } => self.end_all(now, reservations, Some(*reason)),
            What::Adjust {
                variant,
                delta,
                reason,
                note,
            } => self.adjust(now, *variant, *delta, (*reason, note.clone())),
            What::Set {
                variant,
                on_hand,
                change_from,
                reason,
            } => {
                let stock = self.counters(*variant)?;
                if stock.on_hand != *change_from {
                    let on_hand = stock.on_hand;
                    return Err(Refused::Changed { on_hand });
                }
                self.adjust(now, *variant, on_hand - change_from, (*reason, None))
            }
            What::Settings {
                variant,
                if_version,
                settings,
            } => self.set(*variant, *if_version, *settings),
            What::Ship { order, lines } => self.ship(now, *order, lines),
            What::Restock { order, lines } => self.restock(now, *order, lines),
        }
    }

    fn counters(&self, variant: VariantId) -> Result<Stock, Refused> {
        if self.frozen.contains(&variant) {
            return Err(Refused::Busy);
        }
        let stock = self.stock.get(&variant).copied();
        stock.ok_or(Refused::NoStock(variant))
    }

    /// Whether all of it is there, and within the buyer's limits.
    fn admit(&self, buyer: AccountId, holds: &[Hold]) -> Result<(), Refused> {
        if holds
            .iter()
            .any(|hold| self.reservations.contains_key(&hold.reservation))
        {
            return Err(Refused::InvalidState);
        }
        let lines = holds.iter().flat_map(|hold| &hold.lines);
        for (variant, wanted) in sums(lines) {
            let stock = self.counters(variant)?;
            let left = stock.available();
            if left == 0 {
                return Err(Refused::SoldOut {
                    variant,
                    restock_possible: stock.reserved > 0,
                });
            }
            if wanted > left {
                return Err(Refused::Insufficient { variant, left });
            }
            if let Some(limit) = stock.per_buyer_limit {
                let has = self.units.get(&(buyer, variant)).copied().unwrap_or(0);
                if has + wanted > limit {
                    return Err(Refused::PurchaseLimit { variant, limit });
                }
            }
        }
        Ok(())
    }

    fn hold(&mut self, buyer: AccountId, expires_at: Timestamp, hold: &Hold) -> Vec<Step> {
        let reservation = Reservation {
            order: hold.order,
            buyer,
            state: State::Active,
            reason: None,
            expires_at,
            lines: hold.lines.clone(),
        };
        self.changes.made.push(hold.reservation);
        self.reservations.insert(hold.reservation, reservation);
        for line in &hold.lines {
            self.count_units(buyer, line.variant, line.quantity);
        }
        let step = |line: &Units| Step {
            variant: line.variant,
            kind: MovementKind::Reserve,
            by: Delta {
                reserved: line.quantity,
                ..Delta::default()
            },
            reason: "order",
            note: None,
            order: Some(hold.order),
        };
        hold.lines.iter().map(step).collect()
    }

    fn count_units(&mut self, buyer: AccountId, variant: VariantId, by: i64) {
        *self.units.entry((buyer, variant)).or_default() += by;
        *self.changes.units.entry((buyer, variant)).or_default() += by;
    }

    fn end_all(
        &mut self,
        now: Timestamp,
        ids: &[ReservationId],
        reason: Option<Released>,
    ) -> Result<Effect, Refused> {
        for id in ids {
            let reservation = self.reservations.get(id);
            let reservation = reservation.ok_or(Refused::InvalidState)?;
            if reservation.state != State::Active {
                return Err(Refused::InvalidState);
            }
            for line in &reservation.lines {
                self.counters(line.variant)?;
            }
        }
        let state = match reason {
            None => State::Confirmed,
            Some(_) => State::Released,
        };
        let mut steps = Vec::new();
        for id in ids {
            steps.extend(self.end(*id, state, reason));
        }
        Ok(self.make(now, steps))
    }

    /// Ends an active reservation.
    fn end(&mut self, id: ReservationId, state: State, reason: Option<Released>) -> Vec<Step> {
        let Some(reservation) = self.reservations.get_mut(&id) else {
            return Vec::new();
        };
        reservation.state = state;
        reservation.reason = reason;
        let (order, buyer) = (reservation.order, reservation.buyer);
        let lines = reservation.lines.clone();
        if !self.changes.made.contains(&id) {
            self.changes.ended.insert(id);
        }
        if state == State::Released {
            for line in &lines {
                self.count_units(buyer, line.variant, -line.quantity);
            }
        }
        let step = |line: &Units| {
            let committed = match state {
                State::Confirmed => line.quantity,
                _ => 0,
            };
            Step {
                variant: line.variant,
                kind: match state {
                    State::Confirmed => MovementKind::Confirm,
                    _ => MovementKind::Release,
                },
                by: Delta {
                    reserved: -line.quantity,
                    committed,
                    ..Delta::default()
                },
                reason: reason.map_or("paid", Released::as_str),
                note: None,
                order: Some(order),
            }
        };
        lines.iter().map(step).collect()
    }

    fn adjust(
        &mut self,
        now: Timestamp,
        variant: VariantId,
        delta: i64,
        (reason, note): (Reason, Option<String>),
    ) -> Result<Effect, Refused> {
        let stock = self.counters(variant)?;
        // What is promised to somebody cannot be taken off the shelf.
        let left = stock.unbound();
        let after = stock.on_hand.checked_add(delta);
        let fits = after.is_some_and(|after| (0..=COUNTER_MAX).contains(&after));
        if left + delta.min(0) < 0 || !fits {
            return Err(Refused::Insufficient { variant, left });
        }
        if delta == 0 {
            return Ok(Effect {
                movements: Vec::new(),
                stock: vec![(variant, stock)],
            });
        }
        let step = Step {
            variant,
            kind: match reason {
                Reason::Receive => MovementKind::Receive,
                _ => MovementKind::Adjust,
            },
            by: Delta {
                on_hand: delta,
                ..Delta::default()
            },
            reason: reason.as_str(),
            note,
            order: None,
        };
        Ok(self.make(now, vec![step]))
    }

    fn set(
        &mut self,
        variant: VariantId,
        if_version: Option<i64>,
        settings: Settings,
    ) -> Result<Effect, Refused> {
        let mut stock = self.counters(variant)?;
        if if_version.is_some_and(|version| version != stock.version) {
            let version = stock.version;
            return Err(Refused::Stale { version });
        }
        self.touch(variant, &stock);
        stock.safety = settings.safety.unwrap_or(stock.safety);
        stock.incoming = settings.incoming.unwrap_or(stock.incoming);
        stock.per_buyer_limit = settings.per_buyer_limit.unwrap_or(stock.per_buyer_limit);
        stock.version += 1;
        self.stock.insert(variant, stock);
        Ok(Effect {
            movements: Vec::new(),
            stock: vec![(variant, stock)],
        })
    }

    fn ship(&mut self, now: Timestamp, order: OrderId, lines: &[Units]) -> Result<Effect, Refused> {
        for (variant, quantity) in sums(lines) {
            if self.counters(variant)?.committed < quantity {
                return Err(Refused::InvalidState);
            }
        }
        let step = |line: &Units| Step {
            variant: line.variant,
            kind: MovementKind::Ship,
            by: Delta {
                on_hand: -line.quantity,
                committed: -line.quantity,
                ..Delta::default()
            },
            reason: "shipment",
            note: None,
            order: Some(order),
        };
        Ok(self.make(now, lines.iter().map(step).collect()))
    }

    fn restock(
        &mut self,
        now: Timestamp,
        order: OrderId,
        lines: &[(Units, Back)],
    ) -> Result<Effect, Refused> {
        let unshipped = lines.iter().filter(|(_, back)| *back != Back::Returned);
        for (variant, quantity) in sums(unshipped.map(|(units, _)| units)) {
            if self.counters(variant)?.committed < quantity {
                return Err(Refused::InvalidState);
            }
        }
        for (units, _) in lines {
            self.counters(units.variant)?;
        }
        let step = |(units, back): &(Units, Back)| {
            let (on_hand, committed, reason) = match back {
                Back::Unshipped => (0, -units.quantity, "refund"),
                Back::Lost => (-units.quantity, -units.quantity, "refund_not_restocked"),
                Back::Returned => (units.quantity, 0, "return"),
            };
            Step {
                variant: units.variant,
                kind: MovementKind::Restock,
                by: Delta {
                    on_hand,
                    committed,
                    ..Delta::default()
                },
                reason,
                note: None,
                order: Some(order),
            }
        };
        Ok(self.make(now, lines.iter().map(step).collect()))
    }

    fn touch(&mut self, variant: VariantId, stock: &Stock) {
        let touched = self.changes.touched.entry(variant);
        touched.or_insert_with(|| stock.available());
    }

    /// Carries out steps that were found to fit.
    fn make(&mut self, now: Timestamp, steps: Vec<Step>) -> Effect {
        let mut effect = Effect::default();
        let mut after: BTreeMap<VariantId, Stock> = BTreeMap::new();
        for step in steps {
            let Some(mut stock) = self.stock.get(&step.variant).copied() else {
                continue;
            };
            self.touch(step.variant, &stock);
            stock.on_hand += step.by.on_hand;
            stock.reserved += step.by.reserved;
            stock.committed += step.by.committed;
            stock.ring_fenced += step.by.ring_fenced;
            stock.movement_seq += 1;
            stock.version += 1;
            let movement = Movement {
                id: MovementId::new(now),
                variant: step.variant,
                seq: stock.movement_seq,
                kind: step.kind,
                by: step.by,
                reason: step.reason,
                note: step.note,
                order: step.order,
                actor: self.actor.clone(),
                created_at: now,
            };
            self.stock.insert(step.variant, stock);
            after.insert(step.variant, stock);
            self.changes.movements.push(movement.clone());
            effect.movements.push(movement);
        }
        effect.stock = after.into_iter().collect();
        effect
    }
}

/// A movement before it has a number.
struct Step {
    variant: VariantId,
    kind: MovementKind,
    by: Delta,
    reason: &'static str,
    note: Option<String>,
    order: Option<OrderId>,
}

/// What lines want of each variant, in the order of ids.
fn sums<'a>(lines: impl IntoIterator<Item = &'a Units>) -> BTreeMap<VariantId, i64> {
    let mut sums = BTreeMap::new();
    for line in lines {
        *sums.entry(line.variant).or_default() += line.quantity;
    }
    sums
}
