//! What a viewer is sent, in virtual time and without a connection.

mod own_codec;
mod publisher_reconnect;
mod rendition_switch;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::time::{Instant, advance};

use super::playout::{Playout, Wants};
use crate::broadcast::{
    Broadcast, BroadcastKey, Broadcasts, Limits, PublishPolicy, Publisher, Start, TrackWriter,
};
use crate::frame::{Codec, Frame, Kind, Sample, Shape, TrackId, TrackInfo};
use crate::time::{MediaTime, SourceTime};
use crate::webrtc::sdp::Decodes;

const STEP: Duration = Duration::from_micros(33_333);
const STEP_US: i64 = 33_333;
/// Constrained Baseline of 640 x 360.
const AVCC: &[u8] = &[
    1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 10, 0x67, 0x42, 0xc0, 0x1e, 0xda, 2, 0x80, 0xbf, 0xe5,
    0x40, 1, 0, 4, 0x68, 0xce, 0x3c, 0x80,
];
const H264: Decodes = Decodes {
    h264: Some(66),
    own: None,
};
const BOTH: Wants = Wants {
    picture: Some(H264),
    sound: true,
    rendition: None,
};
const PICTURE: Wants = Wants {
    picture: Some(H264),
    sound: false,
    rendition: None,
};

fn picture_info(reorder_frames: u8) -> TrackInfo {
    TrackInfo {
        codec: Codec::H264,
        generation: 0,
        shape: Shape::Video {
            width: 640,
            height: 360,
        },
        config: Bytes::from_static(AVCC),
        reorder_frames: Some(reorder_frames),
    }
}

fn sound_info(codec: Codec) -> TrackInfo {
    TrackInfo {
        codec,
        generation: 0,
        shape: Shape::Audio {
            rate: 48_000,
            channels: 2,
        },
        config: Bytes::from_static(&[0x11, 0x90]),
        reorder_frames: None,
    }
}

/// A publisher, and the converters' places.
struct Show {
    hub: Arc<Broadcasts>,
    broadcast: Arc<Broadcast>,
    publisher: Option<Publisher>,
    clean: Made,
    opus: Made,
    pictures: i64,
    payload: Bytes,
    /// What the publisher's clock was set by.
    restarted_us: i64,
}

/// A made track, written by the test.
struct Made {
    writer: TrackWriter,
    info: Arc<TrackInfo>,
}

impl Made {
    fn write(&self, t_us: i64, is_key: bool) {
        let t = MediaTime::from_micros(t_us);
        let written = self.writer.write(Frame {
            track: self.writer.track(),
            info: Arc::clone(&self.info),
            dts: t,
            pts: t,
            duration: None,
            is_key,
            is_discardable: false,
            discontinuities: 0,
            payload: Bytes::from_static(&[0, 0, 0, 2, 0x41, 1]),
            rtp: OnceLock::new(),
            flv: OnceLock::new(),
            chunks: OnceLock::new(),
            arrived: OnceLock::new(),
        });
        assert!(written, "{t_us} us is new");
    }

    fn is_asked(&self) -> bool {
        self.writer.take_keyframe_request(Instant::now())
    }
}

impl Show {
    /// A picture with or without reordered frames, and sound.
    fn start(reorder_frames: u8) -> Self {
        Self::of(picture_info(reorder_frames))
    }

    /// This picture, and sound.
    fn of(info: TrackInfo) -> Self {
        let mut show = Self::of_sound();
        show.set(info);
        show
    }

    /// The picture's parameters change.
    fn set(&mut self, info: TrackInfo) {
        let set = self.publisher().set_track(Instant::now(), info);
        set.unwrap();
    }

    fn publisher(&mut self) -> &mut Publisher {
        self.publisher.as_mut().unwrap()
    }

    /// The publisher's connection breaks.
    fn leave(&mut self) {
        self.publisher = None;
    }

    /// It comes back, or another takes over, with a clock that begins at zero.
    fn come_back(&mut self) {
        self.publisher = Some(publish(&self.hub));
        self.pictures = 0;
        let now = Instant::now();
        self.publisher().set_track(now, picture_info(0)).unwrap();
    }

    fn of_sound() -> Self {
        let hub = Broadcasts::new(Limits::default());
        let publisher = publish(&hub);
        let made = |track, info| {
            let writer = publisher.broadcast().made(track);
            let info = writer.set_info(info);
            Made { writer, info }
        };
        Self {
            clean: made(TrackId::Clean, picture_info(0)),
            opus: made(TrackId::Opus, sound_info(Codec::Opus)),
            hub,
            broadcast: Arc::clone(publisher.broadcast()),
            publisher: Some(publisher),
            pictures: 0,
            payload: Bytes::from_static(&[0, 0, 0, 2, 0x41, 1]),
            restarted_us: 0,
        }
    }

