//! The parameters of one track: those in force, and those that came too soon after them.
//!
//! Invariants
//! - New parameters are in force at most once in [`CHANGE_INTERVAL_MIN`]; the newest of those that
//!   came in between follow when that is over.
//! - A frame leaves only under the parameters it was coded with: between parameters that came and
//!   their coming into force, and after some that cannot be read, frames are dropped.
//!
//! Not here: what a header means.

use std::time::Duration;

use tokio::time::Instant;

use super::FlvError;
use super::format::{Format, Framing};
use crate::frame::TrackInfo;

/// New parameters at most this often.
pub(super) const CHANGE_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// One track of a session.
#[derive(Debug)]
pub(super) struct Track {
    format: Format,
    changed: Instant,
    next: Next,
    /// True once a frame left from which decoding can start.
    has_key: bool,
}

/// What came after the parameters in force.
#[derive(Debug)]
enum Next {
    Nothing,
    /// Parameters for which it is too soon.
    Waits(Format),
    /// Bytes that say nothing: what the frames after them need is not known.
    Unreadable,
}

impl Track {
    const fn new(now: Instant, format: Format) -> Self {
        Self {
            format,
            changed: now,
            next: Next::Nothing,
            has_key: false,
        }
    }

    /// A header came. Gives what the hub must know, if it changes anything.
    pub(super) fn offer(
        slot: &mut Option<Self>,
        now: Instant,
        format: Result<Format, FlvError>,
    ) -> Result<Option<TrackInfo>, FlvError> {
        let Some(track) = slot else {
            let format = format?;
            let info = format.info.clone();
            *slot = Some(Self::new(now, format));
            return Ok(Some(info));
        };
        let format = match format {
            Ok(format) => format,
            Err(error) => {
                track.wait_for(Next::Unreadable);
                return Err(error);
            }
        };
        if track.format.info.is_same_format(&format.info) {
            track.format.framing = format.framing;
            if !matches!(track.next, Next::Nothing) {
                track.wait_for(Next::Nothing);
            }
            return Ok(None);
        }
        let is_same_codec = track.format.info.codec == format.info.codec;
        if is_same_codec && track.is_too_soon(now) {
            track.wait_for(Next::Waits(format));
            return Err(FlvError::ParamChurn);
        }
        let info = format.info.clone();
        *track = Self::new(now, format);
        Ok(Some(info))
    }

    fn wait_for(&mut self, next: Next) {
        self.next = next;
        self.has_key = false;
    }

    /// A picture was lost: what follows refers to it, up to the next keyframe (I31).
    pub(super) fn lose(&mut self) {
        self.has_key = false;
    }

    fn is_too_soon(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.changed) < CHANGE_INTERVAL_MIN
    }

    /// How the payload that comes now is to be read.
    pub(super) const fn framing(&self) -> Framing {
        match &self.next {
            Next::Waits(format) => format.framing,
            Next::Nothing | Next::Unreadable => self.format.framing,
        }
    }

    /// A frame came. Gives the parameters that came into force with it, or says why it is dropped.
    pub(super) fn pass(
        &mut self,
        now: Instant,
        is_key: bool,
    ) -> Result<Option<TrackInfo>, FlvError> {
        let is_too_soon = self.is_too_soon(now);
        match &self.next {
            Next::Waits(_) if is_too_soon => return Err(FlvError::ParamChurn),
            Next::Unreadable => return Err(FlvError::Early),
            _ if !is_key && !self.has_key => return Err(FlvError::Early),
            _ => {}
        }
        let mut changed = None;
        if let Next::Waits(format) = std::mem::replace(&mut self.next, Next::Nothing) {
            changed = Some(format.info.clone());
            *self = Self::new(now, format);
        }
        self.has_key = true;
        Ok(changed)
    }
}
