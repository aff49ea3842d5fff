//! A viewer over FLV and the tags it is sent, by their layout alone.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use lamplight_media::broadcast::{Broadcast, Broadcasts, Start};
use lamplight_media::flv::viewer::{self, Control, Terms, Viewer};
use lamplight_media::frame::{Frame, TrackId};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Show;

const FILE_HEADER_BYTES: usize = 13;
const TAG_HEADER_BYTES: usize = 11;
pub(crate) const MERGE: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
pub(crate) struct Tag {
    pub(crate) kind: u8,
    pub(crate) ms: u32,
    pub(crate) body: Bytes,
}

impl Tag {
    /// A header of a track, of classic or enhanced FLV.
    pub(crate) fn is_header(&self) -> bool {
        let is_named = match self.kind {
            8 => self.body[0] >> 4 == 9,
            9 => self.body[0] & 0x80 != 0,
            _ => return false,
        };
        if is_named {
            self.body[0] & 0x0f == 0
        } else {
            self.body[1] == 0
        }
    }

    pub(crate) fn is_picture(&self) -> bool {
        self.kind == 9 && !self.is_header()
    }

    pub(crate) fn is_key(&self) -> bool {
        self.is_picture() && self.body[0] == 0x17
    }
}

/// A viewer and what it was sent that is no whole tag yet.
pub(crate) struct Seat {
    pub(crate) viewer: Viewer,
    pub(crate) control: Control,
    left: BytesMut,
}

impl Seat {
    pub(crate) fn take(show: &Show) -> Self {
        let terms = Terms {
            merge: MERGE,
            ..Terms::default()
        };
        Self::take_with(show, terms)
    }

    pub(crate) fn take_with(show: &Show, terms: Terms) -> Self {
        Self::take_of(&show.hub(), &show.broadcast(), terms)
    }

    pub(crate) fn take_of(hub: &Arc<Broadcasts>, of: &Arc<Broadcast>, terms: Terms) -> Self {
        let opened = viewer::open(hub, of, terms, CancellationToken::new());
        let (viewer, control) = opened.expect("the viewer is let in");
        let left = BytesMut::new();
        Self {
            viewer,
            control,
            left,
        }
    }

    /// Reads all there is; the tags that came whole, and whether the stream goes on.
    pub(crate) async fn read(&mut self) -> (Vec<Tag>, bool) {
        let goes_on = loop {
            match timeout(MERGE * 2, self.viewer.next()).await {
                Ok(Some(slice)) => self.left.extend_from_slice(&slice),
                Ok(None) => break false,
                Err(_quiet) => break true,
            }
        };
        let mut tags = Vec::new();
        if self.left.starts_with(b"FLV") {
            self.left.advance(FILE_HEADER_BYTES);
        }
        while self.left.len() >= TAG_HEADER_BYTES {
            let size = usize::try_from(self.left.clone().get_u32() & 0x00ff_ffff).expect("24 bits");
            let whole = TAG_HEADER_BYTES + size + 4;
            if self.left.len() < whole {
                break;
            }
            let mut tag = self.left.split_to(whole).freeze();
            let header = tag.split_to(TAG_HEADER_BYTES);
            let ms = u32::from_be_bytes([header[7], header[4], header[5], header[6]]);
            let body = tag.split_to(size);
            assert_eq!(usize::try_from(tag.get_u32()), Ok(whole - 4));
            let kind = header[0];
            tags.push(Tag { kind, ms, body });
        }
        (tags, goes_on)
    }
}

/// Within each track time goes forward.
pub(crate) fn assert_forward(tags: &[Tag]) {
    for kind in [8, 9] {
        let times = tags.iter().filter(|tag| tag.kind == kind).map(|tag| tag.ms);
        assert!(times.is_sorted(), "track {kind} goes back");
    }
}

pub(crate) fn headers(tags: &[Tag]) -> Vec<u8> {
    let mut kinds: Vec<u8> = tags
        .iter()
        .filter(|t| t.is_header())
        .map(|t| t.kind)
        .collect();
    kinds.sort_unstable();
    kinds
}

/// All frames of a track that its ring holds.
pub(crate) fn held(broadcast: &Arc<Broadcast>, track: TrackId) -> Vec<Arc<Frame>> {
    let mut cursor = broadcast.cursor(track, Start::OldestKey);
    std::iter::from_fn(|| cursor.try_next())
        .map(|delivery| delivery.frame)
        .collect()
}
