//! Riders: what callers have written in the transaction of their command.
//!
//! Riders of one kind are read and written together, so that a batch costs as many statements as a
//! single command. The kinds belong to other modules: here they are only sorted and handed on.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use tokio::sync::oneshot;

use super::command::{Command, Effect, Refused};
use crate::clock::Timestamp;
use crate::db::Tx;

/// What one kind of caller has decided and written with its command.
pub(crate) trait Ride: Send + Sync + Sized + 'static {
    /// What the caller hears when all is committed.
    type Answer: Send + Sync + 'static;
    /// Why nothing of it happened.
    type Refusal: From<Refused> + Send + Sync + 'static;

    /// Rows that no other command of the batch may touch: the next of the same name waits for the
    /// next batch, and so do all behind it.
    fn touches(&self) -> Vec<String>;

    /// Looks at the caller's own guards before stock is asked. It may write only what belongs to a
    /// command that stock cannot refuse.
    fn prepare(
        tx: &mut Tx,
        now: Timestamp,
        seats: &mut [Seat<Self>],
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Writes what belongs to those that were admitted, and makes their answers.
    fn write(
        tx: &mut Tx,
        now: Timestamp,
        seats: &mut [Seat<Self>],
    ) -> impl Future<Output = sqlx::Result<()>> + Send;
}

/// What a caller hears.
type Outcome<R> = Result<<R as Ride>::Answer, <R as Ride>::Refusal>;

/// One command of a batch, with what became of it.
pub(crate) struct Seat<R: Ride> {
    pub(crate) ride: R,
    pub(crate) verdict: Verdict<R>,
    place: usize,
    answer: oneshot::Sender<Outcome<R>>,
}

/// How far a command is.
pub(crate) enum Verdict<R: Ride> {
    Waiting,
    /// Stock is changed; to be written.
    Admitted(Effect),
    Refused(R::Refusal),
    Answered(R::Answer),
}

impl<R: Ride> fmt::Debug for Verdict<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "Waiting",
            Self::Admitted(_) => "Admitted",
            Self::Refused(_) => "Refused",
            Self::Answered(_) => "Answered",
        })
    }
}

/// A command in the queue.
pub(super) struct Queued {
    pub(super) command: Command,
    pub(super) touches: Vec<String>,
    kind: TypeId,
    rider: Box<dyn Any + Send + Sync>,
    group: fn() -> Box<dyn Group>,
}

impl fmt::Debug for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.command.fmt(f)
    }
}

struct Rider<R: Ride> {
    ride: R,
    answer: oneshot::Sender<Outcome<R>>,
}

impl Queued {
    pub(super) fn new<R: Ride>(command: Command, ride: R) -> (Self, oneshot::Receiver<Outcome<R>>) {
        let (answer, heard) = oneshot::channel();
        let queued = Self {
            command,
            touches: ride.touches(),
            kind: TypeId::of::<R>(),
            rider: Box::new(Rider { ride, answer }),
            group: || Box::new(Seats::<R>(Vec::new())),
        };
        (queued, heard)
    }
}

type Done<'a> = Pin<Box<dyn Future<Output = sqlx::Result<()>> + Send + 'a>>;

/// The riders of one kind.
trait Group: Send + Sync {
    fn take(&mut self, place: usize, rider: Box<dyn Any + Send + Sync>);
    fn reset(&mut self);
    fn prepare<'a>(&'a mut self, tx: &'a mut Tx, now: Timestamp) -> Done<'a>;
    fn write<'a>(&'a mut self, tx: &'a mut Tx, now: Timestamp) -> Done<'a>;
    /// Places of those that stock is asked for.
    fn waiting(&self) -> Vec<usize>;
    fn decided(&mut self, place: usize, decision: Result<Effect, Refused>);
    fn answer(self: Box<Self>);
    fn refuse(self: Box<Self>);
    /// Each seat as a group of its own, with its place.
    fn split(self: Box<Self>) -> Vec<(usize, Box<dyn Group>)>;
}

struct Seats<R: Ride>(Vec<Seat<R>>);

impl<R: Ride> Group for Seats<R> {
    fn take(&mut self, place: usize, rider: Box<dyn Any + Send + Sync>) {
        let rider = rider.downcast::<Rider<R>>();
        let rider = rider.expect("a group takes riders of its own kind");
        self.0.push(Seat {
            ride: rider.ride,
            verdict: Verdict::Waiting,
            place,
            answer: rider.answer,
        });
    }

    fn reset(&mut self) {
        for seat in &mut self.0 {
            seat.verdict = Verdict::Waiting;
        }
    }

    fn prepare<'a>(&'a mut self, tx: &'a mut Tx, now: Timestamp) -> Done<'a> {
        Box::pin(R::prepare(tx, now, &mut self.0))
    }

    fn write<'a>(&'a mut self, tx: &'a mut Tx, now: Timestamp) -> Done<'a> {
        Box::pin(R::write(tx, now, &mut self.0))
    }

