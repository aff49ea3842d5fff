//! The show: pictures of the sizes an encoder makes at 2.5 Mb/s, and real AAC.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use lamplight_media::broadcast::{Broadcast, BroadcastKey, Broadcasts, Publisher};
use lamplight_media::frame::{Codec, Kind, Sample, Shape, TrackInfo};
use lamplight_media::time::SourceTime;
use lamplight_media::transcode::encoder::{AudioCodec, AudioEncoder};
use lamplight_media::transcode::{self, ConvertConfig};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// `AVCDecoderConfigurationRecord` of a constrained baseline stream.
const AVCC: &[u8] = &[
    1, 0x42, 0xc0, 0x1f, 0xff, 0xe1, 0, 15, 0x67, 0x42, 0xc0, 0x1f, 0xda, 0x02, 0x80, 0xbf, 0xe5,
    0x84, 0, 0, 0x03, 0, 0x04, 1, 0, 4, 0x68, 0xce, 0x3c, 0x80,
];
const FRAME_RATE: i64 = 30;
const KEY_EVERY: i64 = 60;
/// 2.5 Mb/s: a keyframe of 60 kB and 59 pictures of 9.58 kB each 2 s.
const KEY_BYTES: u32 = 60_000;
const PICTURE_BYTES: u32 = 9_580;
const SOUND_SAMPLES: i64 = 1_024;
const SOUND_RATE: i64 = 48_000;

/// When sound is written.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "each bench has its own")]
pub(crate) enum Sounds {
    /// With the picture that comes after it.
    WithPictures,
    /// When its own time has come, as encoders send it.
    InTime,
}

/// Puts a show on air that goes on until `cancel`.
pub(crate) fn start(
    hub: &Arc<Broadcasts>,
    sounds: Sounds,
    cancel: &CancellationToken,
) -> Arc<Broadcast> {
    let key = BroadcastKey::new("room_1");
    let mut publisher = hub
        .open(key, Instant::now(), OffsetDateTime::now_utc())
        .unwrap();
    publisher.set_track(Instant::now(), picture_info()).unwrap();
    let (info, packets) = sound();
    publisher.set_track(Instant::now(), info).unwrap();
    let broadcast = Arc::clone(publisher.broadcast());
    let config = Arc::new(ConvertConfig::default());
    tokio::spawn(transcode::run(
        Arc::clone(&broadcast),
        config,
        cancel.clone(),
    ));
    let cancel = cancel.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = play(publisher, sounds, packets) => {}
        }
    });
    broadcast
}

async fn play(mut publisher: Publisher, when: Sounds, sound: Vec<Bytes>) {
    let began = Instant::now();
    let (key, picture) = (nal(0x65, KEY_BYTES), nal(0x41, PICTURE_BYTES));
    let at = |us: i64| began + Duration::from_micros(u64::try_from(us).unwrap());
    let mut sounds = 0;
    for n in 0.. {
        // Those of before this picture.
        while sounds * SOUND_SAMPLES * FRAME_RATE <= n * SOUND_RATE {
            let us = match when {
                Sounds::InTime => sounds * SOUND_SAMPLES * 1_000_000 / SOUND_RATE,
                Sounds::WithPictures => n * 1_000_000 / FRAME_RATE,
            };
            sleep_until(at(us)).await;
            let packet = usize::try_from(sounds).unwrap() % sound.len();
            let ms = sounds * SOUND_SAMPLES * 1_000 / SOUND_RATE;
            publisher.write(
                Instant::now(),
                sample(Kind::Audio, ms, sound[packet].clone(), true),
            );
            sounds += 1;
        }
        sleep_until(at(n * 1_000_000 / FRAME_RATE)).await;
        let is_key = n % KEY_EVERY == 0;
        let payload = if is_key { key.clone() } else { picture.clone() };
        publisher.write(
            Instant::now(),
            sample(Kind::Video, n * 1_000 / FRAME_RATE, payload, is_key),
        );
    }
}

fn sample(kind: Kind, ms: i64, payload: Bytes, is_key: bool) -> Sample {
    let is_sound = kind == Kind::Audio;
    Sample {
        kind,
        dts: SourceTime::from_millis(ms),
        composition: Duration::ZERO,
        samples: if is_sound {
            u32::try_from(SOUND_SAMPLES).unwrap()
        } else {
            0
        },
        is_key,
        is_discardable: false,
        payload,
    }
}

fn picture_info() -> TrackInfo {
    TrackInfo {
        codec: Codec::H264,
        generation: 0,
        shape: Shape::Video {
            width: 1_280,
            height: 720,
        },
        config: Bytes::from_static(AVCC),
        reorder_frames: Some(0),
    }
}

/// A NAL unit of this size behind its length.
fn nal(header: u8, size: u32) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32(size);
    out.put_u8(header);
    out.put_bytes(0x5a, usize::try_from(size).unwrap() - 1);
    out.freeze()
}

/// A second of a tone as AAC packets.
fn sound() -> (TrackInfo, Vec<Bytes>) {
    let mut encoder = AudioEncoder::open(AudioCodec::Aac, 128_000).unwrap();
    let tone = |n: i64| {
        let at = f64::from(u32::try_from(n).unwrap()) / 48_000.0;
        let level = (std::f64::consts::TAU * 440.0 * at).sin() * 0.2;
        #[expect(clippy::cast_possible_truncation, reason = "a sample needs no more")]
        [level as f32; 2]
    };
    let mut packets = Vec::new();
    for frame in 0..47 {
        let first = frame * SOUND_SAMPLES;
        let samples: Vec<[f32; 2]> = (first..first + SOUND_SAMPLES).map(tone).collect();
        packets.extend(encoder.encode(&samples, first).unwrap());
    }
    (encoder.info(), packets)
}
