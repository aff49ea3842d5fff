//! A clip as one file (spec media.md 6.7): the recorded fragments of its segments behind one `moov`
//! of two tracks, moved so that time begins at 0. Nothing is encoded anew.
//!
//! `ftyp moov`, then of each segment the fragments of the picture and those of the sound. There is
//! no `sidx`: FFmpeg 5 takes what it points at for one fragment and plays pictures twice. The index
//! gives the size of every piece, and moving one changes no size, so that the file is laid out
//! before any of it is read, and a range of it costs only the segments it touches.
//!
//! - The clip begins with the segment that holds its beginning; earlier, at most [`REWIND_MAX`]
//!   segments, when that one does not begin with a keyframe.
//! - A gap stays a gap in time: the last picture stands, and what follows is where it was. Gaps at
//!   its ends are left out.
//! - A segment without sound, or without a picture, has the other alone; so has the clip, when
//!   there is none of it at all.
//! - Other parameters within a clip cannot be written in one file that all players read: refused,
//!   with the T at which they begin.
//! - A damaged segment is a gap: its place is filled with a `free` box of its size.
//!
//! Not here: reading from the store; HTTP.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mp4_atom::{Encode, FourCC, Ftyp, Mehd, Mvhd};
use time::OffsetDateTime;

use super::boxes::{DamagedBoxes, HEAD, Init, Shift, begins_at, shift};
use super::index::{Index, Slot, Track};
use super::vod::Span;
use super::{init_file, segment_file};
use crate::hls::RenditionId;
use crate::time::MediaTime;

/// How long a clip is at most.
pub const CLIP_MAX: Duration = Duration::from_secs(6 * 3_600);
/// Segments of a clip at most, whose places are kept while it is sent.
const SEGMENTS_MAX: usize = 65_536;
/// Segments that a clip begins earlier for a keyframe.
const REWIND_MAX: usize = 10;
/// Fragments of a segment that have numbers of their own.
const SEQUENCES: u32 = 4_096;
/// No segment is that large.
const PIECE_BYTES_MAX: u64 = 1 << 30;

/// Why a stretch is no clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClipError {
    /// There is no media in it.
    #[error("there is no media in that stretch")]
    Nothing,
    /// It is longer than [`CLIP_MAX`], or of too many segments.
    #[error("a clip lasts 6 hours at most")]
    TooLong,
    /// Its picture or sound is of another form from some T on.
    #[error("the {rendition} changes its form at {} us", at.as_micros())]
    Changes {
        /// Which.
        rendition: RenditionId,
        /// Where the other form begins.
        at: MediaTime,
    },
    /// What it has to begin with is damaged.
    #[error(transparent)]
    Damaged(#[from] DamagedBoxes),
}

/// A clip that is laid out, before any of it is read.
#[derive(Debug)]
pub struct ClipPlan {
    tracks: Vec<RenditionId>,
    needs: Vec<Need>,
    pieces: Vec<Piece>,
    lasts_us: u64,
    wall: OffsetDateTime,
}

/// An object that has to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Whose it is.
    pub rendition: RenditionId,
    /// The last piece of its URL.
    pub file: String,
}

/// A clip as a file.
#[derive(Debug)]
pub struct Clip {
    head: Bytes,
    shifts: Vec<(RenditionId, Shift)>,
    pieces: Vec<Piece>,
    bytes: u64,
    wall: OffsetDateTime,
}

/// A piece of a clip: one segment of one track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClipPiece {
    /// What has to be read for it.
    pub need: Need,
    /// Where in the file it begins.
    pub from: u64,
    /// Where it ends.
    pub to: u64,
    number: usize,
}

#[derive(Debug)]
struct Piece {
    rendition: RenditionId,
    file: String,
    bytes: u64,
    /// Where it ends, counted from the end of the head.
    to: u64,
}

impl Index {
    /// Lays out the clip of a stretch, or of all there is.
    ///
    /// # Errors
    /// [`ClipError`], for a stretch that has no one file.
    pub fn clip(&self, instance: &str, span: Option<Span>) -> Result<ClipPlan, ClipError> {
        let (first, last) = self.reach(span).ok_or(ClipError::Nothing)?;
        let src = self.tracks.get(&RenditionId::Src);
        let first = src.map_or(first, |track| track.rewound(first));
        let sides = [RenditionId::Src, RenditionId::Aac].map(|id| {
            let track = self.tracks.get(&id)?;
            let slots = track.between(first, last);
            slots.iter().any(is_there).then_some((id, slots))
        });
        let sides: Vec<(RenditionId, &[Slot])> = sides.into_iter().flatten().collect();
        let leading = sides.first().ok_or(ClipError::Nothing)?.1;
        let begin = sides
            .iter()
            .filter_map(|(_, slots)| slots.iter().find(|s| is_there(s)));
        let begin = begin
            .min_by_key(|slot| slot.t_us)
            .ok_or(ClipError::Nothing)?;
        // What comes after the last of the media is not waited for.
        let ends = sides.iter().filter_map(|(_, slots)| {
            let last = slots.iter().rfind(|slot| is_there(slot))?;
            Some(last.end_us())
        });
        let end_us = ends.max().unwrap_or(begin.t_us);
        let lasts_us = end_us.saturating_sub(begin.t_us);
        let lasts_us = u64::try_from(lasts_us).unwrap_or(0);
        if Duration::from_micros(lasts_us) > CLIP_MAX || leading.len() > SEGMENTS_MAX {
            return Err(ClipError::TooLong);
        }
        let mut plan = ClipPlan {
            tracks: Vec::new(),
            needs: Vec::new(),
            pieces: Vec::new(),
            lasts_us,
            wall: begin.wall,
        };
        for (id, slots) in &sides {
            plan.add_track(instance, *id, slots)?;
        }
        plan.lay_out(instance, begin.msn..=last, &sides);
        Ok(plan)
    }
}

