//! A show with its LL-HLS package, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use lamplight_media::broadcast::{Broadcast, TrackWriter};
use lamplight_media::frame::{Frame, TrackId};
use lamplight_media::hls::{
    Answer, Directives, Held, HlsConfig, Media, Packager, RenditionId, Stream,
};
use lamplight_media::time::MediaTime;
use mp4_atom::{Atom, Decode, DecodeAtom, Header, Moof};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::list::List;
use super::{Form, Show, picture_info};

pub(crate) const INSTANCE: &str = "abcdefghijkl";
pub(crate) const CONFIG: HlsConfig = HlsConfig {
    target_duration: Duration::from_secs(4),
    segment_target: Duration::from_secs(2),
    part_target: Duration::from_millis(500),
    window: Duration::from_secs(40),
    gap_after: Duration::from_secs(2),
};
pub(crate) const BOTH: [RenditionId; 2] = [RenditionId::Src, RenditionId::Aac];

pub(crate) struct Packaged {
    pub(crate) show: Show,
    pub(crate) stream: Arc<Stream>,
    pub(crate) cancel: CancellationToken,
    pub(crate) clean: Option<Converter>,
}

impl Packaged {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test runs the packager beside the publisher"
    )]
    pub(crate) fn of(form: Form) -> Self {
        let show = Show::of(form);
        let stream = Stream::new(INSTANCE, CONFIG, Held::default());
        let packager = Packager::new(show.broadcast(), Arc::clone(&stream));
        let cancel = CancellationToken::new();
        tokio::spawn(packager.run(cancel.clone()));
        Self {
            show,
            stream,
            cancel,
            clean: None,
        }
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
        let (src, aac) = (
            self.list(RenditionId::Src).await,
            self.list(RenditionId::Aac).await,
        );
        for list in [&src, &aac] {
            list.check();
            list.check_that_nothing_is_missing();
        }
        for one in &src.segments {
            let other = aac.segments.iter().find(|s| s.msn == one.msn);
            let Some(other) = other else { continue };
            let says = format!("{}\n{}", src.text, aac.text);
            assert_eq!(one.date, other.date, "segment {}: {says}", one.msn);
            let counts = (src.discontinuities(one.msn), aac.discontinuities(one.msn));
            assert_eq!(counts.0, counts.1, "segment {}: {says}", one.msn);
        }
        [src, aac]
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
                    let from = i128::from(begins_us(&bytes)) - segment.start_ms() * 1_000;
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
fn begins_us(bytes: &[u8]) -> i64 {
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
            let rate = if is_picture { 90_000 } else { 44_100 };
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
            arrived: std::sync::OnceLock::new(),
        });
    }
}