    fn broadcast(&self) -> &Arc<Broadcast> {
        &self.broadcast
    }

    fn viewer(&self, wants: Wants) -> Playout {
        Playout::new(self.broadcast(), wants)
    }

    /// The publisher's next picture, a keyframe each `gop`.
    fn picture(&mut self, gop: i64) {
        let is_key = self.pictures % gop == 0;
        self.write(is_key, Duration::ZERO, false);
    }

    fn write(&mut self, is_key: bool, composition: Duration, is_discardable: bool) {
        let n = self.pictures;
        self.pictures += 1;
        let sample = Sample {
            kind: Kind::Video,
            dts: SourceTime::from_micros(n * STEP_US + self.restarted_us),
            composition,
            samples: 0,
            is_key,
            is_discardable,
            payload: self.payload.clone(),
        };
        self.publisher().write(Instant::now(), sample);
    }

    /// So many pictures, each in its time.
    async fn run(&mut self, pictures: i64, gop: i64) {
        for _ in 0..pictures {
            self.picture(gop);
            advance(STEP).await;
        }
    }
}

fn publish(hub: &Arc<Broadcasts>) -> Publisher {
    let now = Instant::now();
    let at = (now, OffsetDateTime::UNIX_EPOCH);
    let joined = hub.join(BroadcastKey::new("room_1"), at, PublishPolicy::default());
    let mut publisher = joined.unwrap();
    publisher.set_track(now, sound_info(Codec::Aac)).unwrap();
    publisher
}

/// Everything that may go now: track and decode time in microseconds.
fn all(viewer: &mut Playout) -> Vec<(TrackId, i64)> {
    let mut out = Vec::new();
    while let Some(frame) = viewer.next(Instant::now()) {
        out.push((frame.track, frame.dts.as_micros()));
    }
    out
}

fn pictures(viewer: &mut Playout) -> Vec<i64> {
    let all = all(viewer).into_iter();
    let pictures = all.filter(|(track, _)| track.kind() == Kind::Video);
    pictures.map(|(_, dts)| dts).collect()
}

