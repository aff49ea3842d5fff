//! AV1: the codec configuration record, OBUs, what a sequence header says.
//!
//! Section numbers are those of the AV1 bitstream specification; `av1C` is AV1-ISOBMFF 2.3.

use bytes::{BufMut, Bytes, BytesMut};

use super::bits::{BadBits, Bits};

/// Marker and version of a record.
const RECORD_VERSION: u8 = 0x81;
/// Bytes of a record before its OBUs.
const RECORD_HEAD_BYTES: usize = 4;
/// Header of a sequence header OBU that has a size.
const SEQUENCE_HEADER: u8 = 0x0a;
/// In an OBU's header.
const HAS_EXTENSION: u8 = 4;
const HAS_SIZE: u8 = 2;
/// Bytes of a size.
const SIZE_BYTES_MAX: usize = 8;
/// `SELECT_SCREEN_CONTENT_TOOLS` and `SELECT_INTEGER_MV`.
const SELECT: u32 = 2;

/// Why bytes are not AV1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAv1 {
    /// The configuration record is cut short or of an unknown version.
    #[error("the AV1 configuration record is cut short or of an unknown version")]
    Config,
    /// A sequence header cannot be read.
    #[error("the AV1 sequence header cannot be read")]
    Sequence,
    /// An OBU reaches past the end of its temporal unit.
    #[error("an OBU reaches past the end of its temporal unit")]
    Obu,
}

impl From<BadBits> for BadAv1 {
    fn from(_: BadBits) -> Self {
        Self::Sequence
    }
}

/// The parameters of a stream: what `TrackInfo::config` holds for AV1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The payload of the sequence header OBU.
    pub sequence: Bytes,
    /// What it says.
    pub facts: SequenceFacts,
}

impl Config {
    /// Reads a record; `None` when it holds no sequence header: keyframes do then.
    ///
    /// # Errors
    /// [`BadAv1`] says what is wrong.
    pub fn parse(record: &Bytes) -> Result<Option<Self>, BadAv1> {
        if record.len() < RECORD_HEAD_BYTES || record.first() != Some(&RECORD_VERSION) {
            return Err(BadAv1::Config);
        }
        let list = record.slice(RECORD_HEAD_BYTES..);
        for obu in obus(&list) {
            let obu = obu?;
            if obu.kind == ObuKind::SequenceHeader {
                return Self::new(list.slice_ref(obu.payload)).map(Some);
            }
        }
        Ok(None)
    }

    /// The parameters that the payload of a sequence header OBU says.
    ///
    /// # Errors
    /// [`BadAv1::Sequence`] when it cannot be read.
    pub fn new(sequence: Bytes) -> Result<Self, BadAv1> {
        let facts = SequenceFacts::parse(&sequence)?;
        Ok(Self { sequence, facts })
    }

    /// Writes the record.
    pub fn build(&self) -> Bytes {
        let facts = &self.facts;
        let bit = |is_set: bool, at: u8| u8::from(is_set) << at;
        let mut out = BytesMut::with_capacity(RECORD_HEAD_BYTES + 8 + self.sequence.len());
        out.put_slice(&[
            RECORD_VERSION,
            facts.profile << 5 | facts.level,
            bit(facts.is_high_tier, 7)
                | bit(facts.bits > 8, 6)
                | bit(facts.bits == 12, 5)
                | bit(facts.is_grey, 4)
                | bit(facts.is_halved.0, 3)
                | bit(facts.is_halved.1, 2)
                | facts.chroma_position,
            0,
            SEQUENCE_HEADER,
        ]);
        put_size(&mut out, self.sequence.len());
        out.put_slice(&self.sequence);
        out.freeze()
    }
}

