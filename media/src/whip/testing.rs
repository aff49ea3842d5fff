//! Real pictures as the packets of a publisher.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use ffmpeg_next::util::format::Pixel;
use ffmpeg_next::util::frame;

use super::depacketise;
use crate::bitstream::h264::{self, NalKind};
use crate::frame::{Codec, Frame, RtpPayload, TrackId};
use crate::time::MediaTime;
use crate::transcode::encoder::{VideoEncoder, VideoSettings};
use crate::webrtc::packetise::payloads;

/// Pictures from one keyframe to the next.
pub(super) const GOP: u32 = 10;
/// Small, so that pictures have several packets.
const PAYLOAD_BYTES_MAX: usize = 300;

/// Of each picture: whether it is a keyframe, what it holds, and its packets.
pub(super) struct Pictures {
    pub(super) all: Vec<(bool, Bytes, Vec<Bytes>)>,
}

impl Pictures {
    /// So many pictures, thirty a second.
    pub(super) fn of(count: u32) -> Self {
        let settings = VideoSettings {
            width: 160,
            height: 96,
            bitrate_bps: 400_000,
            frame_rate: 30,
            b_frames: 0,
            gop: GOP,
        };
        let mut encoder = VideoEncoder::open(["libx264"], &settings).unwrap();
        let mut all = Vec::new();
        for n in 0..count {
            let t = i64::from(n) * 33_333;
            for unit in encoder.encode(&mut drawn(n), t, n % GOP == 0).unwrap() {
                let frame = Frame {
                    track: TrackId::Video,
                    info: Arc::new(encoder.info().unwrap().clone()),
                    dts: MediaTime::from_micros(t),
                    pts: MediaTime::from_micros(t),
                    duration: None,
                    is_key: unit.is_key,
                    is_discardable: false,
                    discontinuities: 0,
                    payload: unit.payload.clone(),
                    rtp: OnceLock::new(),
                    flv: OnceLock::new(),
                    chunks: OnceLock::new(),
                    arrived: OnceLock::new(),
                };
                let payloads = payloads(&frame, PAYLOAD_BYTES_MAX).iter();
                let packets = payloads.map(whole).collect();
                all.push((unit.is_key, sent(&unit.payload), packets));
            }
        }
        Self { all }
    }
}

impl Pictures {
    /// So many of HEVC or AV1: their parameters are real, what they show is not.
    pub(super) fn of_codec(codec: Codec, count: u32) -> Self {
        let all = (0..count).map(|n| {
            let is_key = n % GOP == 0;
            let body = |size| vec![u8::try_from(n % 255 + 1).unwrap(); size];
            let payload = depacketise::testing::payload(codec, is_key, &[body(900), body(80)]);
            let packets = depacketise::testing::packets(codec, is_key, &payload, PAYLOAD_BYTES_MAX);
            (is_key, payload, packets)
        });
        Self { all: all.collect() }
    }
}

/// What of a picture goes out: what says nothing of it stays behind.
fn sent(payload: &Bytes) -> Bytes {
    let mut out = BytesMut::new();
    for nal in h264::nals(payload).flatten() {
        if NalKind::of(nal[0]) != NalKind::Sei {
            h264::put_nal(&mut out, nal);
        }
    }
    out.freeze()
}

fn whole(payload: &RtpPayload) -> Bytes {
    Bytes::from([payload.head.as_bytes(), &payload.body].concat())
}

fn drawn(n: u32) -> frame::Video {
    let mut picture = frame::Video::new(Pixel::YUV420P, 160, 96);
    for plane in 0..3 {
        for (at, sample) in picture.data_mut(plane).iter_mut().enumerate() {
            let value = at * 7 + usize::try_from(n).unwrap() * 31;
            *sample = u8::try_from(value % 200 + 20).unwrap();
        }
    }
    picture
}
