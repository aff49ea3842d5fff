//! A card is pinned: every way out says the same id at the same T (spec media.md 1.5).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use lamplight_media::cue::{At, CueCursor, CueKind, CueNews, NewCue};
use lamplight_media::hls::{
    Answer, Directives, Held, HlsConfig, Media, Packager, RenditionId, Stream,
};
use lamplight_media::time::MediaTime;
use lamplight_media::webrtc::message::{self, RtpLine, RtpLines};
use mp4_atom::{Atom, Decode, DecodeAtom, Emsg, EmsgTimestamp, Header, Moof};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::Show;

/// The lines of a viewer: its picture's RTP time wraps within the show.
const LINES: RtpLines = RtpLines {
    video: Some(RtpLine {
        rate: 90_000,
        offset: u32::MAX - 200_000,
    }),
    audio: Some(RtpLine {
        rate: 48_000,
        offset: 7,
    }),
};

/// A show on both paths to viewers.
struct Paths {
    show: Show,
    stream: Arc<Stream>,
}

impl Paths {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test runs the packager beside the publisher"
    )]
    fn start() -> Self {
        let show = Show::start(60);
        let config = HlsConfig {
            target_duration: Duration::from_secs(4),
            segment_target: Duration::from_secs(2),
            part_target: Duration::from_millis(500),
            window: Duration::from_secs(40),
            dvr: Duration::ZERO,
            gap_after: Duration::from_secs(2),
            has_rungs: false,
            has_silent_audio: false,
        };
        let stream = Stream::new("abcdefghijkl", config, Held::default());
        let packager = Packager::new(show.broadcast(), Arc::clone(&stream));
        tokio::spawn(packager.run(CancellationToken::new()));
        Self { show, stream }
    }

    async fn run(&mut self, time: Duration) {
        self.show.run(time).await;
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }

    async fn pin(&mut self, at: At, id: &str, kind: CueKind) -> MediaTime {
        let broadcast = self.show.broadcast();
        let cue = NewCue {
            id: id.into(),
            class: "card".into(),
            duration: None,
            kind,
            payload: Bytes::from_static(b"{\"product\":1}"),
        };
        let asked = broadcast.cue(Instant::now(), at, cue);
        let frame = self.show.run(Duration::from_millis(33));
        let (stamped, ()) = tokio::join!(asked, frame);
        stamped.expect("the cue is within its bounds").t
    }

    async fn playlist(&self, rendition: RenditionId) -> String {
        match self.stream.playlist(rendition, Directives::default()).await {
            Answer::Playlist { body, .. } => {
                String::from_utf8(body.plain.to_vec()).expect("a playlist is text")
            }
            other => panic!("{other:?}"),
        }
    }

    /// Every listed part of the picture.
    async fn parts(&self) -> Vec<Part> {
        let list = self.playlist(RenditionId::Src).await;
        let (mut parts, mut date) = (Vec::new(), None);
        for line in list.lines() {
            if let Some(text) = line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:") {
                date = OffsetDateTime::parse(text, &Rfc3339).ok();
            }
            if line.starts_with("#EXT-X-PART:") {
                let name = attribute(line, "URI").expect("a part has an address");
                let Media::Found(bytes) = self.stream.media(RenditionId::Src, name).await else {
                    panic!("{name} is listed")
                };
                parts.push(Part::read(&bytes, date.take()));
            }
        }
        parts
    }
}

/// A part of the picture, as a player reads it.
#[derive(Debug)]
struct Part {
    /// The date of the segment, on its first part.
    date: Option<OffsetDateTime>,
    start_us: i64,
    end_us: i64,
    /// Time and JSON of its event messages.
    events: Vec<(i64, Value)>,
}

impl Part {
    fn read(bytes: &Bytes, date: Option<OffsetDateTime>) -> Self {
        let (mut rest, mut events) = (&bytes[..], Vec::new());
        loop {
            let header = Header::decode(&mut rest).expect("a box");
            if header.kind == Emsg::KIND {
                let event = Emsg::decode_atom(&header, &mut rest).expect("an event message");
                events.push(said(&event));
                continue;
            }
            assert_eq!(
                header.kind,
                Moof::KIND,
                "nothing else precedes the fragment"
            );
            let moof = Moof::decode_atom(&header, &mut rest).expect("a fragment");
            let traf = &moof.traf[0];
            let start = traf.tfdt.as_ref().expect("a time").base_media_decode_time;
            let frames = traf.trun.iter().flat_map(|run| run.samples.iter());
            let length: u64 = frames.filter_map(|f| f.duration).map(u64::from).sum();
            let micros = |ticks: u64| i64::try_from(ticks * 100 / 9).expect("a short show");
            return Self {
                date,
                start_us: micros(start),
                end_us: micros(start + length),
                events,
            };
        }
    }
}

