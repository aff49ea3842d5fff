//! CMAF boxes: init sections, and one chunk (`[emsg] moof mdat`) per part (ISO/IEC 23000-19).
//!
//! Invariants
//! - One track per file, no edit lists; `tfdt` is T: picture at 90 kHz, sound at its sample rate.
//! - Decode times and durations are rounded from T as points, so that durations add up.

use std::sync::Arc;

use base64::Engine;
use bytes::Bytes;
use mp4_atom::{
    Audio, Av01, Av1c, Avc1, Avcc, Codec as Entry, Decode, Dinf, Dref, DrefEntry, Emsg,
    EmsgTimestamp, Encode, Esds, FixedPoint, FourCC, Ftyp, Hdlr, Hvc1, Hvcc, Mdhd, Mdia, Mfhd,
    Minf, Moof, Moov, Mp4a, Mvex, Mvhd, Smhd, Stbl, Stco, Stsc, Stsd, Stsz, Stts, Tfdt, Tfhd, Tkhd,
    Traf, Trak, Trex, Trun, TrunEntry, Url, Visual, Vmhd, esds,
};

use crate::cue::{Cue, CueNews};
use crate::frame::{Codec, Frame, Kind, Shape, TrackInfo};
use crate::time::{MediaTime, micros};

const VIDEO_RATE: u32 = 90_000;
const TRACK: u32 = 1;
/// Other frames depend on nothing but this one; the rest are "non-sync" (ISO/IEC 14496-12 8.8.3.1).
const FLAGS_KEY: u32 = 0x0200_0000;
const FLAGS_DELTA: u32 = 0x0101_0000;
const FLAGS_DISCARDABLE: u32 = 0x0181_0000;
/// Who owns the PRIV frames that carry cues.
const CUE_OWNER: &str = "lamplight/cue/1";
/// What the message of an event is: an ID3 tag.
pub(crate) const EMSG_SCHEME: &str = "https://aomedia.org/emsg/ID3";

