//! HEVC: the decoder configuration record, NAL units, what a sequence parameter set says.
//!
//! `HEVCDecoderConfigurationRecord` is ISO/IEC 14496-15 8.3.3.1; NAL unit types are ITU-T H.265
//! table 7-1. NAL units are split and joined by [`super::h264`]: their lengths are the same.

use bytes::{BufMut, Bytes, BytesMut};

use super::bits::{BadBits, Bits, unescaped};

/// Parameter sets of one kind in a record.
const SETS_MAX: usize = 16;
/// Bytes of a parameter set's NAL header.
const HEADER_BYTES: usize = 2;
/// Bytes of a record before its arrays.
const RECORD_HEAD_BYTES: usize = 23;
/// Layers of frame rates in one stream.
const SUB_LAYERS_MAX: u32 = 7;
/// Luma samples of a side, far above every level.
const SIDE_MAX: u32 = 1 << 16;

/// Why bytes are not HEVC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHevc {
    /// The configuration record ends early or lacks a kind of parameter set.
    #[error("the HEVC configuration record is cut short or lacks parameter sets")]
    Config,
    /// A sequence parameter set cannot be read.
    #[error("the sequence parameter set cannot be read")]
    Sps,
}

impl From<BadBits> for BadHevc {
    fn from(_: BadBits) -> Self {
        Self::Sps
    }
}

/// A decoder configuration record: what `TrackInfo::config` holds for HEVC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes of a NAL unit's length in the samples it came with: 1, 2 or 4.
    pub length_bytes: usize,
    /// Video parameter sets, each a NAL unit.
    pub vps: Vec<Bytes>,
    /// Sequence parameter sets, each a NAL unit.
    pub sps: Vec<Bytes>,
    /// Picture parameter sets, each a NAL unit.
    pub pps: Vec<Bytes>,
}

impl Config {
    /// Reads a record. Of its own fields only the size of lengths counts: all others follow from
    /// the sets.
    ///
    /// # Errors
    /// [`BadHevc::Config`] when it is cut short or lacks a set.
    pub fn parse(record: &Bytes) -> Result<Self, BadHevc> {
        let byte = |at: usize| record.get(at).copied().ok_or(BadHevc::Config);
        // Some encoders leave the version at zero.
        if byte(0)? > 1 {
            return Err(BadHevc::Config);
        }
        let length_bytes = usize::from(byte(21)? & 3) + 1;
        let mut sets = [Vec::new(), Vec::new(), Vec::new()];
        let mut at = RECORD_HEAD_BYTES;
        for _ in 0..byte(22)? {
            let kind = NalKind::of(byte(at)? << 1);
            let count = usize::from(byte(at + 1)?) << 8 | usize::from(byte(at + 2)?);
            at += 3;
            for _ in 0..count {
                let length = usize::from(byte(at)?) << 8 | usize::from(byte(at + 1)?);
                at += 2;
                if length == 0 || record.len() < at + length {
                    return Err(BadHevc::Config);
                }
                let list = match kind {
                    NalKind::Vps => sets.get_mut(0),
                    NalKind::Sps => sets.get_mut(1),
                    NalKind::Pps => sets.get_mut(2),
                    _ => None,
                };
                if let Some(list) = list {
                    list.push(record.slice(at..at + length));
                }
                at += length;
            }
        }
        let [vps, sps, pps] = sets;
        let config = Self::new(vps, sps, pps)?;
        if length_bytes == 3 {
            return Err(BadHevc::Config);
        }
        Ok(Self {
            length_bytes,
            ..config
        })
    }

    /// A record of these sets, for samples with four-byte lengths.
    ///
    /// # Errors
    /// [`BadHevc::Config`] when a set is missing, too short or too long.
    pub fn new(vps: Vec<Bytes>, sps: Vec<Bytes>, pps: Vec<Bytes>) -> Result<Self, BadHevc> {
        let is_good = |sets: &[Bytes]| {
            let lengths = HEADER_BYTES + 1..=usize::from(u16::MAX);
            (1..=SETS_MAX).contains(&sets.len()) && sets.iter().all(|s| lengths.contains(&s.len()))
        };
        if !is_good(&vps) || !is_good(&sps) || !is_good(&pps) {
            return Err(BadHevc::Config);
        }
        Ok(Self {
            length_bytes: 4,
            vps,
            sps,
            pps,
        })
    }

