//! Rows of the index, one a line of JSON (spec media.md 1.6).

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::cue::{Cue, CueKind, CueNews};
use crate::hls::RenditionId;
use crate::time::{MediaTime, micros};

/// No show is longer than a century: what claims to be is not believed.
pub(super) const T_US_MAX: i64 = 100 * 366 * 86_400 * 1_000_000;

/// One line of the index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "row", rename_all = "snake_case")]
pub enum Row {
    /// An init section is kept.
    Init(InitRow),
    /// A segment is kept.
    Segment(SegmentRow),
    /// A segment is not.
    Gap(GapRow),
    /// The segment that comes next begins a new line of time.
    Discontinuity(DiscontinuityRow),
    /// A cue is on the timeline.
    Cue(CueRow),
    /// A listed cue ends.
    CueEnd(CueEndRow),
    /// Nothing comes after this.
    End(EndRow),
}

/// An init section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InitRow {
    /// Whose it is.
    #[serde(with = "rendition_name")]
    pub rendition: RenditionId,
    /// Its number in the rendition.
    pub n: u32,
    /// Where it is kept.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// The `CODECS` of what it begins.
    pub codecs: String,
    /// Width and height of a picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<(u32, u32)>,
    /// Pictures a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_rate: Option<f64>,
}

/// A segment that is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentRow {
    /// Whose it is.
    #[serde(with = "rendition_name")]
    pub rendition: RenditionId,
    /// Its media sequence number.
    pub msn: u64,
    /// Where it begins on T.
    pub t_us: i64,
    /// How long it lasts.
    pub duration_us: u64,
    /// The time of day of its beginning.
    #[serde(with = "time::serde::rfc3339")]
    pub wall: OffsetDateTime,
    /// Number of its init section.
    pub init: u32,
    /// Where it is kept.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// The keyframes that begin a part of it; none for sound, where every frame is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keyframes: Vec<Keyframe>,
}

/// A keyframe that begins a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyframe {
    /// When it is decoded.
    pub t_us: i64,
    /// Where its part begins in the segment, in bytes.
    pub offset: u64,
}

/// A segment that is not kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GapRow {
    /// Whose it is.
    #[serde(with = "rendition_name")]
    pub rendition: RenditionId,
    /// Its media sequence number.
    pub msn: u64,
    /// Where it begins on T.
    pub t_us: i64,
    /// How long it lasts.
    pub duration_us: u64,
    /// The time of day of its beginning.
    #[serde(with = "time::serde::rfc3339")]
    pub wall: OffsetDateTime,
    /// Why.
    pub cause: GapCause,
}

/// Why a segment is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapCause {
    /// Nothing was sent.
    Silence,
    /// The store was too slow, or refused it.
    Store,
}

/// A new line of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscontinuityRow {
    /// Of which rendition.
    #[serde(with = "rendition_name")]
    pub rendition: RenditionId,
    /// The segment that begins it.
    pub msn: u64,
}

/// A cue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CueRow {
    /// Unique in the instance.
    pub id: String,
    /// What it is, for the player.
    pub class: String,
    /// When it takes effect.
    pub t_us: i64,
    /// How long it lasts; open-ended when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<i64>,
    /// True for state that late joiners need.
    pub is_listed: bool,
    /// Its payload in base64url.
    pub data: String,
}

/// The end of a listed cue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CueEndRow {
    /// Which.
    pub id: String,
    /// When.
    pub t_us: i64,
}

/// The end of the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndRow {
    /// Where the last segment ended.
    pub t_us: i64,
}

impl Row {
    /// As a line, with its end.
    pub fn line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("numbers and texts are JSON");
        line.push('\n');
        line
    }

    /// How far on T it reaches, if it is of a segment.
    pub const fn reaches_us(&self) -> Option<i64> {
        match self {
            Self::Segment(row) => Some(row.t_us.saturating_add_unsigned(row.duration_us)),
            Self::Gap(row) => Some(row.t_us.saturating_add_unsigned(row.duration_us)),
            _ => None,
        }
    }

    /// What is said of a segment that could not be kept; an init section leaves no trace.
    pub fn lost(self) -> Option<Self> {
        match self {
            Self::Segment(row) => Some(Self::Gap(GapRow {
                rendition: row.rendition,
                msn: row.msn,
                t_us: row.t_us,
                duration_us: row.duration_us,
                wall: row.wall,
                cause: GapCause::Store,
            })),
            Self::Init(_) => None,
            other => Some(other),
        }
    }
}

impl From<&CueNews> for Row {
    fn from(news: &CueNews) -> Self {
        match news {
            CueNews::Opened(cue) => Self::Cue(CueRow {
                id: cue.id.clone(),
                class: cue.class.clone(),
                t_us: cue.t.as_micros(),
                duration_us: cue.duration.map(micros),
                is_listed: cue.kind == CueKind::Listed,
                data: crate::hls::cue_data(cue),
            }),
            CueNews::Closed { cue, t } => Self::CueEnd(CueEndRow {
                id: cue.id.clone(),
                t_us: t.as_micros(),
            }),
        }
    }
}

impl CueRow {
    /// The cue that the row was written of; `None` when its payload cannot be read.
    pub(super) fn cue(&self) -> Option<Cue> {
        let duration = match self.duration_us {
            Some(us) => Some(std::time::Duration::from_micros(u64::try_from(us).ok()?)),
            None => None,
        };
        let is_plain = |text: &str| {
            let is_short = (1..=crate::cue::NAME_BYTES_MAX).contains(&text.len());
            is_short && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"')
        };
        let is_near = (0..=T_US_MAX).contains(&self.t_us);
        if !is_plain(&self.id) || !is_plain(&self.class) || !is_near {
            return None;
        }
        Some(Cue {
            id: self.id.clone(),
            class: self.class.clone(),
            t: MediaTime::from_micros(self.t_us),
            duration,
            kind: if self.is_listed {
                CueKind::Listed
            } else {
                CueKind::Passing
            },
            payload: crate::hls::cue_payload(&self.data)?,
        })
    }
}

/// A rendition by its name in URLs.
mod rendition_name {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::hls::RenditionId;

    pub(super) fn serialize<S: Serializer>(id: &RenditionId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<RenditionId, D::Error> {
        let name = String::deserialize(from)?;
        RenditionId::parse(&name).ok_or_else(|| D::Error::custom("no such rendition"))
    }
}
