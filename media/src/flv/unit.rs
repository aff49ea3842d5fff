//! One payload of a picture track: what it holds, and the form it is handed on in.

use bytes::{Bytes, BytesMut};

use super::FlvError;
use super::format::{self, Format, Framing};
use crate::bitstream::av1::{self, ObuKind};
use crate::bitstream::{h264, hevc};

/// What the units of one payload are.
#[derive(Debug)]
pub(super) struct Unit {
    framing: Framing,
    /// Parameter sets by kind, in the order in which a record has them.
    sets: [Vec<Bytes>; 3],
    pub(super) has_picture: bool,
    pub(super) is_key: bool,
    pub(super) is_discardable: bool,
    /// True when everything stays and lengths have four bytes already.
    is_canonical: bool,
}

/// What becomes of a NAL unit.
enum Role {
    /// A parameter set: lives in the track's parameters.
    Set(usize),
    Slice {
        is_key: bool,
        is_discardable: bool,
    },
    Stays,
    /// Serves nobody.
    Goes,
}

impl Unit {
    pub(super) fn read(payload: &Bytes, framing: Framing) -> Result<Self, FlvError> {
        let mut unit = Self {
            framing,
            sets: [Vec::new(), Vec::new(), Vec::new()],
            has_picture: false,
            is_key: false,
            is_discardable: true,
            is_canonical: true,
        };
        match framing {
            Framing::Avc(length_bytes) | Framing::Hevc(length_bytes) => {
                unit.read_nals(payload, length_bytes)?;
            }
            Framing::Av1 { is_reduced } => unit.read_obus(payload, is_reduced)?,
            Framing::Sound(_) => return Err(FlvError::Early),
        }
        Ok(unit)
    }

    fn read_nals(&mut self, payload: &Bytes, length_bytes: usize) -> Result<(), FlvError> {
        self.is_canonical = length_bytes == 4;
        for nal in h264::nals_of(payload, length_bytes) {
            let nal = nal.map_err(|_bad| FlvError::Bitstream)?;
            match self.role(nal)? {
                Role::Set(kind) => {
                    if let Some(sets) = self.sets.get_mut(kind) {
                        sets.push(payload.slice_ref(nal));
                    }
                    self.is_canonical = false;
                }
                Role::Slice {
                    is_key,
                    is_discardable,
                } => {
                    self.has_picture = true;
                    self.is_key |= is_key;
                    self.is_discardable &= is_discardable;
                }
                Role::Stays => {}
                Role::Goes => self.is_canonical = false,
            }
        }
        Ok(())
    }

    fn role(&self, nal: &[u8]) -> Result<Role, FlvError> {
        let header = nal.first().copied().unwrap_or(0);
        if matches!(self.framing, Framing::Avc(_)) {
            return Ok(avc_role(header));
        }
        let layer = hevc::layer(nal).ok_or(FlvError::Bitstream)?;
        Ok(if layer == 0 {
            hevc_role(header)
        } else {
            Role::Goes
        })
    }

    /// Of AV1 the sequence headers stay: decoders and RTP want them in keyframes.
    fn read_obus(&mut self, payload: &Bytes, is_reduced: bool) -> Result<(), FlvError> {
        let mut is_reduced = is_reduced;
        self.is_discardable = false;
        for obu in av1::obus(payload) {
            let obu = obu.map_err(|_bad| FlvError::Bitstream)?;
            match obu.kind {
                ObuKind::SequenceHeader => {
                    let [sequences, ..] = &mut self.sets;
                    if sequences.is_empty() {
                        let sequence = payload.slice_ref(obu.payload);
                        let facts = av1::SequenceFacts::parse(&sequence);
                        is_reduced = facts.map_err(|_bad| FlvError::Bitstream)?.is_reduced;
                        sequences.push(sequence);
                    }
                }
                // The first frame decides: others of the unit lie above it.
                ObuKind::Frame if !self.has_picture => {
                    self.has_picture = true;
                    self.is_key = av1::is_key(obu.payload, is_reduced);
                }
                ObuKind::Frame | ObuKind::Other => {}
                ObuKind::Filler => self.is_canonical = false,
            }
        }
        Ok(())
    }

