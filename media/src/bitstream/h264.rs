//! H.264: the decoder configuration record, NAL units, what a sequence parameter set says.
//!
//! `AVCDecoderConfigurationRecord` is ISO/IEC 14496-15 5.3.3.1; NAL unit types are ITU-T H.264
//! table 7-1.

use bytes::{BufMut, Bytes, BytesMut};
use h264_reader::nal::sps::{FrameMbsFlags, SeqParameterSet, TimingInfo};
use h264_reader::nal::{Nal, RefNal};

/// Parameter sets of one kind in a record.
const SETS_MAX: usize = 32;

/// Why bytes are not H.264.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadH264 {
    /// The configuration record ends early or holds no parameter sets.
    #[error("the AVC configuration record is cut short or has no parameter sets")]
    Config,
    /// A sequence parameter set cannot be read.
    #[error("the sequence parameter set cannot be read")]
    Sps,
    /// A NAL unit is empty or reaches past the end of its access unit.
    #[error("a NAL unit reaches past the end of its access unit")]
    Nal,
}

/// A decoder configuration record: what `TrackInfo::config` holds for H.264.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `profile_idc`, for example 66 baseline, 77 main, 100 high.
    pub profile: u8,
    /// The constraint flags that follow the profile.
    pub compatibility: u8,
    /// `level_idc`, ten times the level.
    pub level: u8,
    /// Bytes of a NAL unit's length in the samples it came with: 1, 2 or 4.
    pub length_bytes: usize,
    /// Sequence parameter sets, each a NAL unit.
    pub sps: Vec<Bytes>,
    /// Picture parameter sets, each a NAL unit.
    pub pps: Vec<Bytes>,
}

impl Config {
    /// Reads a record.
    ///
    /// # Errors
    /// [`BadH264::Config`] when it is cut short or lacks a set.
    pub fn parse(record: &Bytes) -> Result<Self, BadH264> {
        let byte = |at: usize| record.get(at).copied().ok_or(BadH264::Config);
        if byte(0)? != 1 {
            return Err(BadH264::Config);
        }
        let length_bytes = usize::from(byte(4)? & 3) + 1;
        let (sps, at) = parse_sets(record, 6, usize::from(byte(5)? & 31))?;
        let (pps, _) = parse_sets(record, at + 1, usize::from(byte(at)?))?;
        if sps.is_empty() || pps.is_empty() || length_bytes == 3 {
            return Err(BadH264::Config);
        }
        let (profile, compatibility, level) = (byte(1)?, byte(2)?, byte(3)?);
        Ok(Self {
            profile,
            compatibility,
            level,
            length_bytes,
            sps,
            pps,
        })
    }

    /// A record of these sets, for samples with four-byte lengths.
    ///
    /// # Errors
    /// [`BadH264::Config`] when a set is missing, too short or too long.
    pub fn new(sps: Vec<Bytes>, pps: Vec<Bytes>) -> Result<Self, BadH264> {
        let is_good = |sets: &[Bytes]| {
            (1..=SETS_MAX - 1).contains(&sets.len())
                && sets
                    .iter()
                    .all(|s| (2..=usize::from(u16::MAX)).contains(&s.len()))
        };
        if !is_good(&sps) || !is_good(&pps) {
            return Err(BadH264::Config);
        }
        let byte = |at: usize| {
            sps.first()
                .and_then(|s| s.get(at))
                .copied()
                .ok_or(BadH264::Config)
        };
        let (profile, compatibility, level) = (byte(1)?, byte(2)?, byte(3)?);
        Ok(Self {
            profile,
            compatibility,
            level,
            length_bytes: 4,
            sps,
            pps,
        })
    }