/// The track cannot be written as CMAF.
#[derive(Debug, thiserror::Error)]
pub enum Mp4Error {
    /// A codec that has no sample entry here.
    #[error("{0:?} has no CMAF form here")]
    Codec(Codec),
    /// The parameters or samples do not fit their boxes.
    #[error("writing boxes")]
    Boxes(#[from] mp4_atom::Error),
}

/// The clock of a track in its file.
pub(super) fn timescale(info: &TrackInfo) -> u32 {
    info.audio_rate().unwrap_or(VIDEO_RATE)
}

/// The init section of a track.
pub(super) fn init(info: &TrackInfo) -> Result<Bytes, Mp4Error> {
    let ftyp = Ftyp {
        major_brand: FourCC::new(b"iso6"),
        minor_version: 0,
        compatible_brands: [b"iso6", b"cmfc", b"mp41"].map(FourCC::new).to_vec(),
    };
    let rate = timescale(info);
    let mut out = Vec::new();
    ftyp.encode(&mut out)?;
    let moov = Moov {
        mvhd: Mvhd {
            timescale: rate,
            next_track_id: TRACK + 1,
            ..Mvhd::default()
        },
        mvex: Some(Mvex {
            mehd: None,
            trex: vec![Trex {
                track_id: TRACK,
                default_sample_description_index: 1,
                ..Trex::default()
            }],
        }),
        trak: vec![trak(info, rate)?],
        ..Moov::default()
    };
    moov.encode(&mut out)?;
    Ok(out.into())
}

fn trak(info: &TrackInfo, rate: u32) -> Result<Trak, Mp4Error> {
    let mut tkhd = Tkhd {
        track_id: TRACK,
        enabled: true,
        in_movie: true,
        ..Tkhd::default()
    };
    let mut minf = Minf {
        dinf: Dinf {
            dref: Dref {
                entries: vec![DrefEntry::Url(Url {
                    location: String::new(),
                })],
            },
        },
        stbl: Stbl {
            stsd: Stsd {
                codecs: vec![entry(info)?],
            },
            stts: Stts::default(),
            stsc: Stsc::default(),
            stsz: Stsz::default(),
            stco: Some(Stco::default()),
            ..Stbl::default()
        },
        ..Minf::default()
    };
    let handler = match info.shape {
        Shape::Video { width, height } => {
            tkhd.width = FixedPoint::new(narrow(width), 0);
            tkhd.height = FixedPoint::new(narrow(height), 0);
            minf.vmhd = Some(Vmhd::default());
            (b"vide", "picture")
        }
        Shape::Audio { .. } => {
            tkhd.volume = FixedPoint::new(1, 0);
            minf.smhd = Some(Smhd::default());
            (b"soun", "sound")
        }
    };
    let mdia = Mdia {
        mdhd: Mdhd {
            timescale: rate,
            language: "und".into(),
            ..Mdhd::default()
        },
        hdlr: Hdlr {
            handler: FourCC::new(handler.0),
            name: handler.1.into(),
        },
        minf,
    };
    Ok(Trak {
        tkhd,
        mdia,
        ..Trak::default()
    })
}

fn entry(info: &TrackInfo) -> Result<Entry, Mp4Error> {
    match (info.codec, info.shape) {
        (Codec::H264, Shape::Video { width, height }) => {
            let record = boxed(b"avcC", &info.config);
            Ok(Entry::Avc1(Avc1 {
                visual: visual(width, height),
                avcc: Avcc::decode(&mut record.as_slice())?,
                btrt: None,
                colr: None,
                pasp: None,
                taic: None,
                fiel: None,
                spatial: None,
            }))
        }
        (Codec::Hevc, Shape::Video { width, height }) => {
            let record = boxed(b"hvcC", &info.config);
            Ok(Entry::Hvc1(Hvc1 {
                visual: visual(width, height),
                hvcc: Hvcc::decode(&mut record.as_slice())?,
                ..Hvc1::default()
            }))
        }
        (Codec::Av1, Shape::Video { width, height }) => {
            let record = boxed(b"av1C", &info.config);
            Ok(Entry::Av01(Av01 {
                visual: visual(width, height),
                av1c: Av1c::decode(&mut record.as_slice())?,
                ..Av01::default()
            }))
        }
        (Codec::Aac, Shape::Audio { rate, channels }) => Ok(Entry::Mp4a(Mp4a {
            audio: Audio {
                data_reference_index: 1,
                channel_count: u16::from(channels),
                sample_size: 16,
                sample_rate: FixedPoint::new(narrow(rate), 0),
            },
            esds: Esds {
                es_desc: es_descriptor(info),
            },
            btrt: None,
            taic: None,
        })),
        (codec, _) => Err(Mp4Error::Codec(codec)),
    }
}

fn visual(width: u32, height: u32) -> Visual {
    Visual {
        data_reference_index: 1,
        width: narrow(width),
        height: narrow(height),
        depth: 24,
        frame_count: 1,
        horizresolution: FixedPoint::new(72, 0),
        vertresolution: FixedPoint::new(72, 0),
        ..Visual::default()
    }
}

/// A record with the box header its decoder expects.
fn boxed(kind: &[u8; 4], body: &Bytes) -> Vec<u8> {
    let size = u32::try_from(body.len() + 8).unwrap_or(u32::MAX);
    [&size.to_be_bytes()[..], kind, body].concat()
}

fn es_descriptor(info: &TrackInfo) -> esds::EsDescriptor {
    esds::EsDescriptor {
        es_id: 1,
        dec_config: esds::DecoderConfig {
            object_type_indication: 0x40,
            stream_type: 5,
            dec_specific: Some(esds::DecoderSpecific {
                raw: info.config.to_vec(),
                ..esds::DecoderSpecific::default()
            }),
            ..esds::DecoderConfig::default()
        },
        ..esds::EsDescriptor::default()
    }
}

/// Sizes were bounded when the track was accepted.
fn narrow(value: u32) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

/// The samples of one part. `end` is where the last frame ends.
pub(super) struct Chunk<'a> {
    pub(super) frames: &'a [Arc<Frame>],
    pub(super) end: MediaTime,
    pub(super) sequence: u32,
    pub(super) news: &'a [CueNews],
}

