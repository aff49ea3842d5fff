//! Recorded boxes, read and changed in place (ISO/IEC 14496-12).
//!
//! What comes from a store may be damaged: whatever is not as [`crate::hls`] wrote it is an error.
//!
//! Invariants
//! - No change moves a byte: a file of fragments can be laid out by their sizes alone.
//! - Each box has its eight bytes, so the work is bounded by the size of what is read.
#![deny(clippy::indexing_slicing)]

use std::ops::Range;

use crate::hls::EMSG_SCHEME;

/// Bytes of a box's size and kind.
pub(super) const HEAD: usize = 8;
const EMSG_RATE: u32 = 1_000_000;
const TFHD_DEFAULT_BASE_IS_MOOF: u32 = 0x2_0000;
/// An own offset or sample description.
const TFHD_FOREIGN: u32 = 0x3;
const TRUN_OFFSET: u32 = 0x1;
const TRUN_FIRST_FLAGS: u32 = 0x4;
const TRUN_DURATION: u32 = 0x100;
const TRUN_SIZE: u32 = 0x200;
const TRUN_FLAGS: u32 = 0x400;
const TRUN_CTS: u32 = 0x800;
/// The field of a cue's JSON that tells its T.
const T_FIELD: &[u8] = b"\"t_us\":";

/// Boxes are not as they were recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("recorded boxes are damaged: {0}")]
pub struct DamagedBoxes(&'static str);

impl DamagedBoxes {
    /// Something that was asked for is not there.
    pub(super) const MISSING: Self = Self("an object is missing");
    /// An object is not as long as the index says.
    pub(super) const SIZE: Self = Self("an object is of another size");
}

/// How fragments of one track are moved into a file that begins later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shift {
    /// The number of the track there.
    pub(crate) track: u32,
    /// How much earlier samples are, in ticks of the track.
    pub(crate) ticks: u64,
    /// How much earlier cues are.
    pub(crate) us: u64,
    /// The number of the first fragment.
    pub(crate) sequence: u32,
    /// Fragments beyond so many have the number of the last.
    pub(crate) sequences: u32,
}

/// The decode time of the first fragment of a segment, in ticks of its track.
pub(crate) fn begins_at(bytes: &[u8]) -> Result<u64, DamagedBoxes> {
    let mut at = 0;
    loop {
        let found = next(bytes, at..bytes.len())?;
        if &found.kind == b"moof" {
            let traf = only(bytes, found.body, *b"traf")?;
            let tfdt = only(bytes, traf, *b"tfdt")?;
            return Ok(decode_time(bytes, &tfdt)?.0);
        }
        at = found.end;
    }
}

/// Moves the fragments of a segment; an error may leave them half moved.
pub(crate) fn shift(bytes: &mut [u8], by: &Shift) -> Result<(), DamagedBoxes> {
    let (mut at, mut fragments) = (0, 0);
    // Bytes of samples that the fragment before said are to follow it.
    let mut awaited = None;
    while at < bytes.len() {
        let found = next(bytes, at..bytes.len())?;
        match (&found.kind, awaited) {
            (b"emsg", None) => shift_message(bytes, &found.body, by)?,
            (b"moof", None) => {
                let n = by.sequences.saturating_sub(1).min(fragments);
                let sequence = by.sequence.saturating_add(n);
                awaited = Some(shift_fragment(bytes, &found, by, sequence)?);
                fragments += 1;
            }
            (b"mdat", Some(size)) if found.body.len() == size => awaited = None,
            (b"mdat", _) => return Err(DamagedBoxes("samples are of another size")),
            _ => return Err(DamagedBoxes("an unknown box")),
        }
        at = found.end;
    }
    if fragments == 0 || awaited.is_some() {
        return Err(DamagedBoxes("a fragment is cut short"));
    }
    Ok(())
}

/// Moves one fragment; how many bytes its samples have.
fn shift_fragment(
    bytes: &mut [u8],
    moof: &Found,
    by: &Shift,
    sequence: u32,
) -> Result<usize, DamagedBoxes> {
    let mfhd = only(bytes, moof.body.clone(), *b"mfhd")?;
    let traf = only(bytes, moof.body.clone(), *b"traf")?;
    let tfhd = only(bytes, traf.clone(), *b"tfhd")?;
    let tfdt = only(bytes, traf.clone(), *b"tfdt")?;
    let trun = only(bytes, traf, *b"trun")?;
    let flags = word(bytes, tfhd.start)? & 0xff_ffff;
    if flags & TFHD_FOREIGN != 0 || flags & TFHD_DEFAULT_BASE_IS_MOOF == 0 {
        return Err(DamagedBoxes("a fragment of another form"));
    }
    let (time, place) = decode_time(bytes, &tfdt)?;
    let early = DamagedBoxes("a fragment before the first");
    let time = time.checked_sub(by.ticks).ok_or(early)?;
    let size = samples_size(bytes, &trun, moof.end - moof.start)?;
    put(bytes, mfhd, 4, &sequence.to_be_bytes())?;
    put(bytes, tfhd, 4, &by.track.to_be_bytes())?;
    put(bytes, place, 0, &time.to_be_bytes())?;
    Ok(size)
}