/// The encoder is two seconds late, which is more than a keyframe may be old: its newest one is
/// fresh all the same.
#[tokio::test(start_paused = true)]
async fn a_late_encoder_loses_no_viewer() {
    for wants in [BOTH, PICTURE] {
        let mut show = Show::start(2);
        show.run(60, 15).await;
        show.clean.write(0, true);
        show.clean.write(STEP_US, false);
        let mut viewer = show.viewer(wants);
        assert_eq!(pictures(&mut viewer), [0, STEP_US]);
        show.clean.write(2 * STEP_US, false);
        assert_eq!(pictures(&mut viewer), [2 * STEP_US]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_keyframe_of_an_encoder_is_not_shown_and_a_new_one_is_asked_for_once() {
    for wants in [BOTH, PICTURE] {
        let mut show = Show::start(2);
        show.run(1, 15).await;
        for n in 0..60 {
            show.clean.write(n * STEP_US, n == 0);
            advance(STEP).await;
        }
        let mut viewer = show.viewer(wants);
        assert_eq!(pictures(&mut viewer), [0; 0]);
        assert!(show.clean.is_asked());
        show.clean.write(60 * STEP_US, false);
        assert_eq!(pictures(&mut viewer), [0; 0]);
        advance(Duration::from_secs(1)).await;
        assert!(!show.clean.is_asked(), "once is enough");
        show.clean.write(61 * STEP_US, true);
        show.clean.write(62 * STEP_US, false);
        assert_eq!(pictures(&mut viewer), [61 * STEP_US, 62 * STEP_US]);
    }
}

/// The ring's old frames are no reason to wait: they are not for this viewer.
#[tokio::test(start_paused = true)]
async fn the_keyframe_that_was_asked_for_goes_at_once() {
    let mut show = Show::start(2);
    show.run(1, 15).await;
    for n in 0..60 {
        show.clean.write(n * STEP_US, n == 0);
    }
    let mut viewer = show.viewer(PICTURE);
    assert_eq!(pictures(&mut viewer), [0; 0]);
    show.clean.write(60 * STEP_US, true);
    assert_eq!(pictures(&mut viewer), [60 * STEP_US]);
}

/// A group of two seconds at two and a half times its speed, whatever the sound does meanwhile.
#[tokio::test(start_paused = true)]
async fn a_new_viewer_catches_up_at_its_pace_although_the_sound_begins() {
    let mut show = Show::start(0);
    show.run(60, 60).await;
    let mut viewer = show.viewer(BOTH);
    assert_eq!(pictures(&mut viewer), [0]);
    // The converter of the sound is cold: its first packets are its newest.
    let mut sent = 1;
    for n in 0..50 {
        show.opus.write(n * 20_000, true);
        sent += pictures(&mut viewer).len();
        advance(Duration::from_millis(10)).await;
        let due = 10 * (n + 1) * 5 / 2 * 1_000 / STEP_US + 1;
        let due = usize::try_from(due).unwrap();
        assert!(sent <= due, "{sent} pictures after {} ms", 10 * (n + 1));
    }
    for _ in 0..60 {
        advance(Duration::from_millis(10)).await;
        sent += pictures(&mut viewer).len();
    }
    assert_eq!(sent, 60);
}

#[tokio::test(start_paused = true)]
async fn the_sound_begins_where_the_picture_does() {
    let mut show = Show::start(0);
    show.run(60, 30).await;
    for n in 0..100 {
        show.opus.write(n * 20_000, true);
    }
    let mut viewer = show.viewer(BOTH);
    let mut got = all(&mut viewer);
    for _ in 0..200 {
        advance(Duration::from_millis(10)).await;
        got.extend(all(&mut viewer));
    }
    let first = |track| got.iter().find(|(t, _)| *t == track).map(|(_, dts)| *dts);
    assert_eq!(first(TrackId::Video), Some(30 * STEP_US));
    assert_eq!(first(TrackId::Opus), Some(1_000_000));
    assert_eq!(got.len(), 30 + 50);
}

#[tokio::test(start_paused = true)]
async fn a_player_that_wants_both_hears_a_show_without_a_picture() {
    let show = Show::of_sound();
    show.opus.write(0, true);
    let mut viewer = show.viewer(BOTH);
    assert_eq!(all(&mut viewer), [], "it begins with what comes next");
    for n in 1..5 {
        show.opus.write(n * 20_000, true);
        assert_eq!(all(&mut viewer), [(TrackId::Opus, n * 20_000)]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_sound_waits_a_second_for_the_picture_and_no_longer() {
    let show = Show::start(2);
    let mut viewer = show.viewer(BOTH);
    show.opus.write(0, true);
    assert_eq!(all(&mut viewer), []);
    let due = viewer.due().unwrap();
    assert_eq!(due - Instant::now(), Duration::from_secs(1));
    advance(due - Instant::now()).await;
    assert_eq!(all(&mut viewer), []);
    show.opus.write(20_000, true);
    assert_eq!(all(&mut viewer), [(TrackId::Opus, 20_000)]);
    // The picture comes after all, from before the sound.
    show.clean.write(0, true);
    assert_eq!(all(&mut viewer), [(TrackId::Clean, 0)]);
}

/// Two seconds of pictures that came at once are not a slow viewer's fault.
#[tokio::test(start_paused = true)]
async fn a_burst_of_the_publisher_is_paced_and_nothing_is_skipped() {
    let mut show = Show::start(0);
    let mut viewer = show.viewer(PICTURE);
    show.run(1, 30).await;
    assert_eq!(pictures(&mut viewer), [0]);
    advance(Duration::from_secs(2)).await;
    (0..60).for_each(|_| show.picture(30));
    let mut sent = pictures(&mut viewer).len();
    assert_eq!(sent, 1, "not all at once");
    while viewer.due().is_some() {
        let now = Instant::now();
        advance(viewer.due().unwrap() - now).await;
        let count = pictures(&mut viewer).len();
        assert!(count <= 1);
        sent += count;
    }
    assert_eq!((sent, viewer.skipped()), (60, 0));
}

/// It could not be sent anything for a while: it goes on at the newest keyframe, and each picture
/// between is counted.
#[tokio::test(start_paused = true)]
async fn a_viewer_that_could_not_be_sent_to_jumps_and_every_skipped_picture_counts() {
    let mut show = Show::start(0);
    show.run(1, 15).await;
    let mut viewer = show.viewer(PICTURE);
    assert_eq!(pictures(&mut viewer), [0]);
    show.picture(15);
    show.picture(15);
    let next = viewer.next(Instant::now()).unwrap();
    assert_eq!(next.dts.as_micros(), STEP_US);
    // The socket takes nothing for 600 ms.
    show.run(18, 15).await;
    let sent = pictures(&mut viewer);
    assert_eq!(sent.first(), Some(&(15 * STEP_US)));
    assert_eq!(sent.len(), 6);
    assert_eq!(viewer.skipped(), 13);
}

#[tokio::test(start_paused = true)]
async fn a_slow_viewer_with_no_newer_keyframe_loses_nothing_and_asks_for_one() {
    let mut show = Show::start(2);
    show.run(1, 15).await;
    show.clean.write(0, true);
    let mut viewer = show.viewer(PICTURE);
    assert_eq!(pictures(&mut viewer), [0]);
    show.clean.write(STEP_US, false);
    show.clean.write(2 * STEP_US, false);
    assert!(viewer.next(Instant::now()).is_some());
    advance(Duration::from_millis(600)).await;
    show.clean.write(3 * STEP_US, false);
    assert_eq!(pictures(&mut viewer), [2 * STEP_US, 3 * STEP_US]);
    assert!(show.clean.is_asked());
    assert_eq!(viewer.skipped(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_viewer_whose_picture_or_sound_cannot_be_made_is_sent_away() {
    for is_picture in [true, false] {
        let show = Show::start(2);
        let mut viewer = show.viewer(BOTH);
        assert_eq!(all(&mut viewer), []);
        assert_eq!(viewer.check(Instant::now()), None);
        let made = if is_picture { &show.clean } else { &show.opus };
        made.writer.set_unavailable(Some("no_encoder"));
        advance(Duration::from_secs(1)).await;
        assert_eq!(viewer.check(Instant::now()), Some("unavailable"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_viewer_of_the_source_does_not_care_whether_clean_can_be_made() {
    let mut show = Show::start(0);
    show.clean.writer.set_unavailable(Some("no_encoder"));
    let mut viewer = show.viewer(PICTURE);
    show.run(90, 30).await;
    assert!(!pictures(&mut viewer).is_empty());
    assert_eq!(viewer.check(Instant::now()), None);
}

/// Pictures come and none of them is a keyframe it could begin with.
#[tokio::test(start_paused = true)]
async fn a_viewer_without_a_keyframe_for_15_s_of_pictures_is_sent_away() {
    let mut show = Show::start(2);
    let mut viewer = show.viewer(PICTURE);
    let mut told = None;
    for n in 0..30 * 20 {
        show.picture(15);
        show.clean.write(n * STEP_US, false);
        assert_eq!(all(&mut viewer), []);
        let reason = viewer.check(Instant::now());
        told = told.or_else(|| reason.map(|reason| (n, reason)));
        advance(STEP).await;
    }
    let (n, reason) = told.unwrap();
    assert_eq!(reason, "too_slow");
    assert!((15 * 30..17 * 30).contains(&n), "after {n} pictures");
}

#[tokio::test(start_paused = true)]
async fn a_viewer_stays_while_the_publisher_is_away_however_long_that_is() {
    let mut show = Show::start(0);
    let mut viewer = show.viewer(PICTURE);
    show.run(40, 30).await;
    assert!(!pictures(&mut viewer).is_empty());
    for _ in 0..120 {
        advance(Duration::from_millis(500)).await;
        assert_eq!(all(&mut viewer), []);
        assert_eq!(viewer.check(Instant::now()), None);
    }
    for _ in 0..40 {
        show.picture(30);
        assert_eq!(pictures(&mut viewer).len(), 1);
        assert_eq!(viewer.check(Instant::now()), None);
        advance(STEP).await;
    }
}

/// Another encoder's pictures refer to what this viewer never got.
#[tokio::test(start_paused = true)]
async fn behind_a_discontinuity_the_source_goes_on_at_a_keyframe() {
    let mut show = Show::start(0);
    show.run(10, 30).await;
    let mut viewer = show.viewer(PICTURE);
    assert_eq!(pictures(&mut viewer).len(), 10);
    show.restarted_us = -3_600_000_000;
    show.run(5, 30).await;
    assert_eq!(pictures(&mut viewer), [0; 0]);
    show.write(true, Duration::ZERO, false);
    show.write(false, Duration::ZERO, false);
    assert_eq!(pictures(&mut viewer).len(), 2);
    assert_eq!(viewer.skipped(), 5);
}

/// Plays a source and its `clean`, which is as late as a real one, picture by picture.
struct Relay {
    show: Show,
    /// How many pictures `clean` is behind.
    late: i64,
    made: i64,
    has_key: bool,
}

impl Relay {
    fn new(show: Show, late: i64) -> Self {
        Self {
            show,
            late,
            made: 0,
            has_key: false,
        }
    }

    /// What `clean` makes of the pictures so far, as its encoder would.
    fn convert(&mut self) {
        if self.show.broadcast().users(TrackId::Clean) == 0 {
            self.made = self.show.pictures;
            return;
        }
        while self.made + self.late < self.show.pictures {
            let t = self.made * STEP_US;
            self.made += 1;
            let writer = &self.show.clean.writer;
            let now = Instant::now();
            let is_asked = writer.take_keyframe_request_at(now, MediaTime::from_micros(t));
            self.show.clean.write(t, is_asked || !self.has_key);
            self.has_key = true;
        }
    }
}

/// Presentation times never go back, and none is shown twice.
fn check_order(shown: &[(TrackId, i64)]) {
    let is_forward = shown.windows(2).all(|pair| pair[0].1 < pair[1].1);
    assert!(is_forward, "{shown:?}");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_begins_to_reorder_is_left_for_clean_without_going_back() {
    let show = Show::start(0);
    let mut viewer = show.viewer(PICTURE);
    let mut relay = Relay::new(show, 4);
    let mut shown = Vec::new();
    for n in 0..120 {
        let (reorders, is_b) = (n >= 30, n >= 30 && n % 3 != 0);
        let composition = match (reorders, is_b) {
            (true, false) => STEP * 3,
            (true, true) => STEP,
            (false, _) => Duration::ZERO,
        };
        relay.show.write(n % 30 == 0, composition, is_b);
        relay.convert();
        while let Some(frame) = viewer.next(Instant::now()) {
            shown.push((frame.track, frame.pts.as_micros()));
        }
        advance(STEP).await;
    }
    check_order(&shown);
    let first = shown
        .iter()
        .position(|(t, _)| *t == TrackId::Clean)
        .unwrap();
    assert!(shown[first..].iter().all(|(t, _)| *t == TrackId::Clean));
    let (before, after) = (shown[first - 1].1, shown[first].1);
    assert!(
        after - before <= 2 * STEP_US,
        "a gap of {} us",
        after - before
    );
    assert!(shown.len() > 85, "{} pictures", shown.len());
}

/// Nobody can know in its first seconds that the group will be long.
#[tokio::test(start_paused = true)]
async fn a_source_whose_group_turns_out_long_is_left_for_clean_without_going_back() {
    let mut show = Show::start(0);
    show.run(15, 250).await;
    let mut viewer = show.viewer(PICTURE);
    let mut relay = Relay::new(show, 4);
    let mut shown = Vec::new();
    for _ in 0..200 {
        relay.show.picture(250);
        relay.convert();
        shown.extend(all(&mut viewer));
        assert_eq!(viewer.check(Instant::now()), None);
        advance(STEP).await;
    }
    check_order(&shown);
    let source = shown.iter().filter(|(t, _)| *t == TrackId::Video).count();
    assert!(
        (75..130).contains(&source),
        "{source} pictures of the source"
    );
    assert_eq!(shown.last().unwrap().0, TrackId::Clean);
    let steps = shown.windows(2).map(|w| w[1].1 - w[0].1);
    assert!(steps.into_iter().all(|us| us <= 2 * STEP_US));
}

#[tokio::test(start_paused = true)]
async fn a_lost_picture_of_a_source_waits_for_a_keyframe_that_is_near_and_no_other() {
    for (gop, is_left) in [(60, false), (85, true)] {
        let mut show = Show::start(0);
        show.run(2 * gop + 2, gop).await;
        let mut viewer = show.viewer(PICTURE);
        assert!(!pictures(&mut viewer).is_empty());
        viewer.request_keyframe();
        let users = show.broadcast().users(TrackId::Clean);
        assert_eq!(users, usize::from(is_left), "keyframes each {gop} pictures");
    }
}

/// What an encoder made before it was stopped is of another time.
#[tokio::test(start_paused = true)]
async fn frames_from_before_an_encoder_was_stopped_are_not_shown() {
    let mut show = Show::start(2);
    show.run(1, 15).await;
    show.clean.write(0, true);
    show.clean.writer.clear();
    show.run(600, 15).await;
    let mut viewer = show.viewer(PICTURE);
    assert_eq!(pictures(&mut viewer), [0; 0]);
    show.clean.write(600 * STEP_US, true);
    assert_eq!(pictures(&mut viewer), [600 * STEP_US]);
}
