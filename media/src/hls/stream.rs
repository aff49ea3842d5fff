//! The packaged broadcast: a window for each rendition, their playlists, and those who wait.
//!
//! A rung is made while somebody asks for its playlist: the first request starts it and is held
//! until there is enough to play (spec media.md 6.3 rule 6).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::directives::{Directives, Skip};
use super::dvr::List;
use super::multivariant::Multivariant;
use super::playlist::{Sibling, Snapshot};
use super::rendition::{Rendered, RenditionId};
use super::segmenter::{Bound, Targets};
use super::shown::{Close, RungState, Shown};
use super::window::{Bounds, Segment, Window};
use crate::cue::CueNews;
use crate::stats::Histogram;
use crate::time::MediaTime;

/// Requests of one node that may wait at a time.
const HELD_MAX: usize = 20_000;
/// Parts before the multivariant playlist is given out.
const READY_PARTS: u64 = 3;
/// Whole segments that a rung begins with. Shaka looks into as many before it plays.
const JOIN_SEGMENTS: usize = 3;
/// The source's ring reaches so far back at least.
const JOIN_BACK_MAX: Duration = Duration::from_secs(10);

/// How a broadcast is packaged; frozen for its life.
#[derive(Clone, Copy, Debug)]
pub struct HlsConfig {
    /// `EXT-X-TARGETDURATION`.
    pub target_duration: Duration,
    /// Wanted length of a segment.
    pub segment_target: Duration,
    /// `PART-TARGET`.
    pub part_target: Duration,
    /// Length of the list.
    pub window: Duration,
    /// Length of the list that reaches farther back, into the store; zero when there is none.
    pub dvr: Duration,
    /// A silence this long is listed as a gap.
    pub gap_after: Duration,
    /// Whether smaller pictures are listed, and made on demand.
    pub has_rungs: bool,
    /// Whether a show without sound gets silence for one, which `aac` then is.
    pub has_silent_audio: bool,
}

impl HlsConfig {
    pub(super) const fn targets(&self) -> Targets {
        Targets {
            part: self.part_target,
            segment: self.segment_target,
            target: self.target_duration,
            gap_after: self.gap_after,
        }
    }
}

/// What a stream lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Media sequence number of the newest segment.
    pub msn: u64,
    /// The newest part in it, from 0.
    pub part: usize,
    /// Length of the list.
    pub listed: Duration,
    /// How far the list reaches.
    pub edge: MediaTime,
    /// Bytes that can be fetched.
    pub bytes: usize,
    /// Requests that wait for more.
    pub waiting: usize,
}

/// How many requests of this node wait; shared by all streams.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<AtomicUsize>);

impl Held {
    /// How many wait now.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn enter(&self) -> Option<HeldGuard> {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        let guard = HeldGuard(Arc::clone(&self.0));
        (before < HELD_MAX).then_some(guard)
    }
}

struct HeldGuard(Arc<AtomicUsize>);

impl Drop for HeldGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a playlist request gets.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The text. `was_held` when its URL is unique to this state.
    Playlist {
        /// The text in its forms.
        body: Arc<Rendered>,
        /// True for a request with `_HLS_msn`.
        was_held: bool,
    },
    /// 400: the directives ask for what cannot come.
    Bad(&'static str),
    /// 404: no such rendition.
    NotFound,
    /// 404: the broadcast ended before there was anything to play.
    NotLive,
    /// 503: waited too long, too many wait, or the process stops.
    Busy,
}

/// What a media request gets.
#[derive(Clone, Debug)]
pub enum Media {
    /// Immutable bytes.
    Found(Bytes),
    /// 404: unknown, expired, not hinted, or never came.
    NotFound,
    /// 503: waited too long, too many wait, or the process stops.
    Busy,
}

/// One packaged broadcast.
#[derive(Debug)]
pub struct Stream {
    instance: String,
    config: HlsConfig,
    targets: Targets,
    shown: Mutex<Shown>,
    version: watch::Sender<u64>,
    /// Changes when somebody asks for a rung that is not made.
    asked: watch::Sender<u64>,
    held: Held,
    /// How long media playlists take to write: full ones, deltas.
    render_times: OnceLock<[Arc<Histogram>; 2]>,
}

