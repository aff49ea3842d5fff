//! The packaged broadcast: two windows, their playlists, and those who wait for them.

use std::collections::{HashMap, VecDeque};
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::directives::{Directives, Skip};
use super::playlist::{DateRange, Multivariant, Sibling, Snapshot};
use super::segmenter::Targets;
use super::window::{Bounds, Window};
use crate::cue::CueNews;
use crate::time::MediaTime;

/// Requests of one node that may wait at a time.
const HELD_MAX: usize = 20_000;
/// Parts before the multivariant playlist is given out.
const READY_PARTS: u64 = 3;
/// Date ranges kept at most; the core keeps fewer open.
const RANGES_MAX: usize = 1_000;

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
    /// A silence this long is listed as a gap.
    pub gap_after: Duration,
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

/// A rendition, by its name in URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RenditionId {
    /// The source picture, or `clean` in its place.
    Src,
    /// The sound.
    Aac,
}

impl RenditionId {
    /// The name in URLs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Src => "src",
            Self::Aac => "aac",
        }
    }

    /// The rendition of this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Src, Self::Aac]
            .into_iter()
            .find(|r| r.name() == name)
    }

    /// `Content-Type` of its media.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Src => "video/mp4",
            Self::Aac => "audio/mp4",
        }
    }
}

/// A playlist in the forms it is sent in.
#[derive(Debug)]
pub struct Rendered {
    /// As it is.
    pub plain: Bytes,
    /// Compressed with gzip.
    pub gzip: Bytes,
    brotli: OnceLock<Bytes>,
}

impl Rendered {
    fn new(text: String) -> Arc<Self> {
        let plain = Bytes::from(text);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        // Writing to a Vec cannot fail.
        drop(gzip.write_all(&plain));
        let gzip = gzip.finish().unwrap_or_default().into();
        Arc::new(Self {
            plain,
            gzip,
            brotli: OnceLock::new(),
        })
    }