    /// Writes the record, always for four-byte lengths.
    pub fn build(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        out.put_slice(&[1, self.profile, self.compatibility, self.level, 0xff]);
        put_sets(&mut out, 0xe0, &self.sps);
        put_sets(&mut out, 0, &self.pps);
        // Some players refuse High and the profiles above it without what follows.
        if matches!(self.profile, 100 | 110 | 122 | 144 | 244)
            && let Ok(facts) = self.facts()
        {
            let Depths {
                chroma,
                luma_bits,
                chroma_bits,
            } = facts.depths;
            out.put_slice(&[
                0xfc | chroma & 3,
                0xf8 | luma_bits.saturating_sub(8) & 7,
                0xf8 | chroma_bits.saturating_sub(8) & 7,
                0,
            ]);
        }
        out.freeze()
    }

    /// What the first sequence parameter set says.
    ///
    /// # Errors
    /// [`BadH264::Sps`] when it cannot be read.
    pub fn facts(&self) -> Result<SpsFacts, BadH264> {
        SpsFacts::parse(self.sps.first().ok_or(BadH264::Sps)?)
    }
}

fn parse_sets(record: &Bytes, mut at: usize, count: usize) -> Result<(Vec<Bytes>, usize), BadH264> {
    if count > SETS_MAX {
        return Err(BadH264::Config);
    }
    let mut sets = Vec::with_capacity(count);
    for _ in 0..count {
        let length = record.get(at..at + 2).ok_or(BadH264::Config)?;
        let length = length.iter().fold(0, |sum, b| sum << 8 | usize::from(*b));
        at += 2;
        if length == 0 || record.len() < at + length {
            return Err(BadH264::Config);
        }
        sets.push(record.slice(at..at + length));
        at += length;
    }
    Ok((sets, at))
}

fn put_sets(out: &mut BytesMut, flags: u8, sets: &[Bytes]) {
    out.put_u8(flags | u8::try_from(sets.len()).unwrap_or(u8::MAX));
    for set in sets {
        out.put_u16(u16::try_from(set.len()).unwrap_or(u16::MAX));
        out.put_slice(set);
    }
}

/// What a sequence parameter set says of the pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpsFacts {
    /// Width after cropping, in luma samples.
    pub width: u32,
    /// Height after cropping, in luma samples.
    pub height: u32,
    /// The most frames that may be shown after one decoded later, if it says so.
    pub reorder_frames: Option<u8>,
    /// Frames per second, rounded up, if it has a time unit that is the time of a frame.
    pub frame_rate: Option<u32>,
    /// How samples are coded.
    pub depths: Depths,
    /// True when pictures may be coded as fields.
    pub is_interlaced: bool,
}

/// How the samples of a picture are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depths {
    /// `chroma_format_idc`: 0 grey, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma: u8,
    /// Bits of a luma sample.
    pub luma_bits: u8,
    /// Bits of a chroma sample.
    pub chroma_bits: u8,
}

impl SpsFacts {
    /// Reads a sequence parameter set, header byte included.
    ///
    /// # Errors
    /// [`BadH264::Sps`] when it cannot be read.
    pub fn parse(sps: &[u8]) -> Result<Self, BadH264> {
        if sps.first().is_none_or(|b| b & 31 != 7) {
            return Err(BadH264::Sps);
        }
        let nal = RefNal::new(sps, &[], true);
        let sps = SeqParameterSet::from_bits(nal.rbsp_bits());
        Self::of(&sps.map_err(|_unread| BadH264::Sps)?)
    }

