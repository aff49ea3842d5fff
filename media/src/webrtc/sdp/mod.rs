//! Judging a viewer's offer, and reading from it what will be used (spec media.md 4.1, 4.2).
//!
//! Not here: the answer ([`super::answer`]).

#![deny(clippy::indexing_slicing)]

mod picture;
mod publish;

pub(super) use self::picture::encoding;
pub use self::picture::{Bounds, Decodes, VideoChoice, VideoForm};
pub(crate) use self::publish::PublishOffer;
use super::ice::Credentials;
use crate::frame::TrackInfo;

/// Bytes of an offer.
pub const OFFER_BYTES_MAX: usize = 64 << 10;
/// Media sections read at all.
const SECTIONS_MAX: usize = 16;
/// How Opus is answered, whatever was offered: the sound has two channels.
pub(super) const OPUS_PARAMETERS: &str = "minptime=10;stereo=1;sprop-stereo=1;useinbandfec=1";

/// Why an offer is turned away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// 400: it is no usable SDP.
    #[error("{0}")]
    Unreadable(&'static str),
    /// 422: readable, but nothing that can be served.
    #[error("{0}")]
    Unservable(String),
}

/// What a viewer asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The forms chosen, when there is a picture section.
    pub video: Option<VideoChoice>,
    /// The Opus payload type, when there is a sound section.
    pub audio: Option<AudioChoice>,
    /// All sections, in the order in which the answer must have them.
    pub(crate) sections: Vec<Offered>,
    pub(crate) ice: Credentials,
    /// SHA-256 of the certificates the viewer may show, as pairs of hex digits.
    pub(crate) fingerprints: Vec<String>,
    /// Header extensions of one and of two bytes may stand in one stream.
    pub(crate) allows_mixed: bool,
    /// SCTP port and the largest message of the viewer, when it wants a data channel.
    pub(crate) channel: Option<(u16, u32)>,
}

/// One media section, as far as an answer repeats it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offered {
    pub(crate) kind: SectionKind,
    /// For example `UDP/TLS/RTP/SAVPF`.
    pub(crate) protocol: String,
    pub(crate) mid: String,
    /// The payload types chosen, each with what the viewer sends of feedback for it, of what is
    /// understood here.
    pub(crate) feedback: Vec<(u8, Vec<&'static str>)>,
    pub(crate) extensions: Extensions,
    pub(crate) has_mux_only: bool,
    pub(crate) has_reduced_size: bool,
    /// The viewer wants to be told how long its reports travel (RFC 3611 4.4).
    pub(crate) wants_reference_times: bool,
}

impl Offered {
    pub(crate) fn has_feedback(&self, name: &str) -> bool {
        self.feedback.iter().any(|(_, names)| names.contains(&name))
    }
}

/// What a section is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SectionKind {
    Video,
    Audio,
    Data,
}

/// The ids of the header extensions that are understood here, if they were offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extensions {
    pub(crate) mid: Option<u8>,
    pub(crate) capture_time: Option<u8>,
    pub(crate) transport_sequence: Option<u8>,
}

pub(crate) const MID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
pub(crate) const CAPTURE_TIME_URI: &str =
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time";
pub(crate) const TRANSPORT_SEQUENCE_URI: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
/// Reports on the arrival of every packet, whatever its stream.
pub(crate) const TRANSPORT_FEEDBACK: &str = "transport-cc";
/// What the viewer believes it can receive.
pub(crate) const OWN_ESTIMATE: &str = "goog-remb";
/// Feedback that is acted upon here.
const FEEDBACK: [&str; 5] = [
    "nack",
    "nack pli",
    "ccm fir",
    OWN_ESTIMATE,
    TRANSPORT_FEEDBACK,
];
/// What a viewer that says nothing accepts in one message (RFC 8841 6.1).
const MESSAGE_BYTES_DEFAULT: u32 = 65_536;
const SCTP_PORT_DEFAULT: u16 = 5_000;

/// The Opus payload type chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioChoice {
    /// RTP payload type.
    pub payload_type: u8,
}

struct Section<'a> {
    kind: &'a str,
    lines: Vec<&'a str>,
}

