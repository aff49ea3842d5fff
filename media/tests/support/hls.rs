//! A show with its LL-HLS package, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use lamplight_media::broadcast::{Broadcast, Cursor, Start, TrackWriter};
use lamplight_media::frame::{Frame, TrackId};
use lamplight_media::hls::{
    Answer, Directives, Held, HlsConfig, Media, Packager, RenditionId, Stream,
};
use lamplight_media::record::Recorder;
use lamplight_media::time::MediaTime;
use mp4_atom::{Atom, Decode, DecodeAtom, Header, Moof};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::list::List;
use super::{Form, Show, picture_info, sound_info};

pub(crate) const INSTANCE: &str = "abcdefghijkl";
pub(crate) const CONFIG: HlsConfig = HlsConfig {
    target_duration: Duration::from_secs(4),
    segment_target: Duration::from_secs(2),
    part_target: Duration::from_millis(500),
    window: Duration::from_secs(40),
    dvr: Duration::ZERO,
    gap_after: Duration::from_secs(2),
    has_rungs: false,
    has_silent_audio: false,
};
pub(crate) const BOTH: [RenditionId; 2] = [RenditionId::Src, RenditionId::Aac];

pub(crate) struct Packaged {
    pub(crate) show: Show,
    pub(crate) stream: Arc<Stream>,
    pub(crate) cancel: CancellationToken,
    pub(crate) clean: Option<Converter>,
    pub(crate) silence: Option<Silence>,
    pub(crate) rung: Option<Rung>,
}

impl Packaged {
    pub(crate) fn with(show: Show, config: HlsConfig) -> Self {
        Self::begin(show, config, |packager| packager)
    }

    /// A show that is recorded too.
    pub(crate) fn recorded(show: Show, config: HlsConfig, recorder: Recorder) -> Self {
        Self::begin(show, config, |packager| packager.recorded(recorder))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a test runs the packager beside the publisher"
    )]
    fn begin(show: Show, config: HlsConfig, more: impl FnOnce(Packager) -> Packager) -> Self {
        let stream = Stream::new(INSTANCE, config, Held::default());
        let packager = more(Packager::new(show.broadcast(), Arc::clone(&stream)));
        let cancel = CancellationToken::new();
        tokio::spawn(packager.run(cancel.clone()));
        Self {
            show,
            stream,
            cancel,
            clean: None,
            silence: None,
            rung: None,
        }
    }

    pub(crate) fn of(form: Form) -> Self {
        Self::with(Show::of(form), CONFIG)
    }

    /// 30 pictures a second, a keyframe every two seconds.
    pub(crate) fn start() -> Self {
        Self::of(Form { gop: 60, rate: 30 })
    }

    /// Lets the show run; the packager keeps up with it, picture by picture.
    pub(crate) async fn run(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.show.step();
            if let Some(clean) = &mut self.clean {
                clean.step();
            }
            if let Some(silence) = &mut self.silence {
                silence.step();
            }
            if let Some(rung) = &mut self.rung {
                rung.step();
            }
            settle().await;
            tokio::time::advance(self.show.picture_length()).await;
        }
    }

    /// Time passes and nothing is sent.
    pub(crate) async fn wait(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            tokio::time::advance(Duration::from_millis(10)).await;
            settle().await;
        }
    }

    pub(crate) async fn answer(&self, rendition: RenditionId, query: &str) -> Answer {
        let directives = Directives::parse(query).expect("good directives");
        self.stream.playlist(rendition, directives).await
    }

    pub(crate) async fn list(&self, rendition: RenditionId) -> List {
        List::read(&text(&self.answer(rendition, "").await))
    }

    /// Both lists, each checked by itself and against the other.
    pub(crate) async fn lists(&self) -> [List; 2] {
        let lists = [
            self.list(RenditionId::Src).await,
            self.list(RenditionId::Aac).await,
        ];
        for list in &lists {
            list.check();
            list.check_that_nothing_is_missing();
        }
        lists[0].check_beside(&lists[1]);
        lists
    }

    /// Everything listed of a rendition, fetched and read: parts make the segment, and its first
    /// frame lies in it, as long as T and the time of day are one.
    pub(crate) async fn media_of(&self, rendition: RenditionId) {
        let list = self.list(rendition).await;
        let is_one = list.discontinuity_sequence == 0 && list.breaks().is_empty();
        for segment in &list.segments {
            let mut joined = Vec::new();
            for part in &segment.parts {
                let media = self.media(rendition, &part.uri).await;
                match (media, part.is_gap) {
                    (Media::Found(bytes), false) => joined.extend_from_slice(&bytes),
                    (Media::NotFound, true) => {}
                    (media, _) => panic!("{} of {part:?}: {media:?}", segment.msn),
                }
            }
            let Some(uri) = &segment.uri else { continue };
            match (self.media(rendition, uri).await, segment.is_gap) {
                (Media::Found(bytes), false) => {
                    assert!(segment.parts.is_empty() || bytes == joined, "{uri}");
                    let from = i128::from(begins_us(&bytes, self.show.sound_rate()))
                        - segment.start_ms() * 1_000;
                    let lasts = segment.duration.expect("complete").as_micros();
                    let lasts = i128::try_from(lasts).expect("short");
                    assert!(
                        !is_one || (-24_000..lasts).contains(&from),
                        "{uri}: {from} {}",
                        list.text
                    );
                }
                (Media::NotFound, true) => {}
                (media, _) => panic!("{uri}: {media:?}"),
            }
        }
    }

    /// T of the first frame of a listed segment, in microseconds.
    pub(crate) async fn begins_us(&self, rendition: RenditionId, list: &List, msn: u64) -> i64 {
        let segment = list.segments.iter().find(|s| s.msn == msn).expect("listed");
        let uri = segment.uri.as_ref().expect("complete");
        match self.media(rendition, uri).await {
            Media::Found(bytes) => begins_us(&bytes, self.show.sound_rate()),
            other => panic!("{uri}: {other:?}"),
        }
    }

    pub(crate) async fn media(&self, rendition: RenditionId, uri: &str) -> Media {
        self.stream.media(rendition, uri).await
    }
}