/// The time of an event message, and the JSON in the PRIV frame of its ID3 tag.
fn said(event: &Emsg) -> (i64, Value) {
    assert_eq!(event.timescale, 1_000_000);
    let EmsgTimestamp::Absolute(at) = event.presentation_time else {
        panic!("version 1 has absolute times")
    };
    let json = event.message_data.iter().position(|b| *b == b'{');
    let json = &event.message_data[json.expect("JSON after the owner")..];
    let value = serde_json::from_slice(json).expect("whole JSON");
    (i64::try_from(at).expect("a short show"), value)
}

fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("{name}=\""))?;
    rest.split('"').next()
}

/// What a viewer over WHEP is sent of this news.
fn messages(cues: &mut CueCursor) -> Vec<Value> {
    let news: Vec<CueNews> = std::iter::from_fn(|| cues.try_next()).collect();
    news.iter()
        .map(|n| serde_json::from_str(&message::cue(&LINES, n)).expect("JSON"))
        .collect()
}

/// The message of a cue carries T, and the RTP time at which this viewer sees T.
fn assert_message(message: &Value, kind: &str, id: &str, t: MediaTime) {
    assert_eq!(
        (&message["type"], &message["id"]),
        (&kind.into(), &id.into())
    );
    assert_eq!(message["t_us"], t.as_micros());
    let rtp = |rate: i64, offset: i64| (t.as_micros() * rate / 1_000_000 + offset) % (1 << 32);
    let offset = i64::from(u32::MAX) - 200_000;
    assert_eq!(message["rtp"]["video"], rtp(90_000, offset));
    assert_eq!(message["rtp"]["audio"], rtp(48_000, 7));
}

/// The event is in the one part that holds its time.
fn assert_event(parts: &[Part], kind: &str, id: &str, t: MediaTime) {
    let is_it = |value: &Value| value["type"] == kind && value["id"] == id;
    let carries = |part: &&Part| part.events.iter().any(|(_, value)| is_it(value));
    let carriers: Vec<&Part> = parts.iter().filter(carries).collect();
    let [part] = carriers.as_slice() else {
        panic!("{} parts carry {kind} {id}", carriers.len())
    };
    // Times of pictures are cut to 90 kHz, so a bound is up to one tick early.
    let us = t.as_micros();
    assert!(part.start_us <= us && us < part.end_us + 12, "{part:?}");
    let (at, value) = part
        .events
        .iter()
        .find(|e| is_it(&e.1))
        .expect("found above");
    assert_eq!((*at, &value["t_us"]), (us, &us.into()));
}

/// The date of a range is where T lies from the date of the segment that holds it.
fn assert_range(list: &str, parts: &[Part], id: &str, t: MediaTime) {
    let opens = |line: &&str| attribute(line, "ID") == Some(id) && line.contains("START-DATE");
    let lines: Vec<&str> = list.lines().filter(opens).collect();
    let [line] = lines.as_slice() else {
        panic!("{} ranges of {id} in {list}", lines.len())
    };
    let us = t.as_micros();
    assert_eq!(attribute(line, "X-LAMPLIGHT-T"), Some(&*us.to_string()));
    let holds = |part: &&Part| part.date.is_some() && part.start_us <= us;
    let segment = parts.iter().rev().find(holds).expect("T is in the window");
    let start = attribute(line, "START-DATE").expect("a range begins");
    let start = OffsetDateTime::parse(start, &Rfc3339).expect("a date");
    let dated = start - segment.date.expect("filtered above");
    let apart = dated - time::Duration::microseconds(us - segment.start_us);
    assert!(apart.abs() <= time::Duration::milliseconds(1), "{apart}");
}

