//! The hub and its cues under any list of operations.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::broadcast::{
    Broadcast, BroadcastKey, Broadcasts, Cursor, EndReason, Limits, PublishPolicy, Publisher,
    Start, Takeover,
};
use crate::cue::{CueKind, CueLog, CueNews, NewCue};
use crate::frame::{Codec, Kind, Sample, Shape, TrackId, TrackInfo};
use crate::time::{MediaTime, SourceTime};

const CURSORS_MAX: usize = 8;

/// Publishers and readers in any order: what a reader sees of a track advances, begins with a
/// keyframe and does so again after every skip; memory has its bound.
///
/// Four bytes an operation: what, and three for how.
pub fn broadcast_ops(data: &[u8]) {
    let hub = Broadcasts::new(Limits {
        broadcasts_max: 2,
        ..Limits::default()
    });
    let mut stage = Stage {
        now: Instant::now(),
        hub,
        publishers: Vec::new(),
        readers: Vec::new(),
    };
    for step in data.chunks_exact(4) {
        if let Ok(step) = <[u8; 4]>::try_from(step) {
            stage.step(step);
        }
    }
    for broadcast in stage.hub.list() {
        let held: usize = broadcast.tracks().iter().map(|track| track.bytes).sum();
        assert!(held <= 34 << 20, "{held} bytes");
    }
}

struct Stage {
    now: Instant,
    hub: Arc<Broadcasts>,
    publishers: Vec<Publisher>,
    readers: Vec<Reader>,
}

/// A cursor, and what it has seen.
struct Reader {
    cursor: Cursor,
    last: Option<MediaTime>,
}

impl Stage {
    fn step(&mut self, [what, a, b, c]: [u8; 4]) {
        match what % 8 {
            0 => self.open(a, b),
            1 => {
                if let Some(publisher) = self.publishers.pop() {
                    publisher.finish(reason(a));
                }
            }
            2..=4 => self.write(a, b, c),
            5 => self.now += Duration::from_millis(u64::from(a) * u64::from(b)),
            6 => self.read_from(a),
            _ => self.read(),
        }
    }

    fn open(&mut self, name: u8, how: u8) {
        let policy = PublishPolicy {
            takeover: if how & 1 == 0 {
                Takeover::Newest
            } else {
                Takeover::Refuse
            },
            grace: Duration::from_secs(u64::from(how >> 1)),
            stop_grace: Duration::ZERO,
        };
        let key = BroadcastKey::new(if name & 1 == 0 { "a" } else { "b" });
        let at = (self.now, OffsetDateTime::UNIX_EPOCH);
        let Ok(mut publisher) = self.hub.join(key, at, policy) else {
            return;
        };
        for info in [picture_info(name >> 1 & 1), sound_info()] {
            let set = publisher.set_track(self.now, info);
            set.expect("a session that begins has no codec yet");
        }
        self.publishers.push(publisher);
        let present = self.hub.list();
        let present = present.iter().filter(|broadcast| broadcast.has_publisher());
        assert!(present.count() <= 2, "one publisher a broadcast (I7)");
    }

    fn write(&mut self, how: u8, high: u8, low: u8) {
        let count = self.publishers.len();
        let Some(publisher) = self
            .publishers
            .get_mut(usize::from(how >> 4) % count.max(1))
        else {
            return;
        };
        let is_picture = how & 1 == 0;
        let sample = Sample {
            kind: if is_picture { Kind::Video } else { Kind::Audio },
            dts: SourceTime::from_millis(i64::from(u16::from_be_bytes([high, low])) * 100),
            composition: Duration::from_millis(u64::from(how >> 2 & 1) * 40),
            samples: if is_picture { 0 } else { 1_024 },
            is_key: !is_picture || how & 2 == 2,
            is_discardable: false,
            payload: Bytes::from(vec![0; usize::from(low) * 1_000 + 1]),
        };
        publisher.write(self.now, sample);
    }