impl Chunk<'_> {
    /// `[emsg] moof mdat`.
    pub(super) fn write(&self) -> Result<Bytes, Mp4Error> {
        let Some(first) = self.frames.first() else {
            return Ok(Bytes::new());
        };
        let rate = timescale(&first.info);
        let bytes: usize = self.frames.iter().map(|f| f.payload.len()).sum();
        let mut out = Vec::with_capacity(bytes + 256 + 16 * self.frames.len());
        for news in self.news {
            emsg(news).encode(&mut out)?;
        }
        let mut moof = Moof {
            mfhd: Mfhd {
                sequence_number: self.sequence,
            },
            traf: vec![Traf {
                tfhd: Tfhd {
                    track_id: TRACK,
                    default_base_is_moof: true,
                    ..Tfhd::default()
                },
                tfdt: Some(Tfdt {
                    base_media_decode_time: u64::try_from(ticks(first.dts, first, rate))
                        .unwrap_or(0),
                }),
                trun: vec![Trun {
                    data_offset: Some(0),
                    samples: self.entries(rate).into(),
                }],
                ..Traf::default()
            }],
        };
        let mut sized = Vec::new();
        moof.encode(&mut sized)?;
        // The data begins after the box and the header of `mdat`.
        let offset = i32::try_from(sized.len() + 8).unwrap_or(i32::MAX);
        for trun in moof.traf.iter_mut().flat_map(|t| &mut t.trun) {
            trun.data_offset = Some(offset);
        }
        moof.encode(&mut out)?;
        // Written by hand: `Mdat` would want the frames copied together first.
        let size = u32::try_from(bytes + 8).map_err(|_wide| mp4_atom::Error::OutOfBounds)?;
        out.extend(size.to_be_bytes());
        out.extend(b"mdat");
        for frame in self.frames {
            out.extend_from_slice(&frame.payload);
        }
        Ok(out.into())
    }

    fn entries(&self, rate: u32) -> Vec<TrunEntry> {
        let ends = self
            .frames
            .iter()
            .skip(1)
            .map(|f| f.dts)
            .chain(std::iter::once(self.end));
        let rows = self.frames.iter().zip(ends);
        rows.map(|(frame, end)| {
            let is_video = frame.track.kind() == Kind::Video;
            let duration = ticks(end, frame, rate) - ticks(frame.dts, frame, rate);
            let cts = ticks(frame.pts, frame, rate) - ticks(frame.dts, frame, rate);
            let flags = match (frame.is_key, frame.is_discardable) {
                (true, _) => FLAGS_KEY,
                (false, true) => FLAGS_DISCARDABLE,
                (false, false) => FLAGS_DELTA,
            };
            TrunEntry {
                duration: Some(u32::try_from(duration).unwrap_or(0)),
                size: Some(u32::try_from(frame.payload.len()).unwrap_or(u32::MAX)),
                flags: Some(flags),
                cts: is_video.then_some(cts),
            }
        })
        .collect()
    }
}

/// Sound is counted in samples, so it is rounded to the nearest; pictures towards the past.
fn ticks(t: MediaTime, frame: &Frame, rate: u32) -> i64 {
    match frame.track.kind() {
        Kind::Video => t.to_90khz(),
        Kind::Audio => t.to_nearest_ticks(rate),
    }
}

/// The event message of a cue: an ID3 tag with one PRIV frame (AOM "Carriage of ID3 in CMAF").
fn emsg(news: &CueNews) -> Emsg {
    let (t, duration) = match news {
        CueNews::Opened(cue) => (cue.t, cue.duration.map_or(0, micros)),
        CueNews::Closed { t, .. } => (*t, 0),
    };
    Emsg {
        timescale: 1_000_000,
        presentation_time: EmsgTimestamp::Absolute(u64::try_from(t.as_micros()).unwrap_or(0)),
        event_duration: u32::try_from(duration).unwrap_or(u32::MAX),
        id: event_id(news),
        scheme_id_uri: EMSG_SCHEME.into(),
        value: String::new(),
        message_data: id3(message(news).as_bytes()),
    }
}

