//! LL-HLS (RFC 8216bis, spec media.md 6): parts, window, playlists, blocking reload.
//!
//! [`Packager`] reads the rings of one broadcast and cuts them into a [`Stream`]; routes ask the
//! stream. Each rendering is done once per part and shared.
//!
//! Invariants
//! - What is listed can be fetched at once; no byte of a part leaves before the part is whole
//!   (I25).
//! - TARGETDURATION, PART-TARGET and SERVER-CONTROL are constant in an instance (I20).
//!
//! Not here: HTTP. Routes map an [`Answer`] to status and headers.

mod directives;
mod feed;
mod mp4;
mod news;
mod packager;
mod playlist;
mod rates;
mod segmenter;
mod silence;
mod stream;
#[cfg(test)]
mod tests;
mod wall;
mod window;

pub use self::directives::{BadDirectives, Directives, Skip};
pub use self::mp4::Mp4Error;
pub use self::packager::Packager;
pub use self::segmenter::{AudioLine, Cut, PartCut, Targets, VideoLine};
pub use self::stream::{Answer, Held, HlsConfig, Media, Rendered, RenditionId, Status, Stream};
