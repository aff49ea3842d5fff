//! Drives the cutting of one broadcast: rings in, [`Stream`] out.

mod rungs;
mod tape;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::rungs::RungSide;
use self::tape::Tape;
use super::feed::VideoFeed;
use super::mp4::{self, Chunk};
use super::multivariant::{AudioFacts, Multivariant, RateFacts, Variant};
use super::news::{self, News};
use super::rates::Rates;
use super::rendition::RenditionId;
use super::segmenter::{AudioLine, Bound, Cut, PartCut, VideoLine};
use super::shown::Close;
use super::silence::Silence;
use super::stream::Stream;
use super::wall::WallLine;
use super::window::Opening;
use crate::broadcast::{Broadcast, Cursor, Delivery, EndReason, Ended, Start};
use crate::cue::{CueCursor, CueNews};
use crate::frame::{Codec, Kind, TrackId, TrackInfo};
use crate::record::Recorder;
use crate::transcode::forecast;

/// A track whose header came but no frame, this long after the other's first, is none.
const FIRST_WAIT: Duration = Duration::from_secs(2);

/// Packages one broadcast.
#[derive(Debug)]
pub struct Packager {
    broadcast: Arc<Broadcast>,
    stream: Arc<Stream>,
    video: Option<VideoSide>,
    audio: Option<AudioSide>,
    /// Those that somebody asked for once.
    rungs: Vec<RungSide>,
    tape: Option<Tape>,
    asked: watch::Receiver<u64>,
    /// How much later than decoded the newest segment's first picture is shown.
    delay_us: i64,
    cues: CueCursor,
    news: News,
    wall: WallLine,
    sequence: u32,
    /// Parts of the picture before its feed last changed.
    turned_at: u64,
}

#[derive(Debug)]
struct VideoSide {
    feed: VideoFeed,
    line: VideoLine,
    silence: Silence,
    rates: Rates,
}

#[derive(Debug)]
struct AudioSide {
    cursor: Cursor,
    /// Since when something is expected of it.
    awaited: Instant,
    line: AudioLine,
    silence: Silence,
    rates: Rates,
}

/// Parts of a feed that may yet change after which players are let in all the same.
const PATIENCE_PARTS: u64 = 16;

impl Packager {
    /// A packager of a broadcast into a stream of the same instance.
    pub fn new(broadcast: Arc<Broadcast>, stream: Arc<Stream>) -> Self {
        let cues = broadcast.cues();
        stream.measure(|class| broadcast.histogram("playlist_render_seconds", class));
        let asked = stream.asked();
        Self {
            broadcast,
            stream,
            video: None,
            audio: None,
            rungs: Vec::new(),
            tape: None,
            asked,
            delay_us: 0,
            cues,
            news: News::new(),
            wall: WallLine::default(),
            sequence: 0,
            turned_at: 0,
        }
    }

    /// Records what it packages; the recording ends with the packager.
    #[must_use]
    pub fn recorded(mut self, recorder: Recorder) -> Self {
        let instance = self.stream.instance().to_owned();
        self.tape = Some(Tape::new(recorder, instance));
        self
    }

    /// Runs until the broadcast ends or `cancel`. The stream is ended with the broadcast; when the
    /// process stops it is only closed, so that players go on with the next one.
    pub async fn run(mut self, cancel: CancellationToken) {
        let close = tokio::select! {
            () = cancel.cancelled() => Close::Stopped,
            close = self.package() => close,
        };
        self.finish(close);
    }

    async fn package(&mut self) -> Close {
        if self.broadcast.settled().await.is_ok() {
            self.open();
            let Err(Ended) = self.pump().await;
        }
        match self.broadcast.ended().await {
            EndReason::Shutdown => Close::Stopped,
            _ => Close::Over,
        }
    }

