//! What odd publishers send: shows that ffmpeg makes, as the messages of an RTMP connection.
//!
//! In each the picture is black but for a flash at the first fifth of every second, in which a tone
//! is heard: where both are in what viewers get says whether they are in step.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use lamplight_media::bitstream::{av1, h264, hevc, opus};
use tokio::time::timeout;

use crate::client::program;
use crate::flv::{AUDIO, Tag, VIDEO, tags};

/// Longer than any test looks at it.
const SECONDS: &str = "20";
const MADE_MAX: Duration = Duration::from_secs(120);

/// How a clip is made.
#[derive(Clone, Debug)]
pub(crate) struct Clip {
    /// `WIDTHxHEIGHT`; none for sound alone.
    pub(crate) size: Option<&'static str>,
    pub(crate) rate: &'static str,
    /// Options of the encoder of the picture, and filters with `-vf:`.
    pub(crate) video: &'static str,
    pub(crate) filter: &'static str,
    /// Samples a second; none for a picture alone.
    pub(crate) sound: Option<u32>,
    pub(crate) channels: &'static str,
    pub(crate) audio: &'static str,
}

impl Clip {
    /// x264 with two seconds between keyframes, stereo AAC at 48 kHz.
    pub(crate) const PLAIN: Self = Self {
        size: Some("320x180"),
        rate: "30",
        video: "-c:v libx264 -preset ultrafast -tune zerolatency -g 60 -sc_threshold 0",
        filter: "null",
        sound: Some(48_000),
        channels: "2",
        audio: "-c:a aac -b:a 96k",
    };

    async fn encode(&self, folder: &Path, name: &str, container: &str) -> Bytes {
        let file = folder.join(format!("{name}.{container}"));
        let mut ffmpeg = program("ffmpeg");
        ffmpeg.args(["-nostdin", "-loglevel", "error"]);
        if let Some(size) = self.size {
            let rate = self.rate;
            let picture = format!("color=black:size={size}:rate={rate}");
            ffmpeg.args(["-f", "lavfi", "-t", SECONDS, "-i", &picture]);
        }
        if let Some(rate) = self.sound {
            let tone = format!("aevalsrc=0.5*sin(6283*t)*lt(mod(t\\,1)\\,0.2):s={rate}");
            ffmpeg.args(["-f", "lavfi", "-t", SECONDS, "-i", &tone]);
            ffmpeg
                .args(["-ac", self.channels])
                .args(self.audio.split(' '));
        }
        if self.size.is_some() {
            let flash = "drawbox=color=white:t=fill:enable='lt(mod(t,1),0.2)'";
            let filter = format!("{flash},{}", self.filter);
            ffmpeg.args(["-vf", &filter, "-pix_fmt", "yuv420p"]);
            ffmpeg.args(self.video.split(' '));
        }
        ffmpeg.args(["-fflags", "+bitexact"]).arg(&file);
        let made = timeout(MADE_MAX, ffmpeg.status()).await;
        let status = made.expect("ffmpeg makes a clip in time").unwrap();
        assert!(status.success(), "ffmpeg made no clip {name}: see above");
        std::fs::read(file).unwrap().into()
    }

    /// Its tags, as ffmpeg writes FLV.
    pub(crate) async fn tags(&self, folder: &Path, name: &str) -> Vec<Tag> {
        tags(&self.encode(folder, name, "flv").await)
    }

    /// The picture alone, as enhanced RTMP has HEVC.
    pub(crate) async fn hevc(&self, folder: &Path) -> Vec<Tag> {
        let stream = self.encode(folder, "picture", "hevc").await;
        let (mut sets, mut units) = ([vec![], vec![], vec![]], Vec::new());
        for nal in h264::split_annex_b(&stream) {
            match nal[0] >> 1 & 63 {
                set @ 32..=34 => {
                    let set = &mut sets[usize::from(set) - 32];
                    if set.is_empty() {
                        set.push(nal);
                    }
                }
                35 => units.push((false, BytesMut::new())),
                kind => {
                    let (is_key, unit) = units.last_mut().expect("each unit has a delimiter");
                    *is_key |= (16..=23).contains(&kind);
                    h264::put_nal(unit, &nal);
                }
            }
        }
        let [vps, sps, pps] = sets;
        let config = hevc::Config::new(vps, sps, pps).and_then(|c| c.build());
        enhanced(*b"hvc1", &config.expect("sets of x265"), units)
    }