#[tokio::test(start_paused = true)]
async fn a_cue_leaves_on_both_paths_with_the_same_id_and_time() {
    let mut paths = Paths::start();
    let mut viewer = paths.show.broadcast().cues();
    paths.run(Duration::from_millis(2_700)).await;
    let ahead = At::Time(MediaTime::from_micros(4_444_321));
    let cases = [
        ("now", At::Now, CueKind::Listed),
        ("ahead", ahead, CueKind::Listed),
        ("news", At::Now, CueKind::Passing),
    ];
    let mut pinned = Vec::new();
    for (id, at, kind) in cases {
        let t = paths.pin(at, id, kind).await;
        pinned.push((id, t, kind));
        paths.run(Duration::from_millis(400)).await;
    }
    paths.run(Duration::from_secs(3)).await;

    let sent = messages(&mut viewer);
    assert_eq!(sent.len(), pinned.len());
    let (list, parts) = (paths.playlist(RenditionId::Src).await, paths.parts().await);
    let sound = paths.playlist(RenditionId::Aac).await;
    for ((id, t, kind), message) in pinned.iter().zip(&sent) {
        assert_message(message, "cue", id, *t);
        assert_event(&parts, "cue", id, *t);
        if *kind == CueKind::Listed {
            assert_range(&list, &parts, id, *t);
            assert_range(&sound, &parts, id, *t);
        } else {
            assert!(!list.contains("ID=\"news\""), "passing cues are not listed");
        }
        let data = message["data"].as_str().expect("text");
        let data = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(data);
        assert_eq!(data.expect("base64url"), b"{\"product\":1}");
    }
    assert_eq!(pinned[1].1, MediaTime::from_micros(4_444_321));
}

#[tokio::test(start_paused = true)]
async fn a_cue_for_now_has_the_time_of_a_picture() {
    let mut paths = Paths::start();
    paths.run(Duration::from_millis(1_300)).await;
    let t = paths.pin(At::Now, "card-1", CueKind::Listed).await;
    let broadcast = paths.show.broadcast();
    let start = lamplight_media::broadcast::Start::OldestKey;
    let mut cursor = broadcast.cursor(lamplight_media::frame::TrackId::Video, start);
    let mut times = std::iter::from_fn(|| cursor.try_next()).map(|d| d.frame.dts);
    assert!(times.any(|dts| dts == t), "{t:?}");
}