    /// Writes the record, always for four-byte lengths.
    ///
    /// # Errors
    /// [`BadHevc::Sps`] when the set from which its fields follow cannot be read.
    pub fn build(&self) -> Result<Bytes, BadHevc> {
        let facts = self.facts()?;
        let mut out = BytesMut::with_capacity(RECORD_HEAD_BYTES + 256);
        out.put_u8(1);
        out.put_slice(&facts.profile);
        // Segmentation and parallelism are not told.
        out.put_slice(&[0xf0, 0, 0xfc]);
        out.put_u8(0xfc | facts.chroma);
        out.put_u8(0xf8 | (facts.luma_bits - 8));
        out.put_u8(0xf8 | (facts.chroma_bits - 8));
        // The mean frame rate is not told; lengths have four bytes.
        out.put_u16(0);
        out.put_u8(facts.sub_layers << 3 | u8::from(facts.is_nested) << 2 | 3);
        out.put_u8(3);
        for (type_id, sets) in [(32, &self.vps), (33, &self.sps), (34, &self.pps)] {
            out.put_u8(0x80 | type_id);
            out.put_u16(u16::try_from(sets.len()).unwrap_or(u16::MAX));
            for set in sets {
                out.put_u16(u16::try_from(set.len()).unwrap_or(u16::MAX));
                out.put_slice(set);
            }
        }
        Ok(out.freeze())
    }

    /// What the first sequence parameter set says.
    ///
    /// # Errors
    /// [`BadHevc::Sps`] when it cannot be read.
    pub fn facts(&self) -> Result<SpsFacts, BadHevc> {
        SpsFacts::parse(self.sps.first().ok_or(BadHevc::Sps)?)
    }
}

/// What a sequence parameter set says of the pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpsFacts {
    /// Width after cropping, in luma samples.
    pub width: u32,
    /// Height after cropping, in luma samples.
    pub height: u32,
    /// The most frames that may be shown after one decoded later.
    pub reorder_frames: u8,
    /// Profile space, tier, profile, compatibility, constraints and level, as a record has them.
    pub profile: [u8; 12],
    /// `chroma_format_idc`: 0 grey, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma: u8,
    /// Bits of a luma sample, 8 to 15.
    pub luma_bits: u8,
    /// Bits of a chroma sample, 8 to 15.
    pub chroma_bits: u8,
    /// Layers of frame rates, 1 to 7.
    pub sub_layers: u8,
    /// Whether decoding can climb to a higher layer at any picture.
    pub is_nested: bool,
}

impl SpsFacts {
    /// Reads a sequence parameter set, header bytes included.
    ///
    /// # Errors
    /// [`BadHevc::Sps`] when it cannot be read.
    pub fn parse(sps: &[u8]) -> Result<Self, BadHevc> {
        let (header, payload) = sps.split_at_checked(HEADER_BYTES).ok_or(BadHevc::Sps)?;
        if NalKind::of(header.first().copied().unwrap_or(0)) != NalKind::Sps {
            return Err(BadHevc::Sps);
        }
        let payload = unescaped(payload);
        let mut bits = Bits::new(&payload);
        bits.skip(4)?;
        let sub_layers = bits.take(3)? + 1;
        if sub_layers > SUB_LAYERS_MAX {
            return Err(BadHevc::Sps);
        }
        let is_nested = bits.flag()?;
        let profile = profile_tier_level(&mut bits, sub_layers)?;
        bits.golomb()?;
        let chroma = small(&mut bits, 3)?;
        if chroma == 3 {
            bits.skip(1)?;
        }
        let (width, height) = size(&mut bits, chroma)?;
        let luma_bits = 8 + small(&mut bits, 7)?;
        let chroma_bits = 8 + small(&mut bits, 7)?;
        small(&mut bits, 12)?;
        let reorder_frames = reorder_frames(&mut bits, sub_layers)?;
        Ok(Self {
            width,
            height,
            reorder_frames,
            profile,
            chroma,
            luma_bits,
            chroma_bits,
            sub_layers: u8::try_from(sub_layers).map_err(|_wide| BadHevc::Sps)?,
            is_nested,
        })
    }
}

/// A number that may be `max` at most.
fn small(bits: &mut Bits<'_>, max: u8) -> Result<u8, BadHevc> {
    let value = u8::try_from(bits.golomb()?).map_err(|_wide| BadHevc::Sps)?;
    (value <= max).then_some(value).ok_or(BadHevc::Sps)
}