    fn open(&mut self) {
        let targets = self.stream.config().targets();
        let video = self.broadcast.source(Kind::Video);
        if video.is_some() {
            let feed = VideoFeed::new(Arc::clone(&self.broadcast));
            let line = VideoLine::new(targets);
            self.video = Some(VideoSide {
                feed,
                line,
                silence: Silence::new(&targets),
                rates: Rates::default(),
            });
            self.stream.show(RenditionId::Src);
        }
        let is_filled = self.stream.config().has_silent_audio && video.is_some();
        let track = match self.broadcast.source(Kind::Audio) {
            Some(source) if source.codec == Codec::Aac => Some(TrackId::Audio),
            // Not every player takes Opus in HLS.
            Some(_) => Some(TrackId::Aac),
            None => is_filled.then_some(TrackId::Aac),
        };
        if let Some(track) = track {
            let cursor = self.broadcast.cursor(track, Start::OldestKey);
            let line = AudioLine::new(targets, video.is_some());
            self.audio = Some(AudioSide {
                cursor,
                awaited: Instant::now(),
                line,
                silence: Silence::new(&targets),
                rates: Rates::default(),
            });
            self.stream.show(RenditionId::Aac);
        }
    }

    async fn pump(&mut self) -> Result<Infallible, Ended> {
        loop {
            self.drain_cues();
            // After a silence both come at once: what is there of the sound is no gap.
            self.drain_audio();
            self.drain_video();
            self.drain_audio();
            let now = Instant::now();
            self.drop_missing(now);
            self.fill_gaps(now);
            self.follow_rungs(now);
            self.drain_rungs(now);
            self.check_ready();
            let due = self.due();
            let (video, audio) = (&mut self.video, &mut self.audio);
            tokio::select! {
                _ = self.asked.changed() => {}
                ready = rungs::rungs_ready(&mut self.rungs) => ready?,
                news = self.cues.next() => self.hear(news?),
                ready = video_ready(video) => ready?,
                ready = audio_ready(audio) => ready?,
                () = passed(due) => {}
            }
        }
    }

    /// A cue for "now" is told before its frame is readable, so news is drained before frames.
    fn drain_cues(&mut self) {
        while let Some(news) = self.cues.try_next() {
            self.hear(news);
        }
    }

    fn hear(&mut self, news: CueNews) {
        if let Some(tape) = &mut self.tape {
            tape.hear(&news);
        }
        if news::is_listed(&news) {
            let t = news::time_of(&news);
            let date = self.wall.tell(t, || self.broadcast.wall(t));
            self.stream.tell(&news, date);
        }
        for side in self.rungs.iter_mut().filter(|side| side.is_played()) {
            side.news.hear(news.clone());
        }
        if self.news.hear(news) {
            warn!(broadcast.id = %self.broadcast.key(), "too much news for one silence");
        }
    }

    fn drain_video(&mut self) {
        let now = Instant::now();
        while let Some(fed) = self.video.as_mut().and_then(|v| v.feed.next(now)) {
            self.drain_cues();
            let Some(video) = &mut self.video else { return };
            let dts = fed.frame.dts;
            if fed.is_turn {
                self.turned_at = self.stream.media_parts(RenditionId::Src);
                video.line.turn();
            }
            if fed.is_after_loss {
                video.line.lose();
            }
            let cuts = video.line.push(fed.frame);
            let known_until = video.line.known_until();
            // One that was left out does not end the silence.
            if let Some(end) = video.line.edge().filter(|_| known_until == Some(dts)) {
                video.silence.hear(now, dts, end);
            }
            self.apply(RenditionId::Src, cuts);
            if let Some(t) = known_until {
                self.cut_sound(|line| line.advance(t));
            }
            self.advance_rungs(known_until);
        }
    }

    fn drain_audio(&mut self) {
        let now = Instant::now();
        while let Some(audio) = &mut self.audio {
            let Some(Delivery { frame, .. }) = audio.cursor.try_next() else {
                return;
            };
            let end = frame.dts + frame.duration.unwrap_or_default();
            audio.silence.hear(now, frame.dts, end);
            if let Some(video) = &mut self.video
                && video.line.is_gap()
            {
                video.line.hear_of(frame.dts, frame.discontinuities);
            }
            self.cut_sound(|line| line.push(frame));
        }
    }

