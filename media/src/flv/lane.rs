//! One track on its way to an FLV viewer: its cursor, the frame that is next, the header that was
//! sent.

use bytes::Bytes;

use super::muxer::Muxer;
use crate::broadcast::{Cursor, Delivery};
use crate::frame::{Frame, Kind};
use crate::time::MediaTime;

/// See the module.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) cursor: Cursor,
    next: Option<Delivery>,
    /// Generation and discontinuity under which the header was sent last.
    told: Option<(u32, u32)>,
    pub(super) is_over: bool,
}

impl Lane {
    pub(super) const fn new(cursor: Cursor) -> Self {
        Self {
            cursor,
            next: None,
            told: None,
            is_over: false,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.cursor.track().kind()
    }

    /// The frame that is next, if it is there.
    pub(super) fn peek(&mut self) -> Option<&Delivery> {
        if self.next.is_none() && !self.is_over {
            self.next = self.cursor.try_next();
        }
        self.next.as_ref()
    }

    pub(super) const fn take(&mut self) -> Option<Delivery> {
        self.next.take()
    }

    /// Goes to the newest keyframe if there is one ahead; its time, and how many frames that
    /// passed over beyond those the next delivery tells of.
    pub(super) fn jump(&mut self) -> Option<(MediaTime, u64)> {
        if self.cursor.jump_to_newest_key() == 0 {
            return None;
        }
        let lost = self.next.take();
        let at = self.peek()?.frame.dts;
        Some((at, lost.map_or(0, passed)))
    }

    /// Goes to the first frame at or after a time; how many frames that passed over beyond those
    /// the next delivery tells of.
    pub(super) fn jump_to(&mut self, t: MediaTime) -> u64 {
        if self.next.as_ref().is_some_and(|next| next.frame.dts >= t) {
            return 0;
        }
        self.cursor.jump_to(t);
        self.next.take().map_or(0, passed)
    }

    /// The header of the track, when the frame needs another than was sent.
    pub(super) fn header_for(&mut self, frame: &Frame, muxer: Muxer) -> Option<Bytes> {
        let needed = Some((frame.info.generation, frame.discontinuities));
        if std::mem::replace(&mut self.told, needed) == needed {
            return None;
        }
        Some(muxer.track_header(self.kind(), &frame.info, frame.dts))
    }
}

/// Frames that a delivery stands for when it is not sent.
fn passed(lost: Delivery) -> u64 {
    u64::from(lost.skipped) + 1
}

/// Waits until a lane may have something, or is over.
pub(super) async fn ready(lane: Option<&mut Lane>) {
    match lane {
        // What is next is taken by whoever waits for room, not for frames.
        Some(lane) if !lane.is_over => {
            if lane.cursor.ready_or_unavailable().await.is_err() {
                lane.is_over = true;
            }
        }
        _ => std::future::pending().await,
    }
}