    fn read_from(&mut self, how: u8) {
        let all = self.hub.list();
        let broadcast: Option<&Arc<Broadcast>> = all.first();
        let Some(broadcast) = broadcast.filter(|_| self.readers.len() < CURSORS_MAX) else {
            return;
        };
        let track = if how & 1 == 0 {
            TrackId::Video
        } else {
            TrackId::Audio
        };
        let start = if how & 2 == 0 {
            Start::Live
        } else {
            Start::NewestKey
        };
        let cursor = broadcast.cursor(track, start);
        self.readers.push(Reader { cursor, last: None });
    }

    fn read(&mut self) {
        for reader in &mut self.readers {
            while let Some(delivery) = reader.cursor.try_next() {
                let frame = &delivery.frame;
                assert!(
                    reader.last.is_none_or(|last| frame.dts > last),
                    "dts goes back (I3)"
                );
                let is_beginning = reader.last.is_none() || delivery.skipped > 0;
                let is_picture = frame.track == TrackId::Video;
                assert!(
                    !is_picture || !is_beginning || frame.is_key,
                    "no keyframe (I4)"
                );
                assert!(frame.pts >= frame.dts && frame.dts >= MediaTime::ZERO);
                reader.last = Some(frame.dts);
            }
        }
    }
}

const fn reason(a: u8) -> EndReason {
    match a % 4 {
        0 => EndReason::Finished,
        1 => EndReason::Lost,
        2 => EndReason::Server,
        _ => EndReason::CodecChanged,
    }
}

fn picture_info(generation: u8) -> TrackInfo {
    TrackInfo {
        codec: if generation == 0 {
            Codec::H264
        } else {
            Codec::Hevc
        },
        generation: 0,
        shape: Shape::Video {
            width: 640,
            height: 360,
        },
        config: Bytes::from(vec![generation]),
        reorder_frames: None,
    }
}

fn sound_info() -> TrackInfo {
    TrackInfo {
        codec: Codec::Aac,
        generation: 0,
        shape: Shape::Audio {
            rate: 48_000,
            channels: 2,
        },
        config: Bytes::from_static(&[0x11, 0x90]),
        reorder_frames: None,
    }
}

/// Cues in any order: what was placed is told once, an id is never used twice, an end follows its
/// beginning.
///
/// Four bytes an operation: what, the id, and two for when.
pub fn cue_ops(data: &[u8]) {
    let log = Arc::new(CueLog::new());
    let mut early = log.cursor();
    let mut now = Instant::now();
    let (mut placed, mut ended) = (0, 0);
    for step in data.chunks_exact(4) {
        let Ok([what, id, high, low]) = <[u8; 4]>::try_from(step) else {
            continue;
        };
        let t = MediaTime::from_micros(i64::from(u16::from_be_bytes([high, low])) * 1_000);
        match what % 5 {
            0 | 1 => {
                let cue = cue(id, what % 5 == 0);
                placed += usize::from(log.put(now, cue, t, t).is_ok());
            }
            2 => ended += usize::from(log.close(&format!("cue {}", id % 32), t).is_ok()),
            3 => now += Duration::from_millis(u64::from(high) * 10),
            _ => log.lapse(t),
        }
    }
    let (mut seen, mut over) = (std::collections::BTreeSet::new(), 0);
    while let Some(news) = early.try_next() {
        match news {
            CueNews::Opened(cue) => {
                assert!(seen.insert(cue.id.clone()), "{} twice", cue.id);
                assert!(cue.t >= MediaTime::ZERO);
            }
            CueNews::Closed { cue, t } => {
                assert!(t >= cue.t, "it ends before it begins");
                over += 1;
            }
        }
    }
    // The log keeps the newest thousand.
    assert!(seen.len() == placed || placed + ended > 1_000);
    assert!(over == ended || placed + ended > 1_000);
}

fn cue(id: u8, is_listed: bool) -> NewCue {
    NewCue {
        id: format!("cue {}", id % 32),
        class: "card".into(),
        duration: (id > 200).then_some(Duration::from_secs(1)),
        kind: if is_listed {
            CueKind::Listed
        } else {
            CueKind::Passing
        },
        payload: Bytes::from(vec![b'x'; usize::from(id)]),
    }
}
