//! Judging a publisher's offer (RFC 9725 4.4; spec media.md 4.1, 4.3).

use std::fmt::Write as _;

use super::picture::{forms, has_one_stream};
use super::{
    Credentials, Directions, OFFER_BYTES_MAX, OfferError, Section, VideoForm, check_bundle,
    check_media, check_transport, choose_audio, credentials, fingerprints, split,
};
use crate::frame::Codec;

/// A publisher sends.
const SENDS: Directions = (
    ["recvonly", "inactive"],
    "a publisher sends: offer sendonly sections",
);
/// What of a simulcast offer is left out, so that one layer remains.
const LAYERS: [&str; 2] = ["a=simulcast:", "a=rid:"];
/// Header extensions that name layers.
const LAYER_EXTENSIONS: [&str; 2] = [
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
];

/// What a publisher wants to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublishOffer {
    /// H.264 or, where that is not offered, HEVC or AV1; when there is a picture section.
    pub(crate) picture: Option<VideoForm>,
    /// The payload type of Opus, when there is a sound section.
    pub(crate) sound: Option<u8>,
    pub(crate) ice: Credentials,
    /// The section whose path all take.
    pub(crate) mid: String,
    /// Whether the arrival of every packet can be reported.
    pub(crate) has_transport_feedback: bool,
    /// Whether several layers were offered; one is taken.
    pub(crate) has_layers: bool,
    /// The offer without candidates and without layers.
    pub(crate) text: String,
}

impl PublishOffer {
    /// Reads and judges an offer.
    ///
    /// # Errors
    /// [`OfferError`] says which status it is and what would do.
    pub(crate) fn read(text: &str) -> Result<Self, OfferError> {
        if text.len() > OFFER_BYTES_MAX {
            return Err(OfferError::Unreadable("the offer is larger than 64 KiB"));
        }
        let (session, sections) = split(text)?;
        check_transport(&session, &sections)?;
        let media: Vec<&Section<'_>> = (sections.iter())
            .filter(|s| s.kind != "application")
            .collect();
        check_media(&media, SENDS)?;
        check_streams(&media)?;
        check_bundle(&session, &sections)?;
        let one = |kind: &str| media.iter().find(|s| s.kind == kind);
        let picture = one("video").map(|s| choose_picture(s)).transpose()?;
        let sound = one("audio").map(|s| choose_audio(s)).transpose()?;
        let all = session.iter().chain(sections.iter().flat_map(|s| &s.lines));
        fingerprints(all.clone().copied())?;
        let first = sections.first();
        let mid = first.and_then(|s| s.attribute("mid").next());
        let is_reported =
            |line: &&&str| line.starts_with("a=rtcp-fb:") && line.ends_with("transport-cc");
        Ok(Self {
            picture,
            sound: sound.map(|choice| choice.payload_type),
            ice: credentials(all.clone().copied()),
            mid: mid.unwrap_or_default().to_owned(),
            has_transport_feedback: all.clone().any(|line| is_reported(&line)),
            has_layers: all.clone().any(|line| line.starts_with("a=simulcast:")),
            text: plain(all.copied()),
        })
    }
}

/// What is published is one stream.
fn check_streams(media: &[&Section<'_>]) -> Result<(), OfferError> {
    let ids = media.iter().flat_map(|section| section.attribute("msid"));
    let mut streams = ids.filter_map(|msid| msid.split(' ').next());
    let first = streams.next();
    if first.is_some_and(|first| streams.any(|stream| stream != first)) {
        let says = "offer picture and sound in one MediaStream (a=msid)";
        return Err(OfferError::Unservable(says.into()));
    }
    Ok(())
}

/// H.264, or else the first of the other codecs: the publisher names its favourite first.
fn choose_picture(section: &Section<'_>) -> Result<VideoForm, OfferError> {
    let mut h264 = forms(section, Codec::H264);
    let h264 = h264.find(|form| form.parameters.contains("packetization-mode=1"));
    let others = [Codec::Hevc, Codec::Av1].into_iter();
    let others = others.flat_map(|codec| forms(section, codec).filter(has_one_stream));
    let form = h264.or_else(|| others.min_by_key(|form| section.place(form.payload_type)));
    form.ok_or_else(|| {
        let says = "send H.264: offer H264/90000 with packetization-mode=1; without it, \
                    H265/90000 or AV1/90000";
        OfferError::Unservable(says.into())
    })
}

/// The offer as the connection reads it: a publisher's addresses are learnt from its checks.
fn plain<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let mut out = String::with_capacity(4_096);
    for line in lines {
        let is_of_path = line.starts_with("a=candidate:") || line == "a=end-of-candidates";
        let names_layers =
            line.starts_with("a=extmap:") && LAYER_EXTENSIONS.iter().any(|uri| line.contains(uri));
        if !is_of_path && !names_layers && !LAYERS.iter().any(|name| line.starts_with(name)) {
            write!(out, "{line}\r\n").expect("a String takes every write");
        }
    }
    out
}