    fn of(sps: &SeqParameterSet) -> Result<Self, BadH264> {
        let (width, height) = sps.pixel_dimensions().map_err(|_absurd| BadH264::Sps)?;
        if width == 0 || height == 0 {
            return Err(BadH264::Sps);
        }
        let vui = sps.vui_parameters.as_ref();
        let restrictions = vui.and_then(|v| v.bitstream_restrictions.as_ref());
        let stated = restrictions.map(|r| r.max_num_reorder_frames);
        // Baseline cannot reorder, whether it says so or not.
        let stated = stated.or_else(|| (u8::from(sps.profile_idc) == 66).then_some(0));
        let reorder_frames = stated.map(|n| u8::try_from(n).unwrap_or(u8::MAX));
        let timing = vui.and_then(|v| v.timing_info.as_ref());
        let frame_rate = timing.and_then(frame_rate);
        let colour = &sps.chroma_info;
        let depths = Depths {
            chroma: u8::try_from(colour.chroma_format.to_u32()).map_err(|_wide| BadH264::Sps)?,
            luma_bits: 8 + colour.bit_depth_luma_minus8,
            chroma_bits: 8 + colour.bit_depth_chroma_minus8,
        };
        if depths.chroma > 3 {
            return Err(BadH264::Sps);
        }
        Ok(Self {
            width,
            height,
            reorder_frames,
            frame_rate,
            depths,
            is_interlaced: !matches!(sps.frame_mbs_flags, FrameMbsFlags::Frames),
        })
    }
}

/// Where frames may come at any time, a unit this short is the grain of the encoder's clock.
const GRAINS_PER_S_MIN: u64 = 1_000;

fn frame_rate(timing: &TimingInfo) -> Option<u32> {
    // A tick is the time of a field.
    let frame_units = Some(2 * u64::from(timing.num_units_in_tick)).filter(|units| *units > 0)?;
    let rate = u64::from(timing.time_scale).div_ceil(frame_units);
    let is_frame = timing.fixed_frame_rate_flag || rate < GRAINS_PER_S_MIN;
    is_frame.then(|| u32::try_from(rate).unwrap_or(u32::MAX))
}

/// NAL units of an access unit with lengths of `length_bytes`.
#[derive(Clone, Debug)]
pub struct Nals<'a> {
    rest: &'a [u8],
    length_bytes: usize,
}

/// The NAL units of a canonical payload: four-byte lengths.
pub const fn nals(payload: &[u8]) -> Nals<'_> {
    nals_of(payload, 4)
}

/// The NAL units of an access unit with lengths of `length_bytes`.
pub const fn nals_of(payload: &[u8], length_bytes: usize) -> Nals<'_> {
    Nals {
        rest: payload,
        length_bytes,
    }
}

impl<'a> Iterator for Nals<'a> {
    type Item = Result<&'a [u8], BadH264>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let split = self
            .rest
            .split_at_checked(self.length_bytes)
            .and_then(|(length, rest)| {
                let length = length.iter().fold(0, |sum, b| sum << 8 | usize::from(*b));
                rest.split_at_checked(length).filter(|_| length > 0)
            });
        let Some((nal, rest)) = split else {
            self.rest = &[];
            return Some(Err(BadH264::Nal));
        };
        self.rest = rest;
        Some(Ok(nal))
    }
}

/// The kinds of NAL unit that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NalKind {
    /// A slice of a picture that refers to others, or partition A of one.
    Slice,
    /// A slice of an instantaneous decoding refresh: decoding can start here.
    Idr,
    /// Supplemental information.
    Sei,
    /// Sequence parameter set.
    Sps,
    /// Picture parameter set.
    Pps,
    /// Access unit delimiter, end of sequence or stream, filler: carries no picture.
    Filler,
    /// Anything else.
    Other,
}

impl NalKind {
    /// The kind by the first byte of a NAL unit.
    pub const fn of(header: u8) -> Self {
        match header & 31 {
            1..=4 => Self::Slice,
            5 => Self::Idr,
            6 => Self::Sei,
            7 => Self::Sps,
            8 => Self::Pps,
            9..=12 => Self::Filler,
            _ => Self::Other,
        }
    }
}