    fn cut_sound(&mut self, step: impl FnOnce(&mut AudioLine) -> Vec<Cut>) {
        let Some(audio) = &mut self.audio else { return };
        let cuts = step(&mut audio.line);
        let asked = audio.line.take_break();
        if let (Some(video), Some((from, discontinuities))) = (&mut self.video, asked) {
            video.line.break_from(from, discontinuities);
        }
        self.apply(RenditionId::Aac, cuts);
    }

    /// The track of which nothing came although the other is there, and until when it may.
    fn missing(&self) -> Option<(Kind, Instant)> {
        let (video, audio) = (self.video.as_ref()?, self.audio.as_ref()?);
        match (video.silence.first_heard, audio.silence.first_heard) {
            (Some(since), None) => Some((Kind::Audio, since.max(audio.awaited) + FIRST_WAIT)),
            (None, Some(since)) => Some((Kind::Video, since + FIRST_WAIT)),
            _ => None,
        }
    }

    /// A header without frames must not keep the other track from being shown.
    fn drop_missing(&mut self, now: Instant) {
        let missing = self.missing().filter(|(_, until)| now >= *until);
        match missing.map(|(kind, _)| kind) {
            Some(Kind::Audio) if self.fill_sound(now) => {}
            Some(Kind::Audio) => {
                warn!(broadcast.id = %self.broadcast.key(), "sound was announced, none came");
                self.audio = None;
                self.stream.hide(RenditionId::Aac);
            }
            Some(Kind::Video) => {
                warn!(broadcast.id = %self.broadcast.key(), "a picture was announced, none came");
                self.video = None;
                self.stream.hide(RenditionId::Src);
                self.cut_sound(AudioLine::lead);
            }
            None => {}
        }
    }

    /// Lets silence stand in for a sound that does not come. False when it may not or does already.
    fn fill_sound(&mut self, now: Instant) -> bool {
        let is_wanted = self.stream.config().has_silent_audio;
        let Some(audio) = self.audio.as_mut().filter(|_| is_wanted) else {
            return false;
        };
        if audio.cursor.track() == TrackId::Aac {
            return false;
        }
        audio.cursor = self.broadcast.cursor(TrackId::Aac, Start::OldestKey);
        audio.awaited = now;
        true
    }

    /// Media that has not come in time is a gap; of both tracks at once, if both have stopped.
    fn fill_gaps(&mut self, now: Instant) {
        let quiet = self.audio.as_ref().and_then(|audio| {
            let long = audio.silence.common();
            audio.silence.end_if_quiet(now, long)
        });
        let mut until = self.audio.as_ref().and_then(|a| a.silence.until(now));
        if let Some(video) = &mut self.video {
            if let Some(until) = video.silence.until(now) {
                let cuts = video.line.silence(quiet, until);
                let known_until = video.line.known_until();
                self.apply(RenditionId::Src, cuts);
                self.cut_sound(|line| known_until.map_or_else(Vec::new, |t| line.advance(t)));
                self.advance_rungs(known_until);
            }
            let gap = self.video.as_ref().filter(|v| v.line.is_gap());
            let edge = gap.and_then(|v| v.line.edge());
            until = until.max(edge.filter(|_| quiet.is_some()));
        }
        if let Some(until) = until {
            self.cut_sound(|line| line.silence(until));
        }
    }

    /// When there is something to do although nothing comes.
    fn due(&self) -> Option<Instant> {
        let (video, audio) = (self.video.as_ref(), self.audio.as_ref());
        let missing = self.missing().map(|(_, until)| until);
        let gap = match (video, audio) {
            (Some(video), _) => video.line.edge().and_then(|edge| video.silence.due(edge)),
            (None, Some(audio)) => audio.line.edge().and_then(|edge| audio.silence.due(edge)),
            (None, None) => None,
        };
        let idle = self.stream.rung_deadline();
        missing.into_iter().chain(gap).chain(idle).min()
    }

