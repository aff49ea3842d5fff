//! The text of an answer (RFC 8829, RFC 8839, RFC 9429): what of the offer is taken, and where we
//! are.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::channel::MESSAGE_BYTES_MAX;
use super::ice::Credentials;
use super::sdp::{
    CAPTURE_TIME_URI, Extensions, MID_URI, OPUS_PARAMETERS, Offer, Offered, SectionKind,
    TRANSPORT_SEQUENCE_URI, VideoForm, encoding,
};

/// What an answer says beside the offer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) offer: &'a Offer,
    pub(crate) session: u64,
    pub(crate) ice: &'a Credentials,
    pub(crate) fingerprint: &'a str,
    pub(crate) candidates: &'a [SocketAddr],
    pub(crate) video_ssrc: u32,
    pub(crate) audio_ssrc: u32,
}

impl Answer<'_> {
    /// The text.
    pub(crate) fn text(&self) -> String {
        let mut out = Lines(String::with_capacity(4_096));
        let mids: Vec<&str> = self.offer.sections.iter().map(|s| s.mid.as_str()).collect();
        out.put("v=0");
        out.put(format_args!("o=- {} 2 IN IP4 127.0.0.1", self.session));
        out.put("s=-");
        out.put("t=0 0");
        out.put("a=msid-semantic:WMS *");
        out.put(format_args!("a=fingerprint:sha-256 {}", self.fingerprint));
        out.put("a=ice-lite");
        if self.offer.allows_mixed {
            out.put("a=extmap-allow-mixed");
        }
        out.put(format_args!("a=group:BUNDLE {}", mids.join(" ")));
        for (n, section) in self.offer.sections.iter().enumerate() {
            match section.kind {
                SectionKind::Video => self.video(&mut out, section),
                SectionKind::Audio => self.audio(&mut out, section),
                SectionKind::Data => self.data(&mut out, section),
            }
            // All sections take the first one's path.
            if n == 0 {
                put_candidates(&mut out, self.candidates);
            }
        }
        out.0
    }

    fn video(&self, out: &mut Lines, section: &Offered) {
        let Some(choice) = &self.offer.video else {
            return;
        };
        let types = choice
            .forms
            .iter()
            .map(|form| form.payload_type.to_string());
        let types = types.collect::<Vec<_>>().join(" ");
        let head = format_args!("m=video 9 {} {types}", section.protocol);
        self.transport(out, section, head);
        for form in &choice.forms {
            let VideoForm {
                codec,
                payload_type,
                parameters,
            } = form;
            let encoding = encoding(*codec);
            out.put(format_args!("a=rtpmap:{payload_type} {encoding}"));
            if !parameters.is_empty() {
                out.put(format_args!("a=fmtp:{payload_type} {parameters}"));
            }
        }
        media(out, section, ("video", self.video_ssrc));
    }

    fn audio(&self, out: &mut Lines, section: &Offered) {
        let Some(choice) = &self.offer.audio else {
            return;
        };
        let payload_type = choice.payload_type;
        self.transport(
            out,
            section,
            format_args!("m=audio 9 {} {payload_type}", section.protocol),
        );
        out.put(format_args!("a=rtpmap:{payload_type} opus/48000/2"));
        out.put(format_args!("a=fmtp:{payload_type} {OPUS_PARAMETERS}"));
        media(out, section, ("audio", self.audio_ssrc));
    }

    fn data(&self, out: &mut Lines, section: &Offered) {
        let head = format_args!("m=application 9 {} webrtc-datachannel", section.protocol);
        self.transport(out, section, head);
        let port = self.offer.channel.map_or(5_000, |(port, _)| port);
        out.put(format_args!("a=sctp-port:{port}"));
        out.put(format_args!("a=max-message-size:{MESSAGE_BYTES_MAX}"));
    }

    fn transport(&self, out: &mut Lines, section: &Offered, head: impl std::fmt::Display) {
        out.put(head);
        out.put("c=IN IP4 0.0.0.0");
        out.put("a=setup:passive");
        out.put(format_args!("a=mid:{}", section.mid));
        put_names(out, self.ice);
    }
}

/// What a section of picture or sound says of its stream.
fn media(out: &mut Lines, section: &Offered, (name, ssrc): (&str, u32)) {
    out.put("a=rtcp-mux");
    if section.has_mux_only {
        out.put("a=rtcp-mux-only");
    }
    if section.has_reduced_size {
        out.put("a=rtcp-rsize");
    }
    if section.wants_reference_times {
        out.put("a=rtcp-xr:rcvr-rtt=all");
    }
    for (payload_type, names) in &section.feedback {
        for name in names {
            out.put(format_args!("a=rtcp-fb:{payload_type} {name}"));
        }
    }
    let Extensions {
        mid,
        capture_time,
        transport_sequence,
    } = section.extensions;
    let extensions = [
        (mid, MID_URI),
        (capture_time, CAPTURE_TIME_URI),
        (transport_sequence, TRANSPORT_SEQUENCE_URI),
    ];
    for (id, uri) in extensions {
        if let Some(id) = id {
            out.put(format_args!("a=extmap:{id} {uri}"));
        }
    }
    out.put(format_args!("a=msid:lamplight {name}"));
    out.put(format_args!("a=ssrc:{ssrc} cname:lamplight"));
    out.put(format_args!("a=ssrc:{ssrc} msid:lamplight {name}"));
    out.put("a=sendonly");
}

/// The fragment that answers an ICE restart (RFC 8840): our new names, and where we are.
pub(crate) fn fragment(mid: &str, ice: &Credentials, candidates: &[SocketAddr]) -> String {
    let mut out = Lines(String::new());
    put_names(&mut out, ice);
    out.put("m=video 9 UDP/TLS/RTP/SAVPF 0");
    out.put(format_args!("a=mid:{mid}"));
    put_candidates(&mut out, candidates);
    out.0
}

fn put_names(out: &mut Lines, ice: &Credentials) {
    out.put(format_args!("a=ice-ufrag:{}", ice.ufrag));
    out.put(format_args!("a=ice-pwd:{}", ice.password));
}

/// What [`Answer::text`] says of our addresses, for an answer that another wrote.
pub(crate) fn candidate_lines(candidates: &[SocketAddr]) -> String {
    let mut out = Lines(String::new());
    put_candidates(&mut out, candidates);
    out.0
}

/// Each of our addresses once, and no more will come.
fn put_candidates(out: &mut Lines, candidates: &[SocketAddr]) {
    /// RFC 8445 5.1.2.1: host candidates, the first one before the others.
    const FIRST_PRIORITY: u32 = (126 << 24) | (65_535 << 8) | 255;
    for (n, addr) in (0..).zip(candidates) {
        let (ip, port, priority) = (addr.ip(), addr.port(), FIRST_PRIORITY - (n << 8));
        let foundation = n + 1;
        out.put(format_args!(
            "a=candidate:{foundation} 1 udp {priority} {ip} {port} typ host"
        ));
    }
    out.put("a=end-of-candidates");
}

struct Lines(String);

impl Lines {
    fn put(&mut self, line: impl std::fmt::Display) {
        write!(self.0, "{line}\r\n").expect("a String takes every write");
    }
}