/// Splits a byte stream with start codes (H.264 annex B) into NAL units.
pub fn split_annex_b(stream: &Bytes) -> Vec<Bytes> {
    let mut starts = Vec::new();
    let mut zeros = 0_usize;
    for (at, byte) in stream.iter().enumerate() {
        match byte {
            0 => zeros += 1,
            1 if zeros >= 2 => {
                starts.push((at - zeros, at + 1));
                zeros = 0;
            }
            _ => zeros = 0,
        }
    }
    let ends = starts
        .iter()
        .skip(1)
        .map(|s| s.0)
        .chain(std::iter::once(stream.len()));
    let pairs = starts.iter().map(|s| s.1).zip(ends);
    pairs
        .filter(|(from, to)| from < to)
        .map(|(from, to)| stream.slice(from..to))
        .collect()
}

/// Appends a NAL unit with its four-byte length.
pub fn put_nal(out: &mut BytesMut, nal: &[u8]) {
    out.put_u32(u32::try_from(nal.len()).unwrap_or(u32::MAX));
    out.put_slice(nal);
}

#[cfg(test)]
mod tests {
    use h264_reader::nal::sps::FrameCropping;
    use proptest::prelude::*;

    use super::*;

    /// x264 at 640x360, High, two B-frames.
    const SPS: &[u8] = &[
        0x67, 0x64, 0x00, 0x1e, 0xac, 0xd9, 0x40, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00, 0x00, 0x03,
        0x00, 0x01, 0x00, 0x00, 0x03, 0x00, 0x3c, 0x0f, 0x16, 0x2d, 0x96,
    ];

    #[test]
    fn a_set_of_x264_says_its_size_after_cropping_and_its_reordering() {
        let facts = SpsFacts::parse(SPS).unwrap();
        assert_eq!(
            (facts.width, facts.height, facts.reorder_frames),
            (640, 360, Some(2))
        );
    }

    /// What x264 writes of 64x64 at 30 frames a second, by profile: the set, and the last bytes of
    /// the record.
    #[test]
    fn a_record_says_how_the_samples_of_its_pictures_are_coded() {
        let (high, high10, high422, high444) = (
            "6764000aacd94426c044000003000400000300f03c489658",
            "676e000aa6cd94426c0440000003004000000f03c4896580",
            "677a000ab6cd94426c0440000003004000000f03c4896580",
            "67f4000a919b2884d80880000003008000001e078912cb",
        );
        let cases = [
            (high, [0xfd, 0xf8, 0xf8, 0]),
            (high10, [0xfd, 0xfa, 0xfa, 0]),
            (high422, [0xfe, 0xfa, 0xfa, 0]),
            (high444, [0xff, 0xf8, 0xf8, 0]),
        ];
        for (sps, tail) in cases {
            let sps = Bytes::from(hex(sps));
            let facts = SpsFacts::parse(&sps).unwrap();
            assert_eq!((facts.width, facts.height), (64, 64));
            assert_eq!(facts.frame_rate, Some(30));
            let pps = Bytes::from_static(&[0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0]);
            let record = Config::new(vec![sps], vec![pps]).unwrap().build();
            assert!(record.ends_with(&tail), "{record:02x?}");
        }
        // Main has no such bytes.
        let baseline = [0x67, 0x42, 0xc0, 0x1e, 0xda, 2, 0x80, 0xbf, 0xe5, 0x40];
        let pps = Bytes::from_static(&[0x68, 0xce, 0x3c, 0x80]);
        let config = Config::new(vec![Bytes::from(baseline.to_vec())], vec![pps]);
        assert!(config.unwrap().build().ends_with(&[0x68, 0xce, 0x3c, 0x80]));
    }

    fn hex(digits: &str) -> Vec<u8> {
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (0..digits.len()).step_by(2).map(byte).collect()
    }

    /// Changes a set of x264 field by field.
    fn changed(change: impl FnOnce(&mut SeqParameterSet)) -> Result<SpsFacts, BadH264> {
        let nal = RefNal::new(SPS, &[], true);
        let mut sps = SeqParameterSet::from_bits(nal.rbsp_bits()).unwrap();
        change(&mut sps);
        SpsFacts::of(&sps)
    }