/// `profile_tier_level()` of H.265 7.3.3: keeps the general part, passes those of the layers.
fn profile_tier_level(bits: &mut Bits<'_>, sub_layers: u32) -> Result<[u8; 12], BadHevc> {
    let mut general = [0; 12];
    for byte in &mut general {
        *byte = bits.byte(8)?;
    }
    let lower = sub_layers - 1;
    let mut layers = Vec::with_capacity(8);
    for _ in 0..lower {
        layers.push((bits.flag()?, bits.flag()?));
    }
    if lower > 0 {
        bits.skip(2 * (8 - lower))?;
    }
    for (has_profile, has_level) in layers {
        bits.skip(if has_profile { 88 } else { 0 })?;
        bits.skip(if has_level { 8 } else { 0 })?;
    }
    Ok(general)
}

/// The size of the picture after the conformance window.
fn size(bits: &mut Bits<'_>, chroma: u8) -> Result<(u32, u32), BadHevc> {
    let (width, height) = (bits.golomb()?, bits.golomb()?);
    if width > SIDE_MAX || height > SIDE_MAX {
        return Err(BadHevc::Sps);
    }
    let mut window = [0_u32; 4];
    if bits.flag()? {
        for side in &mut window {
            *side = bits.golomb()?;
        }
    }
    let [left, right, top, bottom] = window;
    // Offsets count chroma samples.
    let unit_x = if matches!(chroma, 1 | 2) { 2 } else { 1 };
    let unit_y = if chroma == 1 { 2 } else { 1 };
    let cropped = |size: u32, near: u32, far: u32, unit: u32| {
        let off = near.checked_add(far)?.checked_mul(unit)?;
        size.checked_sub(off).filter(|left| *left > 0)
    };
    let width = cropped(width, left, right, unit_x).ok_or(BadHevc::Sps)?;
    let height = cropped(height, top, bottom, unit_y).ok_or(BadHevc::Sps)?;
    Ok((width, height))
}

/// `sps_max_num_reorder_pics` of the highest layer.
fn reorder_frames(bits: &mut Bits<'_>, sub_layers: u32) -> Result<u8, BadHevc> {
    let rows = if bits.flag()? { sub_layers } else { 1 };
    let mut last = 0;
    for _ in 0..rows {
        bits.golomb()?;
        last = small(bits, 16)?;
        bits.golomb()?;
    }
    Ok(last)
}

/// The kinds of NAL unit that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NalKind {
    /// A slice of a picture that needs others before it.
    Slice,
    /// A slice of a picture at which decoding can start: BLA, IDR or CRA.
    Irap,
    /// Supplemental information.
    Sei,
    /// Video parameter set.
    Vps,
    /// Sequence parameter set.
    Sps,
    /// Picture parameter set.
    Pps,
    /// Access unit delimiter, end of sequence or bitstream, filler: carries no picture.
    Filler,
    /// Anything else.
    Other,
}

impl NalKind {
    /// The kind by the first byte of a NAL unit.
    pub const fn of(header: u8) -> Self {
        match header >> 1 & 63 {
            0..=9 => Self::Slice,
            16..=21 => Self::Irap,
            32 => Self::Vps,
            33 => Self::Sps,
            34 => Self::Pps,
            35..=38 => Self::Filler,
            39 | 40 => Self::Sei,
            _ => Self::Other,
        }
    }
}