/// A decode time, and where it stands.
fn decode_time(bytes: &[u8], tfdt: &Range<usize>) -> Result<(u64, Range<usize>), DamagedBoxes> {
    let place = tfdt.start + 4..tfdt.end;
    let is_long = word(bytes, tfdt.start)? == 1 << 24;
    let time = bytes.get(place.clone()).filter(|_| is_long);
    let time: Option<[u8; 8]> = time.and_then(|time| time.try_into().ok());
    let time = time.ok_or(DamagedBoxes("a decode time of another form"))?;
    Ok((u64::from_be_bytes(time), place))
}

/// Bytes of the samples that a run lists; they follow the `moof` and the head of `mdat`.
fn samples_size(bytes: &[u8], trun: &Range<usize>, moof: usize) -> Result<usize, DamagedBoxes> {
    let foreign = DamagedBoxes("a run of another form");
    let flags = word(bytes, trun.start)? & 0xff_ffff;
    let count = index(word(bytes, trun.start + 4)?);
    if flags & TRUN_OFFSET == 0 || flags & TRUN_SIZE == 0 || flags & TRUN_DURATION == 0 {
        return Err(foreign);
    }
    if index(word(bytes, trun.start + 8)?) != moof + HEAD {
        return Err(DamagedBoxes("samples are elsewhere"));
    }
    let columns = [TRUN_DURATION, TRUN_SIZE, TRUN_FLAGS, TRUN_CTS];
    let width = 4 * columns.iter().filter(|flag| flags & **flag != 0).count();
    let first = trun.start + 12 + usize::from(flags & TRUN_FIRST_FLAGS != 0) * 4;
    let is_whole = count
        .checked_mul(width)
        .and_then(|all| all.checked_add(first));
    if is_whole != Some(trun.end) || count == 0 {
        return Err(foreign);
    }
    let mut total = 0_usize;
    for n in 0..count {
        let size = index(word(bytes, first + n * width + 4)?);
        total = total.checked_add(size).ok_or(foreign)?;
    }
    Ok(total)
}

/// Moves an event message, and the T that a cue's own text tells.
fn shift_message(bytes: &mut [u8], body: &Range<usize>, by: &Shift) -> Result<(), DamagedBoxes> {
    let foreign = DamagedBoxes("an event message of another form");
    let is_known = word(bytes, body.start)? == 1 << 24;
    if !is_known || word(bytes, body.start + 4)? != EMSG_RATE {
        return Err(foreign);
    }
    let place = body.start + 8..body.start + 16;
    let time = bytes.get(place.clone()).filter(|_| place.end <= body.end);
    let time: Option<[u8; 8]> = time.and_then(|time| time.try_into().ok());
    let time = u64::from_be_bytes(time.ok_or(foreign)?);
    put(bytes, place, 0, &time.saturating_sub(by.us).to_be_bytes())?;
    let texts = bytes.get_mut(body.start + 24..body.end).ok_or(foreign)?;
    let scheme = texts.iter().position(|b| *b == 0).ok_or(foreign)?;
    let (scheme, rest) = texts.split_at_mut(scheme);
    if scheme == EMSG_SCHEME.as_bytes() {
        shift_text(rest, by.us);
    }
    Ok(())
}

/// Writes a later beginning into the T of a cue's JSON; what is shorter is followed by spaces,
/// which JSON allows there.
fn shift_text(text: &mut [u8], by_us: u64) {
    let field = text.windows(T_FIELD.len()).position(|w| w == T_FIELD);
    let Some(rest) = field.and_then(|at| text.get_mut(at + T_FIELD.len()..)) else {
        return;
    };
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let Some(place) = rest.get_mut(..digits) else {
        return;
    };
    let t: Option<u64> = std::str::from_utf8(place).ok().and_then(|t| t.parse().ok());
    if let Some(t) = t {
        let text = format!("{:<digits$}", t.saturating_sub(by_us));
        place.copy_from_slice(text.as_bytes());
    }
}

/// The init section of a track, as far as another file wants it.
#[derive(Clone, Debug)]
pub(crate) struct Init {
    /// Its `trak`, whole.
    pub(crate) trak: Vec<u8>,
    /// Its `trex`, whole.
    pub(crate) trex: Vec<u8>,
    /// Ticks a second.
    pub(crate) rate: u32,
}

