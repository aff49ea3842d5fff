//! The forms of a picture in a viewer's offer (RFC 6184, RFC 7798, the RTP payload format for AV1):
//! which of them are used, and what the viewer can decode by them.
//!
//! Invariant: of each codec at most one form is chosen, and beside H.264, which is what made tracks
//! have, only the source's own codec.
//!
//! Not here: whether a source is passed through ([`crate::whep`]).

use super::{OfferError, Section};
use crate::frame::{Codec, TrackInfo};

/// `profile_idc` of Constrained Baseline, where nothing is known.
const BASELINE: u8 = 66;
/// How H.264 must be offered.
const H264_WANTED: &str = "offer H264/90000 with packetization-mode=1";

/// What of the forms of a picture was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoChoice {
    /// At least one, the source's own codec before H.264.
    pub forms: Vec<VideoForm>,
    /// What the viewer can decode by them.
    pub decodes: Decodes,
}

/// A payload type that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoForm {
    /// What it carries.
    pub codec: Codec,
    /// RTP payload type.
    pub payload_type: u8,
    /// Its `fmtp` parameters.
    pub parameters: String,
}

/// What a viewer can decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decodes {
    /// `profile_idc` of the H.264 form chosen; `None` when it offered none.
    pub h264: Option<u8>,
    /// HEVC or AV1, up to these bounds, when the source is that.
    pub own: Option<(Codec, Bounds)>,
}

/// What a decoder of HEVC or AV1 can do, or a stream needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// `general_profile_idc` of HEVC, `seq_profile` of AV1.
    pub profile: u8,
    /// Rates above those of the main tier.
    pub is_high_tier: bool,
    /// `general_level_idc` of HEVC, `seq_level_idx` of AV1.
    pub level: u8,
}

impl Decodes {
    /// Whether what is made of a source can be decoded: all of that is H.264.
    pub const fn can_show_made(&self) -> bool {
        self.h264.is_some()
    }

    /// Whether a source can be decoded as it is.
    pub fn can_show(&self, source: &TrackInfo) -> bool {
        if source.codec == Codec::H264 {
            return self
                .h264
                .is_some_and(|offered| profile_of(source) <= offered);
        }
        let own = self.own.filter(|(codec, _)| *codec == source.codec);
        own.is_some_and(|(_, bounds)| bounds.include(source))
    }
}

impl Bounds {
    /// What a source of HEVC or AV1 needs, by its configuration record.
    fn of(source: &TrackInfo) -> Option<Self> {
        let byte = |at: usize| source.config.get(at).copied();
        match source.codec {
            Codec::Hevc => Some(Self {
                profile: byte(1)? & 31,
                is_high_tier: byte(1)? & 0x20 != 0,
                level: byte(12)?,
            }),
            Codec::Av1 => Some(Self {
                profile: byte(1)? >> 5,
                is_high_tier: byte(2)? & 0x80 != 0,
                level: byte(1)? & 31,
            }),
            Codec::H264 | Codec::Aac | Codec::Opus => None,
        }
    }

    /// What the `fmtp` parameters of an offer say; `None` when they cannot be read.
    fn offered(codec: Codec, parameters: &str) -> Option<Self> {
        let number = |name, default| number(parameters, name, default);
        if codec == Codec::Hevc {
            let level = number("level-id", 93)?;
            return Some(Self {
                profile: number("profile-id", 1)?,
                is_high_tier: number("tier-flag", 0)? > 0,
                level: number("max-recv-level-id", level)?.max(level),
            });
        }
        Some(Self {
            profile: number("profile", 0)?,
            is_high_tier: number("tier", 0)? > 0,
            level: number("level-idx", 5)?,
        })
    }

    fn include(&self, source: &TrackInfo) -> bool {
        let Some(needed) = Self::of(source) else {
            return false;
        };
        let has_profile = match source.codec {
            Codec::Hevc => needed.profile == self.profile || is_compatible(source, self.profile),
            // The higher profiles of AV1 include the lower ones.
            _ => needed.profile <= self.profile,
        };
        let has_tier = self.is_high_tier || !needed.is_high_tier;
        has_profile && has_tier && needed.level <= self.level
    }
}

