//! Each row of the table: a stream that has the condition, and one that has not.

use bytes::Bytes;

use super::*;
use crate::frame::Shape;
use crate::time::micros;

const SECOND: Duration = Duration::from_secs(1);
const FRAME: Duration = Duration::from_micros(33_333);

/// How a stream differs from a good one.
#[derive(Clone, Copy)]
struct Show {
    seconds: u32,
    /// Frames between keyframes, in turn.
    gops: &'static [u32],
    is_reordered: bool,
    frame_bytes: usize,
    /// One picture of so many is left out.
    leaves_out: Option<u32>,
    /// Sound arrives so much later than its picture.
    sound_later: Duration,
    has_sound: bool,
    has_picture: bool,
    /// Added to each arrival: `(every n-th frame, by how much)`.
    stall: Option<(u32, Duration)>,
    /// How much faster the publisher's clock runs.
    drift_ppm: i64,
}

const GOOD: Show = Show {
    seconds: 40,
    gops: &[60],
    is_reordered: false,
    frame_bytes: 10_000,
    leaves_out: None,
    sound_later: Duration::ZERO,
    has_sound: true,
    has_picture: true,
    stall: None,
    drift_ppm: 0,
};

const LIMIT_BPS: u64 = 4_000_000;

impl Show {
    /// Plays a part of a show that began at `epoch`; gives the time at which it is over.
    fn play(self, epoch: Instant, from: Duration, doctor: &mut Doctor) -> Instant {
        let mut now = epoch;
        let (mut gop, mut left) = (0, 0);
        for n in 0..self.seconds * 30 {
            let media = from + FRAME * n;
            let t = micros(media) * (1_000_000 + self.drift_ppm) / 1_000_000;
            let late = self.stall.filter(|(every, _)| n % every == every - 1);
            let arrives = epoch + media + late.map_or(Duration::ZERO, |(_, by)| by);
            now = now.max(arrives);
            let is_key = left == 0;
            if is_key {
                left = self.gops[gop % self.gops.len()];
                gop += 1;
            }
            left -= 1;
            let is_left_out = self.leaves_out.is_some_and(|of| n % of == of - 1);
            let seen = Seen {
                kind: Kind::Video,
                t: MediaTime::from_micros(t),
                elapsed_us: micros(now - epoch),
                is_reordered: self.is_reordered && n % 3 == 1,
                is_key,
                bytes: self.frame_bytes,
                is_reanchored: false,
            };
            if self.has_picture && !is_left_out {
                doctor.observe(now, &seen);
            }
            if self.has_sound {
                let sound = Seen {
                    kind: Kind::Audio,
                    elapsed_us: seen.elapsed_us + micros(self.sound_later),
                    is_reordered: false,
                    bytes: 300,
                    ..seen
                };
                doctor.observe(now, &sound);
            }
            if doctor.is_due(now) {
                doctor.look(now);
            }
        }
        now
    }

    fn verdicts(self) -> Vec<Code> {
        let mut doctor = Doctor::new();
        doctor.expect(LIMIT_BPS, false);
        self.play(Instant::now(), Duration::ZERO, &mut doctor);
        doctor
            .verdicts()
            .iter()
            .map(|verdict| verdict.code)
            .collect()
    }
}

/// What makes a good stream another.
type Fault = fn(&mut Show);

/// A good stream but for one thing.
fn but(change: Fault) -> Show {
    let mut show = GOOD;
    change(&mut show);
    show
}

