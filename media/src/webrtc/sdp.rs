//! Judging a viewer's offer, and trimming it to what will be used (spec media.md 4.1, 4.2).
//!
//! Trimming matters: applying a browser's whole offer costs several times as much as one that
//! lists only the codecs in question.

#![deny(clippy::indexing_slicing)]

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

/// What a viewer asks for, ready for the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The offer with one codec per section and without candidates.
    pub sdp: String,
    /// The H.264 form chosen, when there is a picture section.
    pub video: Option<VideoChoice>,
    /// The Opus payload type, when there is a sound section.
    pub audio: Option<AudioChoice>,
}

/// The H.264 payload type chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoChoice {
    /// RTP payload type.
    pub payload_type: u8,
    /// Its `fmtp` parameters.
    pub parameters: String,
    /// Its `profile_idc`.
    pub profile: u8,
}

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

    fn parameters(&self, payload_type: u8) -> &'a str {
        let prefix = format!("{payload_type} ");
        self.attribute("fmtp")
            .find_map(|f| f.strip_prefix(prefix.as_str()))
            .unwrap_or_default()
    }
}

impl Offer {
    /// Reads and judges an offer. Of several H.264 forms the one of `profile` is chosen, or one
    /// that includes it, or constrained baseline, which is decoded everywhere.
    ///
    /// # Errors
    /// [`OfferError`] says which status it is and what would do.
    pub fn read(text: &str, profile: u8) -> Result<Self, OfferError> {
        if text.len() > OFFER_BYTES_MAX {
            return Err(OfferError::Unreadable("the offer is larger than 64 KiB"));
        }
        let (session, sections) = split(text)?;
        check_transport(&session, &sections)?;
        let media: Vec<&Section<'_>> = sections
            .iter()
            .filter(|s| s.kind != "application")
            .collect();
        check_media(&media)?;
        check_bundle(&session, &sections)?;
        let one = |kind: &str| media.iter().find(|s| s.kind == kind);
        let video = one("video").map(|s| choose_video(s, profile)).transpose()?;
        let audio = one("audio").map(|s| choose_audio(s)).transpose()?;
        let sdp = trimmed(&session, &sections, video.as_ref(), audio.as_ref());
        Ok(Self { sdp, video, audio })
    }
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

/// The ICE name in an offer, or in the fragment of one that a `PATCH` carries (RFC 8840).
pub fn ice_name(text: &str) -> Option<&str> {
    let mut lines = text.lines().map(str::trim_end);
    let name = lines.find_map(|line| line.strip_prefix("a=ice-ufrag:"));
    name.filter(|name| (4..=256).contains(&name.len()))
}

/// Reads the fragment of a `PATCH`: every line a field, with the ICE name it is for.
///
/// # Errors
/// [`OfferError::Unreadable`] when it is not such a fragment.
pub fn read_fragment(text: &str) -> Result<&str, OfferError> {
    let mut lines = text.lines().filter(|line| !line.trim_end().is_empty());
    let is_field = |line: &str| {
        let of_fragment = line.starts_with("a=") || line.starts_with("m=");
        of_fragment && line.is_ascii() && !line.trim_end().contains(['\r', '\0'])
    };
    if !lines.all(is_field) {
        let says = "the fragment has a line that is neither a= nor m=";
        return Err(OfferError::Unreadable(says));
    }
    ice_name(text).ok_or(OfferError::Unreadable("the fragment has no a=ice-ufrag"))
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

fn check_media(media: &[&Section<'_>]) -> Result<(), OfferError> {
    let fail = |says: &str| Err(OfferError::Unservable(says.to_owned()));
    for kind in ["video", "audio"] {
        if media.iter().filter(|s| s.kind == kind).count() > 1 {
            return fail("offer at most one video and one audio section");
        }
    }
    for section in media {
        if section.has("sendonly") || section.has("inactive") {
            return fail("a viewer receives: offer recvonly sections");
        }
        if !matches!(section.kind, "video" | "audio") {
            return fail("offer video, audio and a data channel only");
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

fn choose_video(section: &Section<'_>, wanted: u8) -> Result<VideoChoice, OfferError> {
    let forms = section
        .payload_types("H264/90000")
        .into_iter()
        .map(|payload_type| (payload_type, section.parameters(payload_type)))
        .filter(|(_, parameters)| parameters.contains("packetization-mode=1"));
    let rank = |profile: u8| match profile {
        p if p == wanted => 0,
        p if p > wanted => 1,
        66 => 2,
        _ => 3,
    };
    let Some((payload_type, parameters)) = forms.min_by_key(|(_, p)| rank(profile(p))) else {
        let says = "offer H264/90000 with packetization-mode=1".to_owned();
        return Err(OfferError::Unservable(says));
    };
    let profile = profile(parameters);
    Ok(VideoChoice {
        payload_type,
        parameters: parameters.to_owned(),
        profile,
    })
}

/// `profile_idc` of a `profile-level-id`; baseline when it is not given (RFC 6184 8.1).
fn profile(parameters: &str) -> u8 {
    let id = parameters
        .split(';')
        .find_map(|p| p.trim().strip_prefix("profile-level-id="));
    id.and_then(|id| u8::from_str_radix(id.get(..2)?, 16).ok())
        .unwrap_or(66)
}

fn choose_audio(section: &Section<'_>) -> Result<AudioChoice, OfferError> {
    let Some(&payload_type) = section.payload_types("opus/48000/2").first() else {
        return Err(OfferError::Unservable(
            "offer opus/48000/2 for sound".into(),
        ));
    };
    Ok(AudioChoice { payload_type })
}

fn trimmed(
    session: &[&str],
    sections: &[Section<'_>],
    video: Option<&VideoChoice>,
    audio: Option<&AudioChoice>,
) -> String {
    let mut out = String::with_capacity(4_096);
    let mut put = |line: &str| {
        out.push_str(line);
        out.push_str("\r\n");
    };
    let outside = session.iter().filter(|line| !is_candidate(line));
    outside.for_each(|line| put(line));
    for section in sections {
        let chosen = match section.kind {
            "video" => video.map(|v| v.payload_type),
            "audio" => audio.map(|a| a.payload_type),
            _ => None,
        };
        let Some(chosen) = chosen else {
            let kept = section.lines.iter().filter(|line| !is_candidate(line));
            kept.for_each(|line| put(line));
            continue;
        };
        let chosen = chosen.to_string();
        for line in &section.lines {
            if line.starts_with("m=") {
                let head: Vec<&str> = line.split(' ').take(3).collect();
                put(&format!("{} {chosen}", head.join(" ")));
            } else if section.kind == "audio" && line.starts_with("a=fmtp:") {
                // The engine answers with what was offered, so our own is put in its place.
            } else if is_kept(line, &chosen) {
                put(line);
                if section.kind == "audio" && line.starts_with("a=rtpmap:") {
                    put(&format!("a=fmtp:{chosen} {OPUS_PARAMETERS}"));
                }
            }
        }
    }
    out
}

/// A viewer's addresses are learnt from its packets.
fn is_candidate(line: &str) -> bool {
    line.starts_with("a=candidate:") || line.starts_with("a=end-of-candidates")
}

/// Whether a line of a media section concerns the chosen payload type, or none.
fn is_kept(line: &str, chosen: &str) -> bool {
    if is_candidate(line) {
        return false;
    }
    let of_codec = ["a=rtpmap:", "a=fmtp:", "a=rtcp-fb:"];
    let Some(rest) = of_codec.iter().find_map(|prefix| line.strip_prefix(prefix)) else {
        return true;
    };
    rest.split(' ').next() == Some(chosen)
}

#[cfg(test)]
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
    fn a_browsers_offer_is_trimmed_to_h264_and_opus() {
        let offer = Offer::read(OFFER, 100).unwrap();
        assert_eq!(offer.video.as_ref().unwrap().payload_type, 102);
        assert_eq!(offer.audio.as_ref().unwrap().payload_type, 111);
        assert!(offer.sdp.contains("m=video 9 UDP/TLS/RTP/SAVPF 102\r\n"));
        assert!(offer.sdp.contains("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"));
        for gone in ["VP8", "rtx", "candidate", "rtpmap:127"] {
            assert!(!offer.sdp.contains(gone), "{gone}");
        }
        assert!(offer.sdp.contains("webrtc-datachannel"));
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
            assert_eq!(read_fragment(text).ok(), expected, "{text:?}");
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
            (OFFER.replace("m=audio", "m=video"), 422),
        ];
        for (offer, status) in cases {
            let got = match Offer::read(&offer, 66) {
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
            let _ = Offer::read(&text, 66);
            let _ = read_fragment(&text);
        }
    }
}
