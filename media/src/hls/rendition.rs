//! Renditions: what a player can choose, and what it fetches.

use std::fmt;
use std::io::Write as _;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::frame::TrackId;

/// A rendition, by its name in URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RenditionId {
    /// The source picture, or `clean` in its place.
    Src,
    /// A smaller picture of so many lines, made while somebody plays it.
    Rung(u16),
    /// The sound.
    Aac,
}

impl RenditionId {
    /// The rendition of this name: `src`, `aac`, `v720`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "src" => return Some(Self::Src),
            "aac" => return Some(Self::Aac),
            _ => {}
        }
        let lines = name.strip_prefix('v')?;
        let is_plain = lines.bytes().all(|b| b.is_ascii_digit()) && !lines.starts_with('0');
        let lines = lines.parse().ok().filter(|_| is_plain)?;
        Some(Self::Rung(lines))
    }

    /// `Content-Type` of its media.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Src | Self::Rung(_) => "video/mp4",
            Self::Aac => "audio/mp4",
        }
    }

    /// What it is called where there is no room for every rung's own name.
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::Src => "src",
            Self::Rung(_) => "rung",
            Self::Aac => "aac",
        }
    }
}

impl fmt::Display for RenditionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Src => f.write_str("src"),
            Self::Rung(lines) => write!(f, "{}", TrackId::Rung(*lines)),
            Self::Aac => f.write_str("aac"),
        }
    }
}

/// A playlist in the forms it is sent in.
#[derive(Debug)]
pub struct Rendered {
    /// As it is.
    pub plain: Bytes,
    /// Compressed with gzip.
    pub gzip: Bytes,
    brotli: OnceLock<Bytes>,
}

impl Rendered {
    /// A playlist of this text.
    pub fn new(text: String) -> Arc<Self> {
        let plain = Bytes::from(text);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        // Writing to a Vec cannot fail.
        drop(gzip.write_all(&plain));
        let gzip = gzip.finish().unwrap_or_default().into();
        Arc::new(Self {
            plain,
            gzip,
            brotli: OnceLock::new(),
        })
    }

    /// Compressed with brotli, on first demand.
    pub fn brotli(&self) -> Bytes {
        let made = self.brotli.get_or_init(|| {
            let mut out = Vec::new();
            let params = brotli::enc::BrotliEncoderParams {
                quality: 4,
                ..Default::default()
            };
            let mut plain: &[u8] = &self.plain;
            drop(brotli::BrotliCompress(&mut plain, &mut out, &params));
            out.into()
        });
        made.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written_and_no_other_way() {
        let all = [RenditionId::Src, RenditionId::Aac, RenditionId::Rung(720)];
        for rendition in all {
            assert_eq!(RenditionId::parse(&rendition.to_string()), Some(rendition));
        }
        for name in ["v", "v0", "v0720", "v+720", "720", "SRC", "v99999", "opus"] {
            assert_eq!(RenditionId::parse(name), None, "{name}");
        }
    }
}