/// Whether an HEVC stream says that it is of a profile as well (H.265 7.4.4).
fn is_compatible(source: &TrackInfo, profile: u8) -> bool {
    let flags = source.config.get(2 + usize::from(profile / 8)).copied();
    profile < 32 && flags.is_some_and(|flags| flags & 0x80 >> (profile % 8) != 0)
}

/// `profile_idc` of an H.264 source.
fn profile_of(source: &TrackInfo) -> u8 {
    source.config.get(1).copied().unwrap_or(BASELINE)
}

/// How a codec is called in an `rtpmap`.
pub(in crate::webrtc) const fn encoding(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "H264/90000",
        Codec::Hevc => "H265/90000",
        Codec::Av1 => "AV1/90000",
        Codec::Opus => "opus/48000/2",
        Codec::Aac => "mpeg4-generic/48000/2",
    }
}

/// Of several H.264 forms the one of the source's profile is chosen, or one that includes it, or
/// constrained baseline, which is decoded everywhere; with it the first form of the source's own
/// codec that can carry it.
pub(super) fn choose(
    section: &Section<'_>,
    source: Option<&TrackInfo>,
) -> Result<VideoChoice, OfferError> {
    let of_h264 = source.filter(|source| source.codec == Codec::H264);
    let h264 = choose_h264(section, of_h264.map_or(BASELINE, profile_of));
    let own = source.and_then(|source| choose_own(section, source));
    let decodes = Decodes {
        h264: h264.as_ref().map(|form| profile_in(&form.parameters)),
        own: own.as_ref().map(|(form, bounds)| (form.codec, *bounds)),
    };
    let forms: Vec<VideoForm> = own.map(|(form, _)| form).into_iter().chain(h264).collect();
    if forms.is_empty() {
        return Err(OfferError::Unservable(wanted(source)));
    }
    Ok(VideoChoice { forms, decodes })
}

fn choose_h264(section: &Section<'_>, wanted: u8) -> Option<VideoForm> {
    let rank = |profile: u8| match profile {
        p if p == wanted => 0,
        p if p > wanted => 1,
        BASELINE => 2,
        _ => 3,
    };
    forms(section, Codec::H264)
        .filter(|form| form.parameters.contains("packetization-mode=1"))
        .min_by_key(|form| rank(profile_in(&form.parameters)))
}

fn choose_own(section: &Section<'_>, source: &TrackInfo) -> Option<(VideoForm, Bounds)> {
    Bounds::of(source)?;
    let mut forms = forms(section, source.codec).filter(has_one_stream);
    forms.find_map(|form| {
        let bounds = Bounds::offered(form.codec, &form.parameters)?;
        bounds.include(source).then_some((form, bounds))
    })
}

/// Whether a form is of one stream, whose units come in the order in which they are decoded: there
/// are no others here (RFC 7798 7.1; AV1 has nothing else).
pub(super) fn has_one_stream(form: &VideoForm) -> bool {
    let mode = parameter(&form.parameters, "tx-mode");
    mode.is_none_or(|mode| mode == "SRST")
        && number(&form.parameters, "sprop-max-don-diff", 0) == Some(0)
}

/// All forms of a codec.
pub(super) fn forms(section: &Section<'_>, codec: Codec) -> impl Iterator<Item = VideoForm> {
    let numbers = section.payload_types(encoding(codec)).into_iter();
    numbers.map(move |payload_type| VideoForm {
        codec,
        payload_type,
        parameters: section.parameters(payload_type).to_owned(),
    })
}