impl<'a> Section<'a> {
    fn attribute(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let prefix = format!("a={name}:");
        self.lines
            .iter()
            .filter_map(move |line| line.strip_prefix(prefix.as_str()))
    }

    fn has(&self, flag: &str) -> bool {
        self.lines
            .iter()
            .any(|line| line.strip_prefix("a=") == Some(flag))
    }

    /// Payload types whose `rtpmap` names this codec.
    fn payload_types(&self, codec: &str) -> Vec<u8> {
        let maps = self
            .attribute("rtpmap")
            .filter_map(|map| map.split_once(' '));
        let named = maps.filter(|(_, name)| {
            name.get(..codec.len())
                .is_some_and(|n| n.eq_ignore_ascii_case(codec))
        });
        // Later the lines of the chosen number are found by its text: it has one form.
        let numbers = named.filter_map(|(text, _)| Some((text, text.parse::<u8>().ok()?)));
        numbers
            .filter(|(text, number)| number.to_string() == *text)
            .map(|(_, number)| number)
            .collect()
    }

    /// The place of a payload type in the list of formats: the favourite stands first.
    fn place(&self, payload_type: u8) -> Option<usize> {
        let mut formats = self.lines.first()?.split(' ').skip(3);
        formats.position(|format| format.parse() == Ok(payload_type))
    }

    fn parameters(&self, payload_type: u8) -> &'a str {
        let prefix = format!("{payload_type} ");
        self.attribute("fmtp")
            .find_map(|f| f.strip_prefix(prefix.as_str()))
            .unwrap_or_default()
    }
}

impl Offer {
    /// Reads and judges an offer, for a show whose picture is `source`, if that is known.
    ///
    /// # Errors
    /// [`OfferError`] says which status it is and what would do.
    pub fn read(text: &str, source: Option<&TrackInfo>) -> Result<Self, OfferError> {
        if text.len() > OFFER_BYTES_MAX {
            return Err(OfferError::Unreadable("the offer is larger than 64 KiB"));
        }
        let (session, sections) = split(text)?;
        check_transport(&session, &sections)?;
        let media: Vec<&Section<'_>> = sections
            .iter()
            .filter(|s| s.kind != "application")
            .collect();
        check_media(&media, RECEIVES)?;
        check_bundle(&session, &sections)?;
        let one = |kind: &str| media.iter().find(|s| s.kind == kind);
        let video = one("video").map(|s| picture::choose(s, source));
        let video = video.transpose()?;
        let audio = one("audio").map(|s| choose_audio(s)).transpose()?;
        let chosen = |kind| match kind {
            SectionKind::Video => {
                let forms = video.iter().flat_map(|v| &v.forms);
                forms.map(|form| form.payload_type).collect()
            }
            SectionKind::Audio => audio.iter().map(|a| a.payload_type).collect(),
            SectionKind::Data => Vec::new(),
        };
        let all = session.iter().chain(sections.iter().flat_map(|s| &s.lines));
        let ice = credentials(all.clone().copied());
        Ok(Self {
            sections: sections.iter().map(|s| s.offered(chosen)).collect(),
            ice,
            fingerprints: fingerprints(all.clone().copied())?,
            allows_mixed: all.copied().any(|line| line == "a=extmap-allow-mixed"),
            channel: sections.iter().find_map(Section::channel),
            video,
            audio,
        })
    }
}