    fn apply(&mut self, rendition: RenditionId, cuts: Vec<Cut>) {
        for cut in cuts {
            match cut {
                Cut::Begin {
                    start,
                    shown_from,
                    is_discontinuity,
                    info,
                } => {
                    let bound = Bound {
                        start,
                        shown_from,
                        is_discontinuity,
                        is_gap: info.is_none(),
                    };
                    self.begin(rendition, bound, info.as_deref());
                }
                Cut::Part(part) => self.part(rendition, &part),
                Cut::Gap { duration } => self.stream.edit(rendition, |window| {
                    window.append(duration, false, Bytes::new());
                }),
                Cut::End { end } => {
                    let now = Instant::now();
                    if let Some(rates) = self.rates(rendition) {
                        rates.end();
                    }
                    let mut early = 0;
                    let rate = self.broadcast.facts(TrackId::Video).frame_rate;
                    let (stream, tape) = (&self.stream, &mut self.tape);
                    stream.edit(rendition, |window| {
                        early = window.end(now, end);
                        if let Some(tape) = tape {
                            tape.keep(rendition, window, rate);
                        }
                    });
                    (0..early).for_each(|_| self.broadcast.count("hls_gaps_total", "memory"));
                    let dropped = self.tape.as_mut().map_or(0, Tape::take_dropped);
                    (0..dropped).for_each(|_| self.broadcast.count("store_dropped_total", "full"));
                }
            }
        }
    }

    fn begin(&mut self, rendition: RenditionId, mut bound: Bound, info: Option<&TrackInfo>) {
        let Bound {
            start,
            is_discontinuity,
            ..
        } = bound;
        let clock = self.broadcast.wall(start);
        if rendition == RenditionId::Src || self.video.is_none() {
            self.wall.begin(start, clock, is_discontinuity);
        }
        if rendition == RenditionId::Src {
            if bound.is_gap {
                bound.shown_from = start.shifted(self.delay_us);
            }
            self.delay_us = bound.shown_from.micros_since(start);
            self.cut_sound(|line| line.bound(start, is_discontinuity));
            self.bound_rungs(bound);
        }
        let init = info.map(mp4::init).and_then(|init| {
            init.inspect_err(|err| {
                let error = err as &dyn std::error::Error;
                warn!(error, "cannot write an init section");
            })
            .ok()
        });
        if let (Some(tape), Some(info)) = (&mut self.tape, info) {
            tape.begin(rendition, info);
        }
        let wall = self.wall.at(start, || clock);
        let is_gap = init.is_none();
        if is_gap {
            self.broadcast.count("hls_gaps_total", "silence");
        }
        self.stream.edit(rendition, |window| {
            if let Some(init) = init {
                window.set_init(init);
            }
            window.begin(Opening {
                start,
                shown_from: bound.shown_from,
                wall,
                is_discontinuity,
                is_gap,
            });
        });
    }

    /// The news that goes with a part: of each picture, or of the sound where none is shown.
    fn carried(&mut self, rendition: RenditionId, part: &PartCut) -> Vec<CueNews> {
        let is_shown = || self.video.as_ref().is_some_and(|v| !v.line.is_gap());
        match rendition {
            RenditionId::Aac if is_shown() => Vec::new(),
            RenditionId::Src | RenditionId::Aac => self.news.carry(part),
            RenditionId::Rung(_) => {
                let side = self.rungs.iter_mut().find(|side| side.id() == rendition);
                side.map_or_else(Vec::new, |side| side.news.carry(part))
            }
        }
    }