/// What would do.
fn wanted(source: Option<&TrackInfo>) -> String {
    let Some((source, needed)) = source.and_then(|info| Some((info, Bounds::of(info)?))) else {
        return H264_WANTED.to_owned();
    };
    let Bounds {
        profile,
        is_high_tier,
        level,
    } = needed;
    let tier = u8::from(is_high_tier);
    let parameters = match source.codec {
        Codec::Hevc => format!("profile-id={profile};tier-flag={tier};level-id={level}"),
        _ => format!("profile={profile};level-idx={level};tier={tier}"),
    };
    let encoding = encoding(source.codec);
    format!("{H264_WANTED}, or {encoding} with {parameters} or more, as this show is sent")
}

/// `profile_idc` of a `profile-level-id`; baseline when it is not given (RFC 6184 8.1).
fn profile_in(parameters: &str) -> u8 {
    let id = parameter(parameters, "profile-level-id");
    id.and_then(|id| u8::from_str_radix(id.get(..2)?, 16).ok())
        .unwrap_or(BASELINE)
}

fn parameter<'a>(parameters: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = parameters
        .split(';')
        .filter_map(|p| p.trim().split_once('='));
    pairs.find_map(|(key, value)| (key == name).then_some(value))
}

/// A number of the parameters, or what it is when it is not given; `None` when it is none.
fn number(parameters: &str, name: &str, default: u8) -> Option<u8> {
    parameter(parameters, name).map_or(Some(default), |value| value.parse().ok())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::frame::Shape;

    const H264_HIGH: &str = "96 H264/90000 packetization-mode=1;profile-level-id=640c1f";
    const H264_BASE: &str = "98 H264/90000 packetization-mode=1;profile-level-id=42e01f";
    const H264_PLAIN: &str = "97 H264/90000 packetization-mode=0;profile-level-id=42e01f";
    const HEVC_MAIN: &str = "49 H265/90000 level-id=120;profile-id=1;tier-flag=0;tx-mode=SRST";
    const HEVC_MAIN10: &str = "51 H265/90000 level-id=153;profile-id=2;tier-flag=1";
    const AV1_MAIN: &str = "45 AV1/90000 level-idx=8;profile=0;tier=0";
    const AV1_HIGH: &str = "47 AV1/90000 level-idx=13;profile=1;tier=1";

    fn source(codec: Codec, head: &[u8]) -> TrackInfo {
        TrackInfo {
            codec,
            generation: 0,
            shape: Shape::Video {
                width: 640,
                height: 360,
            },
            config: Bytes::copy_from_slice(head),
            reorder_frames: Some(0),
        }
    }

    fn h264(profile: u8) -> Option<TrackInfo> {
        Some(source(Codec::H264, &[1, profile]))
    }

    /// Tier and profile, the compatible profiles, level.
    fn hevc(profile: u8, compatible: u8, level: u8) -> Option<TrackInfo> {
        let head = [1, profile, compatible, 0, 0, 0, 0, 0, 0, 0, 0, 0, level];
        Some(source(Codec::Hevc, &head))
    }

    fn av1(profile: u8, level: u8, flags: u8) -> Option<TrackInfo> {
        Some(source(Codec::Av1, &[0x81, profile << 5 | level, flags, 0]))
    }

    fn chosen(offer: &[&str], source: Option<TrackInfo>) -> Result<VideoChoice, OfferError> {
        let lines = offer.iter().flat_map(|form| {
            let mut words = form.splitn(3, ' ');
            let mut word = || words.next().unwrap_or_default();
            let (payload_type, encoding, parameters) = (word(), word(), word());
            let map = format!("a=rtpmap:{payload_type} {encoding}");
            [map, format!("a=fmtp:{payload_type} {parameters}")]
        });
        let lines: Vec<String> = lines.collect();
        let section = Section {
            kind: "video",
            lines: lines.iter().map(String::as_str).collect(),
        };
        choose(&section, source.as_ref())
    }

    #[test]
    fn beside_h264_only_the_sources_own_codec_is_taken_and_only_when_it_fits() {
        let all = [
            H264_HIGH,
            H264_PLAIN,
            AV1_MAIN,
            AV1_HIGH,
            HEVC_MAIN,
            HEVC_MAIN10,
            H264_BASE,
        ];
        let no_h264 = [AV1_MAIN, HEVC_MAIN];
        let several = ["49 H265/90000 tx-mode=MRST", "50 H265/90000 level-id=x"];
        let unsaid = ["49 H265/90000", "45 AV1/90000"];
        let more = ["49 H265/90000 level-id=93;max-recv-level-id=120"];
        let rows: [(&[&str], Option<TrackInfo>, &[u8]); 22] = [
            (&all, None, &[98]),
            (&all, h264(66), &[98]),
            (&all, h264(77), &[96]),
            (&all, h264(122), &[98]),
            (&all, hevc(1, 0x60, 120), &[49, 98]),
            (&all, hevc(1, 0x60, 123), &[51, 98]),
            (&all, hevc(2, 0x20, 93), &[51, 98]),
            (&all, hevc(0x21, 0x60, 93), &[51, 98]),
            (&all, hevc(1, 0, 153), &[98]),
            (&all, hevc(4, 0x08, 93), &[98]),
            (&all, av1(0, 8, 0), &[45, 98]),
            (&all, av1(0, 8, 0x80), &[47, 98]),
            (&all, av1(1, 5, 0), &[47, 98]),
            (&all, av1(2, 5, 0), &[98]),
            (&all, av1(0, 31, 0), &[98]),
            (&no_h264, hevc(1, 0x60, 93), &[49]),
            (&no_h264, av1(0, 5, 0), &[45]),
            (&unsaid, hevc(1, 0x60, 93), &[49]),
            (&unsaid, av1(0, 5, 0), &[45]),
            (&more, hevc(1, 0x60, 120), &[49]),
            (&[several[0], H264_BASE], hevc(1, 0x60, 93), &[98]),
            (&[several[1], H264_BASE], hevc(1, 0x60, 93), &[98]),
        ];
        for (offer, source, expected) in rows {
            let name = format!("{source:?}");
            let choice = chosen(offer, source).unwrap();
            let types: Vec<u8> = choice.forms.iter().map(|form| form.payload_type).collect();
            assert_eq!(types, expected, "{name}");
        }
    }

    #[test]
    fn what_was_chosen_says_what_can_be_decoded() {
        let choice = chosen(&[HEVC_MAIN, H264_BASE], hevc(1, 0x60, 93)).unwrap();
        let rows = [
            (h264(66), true),
            (h264(77), false),
            (hevc(1, 0x60, 120), true),
            (hevc(3, 0x70, 120), true),
            (hevc(1, 0x60, 123), false),
            (hevc(2, 0x20, 93), false),
            (av1(0, 5, 0), false),
        ];
        for (source, expected) in rows {
            let can_show = source.as_ref().map(|s| choice.decodes.can_show(s));
            assert_eq!(can_show, Some(expected), "{source:?}");
        }
        assert!(choice.decodes.can_show_made());
        let alone = chosen(&[HEVC_MAIN], hevc(1, 0x60, 93)).unwrap();
        assert!(!alone.decodes.can_show_made());
    }

    #[test]
    fn what_does_not_do_says_what_would() {
        let rows: [(&[&str], Option<TrackInfo>, &str); 5] = [
            (&[HEVC_MAIN], None, ""),
            (&[HEVC_MAIN, AV1_MAIN], h264(66), ""),
            (&[H264_PLAIN], h264(66), ""),
            (
                &[AV1_MAIN],
                hevc(1, 0x60, 93),
                ", or H265/90000 with profile-id=1;tier-flag=0;level-id=93 or more, as this show \
                 is sent",
            ),
            (
                &[HEVC_MAIN, AV1_MAIN],
                av1(0, 9, 0x80),
                ", or AV1/90000 with profile=0;level-idx=9;tier=1 or more, as this show is sent",
            ),
        ];
        for (offer, source, or) in rows {
            let expected = format!("{H264_WANTED}{or}");
            let refused = chosen(offer, source).unwrap_err();
            assert_eq!(refused, OfferError::Unservable(expected));
        }
    }
}