    #[test]
    fn a_time_unit_is_that_of_a_frame_unless_it_is_zero_or_the_grain_of_a_clock() {
        let rate = |units: u32, scale: u32, is_fixed: bool| {
            let facts = changed(|sps| {
                let vui = sps.vui_parameters.as_mut().unwrap();
                let timing = vui.timing_info.as_mut().unwrap();
                timing.num_units_in_tick = units;
                timing.time_scale = scale;
                timing.fixed_frame_rate_flag = is_fixed;
            });
            facts.unwrap().frame_rate
        };
        assert_eq!(rate(1_001, 240_000, true), Some(120), "119.88");
        assert_eq!(rate(1, 242, true), Some(121));
        assert_eq!(rate(0, 60, true), None);
        assert_eq!(rate(1, 480, false), Some(240));
        assert_eq!(rate(1, 2_000, false), None, "milliseconds");
        assert_eq!(rate(1, 180_000, false), None);
        assert_eq!(rate(1, u32::MAX, true), Some(1 << 31));
    }

    #[test]
    fn a_picture_cropped_to_nothing_is_a_bad_set() {
        let crop = |width: u32, height: u32| {
            let facts = changed(|sps| {
                sps.frame_cropping = Some(FrameCropping {
                    left_offset: 0,
                    right_offset: width / 2,
                    top_offset: 0,
                    bottom_offset: height / 2,
                });
            });
            facts.map(|facts| (facts.width, facts.height))
        };
        // 640x368 before it is cropped.
        assert_eq!(crop(638, 366), Ok((2, 2)));
        assert_eq!(crop(640, 0), Err(BadH264::Sps));
        assert_eq!(crop(0, 368), Err(BadH264::Sps));
        assert_eq!(crop(642, 0), Err(BadH264::Sps));
    }

    #[test]
    fn a_record_survives_being_written_and_read() {
        let pps = Bytes::from_static(&[0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0]);
        let config = Config::new(vec![Bytes::from_static(SPS)], vec![pps]).unwrap();
        assert_eq!(Config::parse(&config.build()), Ok(config));
    }

    #[test]
    fn a_record_cut_short_anywhere_before_its_last_set_is_refused() {
        let pps = Bytes::from_static(&[0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0]);
        let record = Config::new(vec![Bytes::from_static(SPS)], vec![pps])
            .unwrap()
            .build();
        let needed = record.len() - 4;
        for length in 0..needed {
            assert_eq!(
                Config::parse(&record.slice(..length)),
                Err(BadH264::Config),
                "{length}"
            );
        }
    }

    #[test]
    fn a_nal_unit_that_lies_about_its_length_is_an_error_and_ends_the_walk() {
        for payload in [&[0, 0, 0, 9, 0x65, 1][..], &[0, 0, 0, 0, 1], &[0, 0, 1]] {
            let got: Vec<_> = nals(payload).collect();
            assert_eq!(got, [Err(BadH264::Nal)]);
        }
    }

    proptest! {
        #[test]
        fn nal_units_come_back_from_lengths_and_from_start_codes(
            list in proptest::collection::vec(
                proptest::collection::vec(4_u8..=255, 1..50), 1..8),
        ) {
            let (mut with_lengths, mut stream) = (BytesMut::new(), BytesMut::new());
            for nal in &list {
                put_nal(&mut with_lengths, nal);
                stream.put_slice(&[0, 0, 0, 1]);
                stream.put_slice(nal);
            }
            let got: Vec<Vec<u8>> = nals(&with_lengths).map(|n| n.unwrap().to_vec()).collect();
            prop_assert_eq!(&got, &list);
            let split: Vec<Vec<u8>> =
                split_annex_b(&stream.freeze()).iter().map(|n| n.to_vec()).collect();
            prop_assert_eq!(&split, &list);
        }

        #[test]
        fn no_bytes_make_the_readers_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = Config::parse(&Bytes::from(bytes.clone()));
            let _ = SpsFacts::parse(&bytes);
            let _ = nals(&bytes).count();
        }
    }
}