    /// Parameters that came with a keyframe instead of a sequence header.
    pub(super) fn parameters(&self) -> Option<Result<Format, FlvError>> {
        if !self.is_key {
            return None;
        }
        let [first, second, third] = &self.sets;
        let bad = |_bad| FlvError::Bitstream;
        match self.framing {
            Framing::Avc(length_bytes) => {
                let (sps, pps) = both(first, second)?;
                let config = h264::Config::new(sps, pps).map_err(bad);
                Some(config.and_then(|config| {
                    format::of_avc(&h264::Config {
                        length_bytes,
                        ..config
                    })
                }))
            }
            Framing::Hevc(length_bytes) => {
                let (vps, sps) = both(first, second)?;
                let (_, pps) = both(first, third)?;
                let config = hevc::Config::new(vps, sps, pps);
                let config = config.map_err(|_bad| FlvError::Bitstream);
                Some(config.and_then(|config| {
                    format::of_hevc(&hevc::Config {
                        length_bytes,
                        ..config
                    })
                }))
            }
            Framing::Av1 { .. } => {
                let config = av1::Config::new(first.first()?.clone());
                let config = config.map_err(|_bad| FlvError::Bitstream);
                Some(config.and_then(|config| format::of_av1(&config)))
            }
            Framing::Sound(_) => None,
        }
    }

    /// The payload as [`crate::frame::Frame`] has it.
    pub(super) fn canonical(&self, payload: Bytes) -> Bytes {
        if self.is_canonical {
            return payload;
        }
        let mut out = BytesMut::with_capacity(payload.len() + 16);
        match self.framing {
            Framing::Avc(length_bytes) | Framing::Hevc(length_bytes) => {
                for nal in h264::nals_of(&payload, length_bytes).flatten() {
                    if matches!(self.role(nal), Ok(Role::Slice { .. } | Role::Stays)) {
                        h264::put_nal(&mut out, nal);
                    }
                }
            }
            Framing::Av1 { .. } => {
                for obu in av1::obus(&payload).flatten() {
                    if obu.kind != ObuKind::Filler {
                        out.extend_from_slice(obu.whole);
                    }
                }
            }
            Framing::Sound(_) => return payload,
        }
        out.freeze()
    }
}

/// Two kinds of set, if both are there.
fn both(one: &[Bytes], other: &[Bytes]) -> Option<(Vec<Bytes>, Vec<Bytes>)> {
    let is_there = !one.is_empty() && !other.is_empty();
    is_there.then(|| (one.to_vec(), other.to_vec()))
}

const fn avc_role(header: u8) -> Role {
    match h264::NalKind::of(header) {
        h264::NalKind::Sps => Role::Set(0),
        h264::NalKind::Pps => Role::Set(1),
        h264::NalKind::Idr => Role::Slice {
            is_key: true,
            is_discardable: false,
        },
        h264::NalKind::Slice => Role::Slice {
            is_key: false,
            is_discardable: header & 0x60 == 0,
        },
        h264::NalKind::Sei | h264::NalKind::Other => Role::Stays,
        h264::NalKind::Filler => Role::Goes,
    }
}

/// Which pictures others refer to follows from the layers of frame rates: none is taken for
/// discardable.
const fn hevc_role(header: u8) -> Role {
    match hevc::NalKind::of(header) {
        hevc::NalKind::Vps => Role::Set(0),
        hevc::NalKind::Sps => Role::Set(1),
        hevc::NalKind::Pps => Role::Set(2),
        hevc::NalKind::Irap => Role::Slice {
            is_key: true,
            is_discardable: false,
        },
        hevc::NalKind::Slice => Role::Slice {
            is_key: false,
            is_discardable: false,
        },
        hevc::NalKind::Sei | hevc::NalKind::Other => Role::Stays,
        hevc::NalKind::Filler => Role::Goes,
    }
}