impl Section<'_> {
    /// What the answer needs of a section.
    fn offered(&self, chosen: impl Fn(SectionKind) -> Vec<u8>) -> Offered {
        let kind = match self.kind {
            "video" => SectionKind::Video,
            "audio" => SectionKind::Audio,
            _ => SectionKind::Data,
        };
        let protocol = self.lines.first().and_then(|m| m.split(' ').nth(2));
        let mut feedback: Vec<(u8, Vec<&'static str>)> = chosen(kind)
            .into_iter()
            .map(|payload_type| (payload_type, self.feedback(payload_type)))
            .collect();
        let mut extensions = self.extensions();
        // Numbers without reports on them only make packets longer, and there is nothing to
        // report on without numbers; and all packets have them or none.
        let is_reported = |(_, names): &(u8, Vec<_>)| names.contains(&TRANSPORT_FEEDBACK);
        if extensions.transport_sequence.is_none() || !feedback.iter().all(is_reported) {
            extensions.transport_sequence = None;
            for (_, names) in &mut feedback {
                names.retain(|name| *name != TRANSPORT_FEEDBACK);
            }
        }
        Offered {
            kind,
            protocol: protocol.unwrap_or_default().to_owned(),
            mid: self.attribute("mid").next().unwrap_or_default().to_owned(),
            feedback,
            extensions,
            has_mux_only: self.has("rtcp-mux-only"),
            has_reduced_size: self.has("rtcp-rsize"),
            wants_reference_times: self
                .attribute("rtcp-xr")
                .any(|formats| formats.split(' ').any(|f| f == "rcvr-rtt=all")),
        }
    }

    /// What was offered of feedback for a payload type, of what is understood here.
    fn feedback(&self, payload_type: u8) -> Vec<&'static str> {
        let is_offered = |name: &&str| {
            self.attribute("rtcp-fb").any(|line| {
                let (of, what) = line.split_once(' ').unwrap_or_default();
                let is_ours = of == "*" || of.parse() == Ok(payload_type);
                is_ours && what.trim() == *name
            })
        };
        FEEDBACK.into_iter().filter(is_offered).collect()
    }

    /// Ids of one byte only: others would make every packet longer.
    fn extensions(&self) -> Extensions {
        let id = |uri: &str| {
            let of_uri = self.attribute("extmap").find_map(|line| {
                let (id, offered) = line.split_once(' ')?;
                let offered = offered.split(' ').next()?;
                (offered == uri).then(|| id.split('/').next().unwrap_or_default())
            });
            of_uri?.parse().ok().filter(|id| (1..=14).contains(id))
        };
        Extensions {
            mid: id(MID_URI),
            capture_time: id(CAPTURE_TIME_URI),
            transport_sequence: id(TRANSPORT_SEQUENCE_URI),
        }
    }

    fn channel(&self) -> Option<(u16, u32)> {
        let number = |name| {
            self.attribute(name)
                .find_map(|n| n.trim().parse::<u32>().ok())
        };
        let port = number("sctp-port").and_then(|port| u16::try_from(port).ok());
        let bytes = number("max-message-size").filter(|bytes| *bytes > 0);
        (self.kind == "application").then(|| {
            (
                port.unwrap_or(SCTP_PORT_DEFAULT),
                bytes.unwrap_or(MESSAGE_BYTES_DEFAULT),
            )
        })
    }
}

/// Name and password of the other side.
fn credentials<'a>(lines: impl Iterator<Item = &'a str> + Clone) -> Credentials {
    let value = |name: &str| lines.clone().find_map(|line| line.strip_prefix(name));
    Credentials {
        ufrag: value("a=ice-ufrag:").unwrap_or_default().to_owned(),
        password: value("a=ice-pwd:").unwrap_or_default().to_owned(),
    }
}

/// The fingerprints that can be checked.
fn fingerprints<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<String>, OfferError> {
    let prints = lines.filter_map(|line| line.strip_prefix("a=fingerprint:"));
    let named = prints.filter_map(|line| line.split_once(' '));
    let mut out: Vec<String> = named
        .filter(|(hash, _)| hash.eq_ignore_ascii_case("sha-256"))
        .map(|(_, pairs)| pairs.to_owned())
        .collect();
    out.dedup();
    if out.is_empty() {
        let says = "offer a sha-256 fingerprint of the certificate".to_owned();
        return Err(OfferError::Unservable(says));
    }
    Ok(out)
}

