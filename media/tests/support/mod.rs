//! A synthetic show: pictures and sound with the stamps of an RTMP publisher.

pub(crate) mod hls;
pub(crate) mod list;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lamplight_media::broadcast::{
    Broadcast, BroadcastKey, Broadcasts, EndReason, Limits, Publisher,
};
use lamplight_media::frame::{Codec, Frame, Kind, Sample, Shape, TrackId, TrackInfo};
use lamplight_media::time::{MediaTime, SourceTime};
use time::OffsetDateTime;
use tokio::time::Instant;

/// `AVCDecoderConfigurationRecord` of a 640x360 baseline stream.
const AVCC: &[u8] = &[
    1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 10, 0x67, 0x42, 0xc0, 0x1e, 0xda, 2, 0x80, 0xbf, 0xe5,
    0x40, 1, 0, 4, 0x68, 0xce, 0x3c, 0x80,
];
/// The time of day at which a show begins, since 1970.
pub(crate) const SHOW_BEGAN: Duration = Duration::from_secs(1_800_000_000);

/// What a publisher sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    /// Pictures between keyframes.
    pub(crate) gop: i64,
    /// Pictures a second.
    pub(crate) rate: i64,
}

/// A publisher that writes a show frame by frame.
pub(crate) struct Show {
    /// Kept alive: a broadcast ends with its hub.
    _hub: Arc<Broadcasts>,
    broadcast: Arc<Broadcast>,
    publisher: Option<Publisher>,
    pub(crate) form: Form,
    /// Whether pictures and sound are sent now; their clocks go on all the same.
    pub(crate) sends_picture: bool,
    pub(crate) sends_sound: bool,
    /// Sound is kept back while this is set, and sent with the next picture after.
    pub(crate) holds_sound: bool,
    held: Vec<Sample>,
    /// The same for both tracks: the line is cut, and what was sent meanwhile arrives late.
    pub(crate) is_cut: bool,
    late: Vec<Sample>,
    placed: Placed,
    /// How much longer than its pictures last this publisher takes for each, in microseconds.
    pub(crate) dawdles_us: u64,
    /// The next picture is a keyframe wherever it stands.
    pub(crate) is_key_due: bool,
    /// Pictures and sounds since the encoder started.
    pub(crate) pictures: i64,
    sounds: i64,
}

impl Show {
    /// A show of 30 pictures a second with a keyframe every `gop`, and AAC at 44.1 kHz.
    pub(crate) fn start(gop: i64) -> Self {
        Self::of(Form { gop, rate: 30 })
    }

    pub(crate) fn of(form: Form) -> Self {
        let hub = Broadcasts::new(Limits::default());
        let now = Instant::now();
        let key = BroadcastKey::new("room_1");
        let wall = OffsetDateTime::UNIX_EPOCH + SHOW_BEGAN;
        let mut publisher = hub.open(key, now, wall).expect("the hub is empty");
        publisher
            .set_track(now, picture_info())
            .expect("the first picture track");
        publisher
            .set_track(now, sound_info(44_100))
            .expect("the first sound track");
        Self {
            _hub: hub,
            broadcast: Arc::clone(publisher.broadcast()),
            publisher: Some(publisher),
            form,
            sends_picture: true,
            sends_sound: true,
            holds_sound: false,
            held: Vec::new(),
            is_cut: false,
            late: Vec::new(),
            placed: Placed::default(),
            dawdles_us: 0,
            is_key_due: false,
            pictures: 0,
            sounds: 0,
        }
    }

    /// The publisher comes back: its clock begins at zero, with a keyframe, T at the running T.
    pub(crate) fn restart(&mut self) {
        (self.pictures, self.sounds) = (0, 0);
        self.held.clear();
        self.late.clear();
        let now = self.broadcast.now_t(Instant::now());
        let newest = self.placed.newest.map(|t| t + self.picture_length());
        self.placed.offset = newest.map_or(now, |newest| newest.max(now));
        self.placed.discontinuities += 1;
    }

    pub(crate) fn broadcast(&self) -> Arc<Broadcast> {
        Arc::clone(&self.broadcast)
    }

    pub(crate) fn publisher(&mut self) -> &mut Publisher {
        self.publisher.as_mut().expect("the show goes on")
    }

