//! Pictures of each codec with real parameters, and their packets.

#![expect(
    clippy::indexing_slicing,
    reason = "a test that reads past the end has failed"
)]

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};

use crate::bitstream::{av1, h264, hevc};
use crate::frame::{Codec, Frame, Shape, TrackId, TrackInfo};
use crate::time::MediaTime;
use crate::webrtc::packetise::payloads;

/// x264 of 640x360.
const SPS: &str = "6742c01eda0280bfe5840000030004";
const PPS: &str = "68ce3c80";
/// x265 of 198x108.
const HEVC_VPS: &str = "40010c01ffff01600000030090000003000003003c959009";
const HEVC_SPS: &str = "42010101600000030090000003000003003ca0192071d5e595924932bc05a0200000030020\
                        00000303c1";
const HEVC_PPS: &str = "4401c172b46240";
/// libaom of 198x108.
const SEQUENCE: &str = "00000003b62eb36be401";

fn hex(digits: &str) -> Bytes {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

pub(crate) fn sets(codec: Codec) -> [Vec<Bytes>; 3] {
    match codec {
        Codec::H264 => [vec![hex(SPS)], vec![hex(PPS)], Vec::new()],
        Codec::Hevc => [HEVC_VPS, HEVC_SPS, HEVC_PPS].map(|set| vec![hex(set)]),
        _ => [vec![hex(SEQUENCE)], Vec::new(), Vec::new()],
    }
}

pub(crate) fn config(codec: Codec) -> Bytes {
    let [first, second, third] = sets(codec);
    match codec {
        Codec::H264 => h264::Config::new(first, second).unwrap().build(),
        Codec::Hevc => {
            let config = hevc::Config::new(first, second, third).unwrap();
            config.build().unwrap()
        }
        _ => av1::Config::new(first[0].clone()).unwrap().build(),
    }
}

/// A unit of a picture: a slice, or a frame.
fn unit(codec: Codec, is_key: bool, body: &[u8]) -> Vec<u8> {
    let head: &[u8] = match (codec, is_key) {
        (Codec::H264, true) => &[0x65],
        (Codec::H264, false) => &[0x41],
        (Codec::Hevc, true) => &[0x26, 1],
        (Codec::Hevc, false) => &[0x02, 1],
        (_, true) => &[0x30, 0x10],
        (_, false) => &[0x30, 0x30],
    };
    [head, body].concat()
}

/// A picture in the form that frames have.
pub(crate) fn payload(codec: Codec, is_key: bool, bodies: &[Vec<u8>]) -> Bytes {
    let mut out = BytesMut::new();
    let put = |out: &mut BytesMut, obu: &[u8]| {
        let obu = av1::obus(obu).next().unwrap().unwrap();
        av1::put_obu(out, &obu);
    };
    if codec == Codec::Av1 && is_key {
        put(&mut out, &[&[0x08][..], &hex(SEQUENCE)].concat());
    }
    for body in bodies {
        let unit = unit(codec, is_key, body);
        match codec {
            Codec::Av1 => put(&mut out, &unit),
            _ => h264::put_nal(&mut out, &unit),
        }
    }
    out.freeze()
}

pub(crate) fn packets(codec: Codec, is_key: bool, payload: &Bytes, max: usize) -> Vec<Bytes> {
    let info = TrackInfo {
        codec,
        generation: 0,
        shape: Shape::Video {
            width: 640,
            height: 360,
        },
        config: config(codec),
        reorder_frames: Some(0),
    };
    let frame = Frame {
        track: TrackId::Video,
        info: Arc::new(info),
        dts: MediaTime::ZERO,
        pts: MediaTime::ZERO,
        duration: None,
        is_key,
        is_discardable: false,
        discontinuities: 0,
        payload: payload.clone(),
        rtp: OnceLock::new(),
        flv: OnceLock::new(),
        chunks: OnceLock::new(),
        arrived: OnceLock::new(),
    };
    let payloads = payloads(&frame, max).iter();
    let whole = payloads.map(|p| Bytes::from([p.head.as_bytes(), &p.body].concat()));
    whole.collect()
}