fn split(text: &str) -> Result<(Vec<&str>, Vec<Section<'_>>), OfferError> {
    let mut lines = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .peekable();
    if lines.peek() != Some(&"v=0") {
        return Err(OfferError::Unreadable("the offer does not begin with v=0"));
    }
    let (mut session, mut sections) = (Vec::new(), Vec::<Section<'_>>::new());
    for line in lines {
        let is_field = line.as_bytes().get(1) == Some(&b'=') && line.is_ascii();
        if !is_field || line.contains(['\r', '\0']) {
            return Err(OfferError::Unreadable(
                "a line of the offer is no SDP field",
            ));
        }
        if let Some(media) = line.strip_prefix("m=") {
            if sections.len() >= SECTIONS_MAX {
                let says = "the offer has more than 16 media sections".to_owned();
                return Err(OfferError::Unservable(says));
            }
            let kind = kind_of(media)?;
            sections.push(Section {
                kind,
                lines: vec![line],
            });
        } else if let Some(section) = sections.last_mut() {
            section.lines.push(line);
        } else {
            session.push(line);
        }
    }
    if sections.is_empty() {
        return Err(OfferError::Unreadable("the offer has no m= line"));
    }
    Ok((session, sections))
}

/// The kind of a media line, which must be whole: kind, port, protocol, formats.
fn kind_of(media: &str) -> Result<&str, OfferError> {
    let mut words = media.split(' ');
    let (kind, port) = (words.next(), words.next());
    let has_port = port.is_some_and(|port| port.parse::<u16>().is_ok());
    let has_formats = words.filter(|word| !word.is_empty()).count() >= 2;
    match kind {
        Some(kind) if !kind.is_empty() && has_port && has_formats => Ok(kind),
        _ => Err(OfferError::Unreadable(
            "an m= line needs a kind, a port, a protocol and a format",
        )),
    }
}

/// The fragment of an offer that a `PATCH` carries (RFC 8840): which ICE session it is of. Its
/// candidates are not read, since a viewer's addresses are learnt from its checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The viewer's ICE name.
    pub ufrag: String,
    /// Its password, which a restart needs.
    pub password: Option<String>,
}

impl Fragment {
    /// Reads a fragment.
    ///
    /// # Errors
    /// [`OfferError::Unreadable`] when it is none, or names no ICE session.
    pub fn read(text: &str) -> Result<Self, OfferError> {
        let lines = text.lines().map(str::trim_end);
        let lines = lines.filter(|line| !line.is_empty());
        let is_field = |line: &str| {
            let of_fragment = line.starts_with("a=") || line.starts_with("m=");
            of_fragment && line.is_ascii() && !line.contains(['\r', '\0'])
        };
        if !lines.clone().all(is_field) {
            let says = "the fragment has a line that is neither a= nor m=";
            return Err(OfferError::Unreadable(says));
        }
        let value = |name: &str| lines.clone().find_map(|line| line.strip_prefix(name));
        let ufrag = value("a=ice-ufrag:").filter(|name| (4..=256).contains(&name.len()));
        let password = value("a=ice-pwd:").filter(|word| (22..=256).contains(&word.len()));
        let ufrag = ufrag.ok_or(OfferError::Unreadable("the fragment has no a=ice-ufrag"))?;
        Ok(Self {
            ufrag: ufrag.to_owned(),
            password: password.map(str::to_owned),
        })
    }
}