/// Something smaller than a box is no media.
fn is_there(slot: &Slot) -> bool {
    let media = slot.media.as_ref();
    media.is_some_and(|media| (24..PIECE_BYTES_MAX).contains(&media.bytes))
}

impl Track {
    fn between(&self, first: u64, last: u64) -> &[Slot] {
        let from = self.slots.partition_point(|slot| slot.msn < first);
        let to = self.slots.partition_point(|slot| slot.msn <= last);
        self.slots.get(from..to).unwrap_or_default()
    }

    /// The number at which to begin so that the picture of this one can be decoded.
    fn rewound(&self, msn: u64) -> u64 {
        let until = self.slots.partition_point(|slot| slot.msn <= msn);
        let before = self.slots.get(..until).unwrap_or_default();
        let joined = before.iter().rev().take(REWIND_MAX + 1);
        let mut joined = joined.take_while(|slot| is_there(slot));
        let is_key_first = |slot: &&Slot| slot.media.as_ref().is_some_and(|m| m.is_key_first);
        joined.find(is_key_first).map_or(msn, |slot| slot.msn)
    }
}

impl ClipPlan {
    fn add_track(
        &mut self,
        instance: &str,
        rendition: RenditionId,
        slots: &[Slot],
    ) -> Result<(), ClipError> {
        let mut init = None;
        for slot in slots.iter().filter(|slot| is_there(slot)) {
            let Some(media) = &slot.media else { continue };
            if init.is_some_and(|known| known != media.init) {
                let at = MediaTime::from_micros(slot.t_us);
                return Err(ClipError::Changes { rendition, at });
            }
            if init.replace(media.init).is_none() {
                let files = [
                    init_file(instance, media.init),
                    segment_file(instance, slot.msn),
                ];
                let needs = files.map(|file| Need { rendition, file });
                self.needs.extend(needs);
                self.tracks.push(rendition);
            }
        }
        Ok(())
    }

    fn lay_out(
        &mut self,
        instance: &str,
        msns: RangeInclusive<u64>,
        sides: &[(RenditionId, &[Slot])],
    ) {
        let mut to = 0;
        let mut places = vec![0; sides.len()];
        for msn in msns {
            for ((rendition, slots), place) in sides.iter().zip(&mut places) {
                while slots.get(*place).is_some_and(|slot| slot.msn < msn) {
                    *place += 1;
                }
                let slot = slots.get(*place).filter(|slot| slot.msn == msn);
                let slot = slot.filter(|slot| is_there(slot));
                let Some(media) = slot.and_then(|slot| slot.media.as_ref()) else {
                    continue;
                };
                to += media.bytes;
                self.pieces.push(Piece {
                    rendition: *rendition,
                    file: segment_file(instance, msn),
                    bytes: media.bytes,
                    to,
                });
            }
        }
    }

