//! A room's timeline in memory, and the hand-over of its events to the carriers.
//!
//! Events are committed first ([`super::desk`]); here each is handed over once, in the order of
//! its number: to whoever listens ([`Line::listen`]), and as a cue to the media core.
//!
//! Invariants
//! - An event that is handed over is committed. One whose writer was cut off after its commit is
//!   found in the database and handed over by the next look.
//! - A listed cue is open in the running instance exactly as long as its card holds its place.
//! - No lock is held over a wait.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dashmap::DashMap;
use tokio::sync::broadcast;
use tracing::{debug, warn};

use super::super::clock::Place;
use super::super::envelope::Event;
use super::super::timeline::{Checkpoint, Timeline};
use super::store;
use crate::app::App;
use crate::broadcasts::{self, HeldCue, NewCue};
use crate::ids::RoomId;

/// News a slow listener may be behind.
const BEHIND_MAX: usize = 1_024;
/// How far back prices are needed: what a viewer who is behind may still claim.
const PRICES_BACK_US: i64 = 90_000_000;
/// How long before its time a closing is told to the media core.
const CLOSED_AHEAD_US: i64 = 2_000_000;
const CUE_CLASS: &str = "card";

/// What a listener hears.
#[derive(Clone, Debug)]
pub(crate) enum CardNews {
    Card {
        seq: i64,
        /// The exact bytes of the envelope.
        envelope: Arc<str>,
    },
    /// A card of a rehearsal: for the operators only, and forgotten at the start.
    Rehearsed { seq: i64, envelope: Arc<str> },
    /// The show starts: what was rehearsed is forgotten.
    Started,
}

/// The lines of all rooms that somebody looks at.
#[derive(Debug, Default)]
struct Lines(DashMap<RoomId, Arc<Line>>);

/// One room's timeline in memory.
#[derive(Debug)]
pub(in crate::rooms) struct Line {
    room: RoomId,
    news: broadcast::Sender<CardNews>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// None until it was read.
    timeline: Option<Timeline>,
    rehearsed: Timeline,
    /// Room time as it was seen last.
    floor_us: i64,
    carrier: Option<Place>,
    /// The cues' places that are taken, by number.
    held: HashMap<i64, HeldCue>,
    /// Committed events whose forerunners were not handed over yet.
    early: BTreeMap<i64, Arc<Event>>,
    /// Those that the media core had no room for.
    unplaced: VecDeque<Arc<Event>>,
    /// The listed cues that are open in the running instance.
    open: Vec<Arc<Event>>,
}

impl Line {
    /// The room's line, not read yet perhaps.
    pub(in crate::rooms) fn of(app: &App, room: RoomId) -> Arc<Self> {
        let lines: Arc<Lines> = app.parts.part();
        let line = lines.0.entry(room).or_insert_with(|| {
            Arc::new(Self {
                room,
                news: broadcast::Sender::new(BEHIND_MAX),
                state: Mutex::default(),
            })
        });
        Arc::clone(&line)
    }

