//! RTP payloads to access units, by the payload format of the publisher's codec.
//!
//! Invariants
//! - A unit that leaves is whole: what lost a packet is thrown away, and what refers to it as well,
//!   up to the next keyframe (I31).
//! - An access unit has at most [`UNIT_BYTES_MAX`].
//!
//! Not here: the order of packets ([`super::reorder`]).

#![deny(clippy::indexing_slicing)]

mod assembly;
mod av1;
mod h264;
mod hevc;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use self::assembly::Assembly;
use crate::frame::Codec;

/// As of a picture that comes over RTMP (spec media.md 3.3).
const UNIT_BYTES_MAX: usize = 8 << 20;

/// A whole access unit, in the form that [`crate::frame::Frame::payload`] has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) rtp_time: u32,
    pub(crate) is_key: bool,
    pub(crate) payload: Bytes,
    /// Parameter sets by kind, in the order in which a configuration record has them.
    pub(crate) sets: [Vec<Bytes>; 3],
}

/// A payload that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bad;

/// The access unit that is being put together.
#[derive(Debug)]
struct Open {
    rtp_time: u32,
    assembly: Assembly,
    is_damaged: bool,
}

/// Puts access units together.
#[derive(Debug)]
pub(crate) struct Depacketiser {
    codec: Codec,
    open: Option<Open>,
    /// Pictures refer to one that was lost.
    waits_for_key: bool,
    /// What is shown before the newest keyframe refers to pictures that were lost.
    skips_leading: bool,
    /// What comes next may lack its beginning.
    is_after_loss: bool,
}

impl Depacketiser {
    pub(crate) const fn new(codec: Codec) -> Self {
        Self {
            codec,
            open: None,
            // Whoever comes in sees a beginning first.
            waits_for_key: true,
            skips_leading: false,
            is_after_loss: false,
        }
    }

    /// Packets were lost here.
    pub(crate) fn lose(&mut self) {
        if let Some(open) = &mut self.open {
            open.is_damaged = true;
        }
        self.is_after_loss = true;
        self.waits_for_key = true;
    }

    /// Whether only a keyframe helps.
    pub(crate) const fn waits_for_key(&self) -> bool {
        self.waits_for_key
    }

    /// A payload came; `is_last` as its marker says. Gives the access units that are whole now.
    pub(crate) fn push(
        &mut self,
        rtp_time: u32,
        is_last: bool,
        payload: &[u8],
    ) -> Result<Vec<Unit>, Bad> {
        let mut out = Vec::new();
        if self.open.as_ref().is_some_and(|o| o.rtp_time != rtp_time) {
            out.extend(self.close());
        }
        let is_after_loss = std::mem::take(&mut self.is_after_loss);
        let codec = self.codec;
        let open = self.open.get_or_insert_with(|| Open {
            rtp_time,
            assembly: Assembly::default(),
            // Before its first packet there was a loss: only what begins a unit proves it whole.
            is_damaged: is_after_loss && !begins_unit(codec, payload),
        });
        let taken = open.take(codec, payload);
        if taken.is_err() {
            open.is_damaged = true;
        }
        if is_last {
            out.extend(self.close());
        }
        taken.map(|()| out)
    }

    fn close(&mut self) -> Option<Unit> {
        let Open {
            rtp_time,
            assembly,
            is_damaged,
        } = self.open.take()?;
        if is_damaged || !assembly.is_whole() {
            self.waits_for_key = true;
            return None;
        }
        if !assembly.has_picture {
            // Parameter sets on their own belong to what follows; whoever sends them so sends
            // them again with the keyframe.
            return None;
        }
        if assembly.is_key {
            self.skips_leading = self.waits_for_key;
        } else if self.waits_for_key || assembly.is_leading && self.skips_leading {
            // Nothing but its like refers to what is shown before a keyframe.
            return None;
        }
        self.waits_for_key = false;
        Some(Unit {
            rtp_time,
            is_key: assembly.is_key,
            payload: assembly.payload.freeze(),
            sets: assembly.sets,
        })
    }
}

impl Open {
    fn take(&mut self, codec: Codec, payload: &[u8]) -> Result<(), Bad> {
        let assembly = &mut self.assembly;
        // Each byte of a payload brings a length of four bytes with it at most.
        if assembly.bytes() + 5 * payload.len() > UNIT_BYTES_MAX {
            return Err(Bad);
        }
        match codec {
            Codec::H264 => h264::take(assembly, payload),
            Codec::Hevc => hevc::take(assembly, payload),
            Codec::Av1 => av1::take(assembly, payload),
            Codec::Aac | Codec::Opus => Err(Bad),
        }
    }
}

/// Whether a payload can only be the first of an access unit.
fn begins_unit(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::H264 => h264::begins_unit(payload),
        Codec::Hevc => hevc::begins_unit(payload),
        Codec::Av1 => av1::begins_unit(payload),
        Codec::Aac | Codec::Opus => false,
    }
}