fn check_transport(session: &[&str], sections: &[Section<'_>]) -> Result<(), OfferError> {
    let wanted = [
        ("a=fingerprint:", "the offer has no a=fingerprint"),
        ("a=ice-ufrag:", "the offer has no a=ice-ufrag"),
        ("a=ice-pwd:", "the offer has no a=ice-pwd"),
    ];
    for (prefix, says) in wanted {
        let mut all = session.iter().chain(sections.iter().flat_map(|s| &s.lines));
        if !all.any(|line| line.starts_with(prefix)) {
            return Err(OfferError::Unreadable(says));
        }
    }
    let lines = session.iter().chain(sections.iter().flat_map(|s| &s.lines));
    let mut prints = lines.filter_map(|line| line.strip_prefix("a=fingerprint:"));
    if prints.all(is_fingerprint) {
        return Ok(());
    }
    Err(OfferError::Unreadable(
        "a=fingerprint is not a hash and pairs of hex digits",
    ))
}

/// `sha-256 AB:CD:…` (RFC 8122).
fn is_fingerprint(text: &str) -> bool {
    let is_pair = |pair: &str| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
    text.split_once(' ')
        .is_some_and(|(hash, pairs)| !hash.is_empty() && pairs.split(':').all(is_pair))
}

/// What a media section must not say, with what to do instead.
type Directions = ([&'static str; 2], &'static str);

/// A viewer receives.
const RECEIVES: Directions = (
    ["sendonly", "inactive"],
    "a viewer receives: offer recvonly sections",
);

fn check_media(media: &[&Section<'_>], (wrong, says): Directions) -> Result<(), OfferError> {
    let fail = |says: &str| Err(OfferError::Unservable(says.to_owned()));
    for kind in ["video", "audio"] {
        if media.iter().filter(|s| s.kind == kind).count() > 1 {
            return fail("offer at most one video and one audio section");
        }
    }
    for section in media {
        if wrong.iter().any(|direction| section.has(direction)) {
            return fail(says);
        }
        if !matches!(section.kind, "video" | "audio") {
            return fail("offer video, audio and a data channel only");
        }
        if section.attribute("setup").any(|role| role == "passive") {
            return fail("offer setup:actpass: the server waits for the handshake");
        }
    }
    if media.is_empty() {
        return fail("offer a video or an audio section");
    }
    Ok(())
}

fn check_bundle(session: &[&str], sections: &[Section<'_>]) -> Result<(), OfferError> {
    let groups: Vec<&str> = session
        .iter()
        .filter_map(|line| line.strip_prefix("a=group:BUNDLE"))
        .collect();
    let mids: Vec<&str> = sections.iter().flat_map(|s| s.attribute("mid")).collect();
    let is_whole = match groups.as_slice() {
        [group] => {
            let names: Vec<&str> = group.split_whitespace().collect();
            mids.len() == sections.len() && mids.iter().all(|mid| names.contains(mid))
        }
        _ => false,
    };
    if is_whole {
        return Ok(());
    }
    Err(OfferError::Unservable(
        "offer all sections in one BUNDLE group".into(),
    ))
}

fn choose_audio(section: &Section<'_>) -> Result<AudioChoice, OfferError> {
    let Some(&payload_type) = section.payload_types("opus/48000/2").first() else {
        return Err(OfferError::Unservable(
            "offer opus/48000/2 for sound".into(),
        ));
    };
    Ok(AudioChoice { payload_type })
}

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    reason = "a test that reads past the end has failed"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
        a=group:BUNDLE 0 1 2\r\na=fingerprint:sha-256 AA\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103 127\r\nc=IN IP4 0.0.0.0\r\n\
        a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=mid:0\r\na=recvonly\r\n\
        a=candidate:1 1 udp 1 x.local 9 typ host\r\n\
        a=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
        a=rtpmap:102 H264/90000\r\na=rtcp-fb:102 nack pli\r\n\
        a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
        a=rtpmap:127 H264/90000\r\na=fmtp:127 packetization-mode=0;profile-level-id=42e01f\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\na=mid:1\r\na=recvonly\r\n\
        a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n\
        m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\na=sctp-port:5000\r\n";

    #[test]
    fn of_a_browsers_offer_h264_and_opus_are_taken() {
        let offer = Offer::read(OFFER, None).unwrap();
        assert_eq!(offer.video.as_ref().unwrap().forms[0].payload_type, 102);
        assert_eq!(offer.audio.as_ref().unwrap().payload_type, 111);
        assert_eq!(offer.ice.ufrag, "abcd");
        assert_eq!(offer.fingerprints, ["AA"]);
        assert_eq!(offer.channel, Some((5_000, MESSAGE_BYTES_DEFAULT)));
        let kinds: Vec<SectionKind> = offer.sections.iter().map(|s| s.kind).collect();
        let expected = [SectionKind::Video, SectionKind::Audio, SectionKind::Data];
        assert_eq!(kinds, expected);
        assert_eq!(offer.sections[0].feedback, [(102, vec!["nack pli"])]);
        let mids: Vec<&str> = offer.sections.iter().map(|s| s.mid.as_str()).collect();
        assert_eq!(mids, ["0", "1", "2"]);
    }

    #[test]
    fn header_extensions_are_known_by_their_names_and_have_short_ids() {
        let with = |lines: &str| OFFER.replace("a=mid:0\r\n", &format!("a=mid:0\r\n{lines}"));
        let extensions = |lines: &str| {
            let offer = Offer::read(&with(lines), None).unwrap();
            offer.sections[0].extensions
        };
        assert_eq!(extensions(""), Extensions::default());
        let all = format!(
            "a=extmap:9 {MID_URI}\r\na=extmap:13/recvonly {CAPTURE_TIME_URI}\r\n\
             a=extmap:4 {TRANSPORT_SEQUENCE_URI}\r\na=extmap:2 urn:ietf:other\r\n"
        );
        let unreported = extensions(&all);
        assert_eq!(unreported.transport_sequence, None);
        let all = format!("{all}a=rtcp-fb:* transport-cc\r\n");
        let expected = Extensions {
            mid: Some(9),
            capture_time: Some(13),
            transport_sequence: Some(4),
        };
        assert_eq!(extensions(&all), expected);
        for bad in ["0", "15", "300", "x"] {
            let line = format!("a=extmap:{bad} {MID_URI}\r\n");
            assert_eq!(extensions(&line), Extensions::default(), "{bad}");
        }
    }

    #[test]
    fn a_fragment_is_of_one_ice_name() {
        let cases = [
            ("a=ice-ufrag:abcd\r\na=ice-pwd:x\r\n", Some("abcd")),
            (
                "m=video 9 X 0\r\na=mid:0\r\na=ice-ufrag:abcd\r\n",
                Some("abcd"),
            ),
            ("a=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n", None),
            ("a=ice-ufrag:a\r\n", None),
            ("a=ice-ufrag:abcd\r\nhello\r\n", None),
            ("a=ice-ufrag:abcd\ra=x\r\n", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let read = Fragment::read(text).ok();
            assert_eq!(
                read.as_ref().map(|f| f.ufrag.as_str()),
                expected,
                "{text:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_is_400_and_what_cannot_be_served_is_422() {
        let many = format!("{OFFER}{}", "m=video 9 X 96\r\na=mid:9\r\n".repeat(1_000));
        let cases = [
            (String::new(), 400),
            ("hello".into(), 400),
            ("v=0\r\ns=-\r\n".into(), 400),
            (OFFER.replace("a=fingerprint:sha-256 AA\r\n", ""), 400),
            (OFFER.replace("a=ice-ufrag:abcd\r\n", ""), 400),
            (OFFER.replace("a=ice-pwd:", "a=x:"), 400),
            (OFFER.replace("a=mid:0\r\n", "a=mid:0\ra=x\r\n"), 400),
            (OFFER.replace(" 9 UDP/TLS/RTP/SAVPF 111 0", " 9"), 400),
            ("v=0\r\n".to_owned() + &"x".repeat(OFFER_BYTES_MAX), 400),
            (many, 422),
            (OFFER.replace("a=recvonly", "a=sendonly"), 422),
            (OFFER.replace("a=recvonly", "a=inactive"), 422),
            (OFFER.replace("BUNDLE 0 1 2", "BUNDLE 0 1"), 422),
            (OFFER.replace("a=group:BUNDLE 0 1 2\r\n", ""), 422),
            (
                OFFER.replace("packetization-mode=1", "packetization-mode=0"),
                422,
            ),
            (OFFER.replace("opus/48000/2", "PCMU/8000"), 422),
            (OFFER.replace(":111 ", ":+111 "), 422),
            (OFFER.replace("sha-256", "sha-1"), 422),
            (OFFER.replace("a=mid:0", "a=setup:passive\r\na=mid:0"), 422),
            (OFFER.replace("m=audio", "m=video"), 422),
        ];
        for (offer, status) in cases {
            let got = match Offer::read(&offer, None) {
                Err(OfferError::Unreadable(_)) => 400,
                Err(OfferError::Unservable(_)) => 422,
                Ok(_) => 201,
            };
            assert_eq!(got, status, "{}", offer.get(..200).unwrap_or(&offer));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(v=0\r\n)?[ -~\r\n]{0,300}") {
            let _ = Offer::read(&text, None);
            let _ = Fragment::read(&text);
        }
    }
}
