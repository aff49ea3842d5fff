//! Drives the cutting of one broadcast: rings in, [`Stream`] out.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::feed::VideoFeed;
use super::mp4::{self, Chunk};
use super::news::{self, News};
use super::playlist::{Multivariant, VideoFacts};
use super::rates::Rates;
use super::segmenter::{AudioLine, Cut, PartCut, VideoLine};
use super::stream::{Close, RenditionId, Stream};
use super::wall::WallLine;
use super::window::Opening;
use crate::broadcast::{Broadcast, Cursor, EndReason, Ended, Start};
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
}

#[derive(Debug)]
struct VideoSide {
    feed: VideoFeed,
    line: VideoLine,
    span: Span,
    rates: Rates,
}

#[derive(Debug)]
struct AudioSide {
    cursor: Cursor,
    line: AudioLine,
    span: Span,
    rates: Rates,
}

/// First and newest frame of a track.
#[derive(Debug, Default)]
struct Span(Option<(MediaTime, MediaTime)>);

impl Span {
    fn add(&mut self, t: MediaTime) {
        let (first, newest) = self.0.unwrap_or((t, t));
        self.0 = Some((first, newest.max(t)));
    }

    fn lasts(&self) -> Option<Duration> {
        self.0.map(|(first, newest)| newest.saturating_since(first))
    }
}

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
                span: Span::default(),
                rates: Rates::default(),
            });
            self.stream.show(RenditionId::Src);
        }
        if self
            .broadcast
            .source(Kind::Audio)
            .is_some_and(|i| i.codec == Codec::Aac)
        {
            let cursor = self.broadcast.cursor(TrackId::Audio, Start::OldestKey);
            let line = AudioLine::new(targets, video.is_some());
            self.audio = Some(AudioSide {
                cursor,
                line,
                span: Span::default(),
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
            self.drop_missing();
            self.check_ready();
            let (video, audio) = (&mut self.video, &mut self.audio);
            tokio::select! {
                news = self.cues.next() => self.hear(news?),
                ready = video_ready(video) => ready?,
                ready = audio_ready(audio) => ready?,
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
        if self.news.hear(news).is_some() {
            warn!(broadcast.id = %self.broadcast.key(), "news of a long gap is in no part");
        }
    }

    fn drain_video(&mut self) {
        let now = Instant::now();
        while let Some(fed) = self.video.as_mut().and_then(|v| v.feed.next(now)) {
            self.drain_cues();
            let Some(video) = &mut self.video else { return };
            video.span.add(fed.frame.dts);
            if fed.is_turn {
                video.line.turn();
            }
            if fed.is_after_loss {
                video.line.lose();
            }
            let cuts = video.line.push(fed.frame);
            let known_until = video.line.known_until();
            self.apply(RenditionId::Src, cuts);
            if let Some(known_until) = known_until {
                self.follow(known_until);
            }
        }
    }

    /// The picture has come to `t`.
    fn follow(&mut self, t: MediaTime) {
        self.cut_sound(|line| line.advance(t));
        // Sound that is in its ring is not silent, however late this task runs.
        self.drain_audio();
        let silent_until = t - self.stream.config().gap_after;
        self.cut_sound(|line| line.silence(silent_until));
    }

    fn drain_audio(&mut self) {
        while let Some(audio) = &mut self.audio {
            let Some(delivery) = audio.cursor.try_next() else {
                return;
            };
            audio.span.add(delivery.frame.dts);
            self.cut_sound(|line| line.push(delivery.frame));
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
    fn drop_missing(&mut self) {
        let (Some(video), Some(audio)) = (&self.video, &self.audio) else {
            return;
        };
        match (video.span.lasts(), audio.span.lasts()) {
            (Some(lasts), None) if lasts >= FIRST_WAIT => {
                warn!(broadcast.id = %self.broadcast.key(), "sound was announced, none came");
                self.audio = None;
                self.stream.hide(RenditionId::Aac);
            }
            (None, Some(lasts)) if lasts >= FIRST_WAIT => {
                warn!(broadcast.id = %self.broadcast.key(), "a picture was announced, none came");
                self.video = None;
                self.stream.hide(RenditionId::Src);
                self.cut_sound(AudioLine::lead);
            }
            _ => {}
        }
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
                    self.stream.edit(rendition, |window| window.end(now, end));
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
        let carries = rendition == RenditionId::Src || self.video.is_none();
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
        if self.stream.has_multivariant() || !self.stream.is_ready() {
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