    /// The publish session ends, and the broadcast with it.
    pub(crate) fn finish(&mut self, reason: EndReason) {
        let publisher = self.publisher.take().expect("the show goes on");
        publisher.finish(reason);
    }

    /// Lets the show run for a while of virtual time, in decode order.
    pub(crate) async fn run(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            tokio::time::advance(self.picture_length()).await;
            self.step();
        }
    }

    pub(crate) fn picture_length(&self) -> Duration {
        Duration::from_micros(1_000_000 / self.form.rate.unsigned_abs() + self.dawdles_us)
    }

    /// One picture and the sound that comes with it.
    pub(crate) fn step(&mut self) {
        self.picture();
        while self.sounds * 1_024 * self.form.rate <= self.pictures * 44_100 {
            self.sound();
        }
    }

    fn picture(&mut self) {
        let n = self.pictures;
        self.pictures += 1;
        if !self.sends_picture {
            return;
        }
        let is_key = n % self.form.gop == 0 || std::mem::take(&mut self.is_key_due);
        let nal: &[u8] = if is_key {
            &[0, 0, 0, 3, 0x65, 1, 2]
        } else {
            &[0, 0, 0, 3, 0x41, 1, 2]
        };
        let sample = Sample {
            kind: Kind::Video,
            dts: SourceTime::from_millis(n * 1_000 / self.form.rate),
            composition: Duration::ZERO,
            samples: 0,
            is_key,
            is_discardable: false,
            payload: Bytes::from_static(nal),
        };
        self.send(sample);
    }

    fn send(&mut self, sample: Sample) {
        self.late.push(sample);
        if !self.is_cut {
            for sample in std::mem::take(&mut self.late) {
                if self.placed.discontinuities == 0 {
                    let t = self.publisher().write(Instant::now(), sample);
                    self.placed.newest = self.placed.newest.max(t);
                } else {
                    self.placed.write(&self.broadcast, &sample);
                }
            }
        }
    }

    fn sound(&mut self) {
        let n = self.sounds;
        self.sounds += 1;
        if !self.sends_sound {
            return;
        }
        let sample = Sample {
            kind: Kind::Audio,
            dts: SourceTime::from_millis(n * 1_024 * 1_000 / 44_100),
            composition: Duration::ZERO,
            samples: 1_024,
            is_key: true,
            is_discardable: false,
            payload: Bytes::from_static(&[0x21, 0x10, 0x04]),
        };
        self.held.push(sample);
        if !self.holds_sound {
            for sample in std::mem::take(&mut self.held) {
                self.send(sample);
            }
        }
    }
}

/// A later publish session, written into the rings as the hub places it: one offset, and one
/// discontinuity more than before.
#[derive(Default)]
struct Placed {
    offset: MediaTime,
    discontinuities: u32,
    newest: Option<MediaTime>,
}

impl Placed {
    fn write(&mut self, broadcast: &Broadcast, sample: &Sample) {
        let (track, duration) = match sample.kind {
            Kind::Video => (TrackId::Video, None),
            Kind::Audio => (TrackId::Audio, Some(Duration::from_nanos(23_219_955))),
        };
        let info = broadcast.source(sample.kind).expect("the track is known");
        let t = self.offset.shifted(sample.dts.as_micros());
        self.newest = self.newest.max(Some(t));
        broadcast.made(track).write(Frame {
            track,
            info,
            dts: t,
            pts: t,
            duration,
            is_key: sample.is_key,
            is_discardable: false,
            discontinuities: self.discontinuities,
            payload: sample.payload.clone(),
            rtp: std::sync::OnceLock::new(),
        });
    }
}

pub(crate) fn picture_info() -> TrackInfo {
    TrackInfo {
        codec: Codec::H264,
        generation: 0,
        shape: Shape::Video {
            width: 640,
            height: 360,
        },
        config: Bytes::from_static(AVCC),
        reorder_frames: Some(0),
    }
}

/// AAC-LC of two channels at 44.1 or 48 kHz.
pub(crate) fn sound_info(rate: u32) -> TrackInfo {
    let config: &[u8] = if rate == 48_000 {
        &[0x11, 0x90]
    } else {
        &[0x12, 0x10]
    };
    TrackInfo {
        codec: Codec::Aac,
        generation: 0,
        shape: Shape::Audio { rate, channels: 2 },
        config: Bytes::from_static(config),
        reorder_frames: None,
    }
}