    /// What has to be read before the first byte can be written, in this order.
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }

    /// Goes on with what was asked for, in that order.
    ///
    /// # Errors
    /// [`ClipError::Damaged`], when it is not what was recorded.
    pub fn open(self, read: &[Bytes]) -> Result<Clip, ClipError> {
        let missing = ClipError::Damaged(DamagedBoxes::MISSING);
        let (mut inits, mut begins) = (Vec::new(), Vec::new());
        for (two, number) in read.chunks_exact(2).zip(1..) {
            let [init, segment] = two else { continue };
            inits.push(Init::read(init, number)?);
            begins.push(begins_at(segment)?);
        }
        if inits.len() != self.tracks.len() {
            return Err(missing);
        }
        let clocks = inits.iter().map(|init| init.rate).zip(begins);
        let base = Base::of(clocks).ok_or(missing)?;
        let shifts = self.tracks.iter().zip(&inits).zip(1..);
        let shifts = shifts.map(|((rendition, init), track)| {
            let shift = Shift {
                track,
                ticks: base.ticks(init.rate),
                us: base.ticks(1_000_000),
                sequence: 1,
                sequences: SEQUENCES,
            };
            (*rendition, shift)
        });
        let shifts = shifts.collect();
        let head = self.head(&inits)?;
        let bytes = self.pieces.last().map_or(0, |piece| piece.to);
        let bytes = bytes.saturating_add(u64::try_from(head.len()).unwrap_or(0));
        Ok(Clip {
            head,
            shifts,
            pieces: self.pieces,
            bytes,
            wall: self.wall,
        })
    }

    /// `ftyp moov`.
    fn head(&self, inits: &[Init]) -> Result<Bytes, ClipError> {
        let unwritable = |_| ClipError::Damaged(DamagedBoxes::MISSING);
        let rate = inits.first().map_or(1, |init| init.rate);
        let ticks = |us: u64| u64::try_from(u128::from(us) * u128::from(rate) / 1_000_000);
        let ticks = |us: u64| ticks(us).unwrap_or(u64::MAX);
        let mut out = Vec::new();
        let ftyp = Ftyp {
            major_brand: FourCC::new(b"iso6"),
            minor_version: 0,
            compatible_brands: [b"iso6", b"mp41"].map(FourCC::new).to_vec(),
        };
        ftyp.encode(&mut out).map_err(unwritable)?;
        let mut moov = Vec::new();
        let mvhd = Mvhd {
            timescale: rate,
            next_track_id: u32::try_from(inits.len() + 1).unwrap_or(u32::MAX),
            ..Mvhd::default()
        };
        mvhd.encode(&mut moov).map_err(unwritable)?;
        inits.iter().for_each(|init| moov.extend(&init.trak));
        let mut mvex = Vec::new();
        let mehd = Mehd {
            fragment_duration: ticks(self.lasts_us),
        };
        mehd.encode(&mut mvex).map_err(unwritable)?;
        inits.iter().for_each(|init| mvex.extend(&init.trex));
        put_box(&mut moov, *b"mvex", &mvex);
        put_box(&mut out, *b"moov", &moov);
        Ok(out.into())
    }
}

fn put_box(out: &mut Vec<u8>, kind: [u8; 4], body: &[u8]) {
    let size = u32::try_from(body.len() + HEAD).unwrap_or(u32::MAX);
    out.extend(size.to_be_bytes());
    out.extend(kind);
    out.extend(body);
}

/// The moment that is 0 in the file: the first decode time of the track that begins first.
struct Base {
    ticks: u64,
    rate: u32,
}

impl Base {
    fn of(clocks: impl Iterator<Item = (u32, u64)>) -> Option<Self> {
        let all = clocks.map(|(rate, ticks)| Self { ticks, rate });
        all.reduce(|one, other| {
            let scaled = |a: &Self, b: &Self| u128::from(a.ticks) * u128::from(b.rate);
            if scaled(&other, &one) < scaled(&one, &other) {
                other
            } else {
                one
            }
        })
    }

    /// In ticks of another clock, rounded down, so that nothing of a later track is before it.
    fn ticks(&self, rate: u32) -> u64 {
        let ticks = u128::from(self.ticks) * u128::from(rate) / u128::from(self.rate);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

impl Clip {
    /// The size of the file.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What comes before the pieces.
    pub const fn head(&self) -> &Bytes {
        &self.head
    }

    /// The time of day of its beginning.
    pub const fn wall(&self) -> OffsetDateTime {
        self.wall
    }

    /// The piece that holds a byte of the file; `None` in the head, or at the end.
    pub fn piece_at(&self, byte: u64) -> Option<ClipPiece> {
        let head = u64::try_from(self.head.len()).unwrap_or(u64::MAX);
        let within = byte.checked_sub(head)?;
        let number = self.pieces.partition_point(|piece| piece.to <= within);
        let piece = self.pieces.get(number)?;
        let to = head + piece.to;
        Some(ClipPiece {
            need: Need {
                rendition: piece.rendition,
                file: piece.file.clone(),
            },
            from: to - piece.bytes,
            to,
            number,
        })
    }

    /// A piece as it stands in the file, of the object that it needs. What is damaged is filled,
    /// and told.
    pub fn write(&self, piece: &ClipPiece, read: Bytes) -> (Bytes, Result<(), DamagedBoxes>) {
        let bytes = piece.to - piece.from;
        let shift_of = self
            .shifts
            .iter()
            .find(|(id, _)| *id == piece.need.rendition);
        let number = u32::try_from(piece.number).unwrap_or(0);
        let moved = match shift_of {
            Some((_, by)) if u64::try_from(read.len()) == Ok(bytes) => {
                let sequence = number.saturating_mul(SEQUENCES).saturating_add(1);
                let mut moved = BytesMut::from(read);
                shift(&mut moved, &Shift { sequence, ..*by }).map(|()| moved.freeze())
            }
            _ => Err(DamagedBoxes::SIZE),
        };
        match moved {
            Ok(moved) => (moved, Ok(())),
            Err(damage) => (filler(bytes), Err(damage)),
        }
    }
}

/// A box that players pass over.
fn filler(bytes: u64) -> Bytes {
    let size = usize::try_from(bytes).unwrap_or(HEAD).max(HEAD);
    let mut out = Vec::with_capacity(size);
    put_box(&mut out, *b"free", &vec![0; size - HEAD]);
    out.into()
}
