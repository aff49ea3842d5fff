//! A synthetic show: pictures and sound with the stamps of an RTMP publisher.

pub(crate) mod enhanced;
pub(crate) mod flv;
pub(crate) mod hls;
pub(crate) mod list;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lamplight_media::broadcast::{
    Broadcast, BroadcastKey, Broadcasts, EndReason, Limits, PublishPolicy, Publisher,
};
use lamplight_media::frame::{Codec, Kind, Sample, Shape, TrackInfo};
use lamplight_media::time::SourceTime;
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
    hub: Arc<Broadcasts>,
    /// What a publisher announces.
    tracks: Vec<TrackInfo>,
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
    /// How much longer than its pictures last this publisher takes for each, in microseconds.
    pub(crate) dawdles_us: u64,
    /// The next picture is a keyframe wherever it stands.
    pub(crate) is_key_due: bool,
    /// Samples of sound a second.
    sound_rate: i64,
    /// How much later than decoded each picture is shown.
    pub(crate) composition: Duration,
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
        Self::with(form, vec![picture_info(), sound_info(44_100)])
    }

    /// A show with mono sound at 11 025 Hz: few frames, of a length that no clock divides.
    pub(crate) fn with_few_frames(form: Form) -> Self {
        let sound = TrackInfo {
            shape: Shape::Audio {
                rate: 11_025,
                channels: 1,
            },
            config: Bytes::from_static(&[0x15, 0x08]),
            ..sound_info(44_100)
        };
        let mut show = Self::with(form, vec![picture_info(), sound]);
        show.sound_rate = 11_025;
        show
    }

    /// A show of a publisher that announces no sound.
    pub(crate) fn without_sound(form: Form) -> Self {
        let mut show = Self::with(form, vec![picture_info()]);
        show.sends_sound = false;
        show
    }

    pub(crate) fn with(form: Form, tracks: Vec<TrackInfo>) -> Self {
        let hub = Broadcasts::new(Limits::default());
        let publisher = publish(&hub, &tracks);
        Self {
            tracks,
            hub,
            broadcast: Arc::clone(publisher.broadcast()),
            publisher: Some(publisher),
            form,
            sends_picture: true,
            sends_sound: true,
            holds_sound: false,
            held: Vec::new(),
            is_cut: false,
            late: Vec::new(),
            dawdles_us: 0,
            is_key_due: false,
            sound_rate: 44_100,
            composition: Duration::ZERO,
            pictures: 0,
            sounds: 0,
        }
    }

    /// The publisher goes away, and the broadcast waits for it.
    pub(crate) fn leave(&mut self) {
        self.publisher = None;
        self.held.clear();
        self.late.clear();
    }

    /// The publisher comes back, or another in its place: a clock that begins at zero, a keyframe
    /// first.
    pub(crate) fn come_back(&mut self) {
        self.leave();
        self.publisher = Some(publish(&self.hub, &self.tracks));
        (self.pictures, self.sounds) = (0, 0);
    }

    /// A newer publisher comes while the one there is still sending; gives the older one.
    pub(crate) fn take_over(&mut self) -> Publisher {
        let newer = publish(&self.hub, &self.tracks);
        (self.pictures, self.sounds) = (0, 0);
        self.publisher.replace(newer).expect("one was there")
    }

    pub(crate) fn hub(&self) -> Arc<Broadcasts> {
        Arc::clone(&self.hub)
    }

    pub(crate) fn is_away(&self) -> bool {
        self.publisher.is_none()
    }

    pub(crate) fn broadcast(&self) -> Arc<Broadcast> {
        Arc::clone(&self.broadcast)
    }

    pub(crate) fn publisher(&mut self) -> &mut Publisher {
        self.publisher.as_mut().expect("the show goes on")
    }

    /// The broadcast ends.
    pub(crate) fn finish(&mut self, reason: EndReason) {
        self.broadcast.end(reason);
    }

    /// Lets the show run for a while of virtual time, in decode order.
    pub(crate) async fn run(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            tokio::time::advance(self.picture_length()).await;
            self.step();
        }
    }

    pub(crate) const fn sound_rate(&self) -> i64 {
        self.sound_rate
    }

    pub(crate) fn picture_length(&self) -> Duration {
        Duration::from_micros(1_000_000 / self.form.rate.unsigned_abs() + self.dawdles_us)
    }

    /// One picture and the sound that comes with it.
    pub(crate) fn step(&mut self) {
        self.picture();
        while self.sounds * 1_024 * self.form.rate <= self.pictures * self.sound_rate {
            self.sound();
        }
    }

    fn picture(&mut self) {
        let n = self.pictures;
        self.pictures += 1;
        if !self.sends_picture || self.is_away() {
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
            composition: self.composition,
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
                self.publisher().write(Instant::now(), sample);
            }
        }
    }

    fn sound(&mut self) {
        let n = self.sounds;
        self.sounds += 1;
        if !self.sends_sound || self.is_away() {
            return;
        }
        let sample = Sample {
            kind: Kind::Audio,
            dts: SourceTime::from_millis(n * 1_024 * 1_000 / self.sound_rate),
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

fn publish(hub: &Arc<Broadcasts>, tracks: &[TrackInfo]) -> Publisher {
    let now = Instant::now();
    let at = (now, OffsetDateTime::UNIX_EPOCH + SHOW_BEGAN);
    let key = BroadcastKey::new("room_1");
    let joined = hub.join(key, at, PublishPolicy::default());
    let mut publisher = joined.expect("a publisher may come back");
    for info in tracks {
        let set = publisher.set_track(now, info.clone());
        set.expect("the codecs stay the same");
    }
    publisher
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