/// Players drop a second event of the same id, so opening and closing differ.
fn event_id(news: &CueNews) -> u32 {
    let (cue, salt) = match news {
        CueNews::Opened(cue) => (cue, 0_u32),
        CueNews::Closed { cue, .. } => (cue, 1),
    };
    let hash = |sum: u32, byte: &u8| (sum ^ u32::from(*byte)).wrapping_mul(16_777_619);
    cue.id.as_bytes().iter().fold(2_166_136_261 ^ salt, hash)
}

/// The JSON of spec media.md 1.5 rule 5, without `rtp`.
fn message(news: &CueNews) -> String {
    match news {
        CueNews::Opened(cue) => serde_json::json!({
            "type": "cue",
            "id": cue.id,
            "class": cue.class,
            "t_us": cue.t.as_micros(),
            "duration_us": cue.duration.map(micros),
            "data": data(cue),
        }),
        CueNews::Closed { cue, t } => serde_json::json!({
            "type": "cue_end",
            "id": cue.id,
            "t_us": t.as_micros(),
        }),
    }
    .to_string()
}

/// The payload of a cue as text that fits JSON and playlist attributes.
pub(crate) fn data(cue: &Cue) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&cue.payload)
}

/// The payload that such a text stands for.
pub(crate) fn payload(data: &str) -> Option<Bytes> {
    let decoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(data);
    decoded.ok().map(Bytes::from)
}

/// An ID3v2.4 tag with one PRIV frame.
fn id3(data: &[u8]) -> Vec<u8> {
    let body = CUE_OWNER.len() + 1 + data.len();
    let mut tag = Vec::with_capacity(body + 20);
    tag.extend(b"ID3\x04\x00\x00");
    tag.extend(syncsafe(body + 10));
    tag.extend(b"PRIV");
    tag.extend(syncsafe(body));
    tag.extend([0, 0]);
    tag.extend(CUE_OWNER.as_bytes());
    tag.push(0);
    tag.extend(data);
    tag
}

/// Four bytes of seven bits each.
fn syncsafe(size: usize) -> [u8; 4] {
    let size = u32::try_from(size).unwrap_or(0);
    [21, 14, 7, 0].map(|shift| u8::try_from(size >> shift & 127).unwrap_or(0))
}

/// The `CODECS` attribute of a track (RFC 6381).
pub(super) fn codecs(info: &TrackInfo) -> String {
    let byte = |at: usize| info.config.get(at).copied().unwrap_or(0);
    match info.codec {
        Codec::H264 => format!("avc1.{:02x}{:02x}{:02x}", byte(1), byte(2), byte(3)),
        Codec::Aac => format!("mp4a.40.{}", byte(0) >> 3),
        Codec::Opus => "opus".into(),
        Codec::Hevc => hevc_codecs(&info.config),
        Codec::Av1 => av1_codecs(&info.config),
    }
}

/// ISO/IEC 14496-15 annex E.3: profile, compatibility, tier and level, constraints.
fn hevc_codecs(record: &[u8]) -> String {
    let byte = |at: usize| record.get(at).copied().unwrap_or(0);
    let space = match byte(1) >> 6 {
        0 => "",
        1 => "A",
        2 => "B",
        _ => "C",
    };
    let profile = byte(1) & 31;
    let compatibility = u32::from_be_bytes([byte(2), byte(3), byte(4), byte(5)]).reverse_bits();
    let tier = if byte(1) & 32 == 0 { 'L' } else { 'H' };
    let level = byte(12);
    let mut text = format!("hvc1.{space}{profile}.{compatibility:X}.{tier}{level}");
    let constraints = record.get(6..12).unwrap_or_default();
    let used = constraints
        .iter()
        .rposition(|b| *b != 0)
        .map_or(0, |at| at + 1);
    for byte in constraints.iter().take(used) {
        text.push_str(&format!(".{byte:X}"));
    }
    text
}

