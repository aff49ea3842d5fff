//! The rungs of a package: made while somebody plays them, cut where `src` is cut (spec media.md
//! 6.3 rules 5 and 6).
//!
//! Invariants
//! - A rung that was shown once goes on for the life of the package: with gaps while nobody plays
//!   it, or while it cannot be made.
//! - Nobody gets its playlist before there is enough of it to play.

use futures_util::future::select_all;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Packager;
use crate::broadcast::{Cursor, Delivery, Ended, Start};
use crate::frame::TrackId;
use crate::hls::news::News;
use crate::hls::rendition::RenditionId;
use crate::hls::segmenter::{Bound, Cut, RungLine};
use crate::hls::shown::RungState;
use crate::hls::silence::Silence;
use crate::time::MediaTime;

/// A rung that somebody asked for once.
#[derive(Debug)]
pub(super) struct RungSide {
    lines: u16,
    line: RungLine,
    pub(super) news: News,
    silence: Silence,
    state: RungState,
    /// Its place in the track; none while nobody plays it.
    feed: Option<Feed>,
}

#[derive(Debug)]
struct Feed {
    cursor: Cursor,
    /// Who waits for it waits no longer than this.
    awaited_until: Instant,
}

impl RungSide {
    pub(super) const fn id(&self) -> RenditionId {
        RenditionId::Rung(self.lines)
    }

    /// Whether somebody plays it.
    pub(super) const fn is_played(&self) -> bool {
        self.feed.is_some()
    }

    /// `src` has come to `t`; without a feed all of that is a gap.
    fn advance(&mut self, t: MediaTime) -> Vec<Cut> {
        let mut cuts = self.line.advance(t);
        if self.feed.is_none() || self.state == RungState::Refused {
            cuts.extend(self.line.silence(t));
        }
        cuts
    }

    fn drain(&mut self, now: Instant) -> Vec<Cut> {
        let mut cuts = Vec::new();
        let Some(feed) = &mut self.feed else {
            return cuts;
        };
        while let Some(Delivery { frame, skipped, .. }) = feed.cursor.try_next() {
            if skipped > 0 {
                self.line.lose();
            }
            self.silence.hear(now, frame.dts, frame.dts);
            cuts.extend(self.line.push(frame));
        }
        if let Some(until) = self.silence.until(now) {
            cuts.extend(self.line.silence(until));
        }
        cuts
    }

    /// What there is of it, if it `is_enough`.
    fn judge(&self, now: Instant, is_enough: impl FnOnce() -> bool) -> RungState {
        let Some(feed) = &self.feed else {
            return RungState::Idle;
        };
        match self.state {
            RungState::Ready => RungState::Ready,
            _ if is_enough() => RungState::Ready,
            _ if feed.cursor.unavailable().is_some() => RungState::Refused,
            RungState::Refused => RungState::Refused,
            _ if now >= feed.awaited_until => RungState::Refused,
            _ => RungState::Starting,
        }
    }
}

impl Packager {
    /// Starts what somebody asked for, and lets go of what nobody does any more.
    pub(super) fn follow_rungs(&mut self, now: Instant) {
        let wanted = self.stream.wanted_rungs(now);
        for side in &mut self.rungs {
            if !wanted.contains(&side.lines) && side.feed.take().is_some() {
                let broadcast = self.broadcast.key();
                info!(broadcast.id = %broadcast, rendition = %side.id(), "nobody plays it now");
                side.news = News::new();
            }
        }
        for lines in wanted {
            let is_open = |side: &RungSide| side.lines == lines && side.is_played();
            if !self.rungs.iter().any(is_open) && self.video.is_some() {
                self.play_rung(lines, now);
            }
        }
    }