    /// Compressed with brotli, on first demand.
    pub fn brotli(&self) -> Bytes {
        let made = self.brotli.get_or_init(|| {
            let mut out = Vec::new();
            let params = brotli::enc::BrotliEncoderParams {
                quality: 4,
                ..Default::default()
            };
            let mut plain: &[u8] = &self.plain;
            drop(brotli::BrotliCompress(&mut plain, &mut out, &params));
            out.into()
        });
        made.clone()
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

#[derive(Debug)]
struct Shown {
    src: Option<Window>,
    aac: Option<Window>,
    ranges: Vec<DateRange>,
    /// Date ranges that left, newest last.
    removed: VecDeque<(String, Instant)>,
    multivariant: Option<Multivariant>,
    rendered: HashMap<(RenditionId, Option<Skip>), Arc<Rendered>>,
    close: Option<Close>,
}

/// Why nothing is added any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// The broadcast is over: the lists say so.
    Over,
    /// The process stops: the lists stay open, for the next one, but nobody is kept waiting.
    Stopped,
}

/// One packaged broadcast.
#[derive(Debug)]
pub struct Stream {
    instance: String,
    config: HlsConfig,
    targets: Targets,
    shown: Mutex<Shown>,
    version: watch::Sender<u64>,
    held: Held,
}

impl Stream {
    /// A stream of an instance that has nothing to show yet.
    pub fn new(instance: &str, config: HlsConfig, held: Held) -> Arc<Self> {
        Arc::new(Self {
            instance: instance.into(),
            config,
            targets: config.targets(),
            shown: Mutex::new(Shown {
                src: None,
                aac: None,
                ranges: Vec::new(),
                removed: VecDeque::new(),
                multivariant: None,
                rendered: HashMap::new(),
                close: None,
            }),
            version: watch::Sender::new(0),
            held,
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
        let window = shown.src.as_ref().or(shown.aac.as_ref())?;
        let (msn, part) = window.last_part()?;
        let bytes = |window: &Option<Window>| window.as_ref().map_or(0, Window::bytes);
        Some(Status {
            msn,
            part,
            listed: window.listed(),
            edge: window.edge,
            bytes: bytes(&shown.src) + bytes(&shown.aac),
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
        let is_known = |shown: &Shown| shown.multivariant.is_some() || shown.is_over();
        if !self.wait(is_known).await {
            return Answer::Busy;
        }
        let text = self.lock().multivariant.as_ref().map(|m| m.render(session));
        text.map_or(Answer::NotLive, |text| Answer::Playlist {
            body: Rendered::new(text),
            was_held: false,
        })
    }

    /// A media playlist (spec media.md 6.5).
    pub async fn playlist(&self, rendition: RenditionId, directives: Directives) -> Answer {
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
        let body = self.rendered(rendition, directives.skip);
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

    fn rendered(&self, rendition: RenditionId, skip: Option<Skip>) -> Option<Arc<Rendered>> {
        let mut shown = self.lock();
        let skip = skip.filter(|_| !shown.is_over());
        if let Some(body) = shown.rendered.get(&(rendition, skip)) {
            return Some(Arc::clone(body));
        }
        let (other, name) = match rendition {
            RenditionId::Src => (shown.aac.as_ref(), RenditionId::Aac.name()),
            RenditionId::Aac => (shown.src.as_ref(), RenditionId::Src.name()),
        };
        let snapshot = Snapshot {
            instance: &self.instance,
            targets: &self.targets,
            window: shown.window(rendition)?,
            ranges: &shown.ranges,
            removed: &shown.removed,
            now: Instant::now(),
            sibling: other.map(|window| Sibling { name, window }),
            // `src` holds the publisher's own segments, whatever follows them.
            is_independent: rendition == RenditionId::Aac,
        };
        let body = Rendered::new(snapshot.render(skip));
        shown.rendered.insert((rendition, skip), Arc::clone(&body));
        Some(body)
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
        let bounds = Bounds::new(self.config.window, self.config.target_duration);
        let window = Window::new(bounds);
        self.change(|shown| *shown.slot(rendition) = Some(window));
    }

    /// A rendition that never had a frame is none.
    pub(super) fn hide(&self, rendition: RenditionId) {
        self.change(|shown| *shown.slot(rendition) = None);
    }

    pub(super) fn edit(&self, rendition: RenditionId, edit: impl FnOnce(&mut Window)) {
        self.change(|shown| {
            if let Some(window) = shown.slot(rendition) {
                edit(window);
            }
            shown.drop_old_ranges();
        });
    }

    /// Shows news of a listed cue in every media playlist; `date` is the time of day of its T.
    pub(super) fn tell(&self, news: &CueNews, date: OffsetDateTime) {
        let now = Instant::now();
        self.change(|shown| match news {
            CueNews::Opened(cue) => {
                if shown.ranges.len() >= RANGES_MAX {
                    let oldest = shown.ranges.remove(0);
                    shown.remember_removed(oldest);
                }
                shown.ranges.push(DateRange {
                    cue: Arc::clone(cue),
                    start: date,
                    end: None,
                    changed: now,
                });
            }
            CueNews::Closed { cue, .. } => {
                let range = shown.ranges.iter_mut().find(|r| r.cue.id == cue.id);
                if let Some(range) = range {
                    range.end = Some(date);
                    range.changed = now;
                }
            }
        });
    }

    /// True once every rendition has enough to start playing.
    /// `turned_at` parts of the picture are of a feed that has gone.
    pub(super) fn is_ready(&self, turned_at: u64) -> bool {
        let shown = self.lock();
        let has = |window: &Window, gone: u64| window.media_parts() >= gone + READY_PARTS;
        let src = shown.src.as_ref().map(|w| has(w, turned_at));
        let aac = shown.aac.as_ref().map(|w| has(w, 0));
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
        self.change(|shown| shown.multivariant = Some(multivariant));
    }

    /// Nothing comes after this.
    pub(super) fn close(&self, close: Close) {
        self.change(|shown| {
            shown.close = Some(close);
            let is_over = shown.is_over();
            for window in shown.src.iter_mut().chain(&mut shown.aac) {
                window.is_ended = is_over;
            }
        });
    }
}

impl Shown {
    fn is_over(&self) -> bool {
        self.close == Some(Close::Over)
    }

    const fn window(&self, rendition: RenditionId) -> Option<&Window> {
        match rendition {
            RenditionId::Src => self.src.as_ref(),
            RenditionId::Aac => self.aac.as_ref(),
        }
    }

    const fn slot(&mut self, rendition: RenditionId) -> &mut Option<Window> {
        match rendition {
            RenditionId::Src => &mut self.src,
            RenditionId::Aac => &mut self.aac,
        }
    }

    /// A closed range leaves when no listed segment overlaps it; an open one stays.
    fn drop_old_ranges(&mut self) {
        let first = self
            .src
            .as_ref()
            .or(self.aac.as_ref())
            .and_then(|w| w.segments.front());
        let Some(oldest) = first.map(|s| s.wall) else {
            return;
        };
        let is_over = |range: &mut DateRange| {
            let lasts = range.cue.duration.and_then(|d| d.try_into().ok());
            let end = lasts.and_then(|d: time::Duration| range.start.checked_add(d));
            range.end.or(end).is_some_and(|end| end < oldest)
        };
        let over: Vec<DateRange> = self.ranges.extract_if(.., is_over).collect();
        over.into_iter()
            .for_each(|range| self.remember_removed(range));
    }

    fn remember_removed(&mut self, range: DateRange) {
        if self.removed.len() >= RANGES_MAX {
            self.removed.pop_front();
        }
        self.removed
            .push_back((range.cue.id.clone(), Instant::now()));
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