/// AV1-ISOBMFF 5: profile, level and tier, bits of a sample.
fn av1_codecs(record: &[u8]) -> String {
    let byte = |at: usize| record.get(at).copied().unwrap_or(0);
    let (profile, level) = (byte(1) >> 5, byte(1) & 31);
    let tier = if byte(2) & 0x80 == 0 { 'M' } else { 'H' };
    let bits = match byte(2) >> 5 & 3 {
        3 => 12,
        2 => 10,
        _ => 8,
    };
    format!("av01.{profile}.{level:02}{tier}.{bits:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitstream::{av1, hevc};

    fn info(codec: Codec, config: Bytes) -> TrackInfo {
        TrackInfo {
            codec,
            generation: 0,
            shape: Shape::Video {
                width: 198,
                height: 108,
            },
            config,
            reorder_frames: None,
        }
    }

    fn hex(digits: &str) -> Bytes {
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (0..digits.len()).step_by(2).map(byte).collect()
    }

    fn hvcc() -> Bytes {
        let sets = [
            "40010c01ffff01600000030090000003000003003c959009",
            "42010101600000030090000003000003003ca0192071d5e595924932bc05a020000003002000000303c1",
            "4401c172b46240",
        ];
        let [vps, sps, pps] = sets.map(|set| vec![hex(set)]);
        hevc::Config::new(vps, sps, pps).unwrap().build().unwrap()
    }

    /// The entry of the one track, read back from an init section.
    fn entry_of(info: &TrackInfo) -> Entry {
        let init = init(info).unwrap();
        let mut rest = &init[..];
        Ftyp::decode(&mut rest).unwrap();
        let moov = Moov::decode(&mut rest).unwrap();
        moov.trak[0].mdia.minf.stbl.stsd.codecs[0].clone()
    }

    #[test]
    fn an_init_section_of_hevc_or_av1_holds_the_record_of_the_track() {
        let record = hvcc();
        let Entry::Hvc1(entry) = entry_of(&info(Codec::Hevc, record.clone())) else {
            panic!("not hvc1");
        };
        assert_eq!((entry.visual.width, entry.visual.height), (198, 108));
        let mut written = Vec::new();
        entry.hvcc.encode(&mut written).unwrap();
        assert_eq!(written, boxed(b"hvcC", &record));

        let record = hex("81000c000a0a00000003b62eb36be401");
        let Entry::Av01(entry) = entry_of(&info(Codec::Av1, record.clone())) else {
            panic!("not av01");
        };
        assert_eq!((entry.visual.width, entry.visual.height), (198, 108));
        let mut written = Vec::new();
        entry.av1c.encode(&mut written).unwrap();
        assert_eq!(written, boxed(b"av1C", &record));
    }

    #[test]
    fn codecs_are_named_as_players_ask_for_them() {
        assert_eq!(codecs(&info(Codec::Hevc, hvcc())), "hvc1.1.6.L60.90");
        let rows = [
            ("0a0a00000003b62eb36be401", "av01.0.00M.08"),
            ("0a0a00000003b63f73efe501", "av01.0.00M.10"),
            ("0a0a20000003b63f736be408", "av01.1.00M.08"),
            ("0a0e000000f9db1fb8842a2040404280", "av01.0.31M.08"),
        ];
        for (obu, expected) in rows {
            let config = av1::Config::new(hex(&obu[4..])).unwrap();
            assert_eq!(codecs(&info(Codec::Av1, config.build())), expected);
        }
        // Main 10, high tier, level 5.1; main 10-bit AV1, high tier, level 5.3.
        let mut record = hvcc().to_vec();
        record[1..13].copy_from_slice(&[0x22, 0x20, 0, 0, 0, 0xb0, 0, 0, 0, 0, 0, 153]);
        let named = codecs(&info(Codec::Hevc, record.into()));
        assert_eq!(named, "hvc1.2.4.H153.B0");
        let record = Bytes::from_static(&[0x81, 15, 0xcc, 0]);
        assert_eq!(codecs(&info(Codec::Av1, record)), "av01.0.15H.10");
    }
}