    /// The same of AV1.
    pub(crate) async fn av1(&self, folder: &Path) -> Vec<Tag> {
        let file = self.encode(folder, "picture", "ivf").await;
        let (mut at, mut units, mut config) = (32, Vec::new(), None);
        while let Some(header) = file.get(at..at + 12) {
            let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
            let end = at + 12 + usize::try_from(length).unwrap();
            // Without its temporal delimiter.
            let unit = file.slice(at + 14..end);
            let is_key = unit[0] >> 3 & 15 == 1;
            if is_key && config.is_none() {
                let (size, _) = av1::split_size(&unit[1..]).expect("a size");
                let sequence = unit.slice(..2 + size);
                config = Some(av1::Config::new(sequence).expect("a sequence").build());
            }
            units.push((is_key, BytesMut::from(&unit[..])));
            at = end;
        }
        enhanced(*b"av01", &config.expect("a keyframe first"), units)
    }

    /// The sound alone, as enhanced RTMP has Opus.
    pub(crate) async fn opus(&self, folder: &Path) -> Vec<Tag> {
        let file = self.encode(folder, "sound", "opus").await;
        let packets = ogg_packets(&file);
        let head = [b"\x90Opus", &opus::head(2)[..]].concat();
        let mut out = vec![Tag {
            kind: AUDIO,
            stamp_ms: 0,
            body: head.into(),
        }];
        // Two packets of headers; the sound begins 312 samples before its first.
        for (n, packet) in (0..).zip(packets.iter().skip(2)) {
            out.push(Tag {
                kind: AUDIO,
                stamp_ms: n * 20,
                body: [b"\x91Opus", &packet[..]].concat().into(),
            });
        }
        out
    }
}

/// Both on one connection, in the order of their stamps.
pub(crate) fn mixed(mut one: Vec<Tag>, other: &[Tag]) -> Vec<Tag> {
    one.extend_from_slice(other);
    one.sort_by_key(|tag| tag.stamp_ms);
    one
}

/// Thirty pictures a second without reordering.
fn enhanced(code: [u8; 4], config: &[u8], units: Vec<(bool, BytesMut)>) -> Vec<Tag> {
    let body = |head: u8, rest: &[u8]| {
        let mut body = BytesMut::new();
        body.put_u8(head);
        body.put_slice(&code);
        body.put_slice(rest);
        body.freeze()
    };
    let mut out = vec![Tag {
        kind: VIDEO,
        stamp_ms: 0,
        body: body(0x90, config),
    }];
    for (n, (is_key, unit)) in (0..).zip(units) {
        // Coded frames without a composition time.
        let packet_type = if code == *b"av01" { 1 } else { 3 };
        let frame_type = if is_key { 0x90 } else { 0xa0 };
        out.push(Tag {
            kind: VIDEO,
            stamp_ms: n * 1_000 / 30,
            body: body(frame_type | packet_type, &unit),
        });
    }
    out
}

/// RFC 3533: packets of a file with one stream.
fn ogg_packets(file: &[u8]) -> Vec<Bytes> {
    let (mut at, mut packets, mut open) = (0, Vec::new(), BytesMut::new());
    while let Some(count) = file.get(at + 26) {
        let lacing = &file[at + 27..at + 27 + usize::from(*count)];
        at += 27 + lacing.len();
        for length in lacing {
            let length = usize::from(*length);
            open.put_slice(&file[at..at + length]);
            at += length;
            if length < 255 {
                packets.push(open.split().freeze());
            }
        }
    }
    packets
}

/// A folder for what one publisher needs.
pub(crate) fn folder(of: &Path, name: &str) -> PathBuf {
    let folder = of.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