/// Lets the packager do what there is to do.
pub(crate) async fn settle() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn text(answer: &Answer) -> String {
    match answer {
        Answer::Playlist { body, .. } => {
            String::from_utf8(body.plain.to_vec()).expect("a playlist is text")
        }
        other => panic!("{other:?}"),
    }
}

/// The T at which the first fragment begins, in microseconds.
fn begins_us(bytes: &[u8], sound_rate: i64) -> i64 {
    let mut rest = bytes;
    loop {
        let header = Header::decode(&mut rest).expect("a box");
        if header.kind == Moof::KIND {
            let moof = Moof::decode_atom(&header, &mut rest).expect("a fragment");
            let traf = &moof.traf[0];
            let ticks = traf.tfdt.as_ref().expect("a time").base_media_decode_time;
            // Sound has no composition offsets.
            let is_picture = traf
                .trun
                .iter()
                .flat_map(|t| t.samples.iter())
                .any(|s| s.cts.is_some());
            let rate = if is_picture {
                90_000
            } else {
                u32::try_from(sound_rate).expect("a rate")
            };
            return MediaTime::from_ticks(i64::try_from(ticks).expect("a time"), rate).as_micros();
        }
        rest = &rest[header.size.unwrap_or(0)..];
    }
}

/// Stands in for the converter of `clean`: starts at the first keyframe of the source when somebody
/// reads, works faster than real time, keeps its keyframes on a grid of two seconds.
pub(crate) struct Converter {
    broadcast: Arc<Broadcast>,
    pub(crate) writer: TrackWriter,
    rate: i64,
    next: i64,
    ready: i64,
    /// Where the encoder's clock lies on T, and the discontinuities before.
    offset: (i64, u32),
    /// Pictures between the newest of the source and the newest made.
    pub(crate) lag: i64,
    pub(crate) is_running: bool,
}

impl Converter {
    pub(crate) fn beside(show: &Show) -> Self {
        Self {
            broadcast: show.broadcast(),
            writer: show.broadcast().made(TrackId::Clean),
            rate: show.form.rate,
            next: 0,
            ready: 0,
            offset: (0, 0),
            lag: 3,
            is_running: true,
        }
    }

    /// The source came back, after so many discontinuities of T: from its first picture on.
    pub(crate) fn come_back(&mut self, discontinuities: u32) {
        let now = self.broadcast.now_t(Instant::now()).as_micros();
        self.offset = (now, discontinuities);
        (self.next, self.ready, self.is_running) = (0, 0, true);
    }