    fn play_rung(&mut self, lines: u16, now: Instant) {
        let id = RenditionId::Rung(lines);
        info!(broadcast.id = %self.broadcast.key(), rendition = %id, "somebody plays it");
        if !self.rungs.iter().any(|side| side.lines == lines) {
            self.show_rung(lines);
        }
        let (targets, awaited) = {
            let config = self.stream.config();
            (config.targets(), config.target_duration * 3)
        };
        let Some(side) = self.rungs.iter_mut().find(|side| side.lines == lines) else {
            return;
        };
        side.line.lose();
        side.silence = Silence::new(&targets);
        side.state = RungState::Starting;
        let track = TrackId::Rung(lines);
        let given = side.line.edge();
        let cursor = match self.stream.joins_at() {
            // What was listed as a gap stays one.
            Some(from) if given < Some(from) => self.broadcast.cursor_from(track, from),
            _ => {
                let start = given.map_or(Start::OldestKey, Start::At);
                self.broadcast.cursor(track, start)
            }
        };
        side.feed = Some(Feed {
            cursor,
            awaited_until: now + awaited,
        });
    }

    /// A rung that nobody asked for before: what `src` lists already is what it may lack.
    fn show_rung(&mut self, lines: u16) {
        let id = RenditionId::Rung(lines);
        self.stream.show(id);
        let targets = self.stream.config().targets();
        let mut line = RungLine::new(targets, self.stream.has_independent_rungs());
        let mut cuts = Vec::new();
        for bound in self.stream.bounds() {
            cuts.extend(line.bound(bound));
        }
        let known_until = self.video.as_ref().and_then(|v| v.line.known_until());
        cuts.extend(known_until.map_or_else(Vec::new, |t| line.advance(t)));
        self.rungs.push(RungSide {
            lines,
            line,
            news: News::new(),
            silence: Silence::new(&targets),
            state: RungState::Idle,
            feed: None,
        });
        self.apply(id, cuts);
    }

    pub(super) fn drain_rungs(&mut self, now: Instant) {
        self.cut_rungs(|side| side.drain(now));
        for side in &mut self.rungs {
            let (id, lines) = (side.id(), side.lines);
            let state = side.judge(now, || self.stream.is_rung_ready(id));
            if state == std::mem::replace(&mut side.state, state) {
                continue;
            }
            if state == RungState::Refused {
                let reason = side
                    .feed
                    .as_ref()
                    .and_then(|feed| feed.cursor.unavailable());
                let reason = reason.unwrap_or("too_slow");
                warn!(broadcast.id = %self.broadcast.key(), rendition = %id, reason, "not made");
            }
            self.stream.set_rung(lines, state);
        }
    }

    /// A segment of `src` begins.
    pub(super) fn bound_rungs(&mut self, bound: Bound) {
        self.cut_rungs(|side| side.line.bound(bound));
    }

    /// `src` has come to `t`.
    pub(super) fn advance_rungs(&mut self, t: Option<MediaTime>) {
        if let Some(t) = t {
            self.cut_rungs(|side| side.advance(t));
        }
    }

    pub(super) fn finish_rungs(&mut self, end: Option<MediaTime>) {
        self.cut_rungs(|side| side.line.finish(end));
    }

    fn cut_rungs(&mut self, mut step: impl FnMut(&mut RungSide) -> Vec<Cut>) {
        let sides = self.rungs.iter_mut();
        let all: Vec<_> = sides.map(|side| (side.id(), step(side))).collect();
        for (id, cuts) in all {
            self.apply(id, cuts);
        }
        let breaks = self
            .rungs
            .iter_mut()
            .filter_map(|side| side.line.take_break());
        if let (Some(video), Some((from, discontinuities))) = (&mut self.video, breaks.last()) {
            video.line.break_from(from, discontinuities);
        }
    }
}

/// Waits for the next picture of a rung; for ever when there is none.
pub(super) async fn rungs_ready(sides: &mut [RungSide]) -> Result<(), Ended> {
    let played = sides
        .iter_mut()
        .filter_map(|side| Some((side.state, side.feed.as_mut()?)));
    let waits: Vec<_> = played
        .map(|(state, feed)| {
            Box::pin(async move {
                // What is known to be unavailable would be so at once.
                match state {
                    RungState::Starting => feed.cursor.ready_or_unavailable().await,
                    _ => feed.cursor.ready().await,
                }
            })
        })
        .collect();
    if waits.is_empty() {
        return std::future::pending().await;
    }
    select_all(waits).await.0
}