impl Stream {
    /// A stream of an instance that has nothing to show yet.
    pub fn new(instance: &str, config: HlsConfig, held: Held) -> Arc<Self> {
        Arc::new(Self {
            instance: instance.into(),
            config,
            targets: config.targets(),
            shown: Mutex::default(),
            version: watch::Sender::new(0),
            asked: watch::Sender::new(0),
            held,
            render_times: OnceLock::new(),
        })
    }

    /// How it is packaged.
    pub const fn config(&self) -> &HlsConfig {
        &self.config
    }

    /// What is listed now; `None` before anything is.
    pub fn status(&self) -> Option<Status> {
        let waiting = self.version.receiver_count();
        let shown = self.lock();
        let window = shown.leading()?;
        let (msn, part) = window.last_part()?;
        Some(Status {
            msn,
            part,
            listed: window.listed(),
            edge: window.edge,
            bytes: shown.windows.values().map(Window::bytes).sum(),
            waiting,
        })
    }

    /// The instance whose name stands in its URLs.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The multivariant playlist; waits until there is something to play, at most three target
    /// durations. `session` goes into the URIs of the media playlists.
    pub async fn multivariant(&self, session: Option<&str>) -> Answer {
        self.multivariant_of(List::Live, session).await
    }

    /// The multivariant playlist of these lists; of the DVR there are none but of `src` and `aac`.
    pub async fn multivariant_of(&self, list: List, session: Option<&str>) -> Answer {
        if list == List::Dvr && self.config.dvr.is_zero() {
            return Answer::NotFound;
        }
        let is_known = |shown: &Shown| shown.multivariant.is_some() || shown.is_over();
        if !self.wait(is_known).await {
            return Answer::Busy;
        }
        let shown = self.lock();
        let text = shown.multivariant.as_ref().map(|m| match list {
            List::Live => m.render(list, session),
            List::Dvr => m.recorded().render(list, session),
        });
        drop(shown);
        text.map_or(Answer::NotLive, |text| Answer::Playlist {
            body: Rendered::new(text),
            was_held: false,
        })
    }

    /// A live media playlist (spec media.md 6.5).
    pub async fn playlist(&self, rendition: RenditionId, directives: Directives) -> Answer {
        self.list(List::Live, rendition, directives).await
    }

    /// A media playlist (spec media.md 6.5, 6.6).
    pub async fn list(&self, list: List, rendition: RenditionId, directives: Directives) -> Answer {
        if list == List::Dvr && !self.has_dvr(rendition) {
            return Answer::NotFound;
        }
        if let RenditionId::Rung(lines) = rendition {
            if !self.ask(lines) {
                return Answer::NotFound;
            }
            let is_decided = |shown: &Shown| shown.is_over() || !shown.is_starting(lines);
            if !self.wait(is_decided).await || self.lock().is_refused(lines) {
                return Answer::Busy;
            }
        }
        let wanted = {
            let shown = self.lock();
            if shown.is_over() && shown.multivariant.is_none() {
                return Answer::NotLive;
            }
            let Some(window) = shown.window(rendition) else {
                return Answer::NotFound;
            };
            match self.wanted(window, directives) {
                Ok(wanted) => wanted,
                Err(why) => return Answer::Bad(why),
            }
        };
        let is_there = move |shown: &Shown| {
            shown
                .window(rendition)
                .is_none_or(|w| w.is_ended || wanted.is_listed(w))
        };
        if !self.wait(is_there).await {
            return Answer::Busy;
        }
        let body = self.rendered(rendition, list, directives.skip);
        let was_held = directives.msn.is_some();
        body.map_or(Answer::NotFound, |body| Answer::Playlist { body, was_held })
    }

    /// An init section, segment or part, by the last piece of its path.
    pub async fn media(&self, rendition: RenditionId, name: &str) -> Media {
        let Some(name) = self.parse(name) else {
            return Media::NotFound;
        };
        if let MediaName::Part(number) = name {
            let state = self
                .lock()
                .window(rendition)
                .map(|w| (w.hinted_part(), w.is_ended));
            match state {
                Some((hinted, false)) if hinted == number => {
                    let is_there = move |shown: &Shown| {
                        shown
                            .window(rendition)
                            .is_none_or(|w| w.is_ended || w.parts_made() > number)
                    };
                    if !self.wait(is_there).await {
                        return Media::Busy;
                    }
                }
                _ => {}
            }
        }
        let shown = self.lock();
        let found = shown.window(rendition).and_then(|window| match name {
            MediaName::Init(n) => window.init(n),
            MediaName::Segment(msn) => window.segment(msn),
            MediaName::Part(number) => window.part(number),
        });
        found.map_or(Media::NotFound, Media::Found)
    }