    /// Called once for each picture of the source.
    fn step(&mut self) {
        self.ready += 1;
        if self.broadcast.users(TrackId::Clean) == 0 || !self.is_running {
            return;
        }
        for _ in 0..5 {
            if self.next + self.lag < self.ready {
                self.make();
            }
        }
    }

    fn make(&mut self) {
        let (n, rate) = (self.next, self.rate);
        self.next += 1;
        let t = MediaTime::from_micros(self.offset.0 + n * 1_000 / rate * 1_000);
        let info = self.writer.set_info(picture_info());
        self.writer.write(Frame {
            track: TrackId::Clean,
            info,
            dts: t,
            pts: t,
            duration: None,
            is_key: n % (2 * rate) == 0,
            is_discardable: false,
            discontinuities: self.offset.1,
            payload: bytes::Bytes::from_static(&[0, 0, 0, 3, 0x65, 1, 2]),
            rtp: std::sync::OnceLock::new(),
            flv: std::sync::OnceLock::new(),
            chunks: std::sync::OnceLock::new(),
            arrived: std::sync::OnceLock::new(),
        });
    }
}

/// Stands in for the converter of `aac` that makes silence as long as the picture.
pub(crate) struct Silence {
    broadcast: Arc<Broadcast>,
    writer: TrackWriter,
    next: i64,
}

impl Silence {
    pub(crate) fn beside(show: &Show) -> Self {
        Self {
            broadcast: show.broadcast(),
            writer: show.broadcast().made(TrackId::Aac),
            next: 0,
        }
    }

    /// Called once for each picture of the source.
    fn step(&mut self) {
        let until = self.broadcast.newest_dts(TrackId::Video);
        let t = |n: i64| MediaTime::from_ticks(n * 1_024, 48_000);
        while self.broadcast.users(TrackId::Aac) > 0 && until.is_some_and(|end| t(self.next) < end)
        {
            let info = self.writer.set_info(sound_info(48_000));
            self.writer.write(Frame {
                track: TrackId::Aac,
                info,
                dts: t(self.next),
                pts: t(self.next),
                duration: Some(Duration::from_micros(21_333)),
                is_key: true,
                is_discardable: false,
                discontinuities: 0,
                payload: bytes::Bytes::from_static(&[0x21, 0x10, 0x04]),
                rtp: std::sync::OnceLock::new(),
                flv: std::sync::OnceLock::new(),
                chunks: std::sync::OnceLock::new(),
                arrived: std::sync::OnceLock::new(),
            });
            self.next += 1;
        }
    }
}

/// Stands in for the converter of a rung: pictures and keyframes of the source at their T, from the
/// next keyframe on when somebody reads.
pub(crate) struct Rung {
    broadcast: Arc<Broadcast>,
    pub(crate) writer: TrackWriter,
    source: Option<Cursor>,
    /// Pictures between the newest of the source and the newest made.
    pub(crate) lag: usize,
    waiting: std::collections::VecDeque<Arc<Frame>>,
    pub(crate) is_running: bool,
}

impl Rung {
    pub(crate) fn beside(show: &Show, lines: u16) -> Self {
        Self {
            broadcast: show.broadcast(),
            writer: show.broadcast().made(TrackId::Rung(lines)),
            source: None,
            lag: 3,
            waiting: std::collections::VecDeque::new(),
            is_running: true,
        }
    }

    /// Called once for each picture of the source.
    fn step(&mut self) {
        if self.broadcast.users(self.writer.track()) == 0 || !self.is_running {
            self.source = None;
            self.waiting.clear();
            return;
        }
        let live = || self.broadcast.cursor(TrackId::Video, Start::Live);
        let source = self.source.get_or_insert_with(live);
        while let Some(delivery) = source.try_next() {
            self.waiting.push_back(delivery.frame);
        }
        while self.waiting.len() > self.lag {
            let frame = self.waiting.pop_front().expect("there is one");
            self.writer.write(Frame {
                track: self.writer.track(),
                info: self.writer.set_info(picture_info()),
                dts: frame.pts,
                pts: frame.pts,
                duration: None,
                is_key: frame.is_key,
                is_discardable: false,
                discontinuities: frame.discontinuities,
                payload: frame.payload.clone(),
                rtp: std::sync::OnceLock::new(),
                flv: std::sync::OnceLock::new(),
                chunks: std::sync::OnceLock::new(),
                arrived: std::sync::OnceLock::new(),
            });
        }
    }
}