    fn part(&mut self, rendition: RenditionId, part: &PartCut) {
        let news = self.carried(rendition, part);
        self.sequence = self.sequence.wrapping_add(1);
        let chunk = Chunk {
            frames: &part.frames,
            end: part.end,
            sequence: self.sequence,
            news: &news,
        };
        match chunk.write() {
            Ok(bytes) => {
                if let Some(rates) = self.rates(rendition) {
                    rates.part(bytes.len(), part.duration);
                }
                let late = self
                    .broadcast
                    .now_t(Instant::now())
                    .saturating_since(part.end);
                let kind = rendition.kind();
                self.broadcast.observe("hls_part_late_seconds", kind, late);
                self.stream.edit(rendition, |window| {
                    window.append(part.duration, part.is_independent, bytes);
                });
            }
            Err(err) => warn!(
                error = &err as &dyn std::error::Error,
                "cannot write a part"
            ),
        }
    }

    fn check_ready(&self) {
        let is_settled = self.video.as_ref().is_none_or(|v| v.feed.is_settled())
            || self.stream.media_parts(RenditionId::Src) >= PATIENCE_PARTS;
        if self.stream.has_multivariant() || !is_settled || !self.stream.is_ready(self.turned_at) {
            return;
        }
        let video = self.video.as_ref().map(|v| v.feed.info());
        if video == Some(None) {
            // Its form is not known yet, and the playlist cannot be changed later.
            return;
        }
        let variants = video.flatten().map(|info| self.variants(&info));
        let audio = self.audio.as_ref();
        let audio = audio.and_then(|side| Some((side.cursor.info()?, side.rates.facts())));
        self.stream.set_multivariant(Multivariant {
            variants: variants.unwrap_or_default(),
            audio: audio.map(|(info, rates)| AudioFacts {
                codecs: mp4::codecs(&info),
                rates,
            }),
        });
    }

    /// `src`, and the rungs of its ladder whether they are made or not.
    fn variants(&self, info: &TrackInfo) -> Vec<Variant> {
        let rates = self.video.as_ref().map(|v| v.rates.facts());
        let src = info.picture_size().map(|size| Variant {
            id: RenditionId::Src,
            codecs: mp4::codecs(info),
            size,
            frame_rate: self.broadcast.facts(TrackId::Video).frame_rate,
            rates: rates.unwrap_or_default(),
        });
        let has_rungs = src.is_some() && self.stream.config().has_rungs;
        let rungs = has_rungs.then(|| forecast::rungs(&self.broadcast));
        let rungs = rungs.into_iter().flatten().map(|rung| Variant {
            id: RenditionId::Rung(rung.lines),
            codecs: rung.codecs,
            size: rung.size,
            frame_rate: rung.frame_rate,
            rates: RateFacts {
                peak_bps: rung.bitrate_bps * 13 / 10,
                mean_bps: rung.bitrate_bps,
            },
        });
        src.into_iter().chain(rungs).collect()
    }

    fn rates(&mut self, rendition: RenditionId) -> Option<&mut Rates> {
        match rendition {
            RenditionId::Src => self.video.as_mut().map(|v| &mut v.rates),
            RenditionId::Aac => self.audio.as_mut().map(|a| &mut a.rates),
            RenditionId::Rung(_) => None,
        }
    }

    fn finish(mut self, close: Close) {
        if let Some(video) = &mut self.video {
            video.feed.hurry();
        }
        self.drain_cues();
        self.drain_video();
        self.drain_audio();
        let end = self.video.as_ref().and_then(|v| v.line.edge());
        if let Some(video) = &mut self.video {
            let cuts = video.line.finish();
            self.apply(RenditionId::Src, cuts);
        }
        self.cut_sound(|line| line.finish(end));
        self.drain_rungs(Instant::now());
        self.finish_rungs(end);
        self.stream.close(close);
    }
}

/// Waits for the next picture; for ever when there is none.
async fn video_ready(side: &mut Option<VideoSide>) -> Result<(), Ended> {
    match side {
        Some(side) => side.feed.ready().await,
        None => std::future::pending().await,
    }
}

/// Waits for the next sound; for ever when there is none.
async fn audio_ready(side: &mut Option<AudioSide>) -> Result<(), Ended> {
    match side {
        Some(side) => side.cursor.ready().await,
        None => std::future::pending().await,
    }
}

/// Waits for a moment; for ever when there is none.
async fn passed(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