/// What a sequence header says (5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceFacts {
    /// `seq_profile`: 0 main, 1 high, 2 professional.
    pub profile: u8,
    /// `seq_level_idx` of the first operating point.
    pub level: u8,
    /// `seq_tier` of the first operating point.
    pub is_high_tier: bool,
    /// Width of the largest frame.
    pub width: u32,
    /// Height of the largest frame.
    pub height: u32,
    /// Frames per second, rounded up, if every frame lasts the same time.
    pub frame_rate: Option<u32>,
    /// Bits of a sample: 8, 10 or 12.
    pub bits: u8,
    /// True without chroma.
    pub is_grey: bool,
    /// Whether chroma has half the columns, and half the rows.
    pub is_halved: (bool, bool),
    /// Where chroma samples lie.
    pub chroma_position: u8,
    /// True when every frame is a keyframe with a shortened header.
    pub is_reduced: bool,
}

impl SequenceFacts {
    /// Reads the payload of a sequence header OBU.
    ///
    /// # Errors
    /// [`BadAv1::Sequence`] when it cannot be read.
    pub fn parse(payload: &[u8]) -> Result<Self, BadAv1> {
        let mut bits = Bits::new(payload);
        let profile = bits.byte(3)?;
        bits.skip(1)?;
        let is_reduced = bits.flag()?;
        if profile > 2 {
            return Err(BadAv1::Sequence);
        }
        let (level, is_high_tier, frame_rate) = if is_reduced {
            (bits.byte(5)?, false, None)
        } else {
            operating_points(&mut bits)?
        };
        let (width_bits, height_bits) = (bits.take(4)? + 1, bits.take(4)? + 1);
        let (width, height) = (bits.take(width_bits)? + 1, bits.take(height_bits)? + 1);
        if !is_reduced && bits.flag()? {
            // Lengths of frame numbers.
            bits.skip(4 + 3)?;
        }
        tools(&mut bits, is_reduced)?;
        let colour = Colour::read(&mut bits, profile)?;
        Ok(Self {
            profile,
            level,
            is_high_tier,
            width,
            height,
            frame_rate,
            bits: colour.bits,
            is_grey: colour.is_grey,
            is_halved: colour.is_halved,
            chroma_position: colour.chroma_position,
            is_reduced,
        })
    }
}

/// From the timing to the last operating point: level and tier of the first, and the frame rate.
fn operating_points(bits: &mut Bits<'_>) -> Result<(u8, bool, Option<u32>), BadAv1> {
    let mut frame_rate = None;
    let mut delay_bits = None;
    if bits.flag()? {
        frame_rate = timing(bits)?;
        if bits.flag()? {
            delay_bits = Some(bits.take(5)? + 1);
            bits.skip(32 + 5 + 5)?;
        }
    }
    let has_display_delay = bits.flag()?;
    let count = bits.take(5)? + 1;
    let mut first = None;
    for _ in 0..count {
        bits.skip(12)?;
        let level = bits.byte(5)?;
        let is_high_tier = level > 7 && bits.flag()?;
        if let Some(delay_bits) = delay_bits
            && bits.flag()?
        {
            bits.skip(2 * delay_bits + 1)?;
        }
        if has_display_delay && bits.flag()? {
            bits.skip(4)?;
        }
        first.get_or_insert((level, is_high_tier));
    }
    let (level, is_high_tier) = first.ok_or(BadAv1::Sequence)?;
    Ok((level, is_high_tier, frame_rate))
}

/// `timing_info()`: the frame rate, if all frames last the same time.
fn timing(bits: &mut Bits<'_>) -> Result<Option<u32>, BadAv1> {
    let (units, scale) = (bits.take(32)?, bits.take(32)?);
    if !bits.flag()? {
        return Ok(None);
    }
    let ticks = u64::from(bits.uvlc()?) + 1;
    let frame_units = u64::from(units) * ticks;
    if frame_units == 0 {
        return Ok(None);
    }
    let rate = u64::from(scale).div_ceil(frame_units);
    Ok(Some(u32::try_from(rate).unwrap_or(u32::MAX)))
}

/// The flags of the coding tools, which lie before the colours.
fn tools(bits: &mut Bits<'_>, is_reduced: bool) -> Result<(), BadAv1> {
    bits.skip(3)?;
    if !is_reduced {
        bits.skip(4)?;
        let has_order_hint = bits.flag()?;
        if has_order_hint {
            bits.skip(2)?;
        }
        let screen_tools = if bits.flag()? { SELECT } else { bits.take(1)? };
        if screen_tools > 0 && !bits.flag()? {
            bits.skip(1)?;
        }
        if has_order_hint {
            bits.skip(3)?;
        }
    }
    Ok(bits.skip(3)?)
}