#[tokio::test(start_paused = true)]
async fn a_good_stream_has_no_verdict() {
    let rows: [(&str, Fault); 7] = [
        ("as it is", |_| {}),
        ("keyframes just close enough", |s| s.gops = &[90]),
        ("short groups of any length", |s| s.gops = &[29, 12]),
        ("one picture of a hundred left out", |s| {
            s.leaves_out = Some(100)
        }),
        ("two stalls of a second", |s| s.stall = Some((600, SECOND))),
        ("a clock slow as most are", |s| {
            (s.seconds, s.drift_ppm) = (780, -50)
        }),
        ("just below the limit", |s| s.frame_bytes = 16_000),
    ];
    for (what, change) in rows {
        assert_eq!(but(change).verdicts(), [], "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_fault_has_its_verdict_and_no_other() {
    let rows: [(Code, Fault); 11] = [
        (Code::Bframes, |s| s.is_reordered = true),
        (Code::GopLong, |s| s.gops = &[250]),
        (Code::GopIrregular, |s| s.gops = &[60, 60, 20]),
        (Code::BitrateHigh, |s| s.frame_bytes = 20_000),
        (Code::FramesDropped, |s| s.leaves_out = Some(20)),
        (Code::UploadUnstable, |s| s.stall = Some((200, SECOND))),
        (Code::UploadUnstable, |s| s.stall = Some((600, SECOND * 2))),
        (Code::AvSkew, |s| s.sound_later = SECOND / 2),
        (Code::NoAudio, |s| s.has_sound = false),
        (Code::NoVideo, |s| s.has_picture = false),
        (Code::ClockDrift, |s| (s.seconds, s.drift_ppm) = (780, 150)),
    ];
    for (code, change) in rows {
        assert_eq!(but(change).verdicts(), [code]);
    }
}

fn picture(width: u32, height: u32) -> TrackInfo {
    TrackInfo {
        codec: Codec::H264,
        generation: 0,
        shape: Shape::Video { width, height },
        config: Bytes::new(),
        reorder_frames: None,
    }
}

#[tokio::test(start_paused = true)]
async fn parameters_are_judged_for_as_long_as_they_are_in_force() {
    let mut doctor = Doctor::new();
    let sound = TrackInfo {
        codec: Codec::Aac,
        shape: Shape::Audio {
            rate: 44_100,
            channels: 2,
        },
        ..picture(0, 0)
    };
    doctor.track(&sound);
    doctor.track(&picture(1_279, 720));
    GOOD.play(Instant::now(), Duration::ZERO, &mut doctor);
    let codes = |doctor: &Doctor| -> Vec<Code> {
        doctor
            .verdicts()
            .iter()
            .map(|verdict| verdict.code)
            .collect()
    };
    assert_eq!(codes(&doctor), [Code::SizeOdd, Code::AudioRate]);
    doctor.track(&picture(1_080, 1_920));
    let now = GOOD.play(Instant::now(), SECOND * 40, &mut doctor);
    assert_eq!(
        codes(&doctor),
        [Code::AudioRate],
        "upright 1080p is even and small"
    );
    doctor.track(&picture(3_840, 2_160));
    doctor.look(now + LOOK_EVERY);
    assert_eq!(doctor.verdicts()[0].value, Some(2_160.0));
}

#[tokio::test(start_paused = true)]
async fn a_verdict_is_told_once_and_goes_thirty_seconds_after_its_condition() {
    let mut doctor = Doctor::new();
    let mut now = Instant::now();
    let seen = Seen {
        kind: Kind::Video,
        t: MediaTime::from_micros(7),
        elapsed_us: 7,
        is_reordered: false,
        is_key: true,
        bytes: 1,
        is_reanchored: true,
    };
    doctor.observe(now, &seen);
    let changes = doctor.look(now);
    let [Change::Found(verdict)] = changes.as_slice() else {
        panic!("{changes:?}");
    };
    assert_eq!(verdict.code, Code::Timestamps);
    assert_eq!(verdict.since, MediaTime::from_micros(7));
    assert_eq!(doctor.look(now), []);
    now += CLEARS_AFTER - Duration::from_millis(1);
    let told = doctor.look(now);
    assert!(
        !told.contains(&Change::Cleared(Code::Timestamps)),
        "{told:?}"
    );
    now += Duration::from_millis(1);
    let told = doctor.look(now);
    assert!(
        told.contains(&Change::Cleared(Code::Timestamps)),
        "{told:?}"
    );
}

/// Keyframes that the server asks for come when a viewer joins or a packet is lost.
#[tokio::test(start_paused = true)]
async fn keyframes_that_were_asked_for_may_be_irregular() {
    let mut doctor = Doctor::new();
    doctor.expect(LIMIT_BPS, true);
    but(|s| s.gops = &[60, 60, 20]).play(Instant::now(), Duration::ZERO, &mut doctor);
    assert_eq!(doctor.verdicts(), []);
}