/// The layer of a NAL unit: 0 but for scalable and stereo streams. `None` when it is cut short.
pub fn layer(nal: &[u8]) -> Option<u8> {
    let (first, second) = (nal.first()?, nal.get(1)?);
    Some((first & 1) << 5 | second >> 3)
}

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    reason = "the tests cut constants of known length"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VPS: &str = "40010c01ffff01600000030090000003000003003c959009";
    const PPS: &str = "4401c172b46240";
    /// x265 of 198x108 in 4:2:0 of 8 bits with B-frames, of 200x120 in 4:2:2 of 10 bits without,
    /// and of 200x120 in two layers.
    const SPS: &str = "42010101600000030090000003000003003ca0192071d5e595924932bc05a02000000\
                       3002000000303c1";
    const SPS_422: &str = "42010104080000\
                           03009d0800000300003cb019207936592a4932bc05a020000003002000000303c1";
    const SPS_LAYERS: &str = "42010201600000030090000003000003003c0000a0192079659598acd24995e02d\
                              010000030001000003001e08";

    fn hex(digits: &str) -> Bytes {
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (0..digits.len()).step_by(2).map(byte).collect()
    }

    fn config(sps: &str) -> Config {
        let (vps, pps) = (hex(VPS), hex(PPS));
        Config::new(vec![vps], vec![hex(sps)], vec![pps]).unwrap()
    }

    #[test]
    fn sets_of_x265_say_their_size_after_cropping_and_how_they_are_coded() {
        let rows = [
            (SPS, (198, 108), 2, (1, 8), (1, true)),
            (SPS_422, (200, 120), 0, (2, 10), (1, true)),
            (SPS_LAYERS, (200, 120), 2, (1, 8), (2, false)),
        ];
        for (sps, size, reorder, (chroma, bits), layers) in rows {
            let facts = SpsFacts::parse(&hex(sps)).unwrap();
            assert_eq!((facts.width, facts.height), size);
            assert_eq!(facts.reorder_frames, reorder, "{size:?}");
            assert_eq!((facts.chroma, facts.luma_bits), (chroma, bits));
            assert_eq!(facts.chroma_bits, bits);
            assert_eq!((facts.sub_layers, facts.is_nested), layers);
        }
    }

    #[test]
    fn a_record_says_what_its_sets_say_and_survives_being_written_and_read() {
        for sps in [SPS, SPS_422, SPS_LAYERS] {
            let config = config(sps);
            let record = config.build().unwrap();
            assert_eq!(Config::parse(&record), Ok(config));
        }
        let record = config(SPS).build().unwrap();
        let head = [
            1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 60, 0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8,
        ];
        assert!(record.starts_with(&head), "{record:02x?}");
        assert_eq!(record[19..24], [0, 0, 0x0f, 3, 0xa0]);
    }

    #[test]
    fn a_record_cut_short_anywhere_or_without_a_kind_of_set_is_refused() {
        let record = config(SPS).build().unwrap();
        for length in 0..record.len() {
            let cut = Config::parse(&record.slice(..length));
            assert_eq!(cut, Err(BadHevc::Config), "{length}");
        }
        let set = |digits| vec![hex(digits)];
        let without = [
            Config::new(Vec::new(), set(SPS), set(PPS)),
            Config::new(set(VPS), Vec::new(), set(PPS)),
            Config::new(set(VPS), set(SPS), Vec::new()),
            Config::new(set(VPS), set(SPS), set("4401")),
            Config::new(set(VPS), vec![hex(SPS); SETS_MAX + 1], set(PPS)),
        ];
        assert!(without.iter().all(|made| *made == Err(BadHevc::Config)));
        // A picture parameter set is no sequence parameter set.
        let swapped = Config::new(set(VPS), set(PPS), set(SPS)).unwrap();
        assert_eq!(swapped.build(), Err(BadHevc::Sps));
    }

    #[test]
    fn a_set_cut_short_is_refused() {
        let sps = hex(SPS);
        // All that is read lies before the last coding tools.
        for length in 0..24 {
            let cut = SpsFacts::parse(&sps[..length]);
            assert_eq!(cut, Err(BadHevc::Sps), "{length}");
        }
    }

    #[test]
    fn units_are_told_apart_by_their_header() {
        let rows = [
            (0x02, NalKind::Slice),
            (0x26, NalKind::Irap),
            (0x28, NalKind::Irap),
            (0x2a, NalKind::Irap),
            (0x2e, NalKind::Other),
            (0x40, NalKind::Vps),
            (0x42, NalKind::Sps),
            (0x44, NalKind::Pps),
            (0x46, NalKind::Filler),
            (0x4e, NalKind::Sei),
        ];
        for (header, kind) in rows {
            assert_eq!(NalKind::of(header), kind, "{header:02x}");
            assert_eq!(layer(&[header, 1]), Some(0));
        }
        assert_eq!(layer(&[0x03, 0x09]), Some(33));
        assert_eq!(layer(&[0x02]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            bit in 0_u32..8,
        ) {
            let _ = Config::parse(&Bytes::from(bytes.clone()));
            let _ = SpsFacts::parse(&[&[0x42, 1][..], &bytes].concat());
            // A set that is right but for one bit.
            let mut sps = hex(SPS_LAYERS).to_vec();
            let at = at.index(sps.len());
            sps[at] ^= 1_u8 << bit;
            if let Ok(facts) = SpsFacts::parse(&sps) {
                prop_assert!(facts.width > 0 && facts.height > 0);
                prop_assert!(facts.chroma <= 3 && facts.luma_bits >= 8);
            }
        }
    }
}