/// `color_config()` (5.5.2).
struct Colour {
    bits: u8,
    is_grey: bool,
    is_halved: (bool, bool),
    chroma_position: u8,
}

impl Colour {
    fn read(bits: &mut Bits<'_>, profile: u8) -> Result<Self, BadAv1> {
        let is_deep = bits.flag()?;
        let depth = match (profile, is_deep) {
            (2, true) => 10 + 2 * bits.byte(1)?,
            (_, true) => 10,
            (_, false) => 8,
        };
        let is_grey = profile != 1 && bits.flag()?;
        // Primaries, transfer, matrix; 2 is "unspecified".
        let mut described = [2_u8; 3];
        if bits.flag()? {
            for code in &mut described {
                *code = bits.byte(8)?;
            }
        }
        let is_srgb = described == [1, 13, 0];
        if is_grey || !is_srgb {
            // The range of the values.
            bits.skip(1)?;
        }
        let is_halved = match profile {
            _ if is_grey => (true, true),
            _ if is_srgb => (false, false),
            0 => (true, true),
            1 => (false, false),
            _ if depth == 12 => {
                let columns = bits.flag()?;
                (columns, columns && bits.flag()?)
            }
            _ => (true, false),
        };
        let chroma_position = if !is_grey && is_halved == (true, true) {
            bits.byte(2)?
        } else {
            0
        };
        Ok(Self {
            bits: depth,
            is_grey,
            is_halved,
            chroma_position,
        })
    }
}

/// The kinds of OBU that matter here (6.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObuKind {
    /// Parameters of the frames that follow.
    SequenceHeader,
    /// A frame's header, alone or with its tiles.
    Frame,
    /// Marks where a temporal unit begins, fills, or says again what was said: tells nobody
    /// anything in a container.
    Filler,
    /// Anything else.
    Other,
}

impl ObuKind {
    const fn of(header: u8) -> Self {
        match header >> 3 & 15 {
            1 => Self::SequenceHeader,
            3 | 6 => Self::Frame,
            2 | 7 | 8 | 15 => Self::Filler,
            _ => Self::Other,
        }
    }
}

/// An open bitstream unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obu<'a> {
    /// What it is.
    pub kind: ObuKind,
    /// All its bytes.
    pub whole: &'a [u8],
    /// Its bytes without header and size.
    pub payload: &'a [u8],
}

/// The OBUs of a temporal unit.
#[derive(Clone, Debug)]
pub struct Obus<'a> {
    rest: &'a [u8],
}

/// The OBUs of a temporal unit; the last one may have no size.
pub const fn obus(unit: &[u8]) -> Obus<'_> {
    Obus { rest: unit }
}

impl<'a> Iterator for Obus<'a> {
    type Item = Result<Obu<'a>, BadAv1>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((obu, rest)) = split_obu(self.rest) else {
            self.rest = &[];
            return Some(Err(BadAv1::Obu));
        };
        self.rest = rest;
        Some(Ok(obu))
    }
}

fn split_obu(bytes: &[u8]) -> Option<(Obu<'_>, &[u8])> {
    let &header = bytes.first()?;
    if header & 0x80 != 0 {
        return None;
    }
    let header_bytes = 1 + usize::from(header & HAS_EXTENSION != 0);
    let (_, after) = bytes.split_at_checked(header_bytes)?;
    let (payload, rest) = if header & HAS_SIZE == 0 {
        (after, &[][..])
    } else {
        let (size, after) = split_size(after)?;
        after.split_at_checked(size)?
    };
    let whole = bytes.get(..bytes.len() - rest.len())?;
    let kind = ObuKind::of(header);
    Some((
        Obu {
            kind,
            whole,
            payload,
        },
        rest,
    ))
}

