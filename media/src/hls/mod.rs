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
mod dvr;
mod feed;
mod mp4;
mod multivariant;
mod news;
mod packager;
mod playlist;
mod rates;
mod rendition;
mod segmenter;
mod shown;
mod silence;
mod stream;
#[cfg(test)]
mod tests;
mod wall;
mod window;

pub use self::directives::{BadDirectives, Directives, Skip};
pub use self::dvr::List;
pub use self::mp4::Mp4Error;
pub(crate) use self::mp4::{EMSG_SCHEME, data as cue_data, payload as cue_payload};
pub(crate) use self::multivariant::{AudioFacts, Multivariant, RateFacts, Variant};
pub use self::packager::Packager;
pub(crate) use self::playlist::{date, seconds, write_range};
pub use self::rendition::{Rendered, RenditionId};
pub use self::segmenter::{AudioLine, Bound, Cut, PartCut, RungLine, Targets, VideoLine};
pub use self::stream::{Answer, Held, HlsConfig, Media, Status, Stream};