/// Who comes later is told what is still open, where it was pinned, and nothing that has passed.
#[tokio::test(start_paused = true)]
async fn late_joiners_get_open_cues_with_the_time_they_were_pinned_at() {
    let mut paths = Paths::start();
    paths.run(Duration::from_millis(1_100)).await;
    let open = paths.pin(At::Now, "open", CueKind::Listed).await;
    paths.pin(At::Now, "news", CueKind::Passing).await;
    paths.pin(At::Now, "closed", CueKind::Listed).await;
    let broadcast = paths.show.broadcast();
    let closed = broadcast.close_cue(Instant::now(), "closed");
    assert!(closed.is_ok());
    paths.run(Duration::from_secs(5)).await;

    let sent = messages(&mut broadcast.cues());
    assert_eq!(sent.len(), 1);
    assert_message(&sent[0], "cue", "open", open);
    let (list, parts) = (paths.playlist(RenditionId::Src).await, paths.parts().await);
    assert_range(&list, &parts, "open", open);

    // The segment that held it has left; the open range stays with its T and its date.
    let date = |list: &str| {
        let line = list.lines().find(|l| attribute(l, "ID") == Some("open"));
        line.map(str::to_owned)
    };
    let before = date(&list);
    paths.run(Duration::from_secs(60)).await;
    let list = paths.playlist(RenditionId::Src).await;
    assert_eq!(date(&list), before);
    assert!(!list.contains("ID=\"closed\""), "no segment overlaps it");
    assert_message(&messages(&mut broadcast.cues())[0], "cue", "open", open);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_cue_leaves_on_both_paths_at_the_same_time() {
    let mut paths = Paths::start();
    let broadcast = paths.show.broadcast();
    let mut viewer = broadcast.cues();
    paths.run(Duration::from_millis(1_100)).await;
    let begun = paths.pin(At::Now, "card-1", CueKind::Listed).await;
    paths.run(Duration::from_millis(1_700)).await;
    let ended = broadcast
        .close_cue(Instant::now(), "card-1")
        .expect("the cue is open");
    paths.run(Duration::from_secs(2)).await;

    let sent = messages(&mut viewer);
    assert_eq!(sent.len(), 2);
    assert_message(&sent[1], "cue_end", "card-1", ended);
    let (list, parts) = (paths.playlist(RenditionId::Src).await, paths.parts().await);
    assert_event(&parts, "cue", "card-1", begun);
    assert_event(&parts, "cue_end", "card-1", ended);
    let dates: Vec<OffsetDateTime> = ["START-DATE", "END-DATE"]
        .iter()
        .filter_map(|name| list.lines().find_map(|line| attribute(line, name)))
        .filter_map(|text| OffsetDateTime::parse(text, &Rfc3339).ok())
        .collect();
    let length = time::Duration::microseconds(ended.micros_since(begun));
    let apart = (dates[1] - dates[0]) - length;
    assert!(apart.abs() <= time::Duration::milliseconds(1), "{apart}");
}

/// A time that is over: the list has the range, late joiners the cue; no part carries an event.
#[tokio::test(start_paused = true)]
async fn a_cue_for_a_time_that_is_over_is_in_no_part() {
    let mut paths = Paths::start();
    paths.run(Duration::from_millis(3_200)).await;
    let mut viewer = paths.show.broadcast().cues();
    let at = MediaTime::from_micros(1_234_567);
    let t = paths.pin(At::Time(at), "past", CueKind::Listed).await;
    paths.pin(At::Time(at), "news", CueKind::Passing).await;
    paths.run(Duration::from_secs(2)).await;
    assert_eq!(t, at);
    let sent = messages(&mut viewer);
    assert_message(&sent[0], "cue", "past", t);
    assert_message(&sent[1], "cue", "news", t);
    let (list, parts) = (paths.playlist(RenditionId::Src).await, paths.parts().await);
    assert_range(&list, &parts, "past", t);
    assert!(parts.iter().all(|p| p.events.is_empty()), "{parts:?}");
}

/// Far more cues ahead than a player keeps are refused, and none that was taken is lost.
#[tokio::test(start_paused = true)]
async fn a_cue_ahead_is_refused_or_carried() {
    let mut paths = Paths::start();
    let broadcast = paths.show.broadcast();
    paths.run(Duration::from_millis(200)).await;
    let mut taken = Vec::new();
    for n in 0..1_100 {
        let cue = NewCue {
            id: format!("c{n}"),
            class: "card".into(),
            duration: None,
            kind: CueKind::Passing,
            payload: Bytes::new(),
        };
        paths.run(Duration::from_millis(1)).await;
        let at = At::Time(MediaTime::from_micros(52_000_000 + n * 100));
        if broadcast.cue(Instant::now(), at, cue).await.is_ok() {
            taken.push(format!("c{n}"));
        }
    }
    assert_eq!(taken.len(), 1_000);
    paths.run(Duration::from_secs(18)).await;
    let parts = paths.parts().await;
    let events = parts.iter().flat_map(|p| &p.events);
    let carried: Vec<&str> = events
        .filter_map(|(_, value)| value["id"].as_str())
        .collect();
    assert_eq!(carried, taken);
}

/// The publisher's clock runs slow, so that the clock of T is slewed all the time: both renditions
/// show the same dates, and a cue far ahead the date of the segment that holds it.
#[tokio::test(start_paused = true)]
async fn dates_agree_while_the_clock_is_slewed() {
    let mut paths = Paths::start();
    paths.show.dawdles_us = 200;
    paths.run(Duration::from_millis(1_500)).await;
    let mut pinned = Vec::new();
    for (n, ahead_us) in [50_000, 4_000_000, 15_000_000].into_iter().enumerate() {
        let at = At::Time(MediaTime::from_micros(1_500_000 + ahead_us));
        let id = format!("c{n}");
        pinned.push((paths.pin(at, &id, CueKind::Listed).await, id));
    }
    for (t, id) in pinned {
        while paths.show.broadcast().now_t(Instant::now()) < t + Duration::from_secs(2) {
            paths.run(Duration::from_millis(500)).await;
        }
        let src = paths.playlist(RenditionId::Src).await;
        let aac = paths.playlist(RenditionId::Aac).await;
        let parts = paths.parts().await;
        assert_range(&src, &parts, &id, t);
        assert_range(&aac, &parts, &id, t);
        let dates = |list: &str| {
            let tag = "#EXT-X-PROGRAM-DATE-TIME:";
            let lines = list.lines().filter(|l| l.starts_with(tag));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let (src, aac) = (dates(&src), dates(&aac));
        let both = src.len().min(aac.len());
        assert!(both > 1 && src[..both] == aac[..both], "{src:?} {aac:?}");
    }
}