impl Init {
    /// Reads the init section of one track and gives the track another number.
    pub(crate) fn read(bytes: &[u8], track: u32) -> Result<Self, DamagedBoxes> {
        let moov = only(bytes, 0..bytes.len(), *b"moov")?;
        let trak = only(bytes, moov.clone(), *b"trak")?;
        let mvex = only(bytes, moov, *b"mvex")?;
        let trex = only(bytes, mvex, *b"trex")?;
        let tkhd = only(bytes, trak.clone(), *b"tkhd")?;
        let mdia = only(bytes, trak.clone(), *b"mdia")?;
        let mdhd = only(bytes, mdia.clone(), *b"mdhd")?;
        only(bytes, mdia, *b"minf")?;
        let number = tkhd.start + 4 + times_size(bytes, &tkhd)?;
        let rate = mdhd.start + 4 + times_size(bytes, &mdhd)?;
        if number + 4 > tkhd.end || rate + 4 > mdhd.end || trex.len() < 24 {
            return Err(DamagedBoxes("an init section is cut short"));
        }
        let rate = word(bytes, rate)?;
        if rate == 0 {
            return Err(DamagedBoxes("a track without a clock"));
        }
        let from = trak.start - HEAD;
        let mut trak = whole(bytes, trak)?;
        let mut trex = whole(bytes, trex)?;
        put(
            &mut trak,
            number - from..number - from + 4,
            0,
            &track.to_be_bytes(),
        )?;
        put(&mut trex, HEAD + 4..HEAD + 8, 0, &track.to_be_bytes())?;
        Ok(Self { trak, trex, rate })
    }
}

/// Bytes of the creation and modification times, which depend on the box's version.
fn times_size(bytes: &[u8], body: &Range<usize>) -> Result<usize, DamagedBoxes> {
    match word(bytes, body.start)? >> 24 {
        0 => Ok(8),
        1 => Ok(16),
        _ => Err(DamagedBoxes("a head of another version")),
    }
}

/// A box with its head, by its body.
fn whole(bytes: &[u8], body: Range<usize>) -> Result<Vec<u8>, DamagedBoxes> {
    let all = bytes.get(body.start.saturating_sub(HEAD)..body.end);
    all.map(<[u8]>::to_vec)
        .ok_or(DamagedBoxes("a box is cut short"))
}

/// A box within bytes.
struct Found {
    kind: [u8; 4],
    start: usize,
    body: Range<usize>,
    end: usize,
}

/// The box that begins a stretch.
fn next(bytes: &[u8], within: Range<usize>) -> Result<Found, DamagedBoxes> {
    let short = DamagedBoxes("a box is cut short");
    let start = within.start;
    let kind: Option<[u8; 4]> = bytes
        .get(start + 4..start + HEAD)
        .and_then(|kind| kind.try_into().ok());
    let kind = kind.ok_or(short)?;
    // Sizes of 0 and 1, which say that the size is elsewhere, are never written here.
    let size = index(word(bytes, start)?);
    let end = start.checked_add(size).filter(|end| *end <= within.end);
    let end = end.filter(|_| size >= HEAD).ok_or(short)?;
    let body = start + HEAD..end;
    Ok(Found {
        kind,
        start,
        body,
        end,
    })
}

/// The body of the one box of this kind in a stretch.
fn only(bytes: &[u8], within: Range<usize>, kind: [u8; 4]) -> Result<Range<usize>, DamagedBoxes> {
    let (mut at, mut found) = (within.start, None);
    while at < within.end {
        let child = next(bytes, at..within.end)?;
        at = child.end;
        if child.kind == kind && found.replace(child.body).is_some() {
            return Err(DamagedBoxes("a box is there twice"));
        }
    }
    found.ok_or(DamagedBoxes("a box is missing"))
}

fn word(bytes: &[u8], at: usize) -> Result<u32, DamagedBoxes> {
    let four = at.checked_add(4).and_then(|end| bytes.get(at..end));
    let four: Option<[u8; 4]> = four.and_then(|four| four.try_into().ok());
    four.map(u32::from_be_bytes)
        .ok_or(DamagedBoxes("a box is cut short"))
}

/// Writes over bytes of a box, `skip` into its body.
fn put(
    bytes: &mut [u8],
    body: Range<usize>,
    skip: usize,
    value: &[u8],
) -> Result<(), DamagedBoxes> {
    let from = body.start + skip;
    let place = from..from + value.len();
    let place = bytes
        .get_mut(place.clone())
        .filter(|_| place.end <= body.end);
    place
        .ok_or(DamagedBoxes("a box is cut short"))?
        .copy_from_slice(value);
    Ok(())
}

fn index(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