/// Writes an OBU with its size, whether or not it came with one.
pub fn put_obu(out: &mut BytesMut, obu: &Obu<'_>) {
    let mut header = obu.whole.iter().copied();
    let first = header.next().unwrap_or(0);
    out.put_u8(first | HAS_SIZE);
    if first & HAS_EXTENSION != 0 {
        out.put_u8(header.next().unwrap_or(0));
    }
    put_size(out, obu.payload.len());
    out.put_slice(obu.payload);
}

fn put_size(out: &mut BytesMut, size: usize) {
    let mut left = size;
    loop {
        let low = u8::try_from(left & 127).unwrap_or(0);
        left >>= 7;
        out.put_u8(low | u8::from(left > 0) << 7);
        if left == 0 {
            return;
        }
    }
}

/// `leb128()` (4.10.5): a size, and what follows it.
pub fn split_size(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut size = 0_u64;
    for (at, &byte) in bytes.iter().take(SIZE_BYTES_MAX).enumerate() {
        size |= u64::from(byte & 127) << (7 * at);
        if byte & 128 == 0 {
            let rest = bytes.get(at + 1..)?;
            return Some((usize::try_from(size).ok()?, rest));
        }
    }
    None
}

/// Whether a frame's header begins a keyframe that is shown (5.9.2).
pub fn is_key(frame: &[u8], is_reduced: bool) -> bool {
    let first = frame.first().copied().unwrap_or(0x80);
    // Not a frame shown again, of type 0, and shown.
    is_reduced || first & 0xf0 == 0x10
}

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    reason = "the tests cut constants of known length"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// libaom 198x108, SVT-AV1 200x120 of 10 bits, libaom 200x120 in 4:4:4, rav1e 200x120: the
    /// sequence header OBU, and what ffmpeg makes the record begin with.
    const STREAMS: [(&str, &str); 4] = [
        ("0a0a00000003b62eb36be401", "81000c00"),
        ("0a0a00000003b63f73efe501", "81004c00"),
        ("0a0a20000003b63f736be408", "81200000"),
        ("0a0e000000f9db1fb8842a2040404280", "811f0c00"),
    ];

    fn hex(digits: &str) -> Bytes {
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (0..digits.len()).step_by(2).map(byte).collect()
    }

    #[test]
    fn records_of_real_encoders_are_read_and_built_again() {
        let expected = [
            ((198, 108), 8, (true, true)),
            ((200, 120), 10, (true, true)),
            ((200, 120), 8, (false, false)),
            ((200, 120), 8, (true, true)),
        ];
        for ((obu, head), (size, bits, is_halved)) in STREAMS.into_iter().zip(expected) {
            let record = hex(&[head, obu].concat());
            let config = Config::parse(&record).unwrap().unwrap();
            let facts = config.facts;
            assert_eq!((facts.width, facts.height), size);
            assert_eq!((facts.bits, facts.is_halved), (bits, is_halved));
            assert!(!facts.is_reduced && !facts.is_grey);
            assert_eq!(config.build(), record);
        }
    }

    #[test]
    fn a_record_without_a_sequence_header_leaves_that_to_the_keyframes() {
        assert_eq!(Config::parse(&hex("81000c00")), Ok(None));
        assert_eq!(Config::parse(&hex("81000c001200")), Ok(None));
        for bad in ["", "81000c", "01000c00", "82000c00"] {
            assert_eq!(Config::parse(&hex(bad)), Err(BadAv1::Config), "{bad}");
        }
        for (obu, head) in STREAMS {
            let record = hex(&[head, obu].concat());
            for length in RECORD_HEAD_BYTES + 1..record.len() {
                let cut = Config::parse(&record.slice(..length));
                assert_eq!(cut, Err(BadAv1::Obu), "{length}");
            }
        }
    }

    /// Timing and operating points of two layers, as a header with everything has them.
    #[test]
    fn a_header_with_timing_and_layers_is_read_to_its_end() {
        let mut bits = String::new();
        // Profile 0; timing of 1/240 s, one tick a picture, a decoder model of 10-bit delays.
        bits += "000 0 0 1";
        bits += &format!("{:032b} {:032b} 1 1", 1, 240);
        bits += &format!(" 1 01001 {:032b} 00000 00000", 1);
        // Display delays; two points, the first of level 8 in the high tier.
        bits += " 1 00001";
        bits += &format!(" {:012b} 01000 1 1 {:010b} {:010b} 0 1 0011", 1, 7, 7);
        bits += &format!(" {:012b} 00100 0 0", 3);
        // 1280x720, frame numbers, and the tools.
        bits += &format!(" 1010 1001 {:011b} {:010b} 1 0000 000", 1_279, 719);
        bits += " 000 0000 1 00 1 1 000 000";
        // Eight bits, described as sRGB would be in 4:2:0.
        bits += " 0 0 1 00000001 00000001 00000001 0 01 0 1";
        let digits: Vec<u8> = bits
            .bytes()
            .filter(|b| *b != b' ')
            .map(|b| b - b'0')
            .collect();
        let bytes: Vec<u8> = digits
            .chunks(8)
            .map(|byte| {
                byte.iter()
                    .enumerate()
                    .fold(0, |sum, (at, bit)| sum | bit << (7 - at))
            })
            .collect();
        let facts = SequenceFacts::parse(&bytes).unwrap();
        assert_eq!((facts.width, facts.height), (1_280, 720));
        assert_eq!((facts.level, facts.is_high_tier), (8, true));
        assert_eq!(facts.frame_rate, Some(240));
        assert_eq!((facts.bits, facts.chroma_position), (8, 1));
        for length in 0..bytes.len() - 1 {
            let cut = SequenceFacts::parse(&bytes[..length]);
            assert_eq!(cut, Err(BadAv1::Sequence), "{length}");
        }
    }

    #[test]
    fn obus_are_split_by_their_sizes_and_the_last_may_have_none() {
        let unit = [
            &[0x12, 0][..],
            &[0x0a, 2, 7, 8],
            &[0x36, 0x20, 0x81, 0, 5],
            &[0x30, 1, 2, 3],
        ]
        .concat();
        let got: Vec<Obu<'_>> = obus(&unit).map(Result::unwrap).collect();
        let mut sized = BytesMut::new();
        got.iter().for_each(|obu| put_obu(&mut sized, obu));
        let expected = [
            &unit[..6],
            &[0x36, 0x20, 1, 5],
            &[0x30 | HAS_SIZE, 3, 1, 2, 3],
        ];
        assert_eq!(sized, expected.concat());
        let kinds: Vec<ObuKind> = got.iter().map(|obu| obu.kind).collect();
        let expected = [
            ObuKind::Filler,
            ObuKind::SequenceHeader,
            ObuKind::Frame,
            ObuKind::Frame,
        ];
        assert_eq!(kinds, expected);
        let payloads: Vec<&[u8]> = got.iter().map(|obu| obu.payload).collect();
        assert_eq!(payloads, [&[][..], &[7, 8], &[5], &[1, 2, 3]]);
        let whole: Vec<u8> = got.iter().flat_map(|obu| obu.whole.to_vec()).collect();
        assert_eq!(whole, unit);
        let bad: [&[u8]; 5] = [
            &[0x92, 0],
            &[0x32],
            &[0x32, 2, 1],
            &[0x36],
            &[0x32, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0],
        ];
        for unit in bad {
            let got: Vec<_> = obus(unit).collect();
            assert_eq!(got, [Err(BadAv1::Obu)], "{unit:02x?}");
        }
    }

    #[test]
    fn only_a_key_frame_that_is_shown_starts_decoding() {
        let rows = [
            (0x10, true),
            (0x1f, true),
            (0x00, false),
            (0x30, false),
            (0x50, false),
            (0x90, false),
        ];
        for (first, expected) in rows {
            assert_eq!(is_key(&[first], false), expected, "{first:02x}");
            assert!(is_key(&[first], true));
        }
        assert!(!is_key(&[], false));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let _ = SequenceFacts::parse(&bytes);
            let _ = obus(&bytes).count();
            let record = Bytes::from([&[0x81, 0, 0, 0, 0x0a][..], &bytes].concat());
            if let Ok(Some(config)) = Config::parse(&record) {
                prop_assert_eq!(Config::parse(&config.build()), Ok(Some(config)));
            }
        }
    }
}