    fn parse(&self, name: &str) -> Option<MediaName> {
        let rest = name
            .strip_prefix(self.instance.as_str())?
            .strip_prefix('-')?;
        let number = |text: &str| {
            let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && text.len() < 20;
            let is_canonical = text == "0" || !text.starts_with('0');
            text.parse::<u64>()
                .ok()
                .filter(|_| is_plain && is_canonical)
        };
        if let Some(n) = rest
            .strip_prefix("init")
            .and_then(|r| r.strip_suffix(".mp4"))
        {
            return number(n)
                .and_then(|n| u32::try_from(n).ok())
                .map(MediaName::Init);
        }
        let rest = rest.strip_suffix(".m4s")?;
        if let Some(n) = rest.strip_prefix('s') {
            return number(n).map(MediaName::Segment);
        }
        rest.strip_prefix('p').and_then(number).map(MediaName::Part)
    }

    /// What a request waits for, or why it cannot be met.
    fn wanted(&self, window: &Window, directives: Directives) -> Result<Wanted, &'static str> {
        let Some(msn) = directives.msn else {
            return Ok(Wanted::Now);
        };
        if window.is_ended {
            return Ok(Wanted::Now);
        }
        let newest = window
            .open
            .as_ref()
            .map(|s| s.msn)
            .or_else(|| window.last_complete());
        let limit = window
            .last_complete()
            .map_or(2, |m| m + 2)
            .max(newest.unwrap_or(0) + 1);
        if msn > limit {
            return Err("_HLS_msn is more than two segments ahead");
        }
        let Some(part) = directives.part else {
            return Ok(Wanted::Segment(msn));
        };
        let listed = match &window.open {
            Some(open) if open.msn == msn => open.parts.len(),
            _ if window.last_complete().is_some_and(|last| msn <= last) => {
                return Ok(Wanted::Part(msn, part));
            }
            _ => 0,
        };
        let ahead = (3.0 / self.config.part_target.as_secs_f64()).max(3.0);
        let next = u64::try_from(listed).unwrap_or(0);
        let beyond_last = part.saturating_add(1).saturating_sub(next);
        if u32::try_from(beyond_last).map_or(true, |n| f64::from(n) > ahead) {
            return Err("_HLS_part is too far ahead");
        }
        Ok(Wanted::Part(msn, part))
    }

    /// Waits until `is_there`; false when it took too long, too many wait, or the process stops.
    async fn wait(&self, is_there: impl Fn(&Shown) -> bool) -> bool {
        let mut version = self.version.subscribe();
        let known = |shown: &Shown| {
            let is_there = is_there(shown);
            (is_there || shown.close == Some(Close::Stopped)).then_some(is_there)
        };
        if let Some(is_there) = known(&self.lock()) {
            return is_there;
        }
        let Some(_held) = self.held.enter() else {
            return false;
        };
        let until = Instant::now() + self.config.target_duration * 3;
        loop {
            version.mark_unchanged();
            if let Some(is_there) = known(&self.lock()) {
                return is_there;
            }
            match timeout_at(until, version.changed()).await {
                Ok(Ok(())) => {}
                _ => return false,
            }
        }
    }

    fn has_dvr(&self, rendition: RenditionId) -> bool {
        let is_recorded = !matches!(rendition, RenditionId::Rung(_));
        is_recorded && !self.config.dvr.is_zero()
    }

    /// Whether a segment or init section has to be read from the store: it is in the list of the
    /// DVR, and no longer here.
    pub fn is_in_store(&self, rendition: RenditionId, name: &str) -> bool {
        let shown = self.lock();
        let past = shown.window(rendition).map(|window| &window.past);
        let past = past.filter(|_| self.has_dvr(rendition));
        past.is_some_and(|past| match self.parse(name) {
            Some(MediaName::Segment(msn)) => past.holds(msn),
            Some(MediaName::Init(number)) => past.needs_init(number),
            Some(MediaName::Part(_)) | None => false,
        })
    }

    /// The store did not take a segment: in the list of the DVR it is a gap once it has left the
    /// live one.
    pub fn lose(&self, rendition: RenditionId, msn: u64) {
        self.edit(rendition, |window| window.past.lose(msn));
    }

    fn rendered(
        &self,
        rendition: RenditionId,
        list: List,
        skip: Option<Skip>,
    ) -> Option<Arc<Rendered>> {
        let mut shown = self.lock();
        let skip = skip.filter(|_| !shown.is_over());
        if let Some(body) = shown.rendered.get(&(rendition, list, skip)) {
            return Some(Arc::clone(body));
        }
        let siblings = shown.playable().filter(|(id, _)| {
            let is_listed = list == List::Live || self.has_dvr(*id);
            *id != rendition && is_listed
        });
        let snapshot = Snapshot {
            instance: &self.instance,
            targets: &self.targets,
            window: shown.window(rendition)?,
            list,
            ranges: shown.ranges(list),
            removed: shown.removed(list),
            now: Instant::now(),
            siblings: siblings
                .map(|(id, window)| Sibling { id, window })
                .collect(),
            is_independent: match rendition {
                // The publisher's own segments, whatever follows them.
                RenditionId::Src => false,
                RenditionId::Rung(_) => shown.has_independent_rungs,
                RenditionId::Aac => true,
            },
        };
        let began = Instant::now();
        let body = Rendered::new(snapshot.render(skip));
        if let Some(times) = self.render_times.get() {
            times[usize::from(skip.is_some())].observe(began.elapsed());
        }
        shown
            .rendered
            .insert((rendition, list, skip), Arc::clone(&body));
        Some(body)
    }

    /// Where to note how long playlists take to write.
    pub(super) fn measure(&self, times: impl Fn(&'static str) -> Option<Arc<Histogram>>) {
        if let (Some(full), Some(delta)) = (times("playlist"), times("delta")) {
            // A second packager of the same stream would measure the same.
            let _ = self.render_times.set([full, delta]);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is shown and wakes those who wait.
    fn change(&self, change: impl FnOnce(&mut Shown)) {
        let mut shown = self.lock();
        change(&mut shown);
        shown.rendered.clear();
        drop(shown);
        self.version.send_modify(|v| *v += 1);
    }

    pub(super) fn show(&self, rendition: RenditionId) {
        let mut bounds = Bounds::new(self.config.window, self.config.target_duration);
        if self.has_dvr(rendition) {
            bounds.dvr = self.config.dvr;
        }
        self.change(|shown| {
            let src = shown.windows.get(&RenditionId::Src);
            let window = match (rendition, src) {
                (RenditionId::Rung(_), Some(src)) => Window::beside(bounds, src),
                _ => Window::new(bounds),
            };
            shown.windows.insert(rendition, window);
        });
    }

    /// A rendition that never had a frame is none.
    pub(super) fn hide(&self, rendition: RenditionId) {
        self.change(|shown| drop(shown.windows.remove(&rendition)));
    }

    /// What `src` lists, for a rung that begins now.
    pub(super) fn bounds(&self) -> Vec<Bound> {
        let shown = self.lock();
        let src = shown.window(RenditionId::Src).into_iter();
        src.flat_map(Window::listed_segments)
            .map(|segment| Bound {
                start: segment.start,
                shown_from: segment.shown_from,
                is_discontinuity: segment.is_discontinuity,
                is_gap: segment.is_gap,
            })
            .collect()
    }

    /// When the oldest of the newest [`JOIN_SEGMENTS`] whole segments of `src` is shown, as far as
    /// there is no gap since: a rung that is made from there on can be played at once.
    pub(super) fn joins_at(&self) -> Option<MediaTime> {
        let shown = self.lock();
        let src = shown.window(RenditionId::Src)?;
        let is_near = |s: &&Segment| src.edge.saturating_since(s.start) <= JOIN_BACK_MAX;
        let newest = src.segments.iter().rev().take_while(|s| !s.is_gap);
        let oldest = newest.take(JOIN_SEGMENTS).take_while(is_near).last();
        oldest.map(|s| s.shown_from)
    }

    /// Whether there is enough of a rung: a whole segment, a hold-back of media, and the edge of
    /// `src` is near.
    pub(super) fn is_rung_ready(&self, rendition: RenditionId) -> bool {
        let shown = self.lock();
        let (src, rung) = (shown.window(RenditionId::Src), shown.window(rendition));
        src.zip(rung).is_some_and(|(src, rung)| {
            let behind = src.edge.saturating_since(rung.edge);
            behind <= self.config.part_target * 2 && rung.playable() >= self.config.part_target * 3
        })
    }

    /// Somebody wants to play a rung. False when there is none of so many lines.
    fn ask(&self, lines: u16) -> bool {
        let asked = self.lock().ask(lines, Instant::now());
        if asked == Some(true) {
            self.asked.send_modify(|n| *n += 1);
        }
        asked.is_some()
    }

    /// Rungs that are wanted now. Those that nobody asked for lately are idle from now on.
    pub(super) fn wanted_rungs(&self, now: Instant) -> Vec<u16> {
        self.lock().wanted_rungs(now)
    }

    /// When a rung may have become idle.
    pub(super) fn rung_deadline(&self) -> Option<Instant> {
        self.lock().rung_deadline()
    }

    /// Each segment of a rung begins with a keyframe, or is a gap.
    pub(super) fn has_independent_rungs(&self) -> bool {
        self.lock().has_independent_rungs
    }

    /// Changes when somebody asks for a rung that is not made.
    pub(super) fn asked(&self) -> watch::Receiver<u64> {
        self.asked.subscribe()
    }

    pub(super) fn set_rung(&self, lines: u16, state: RungState) {
        self.change(|shown| {
            if let Some(rung) = shown.rungs.get_mut(&lines) {
                rung.state = state;
            }
        });
    }

    pub(super) fn edit(&self, rendition: RenditionId, edit: impl FnOnce(&mut Window)) {
        self.change(|shown| {
            if let Some(window) = shown.windows.get_mut(&rendition) {
                edit(window);
            }
            shown.drop_old_ranges();
        });
    }

    /// Shows news of a listed cue in every media playlist; `date` is the time of day of its T.
    pub(super) fn tell(&self, news: &CueNews, date: OffsetDateTime) {
        self.change(|shown| shown.tell(news, date));
    }

    /// True once every rendition has enough to start playing.
    /// `turned_at` parts of the picture are of a feed that has gone.
    pub(super) fn is_ready(&self, turned_at: u64) -> bool {
        let shown = self.lock();
        let has = |window: &Window, gone: u64| window.media_parts() >= gone + READY_PARTS;
        let src = shown.window(RenditionId::Src).map(|w| has(w, turned_at));
        let aac = shown.window(RenditionId::Aac).map(|w| has(w, 0));
        let mut all = src.into_iter().chain(aac).peekable();
        all.peek().is_some() && all.all(|is_ready| is_ready)
    }

    /// Parts with media that a rendition has had.
    pub(super) fn media_parts(&self, rendition: RenditionId) -> u64 {
        self.lock().window(rendition).map_or(0, Window::media_parts)
    }

    pub(super) fn has_multivariant(&self) -> bool {
        self.lock().multivariant.is_some()
    }

    pub(super) fn set_multivariant(&self, multivariant: Multivariant) {
        self.change(|shown| {
            shown.has_independent_rungs = multivariant.is_h264();
            shown.multivariant = Some(multivariant);
        });
    }

    /// Nothing comes after this.
    pub(super) fn close(&self, close: Close) {
        self.change(|shown| {
            shown.close = Some(close);
            let is_over = shown.is_over();
            for window in shown.windows.values_mut() {
                window.is_ended = is_over;
            }
        });
    }
}

#[derive(Clone, Copy, Debug)]
enum MediaName {
    Init(u32),
    Segment(u64),
    Part(u64),
}

#[derive(Clone, Copy, Debug)]
enum Wanted {
    Now,
    Segment(u64),
    Part(u64, u64),
}

impl Wanted {
    fn is_listed(self, window: &Window) -> bool {
        let is_complete = |msn: u64| window.last_complete().is_some_and(|last| last >= msn);
        match self {
            Self::Now => true,
            Self::Segment(msn) => is_complete(msn),
            Self::Part(msn, part) => {
                let count = |msn: u64| {
                    let segments = window.segments.iter().chain(&window.open);
                    let parts = segments.rev().find(|s| s.msn == msn).map(|s| s.parts.len());
                    parts.and_then(|n| u64::try_from(n).ok())
                };
                if !is_complete(msn) {
                    return count(msn).is_some_and(|n| n > part);
                }
                // Past the end of a complete segment means the first part of the next.
                let is_inside = count(msn).is_none_or(|n| n > part);
                is_inside || is_complete(msn + 1) || count(msn + 1).is_some_and(|n| n > 0)
            }
        }
    }
}