    fn waiting(&self) -> Vec<usize> {
        let waiting = self
            .0
            .iter()
            .filter(|seat| matches!(seat.verdict, Verdict::Waiting));
        waiting.map(|seat| seat.place).collect()
    }

    fn decided(&mut self, place: usize, decision: Result<Effect, Refused>) {
        // Seats are taken in the order of their places.
        let at = self.0.binary_search_by_key(&place, |seat| seat.place);
        if let Some(seat) = at.ok().and_then(|at| self.0.get_mut(at)) {
            seat.verdict = match decision {
                Ok(effect) => Verdict::Admitted(effect),
                Err(refused) => Verdict::Refused(refused.into()),
            };
        }
    }

    fn answer(self: Box<Self>) {
        for seat in self.0 {
            let answer = match seat.verdict {
                Verdict::Answered(answer) => Ok(answer),
                Verdict::Refused(refusal) => Err(refusal),
                // A rider that wrote nothing and says nothing cannot be told from one that failed.
                Verdict::Waiting | Verdict::Admitted(_) => Err(Refused::Busy.into()),
            };
            // A caller that went away finds its answer under its key.
            drop(seat.answer.send(answer));
        }
    }

    fn refuse(self: Box<Self>) {
        for seat in self.0 {
            drop(seat.answer.send(Err(Refused::Busy.into())));
        }
    }

    fn split(self: Box<Self>) -> Vec<(usize, Box<dyn Group>)> {
        let alone = |seat: Seat<R>| -> (usize, Box<dyn Group>) {
            let place = seat.place;
            let seat = Seat { place: 0, ..seat };
            (place, Box::new(Self(vec![seat])))
        };
        self.0.into_iter().map(alone).collect()
    }
}

/// The commands of one batch, their riders sorted by kind.
pub(super) struct Batch {
    pub(super) commands: Vec<Command>,
    groups: Vec<(TypeId, Box<dyn Group>)>,
    /// The group of each command.
    group_of: Vec<usize>,
}

impl Batch {
    pub(super) fn new(queued: Vec<Queued>) -> Self {
        let mut batch = Self {
            commands: Vec::with_capacity(queued.len()),
            groups: Vec::new(),
            group_of: Vec::with_capacity(queued.len()),
        };
        for (place, queued) in queued.into_iter().enumerate() {
            let known = batch
                .groups
                .iter()
                .position(|(kind, _)| *kind == queued.kind);
            let group = known.unwrap_or_else(|| {
                batch.groups.push((queued.kind, (queued.group)()));
                batch.groups.len() - 1
            });
            if let Some((_, seats)) = batch.groups.get_mut(group) {
                seats.take(place, queued.rider);
            }
            batch.commands.push(queued.command);
            batch.group_of.push(group);
        }
        batch
    }

    pub(super) fn reset(&mut self) {
        self.groups.iter_mut().for_each(|(_, group)| group.reset());
    }

    pub(super) async fn prepare(&mut self, tx: &mut Tx, now: Timestamp) -> sqlx::Result<()> {
        for (_, group) in &mut self.groups {
            group.prepare(tx, now).await?;
        }
        Ok(())
    }

    pub(super) async fn write(&mut self, tx: &mut Tx, now: Timestamp) -> sqlx::Result<()> {
        for (_, group) in &mut self.groups {
            group.write(tx, now).await?;
        }
        Ok(())
    }

    /// The places that stock is asked for, in the order of arrival.
    pub(super) fn waiting(&self) -> Vec<usize> {
        let groups = self.groups.iter();
        let mut waiting: Vec<usize> = groups.flat_map(|(_, group)| group.waiting()).collect();
        waiting.sort_unstable();
        waiting
    }

    pub(super) fn decided(&mut self, place: usize, decision: Result<Effect, Refused>) {
        let group = self
            .group_of
            .get(place)
            .and_then(|at| self.groups.get_mut(*at));
        if let Some((_, group)) = group {
            group.decided(place, decision);
        }
    }

    pub(super) fn answer(self) {
        self.groups
            .into_iter()
            .for_each(|(_, group)| group.answer());
    }

    /// Each command as a batch of its own, in the order of arrival.
    pub(super) fn split(self) -> Vec<Self> {
        let kinds = self.groups.into_iter();
        let alone = kinds.flat_map(|(kind, group)| {
            group
                .split()
                .into_iter()
                .map(move |(place, group)| (place, (kind, group)))
        });
        let alone: BTreeMap<usize, _> = alone.collect();
        let commands = self.commands.into_iter();
        let batch = |(command, (_, group))| Self {
            commands: vec![command],
            groups: vec![group],
            group_of: vec![0],
        };
        commands.zip(alone).map(batch).collect()
    }

    /// Tells everybody to come again.
    pub(super) fn refuse(self) {
        self.groups
            .into_iter()
            .for_each(|(_, group)| group.refuse());
    }
}