    /// Forgets the lines of rooms that are over and to which nobody listens.
    pub(in crate::rooms) fn retain(app: &App, active: &HashSet<RoomId>) {
        let lines: Arc<Lines> = app.parts.part();
        let is_used = |line: &Self| line.news.receiver_count() > 0;
        lines
            .0
            .retain(|room, line| active.contains(room) || is_used(line));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that is handed over from now on.
    pub(in crate::rooms) fn listen(&self) -> broadcast::Receiver<CardNews> {
        self.news.subscribe()
    }

    pub(in crate::rooms) fn floor_us(&self) -> i64 {
        self.lock().floor_us
    }

    /// Room time was seen there.
    pub(in crate::rooms) fn saw(&self, now_us: i64) {
        let mut state = self.lock();
        state.floor_us = state.floor_us.max(now_us);
    }

    /// The place of the instance that carries the cues.
    pub(in crate::rooms) fn carrier(&self) -> Option<Place> {
        self.lock().carrier.clone()
    }

    pub(in crate::rooms) fn rehearsed(&self) -> Timeline {
        self.lock().rehearsed.clone()
    }

    pub(super) fn is_read(&self) -> bool {
        self.lock().timeline.is_some()
    }

    /// The timeline as far as it is handed over; read first if it was not.
    pub(in crate::rooms) async fn timeline(
        &self,
        app: &App,
        now_us: i64,
    ) -> sqlx::Result<Timeline> {
        if let Some(timeline) = &self.lock().timeline {
            return Ok(timeline.clone());
        }
        let read = self.read(app, now_us).await?;
        let mut guard = self.lock();
        let state = &mut *guard;
        // Whoever read it first meanwhile has handed over what came since.
        let timeline = state.timeline.get_or_insert(read);
        let (seq, timeline) = (timeline.seq(), timeline.clone());
        state.early.retain(|early, _| *early > seq);
        self.drain(app, state);
        Ok(state.timeline.clone().unwrap_or(timeline))
    }

    async fn read(&self, app: &App, now_us: i64) -> sqlx::Result<Timeline> {
        let mut reader = app.db.readers().acquire().await?;
        // Events committed after this number are handed over by their writers, or by the next look.
        let seq = store::seq(&mut reader, self.room).await?;
        let newest = store::checkpoint_at(&mut reader, self.room, now_us).await?;
        let back_us = now_us.saturating_sub(PRICES_BACK_US);
        let older = store::checkpoint_at(&mut reader, self.room, back_us).await?;
        let events = store::fold_after(&mut reader, self.room, &older, i64::MAX).await?;
        let mut timeline = Timeline::behind(older);
        for event in events.into_iter().filter(|event| event.seq <= seq) {
            timeline.insert(event);
        }
        timeline.settle(newest);
        timeline.reach(seq);
        Ok(timeline)
    }

    /// Hands over what was committed and is not handed over yet.
    pub(in crate::rooms) async fn catch_up(
        &self,
        app: &App,
        now_us: i64,
    ) -> sqlx::Result<Timeline> {
        let timeline = self.timeline(app, now_us).await?;
        let mut reader = app.db.readers().acquire().await?;
        if store::seq(&mut reader, self.room).await? <= timeline.seq() {
            return Ok(timeline);
        }
        let events = store::events_after(&mut reader, self.room, timeline.seq()).await?;
        drop(reader);
        for event in events {
            self.hand_over(app, event);
        }
        self.timeline(app, now_us).await
    }

    /// Takes the place of an event's cue before it is written; `None` while nothing runs.
    pub(super) fn hold(
        &self,
        app: &App,
        event: &Event,
    ) -> Result<Option<HeldCue>, broadcasts::PlaceCueError> {
        let Some(carrier) = self.carrier() else {
            return Ok(None);
        };
        match hold(app, self.room, &carrier, event) {
            Ok(held) => Ok(Some(held)),
            Err(err) if err.is_for_now() => Err(err),
            // The instance ended this moment: the next one is given what is still of use.
            Err(_gone) => Ok(None),
        }
    }

    /// Keeps a cue's place until its event is handed over.
    pub(super) fn keep(&self, seq: i64, held: HeldCue) {
        self.lock().held.insert(seq, held);
    }

    /// Hands over a committed event, and those that waited for it.
    pub(super) fn hand_over(&self, app: &App, event: Arc<Event>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let is_known = |timeline: &Timeline| event.seq <= timeline.seq();
        if state.timeline.as_ref().is_some_and(is_known) {
            return;
        }
        state.early.insert(event.seq, event);
        self.drain(app, state);
    }

    /// Hands over the events whose forerunners all were.
    fn drain(&self, app: &App, state: &mut State) {
        let Some(timeline) = &mut state.timeline else {
            return;
        };
        while let Some(event) = state.early.remove(&(timeline.seq() + 1)) {
            timeline.insert(Arc::clone(&event));
            timeline.forget_prices(state.floor_us);
            // Nobody listening is no error.
            drop(self.news.send(CardNews::Card {
                seq: event.seq,
                envelope: Arc::clone(&event.envelope),
            }));
            if let Some(carrier) = &state.carrier {
                self.count_late(app, carrier, &event);
                let held = state.held.remove(&event.seq);
                let placed = place(app, (self.room, carrier), &event, held);
                state.open.extend(placed.open);
                state.unplaced.extend(placed.again);
            }
        }
        self.close_due(app, state);
    }

    /// Counts a card whose commit took longer than its lead (T2): its stamp stays.
    fn count_late(&self, app: &App, carrier: &Place, event: &Event) {
        let running = broadcasts::running(app, self.room);
        let now_us = running.map(|running| running.t_us + carrier.offset_us);
        if now_us.is_some_and(|now_us| event.at_us < now_us) {
            metrics::counter!("lamplight_cards_late_total").increment(1);
            warn!(room.id = %self.room, card.seq = event.seq, "a card came after its time");
        }
    }

    /// Hands over a card of the rehearsal.
    pub(super) fn rehearse(&self, event: Arc<Event>) {
        let mut state = self.lock();
        if event.seq <= state.rehearsed.seq() {
            return;
        }
        drop(self.news.send(CardNews::Rehearsed {
            seq: event.seq,
            envelope: Arc::clone(&event.envelope),
        }));
        state.rehearsed.insert(event);
    }

    /// The show starts.
    pub(in crate::rooms) fn start(&self) {
        let mut state = self.lock();
        state.rehearsed = Timeline::default();
        drop(self.news.send(CardNews::Started));
    }

    /// Forgets the events before a checkpoint that is committed.
    pub(in crate::rooms) fn settle(&self, checkpoint: Checkpoint) {
        if let Some(timeline) = &mut self.lock().timeline {
            timeline.settle(checkpoint);
        }
    }

    /// Gives an instance that has its place on the timeline the listed cards that are open, and
    /// all that are ahead.
    pub(in crate::rooms) async fn adopt(
        &self,
        app: &App,
        place_of: Place,
        now_us: i64,
    ) -> sqlx::Result<()> {
        let timeline = self.timeline(app, now_us).await?;
        if self.carrier().as_ref() == Some(&place_of) {
            return Ok(());
        }
        let open = timeline.at(now_us).open(now_us);
        let mut reader = app.db.readers().acquire().await?;
        let open = store::events_of(&mut reader, self.room, &open).await?;
        drop(reader);
        let mut guard = self.lock();
        let state = &mut *guard;
        state.held.clear();
        state.open.clear();
        state.unplaced.clear();
        // Read again: cards may have been handed over while there was no carrier for them.
        let timeline = state.timeline.get_or_insert(timeline);
        let cards = timeline.at(now_us);
        let is_open: HashSet<i64> = cards.open(now_us).into_iter().collect();
        let newer = timeline.events().filter(|it| it.at_us <= now_us);
        let newer = newer.filter(|it| open.iter().all(|known| known.seq != it.seq));
        let now = open
            .iter()
            .chain(newer)
            .filter(|it| is_open.contains(&it.seq));
        for event in now.chain(timeline.ahead(now_us)) {
            let placed = place(app, (self.room, &place_of), event, None);
            state.open.extend(placed.open);
            state.unplaced.extend(placed.again);
        }
        state.carrier = Some(place_of);
        self.close_due(app, state);
        Ok(())
    }

    /// Tries again what the media core had no room for, and closes what is due. `true` while
    /// something waits.
    pub(in crate::rooms) fn tend(&self, app: &App) -> bool {
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(carrier) = &state.carrier {
            for event in std::mem::take(&mut state.unplaced) {
                let placed = place(app, (self.room, carrier), &event, None);
                state.open.extend(placed.open);
                state.unplaced.extend(placed.again);
            }
        }
        self.close_due(app, state);
        !state.unplaced.is_empty()
    }

    /// Closes the listed cues whose place is taken soon by another card, or given up.
    fn close_due(&self, app: &App, state: &mut State) {
        let (Some(timeline), Some(carrier)) = (&state.timeline, &state.carrier) else {
            return;
        };
        let Some(running) = broadcasts::running(app, self.room) else {
            return;
        };
        let soon_us = running.t_us + carrier.offset_us + CLOSED_AHEAD_US;
        state.open.retain(|event| {
            let ends_us = timeline.closes_at_us(event);
            let Some(ends_us) = ends_us.filter(|ends_us| *ends_us <= soon_us) else {
                return true;
            };
            let (name, t_us) = (cue_id(event), ends_us - carrier.offset_us);
            let at = (self.room, carrier.instance.as_str());
            if let Err(err) = broadcasts::end_cue(app, at, (&name, t_us.max(0))) {
                debug!(error = %err, cue = name, "a cue was not closed");
            }
            false
        });
    }
}

/// What became of a cue.
#[derive(Debug, Default)]
struct Placed {
    /// A listed one that stays open.
    open: Option<Arc<Event>>,
    /// To be tried again.
    again: Option<Arc<Event>>,
}

fn place(
    app: &App,
    (room, carrier): (RoomId, &Place),
    event: &Arc<Event>,
    held: Option<HeldCue>,
) -> Placed {
    let mut placed = Placed::default();
    let held = held.map_or_else(|| hold(app, room, carrier, event), Ok);
    match held.and_then(HeldCue::fill) {
        Ok(()) if event.action.is_listed() && event.ttl_us == 0 => {
            placed.open = Some(Arc::clone(event));
        }
        Ok(()) => {}
        Err(err) if err.is_for_now() => placed.again = Some(Arc::clone(event)),
        Err(err) => warn!(
            error = &err as &dyn std::error::Error,
            card.seq = event.seq,
            "no cue"
        ),
    }
    placed
}

fn hold(
    app: &App,
    room: RoomId,
    carrier: &Place,
    event: &Event,
) -> Result<HeldCue, broadcasts::PlaceCueError> {
    // What began before this instance is given again at its start.
    let t_us = (event.at_us - carrier.offset_us).max(0);
    let ends_us = event.at_us.saturating_add(event.ttl_us) - carrier.offset_us;
    let lasts_us = u64::try_from(ends_us - t_us).unwrap_or(0);
    let cue = NewCue {
        id: cue_id(event),
        class: CUE_CLASS.into(),
        is_listed: event.action.is_listed(),
        t_us: Some(t_us),
        duration_us: (event.ttl_us != 0).then_some(lasts_us),
        payload: Bytes::copy_from_slice(event.envelope.as_bytes()),
    };
    broadcasts::hold_cue(app, (room, &carrier.instance), cue)
}

fn cue_id(event: &Event) -> String {
    format!("card-{}", event.seq)
}
