//! Drives the cutting of one broadcast: rings in, [`Stream`] out.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::feed::VideoFeed;
use super::mp4::{self, Chunk};
use super::news::{self, News};
use super::playlist::{Multivariant, VideoFacts};
use super::rates::Rates;
use super::segmenter::{AudioLine, Cut, PartCut, VideoLine};
use super::silence::Silence;
use super::stream::{Close, RenditionId, Stream};
use super::wall::WallLine;
use super::window::Opening;
use crate::broadcast::{Broadcast, Cursor, Delivery, EndReason, Ended, Start};
use crate::cue::{CueCursor, CueNews};
use crate::frame::{Codec, Kind, Shape, TrackId, TrackInfo};
use crate::time::MediaTime;

/// A track whose header came but no frame, this long after the other's first, is none.
const FIRST_WAIT: Duration = Duration::from_secs(2);

/// Packages one broadcast.
#[derive(Debug)]
pub struct Packager {
    broadcast: Arc<Broadcast>,
    stream: Arc<Stream>,
    video: Option<VideoSide>,
    audio: Option<AudioSide>,
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
        Self {
            broadcast,
            stream,
            video: None,
            audio: None,
            cues,
            news: News::new(),
            wall: WallLine::default(),
            sequence: 0,
            turned_at: 0,
        }
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
        if let Some(source) = self.broadcast.source(Kind::Audio) {
            // Not every player takes Opus in HLS.
            let track = match source.codec {
                Codec::Aac => TrackId::Audio,
                _ => TrackId::Aac,
            };
            let cursor = self.broadcast.cursor(track, Start::OldestKey);
            let line = AudioLine::new(targets, video.is_some());
            self.audio = Some(AudioSide {
                cursor,
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
            self.drain_video();
            self.drain_audio();
            let now = Instant::now();
            self.drop_missing(now);
            self.fill_gaps(now);
            self.check_ready();
            let due = self.due();
            let (video, audio) = (&mut self.video, &mut self.audio);
            tokio::select! {
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
        if news::is_listed(&news) {
            let t = news::time_of(&news);
            let date = self.wall.tell(t, || self.broadcast.wall(t));
            self.stream.tell(&news, date);
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

    /// A header without frames must not keep the other track from being shown.
    fn drop_missing(&mut self, now: Instant) {
        let (Some(video), Some(audio)) = (&self.video, &self.audio) else {
            return;
        };
        let is_long = |since: Instant| now >= since + FIRST_WAIT;
        match (video.silence.first_heard, audio.silence.first_heard) {
            (Some(since), None) if is_long(since) => {
                warn!(broadcast.id = %self.broadcast.key(), "sound was announced, none came");
                self.audio = None;
                self.stream.hide(RenditionId::Aac);
            }
            (None, Some(since)) if is_long(since) => {
                warn!(broadcast.id = %self.broadcast.key(), "a picture was announced, none came");
                self.video = None;
                self.stream.hide(RenditionId::Src);
                self.cut_sound(AudioLine::lead);
            }
            _ => {}
        }
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
        let first = |silence: &Silence| silence.first_heard;
        let heard = [
            video.map(|v| first(&v.silence)),
            audio.map(|a| first(&a.silence)),
        ];
        let missing = match heard {
            [Some(Some(since)), Some(None)] | [Some(None), Some(Some(since))] => {
                Some(since + FIRST_WAIT)
            }
            _ => None,
        };
        let gap = match (video, audio) {
            (Some(video), _) => video.line.edge().and_then(|edge| video.silence.due(edge)),
            (None, Some(audio)) => audio.line.edge().and_then(|edge| audio.silence.due(edge)),
            (None, None) => None,
        };
        missing.into_iter().chain(gap).min()
    }

    fn apply(&mut self, rendition: RenditionId, cuts: Vec<Cut>) {
        for cut in cuts {
            match cut {
                Cut::Begin {
                    start,
                    is_discontinuity,
                    info,
                } => self.begin(rendition, (start, is_discontinuity), info.as_deref()),
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
                    self.stream
                        .edit(rendition, |window| early = window.end(now, end));
                    (0..early).for_each(|_| self.broadcast.count("hls_gaps_total", "memory"));
                }
            }
        }
    }

    fn begin(
        &mut self,
        rendition: RenditionId,
        (start, is_discontinuity): (MediaTime, bool),
        info: Option<&TrackInfo>,
    ) {
        let clock = self.broadcast.wall(start);
        if rendition == RenditionId::Src || self.video.is_none() {
            self.wall.begin(start, clock, is_discontinuity);
        }
        if rendition == RenditionId::Src {
            self.cut_sound(|line| line.bound(start, is_discontinuity));
        }
        let init = info.map(mp4::init).and_then(|init| {
            init.inspect_err(|err| {
                let error = err as &dyn std::error::Error;
                warn!(error, "cannot write an init section");
            })
            .ok()
        });
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
                wall,
                is_discontinuity,
                is_gap,
            });
        });
    }

    fn part(&mut self, rendition: RenditionId, part: &PartCut) {
        let is_shown = self.video.as_ref().is_some_and(|v| !v.line.is_gap());
        let carries = rendition == RenditionId::Src || !is_shown;
        let news = if carries {
            self.news.carry(part)
        } else {
            Vec::new()
        };
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
                let kind = rendition.name();
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
        let video = video.flatten();
        let audio = self.audio.as_ref().and_then(|a| a.cursor.info());
        let rate = self.broadcast.facts(TrackId::Video).frame_rate;
        let video = video.and_then(|info| match info.shape {
            Shape::Video { width, height } => Some(VideoFacts {
                codecs: mp4::codecs(&info),
                width,
                height,
                frame_rate: rate,
            }),
            Shape::Audio { .. } => None,
        });
        // A variant is its picture and the sound beside it.
        let rates = || {
            let video = self.video.iter().map(|v| &v.rates);
            video.chain(self.audio.iter().map(|a| &a.rates))
        };
        self.stream.set_multivariant(Multivariant {
            video,
            audio_codecs: audio.map(|info| mp4::codecs(&info)),
            peak_bps: rates().map(Rates::peak_bps).sum::<u64>().max(1),
            mean_bps: rates().map(Rates::mean_bps).sum::<u64>().max(1),
        });
    }

    fn rates(&mut self, rendition: RenditionId) -> Option<&mut Rates> {
        match rendition {
            RenditionId::Src => self.video.as_mut().map(|v| &mut v.rates),
            RenditionId::Aac => self.audio.as_mut().map(|a| &mut a.rates),
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
