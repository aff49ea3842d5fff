//! One outgoing RTP stream: from frames to protected packets, and what is reported of it.
//!
//! Invariants
//! - The sequence has no hole we made; RTP time is `T × rate + constant` (I29).
//! - A packet that is sent again is the same to the bit (see [`super::srtp`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};
use rtc::rtcp::sender_report::SenderReport;
use rtc::shared::error::Error;

use super::burst::Run;
use super::history::{Allowance, History, Marks, Sent};
use super::message::RtpLine;
use super::packetise::payloads;

use super::sdp::Extensions;
use super::srtp::Srtp;
use crate::frame::{Codec, Frame, Kind, RtpPayload};
use crate::time::MediaTime;

/// Packets kept for retransmission.
const VIDEO_HISTORY: usize = 512;
const AUDIO_HISTORY: usize = 128;
/// A frame says when it was captured at least this often, and every keyframe does.
const CAPTURED_EVERY: Duration = Duration::from_secs(1);
const HEADER_BYTES: usize = 12;
/// What a numbered packet carries beside: the extension, and the tag of its protection.
const NUMBER_AND_TAG_BYTES: usize = 8 + 16;
/// The most padding that one packet can have.
const PADDING_BYTES: usize = 255;
/// Of one slice of a probe.
const PADDINGS_MAX: usize = 256;
/// Profile of one-byte header extensions (RFC 8285).
const ONE_BYTE: u16 = 0xbede;

/// What a stream is called and how it is numbered.
#[derive(Clone, Debug)]
pub(crate) struct StreamSpec {
    pub(crate) ssrc: u32,
    /// What was negotiated for each codec.
    pub(crate) payload_types: Vec<(Codec, u8)>,
    pub(crate) line: RtpLine,
    pub(crate) extensions: Extensions,
    pub(crate) mid: String,
}

/// An outgoing stream.
#[derive(Debug)]
pub(crate) struct Stream {
    spec: StreamSpec,
    is_video: bool,
    /// Number of the next packet, with the rounds of its sequence number.
    next: u64,
    packets: u32,
    octets: u32,
    history: History,
    captured: Option<Instant>,
    /// RTP time and payload type of the newest frame.
    newest: Option<(u32, u8)>,
    /// Padding of one packet, once some was needed.
    padding: Option<RtpPayload>,
}

/// A frame that goes out now.
#[derive(Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub(crate) frame: &'a Frame,
    /// What was negotiated for its codec.
    pub(crate) payload_type: u8,
    pub(crate) payload_bytes_max: usize,
    /// NTP time of a point on T.
    pub(crate) captured: &'a dyn Fn(MediaTime) -> u64,
    /// The number of its first packet among all of the connection, if they carry any.
    pub(crate) transport: Option<u16>,
}

impl Stream {
    pub(crate) fn new(spec: StreamSpec, kind: Kind) -> Self {
        let is_video = kind == Kind::Video;
        let history = if is_video {
            VIDEO_HISTORY
        } else {
            AUDIO_HISTORY
        };
        Self {
            // Below half a round, so that the far end knows the first round for what it is.
            next: u64::from(spec.ssrc & 0x7fff),
            spec,
            is_video,
            packets: 0,
            octets: 0,
            history: History::new(history),
            captured: None,
            newest: None,
            padding: None,
        }
    }

    pub(crate) const fn ssrc(&self) -> u32 {
        self.spec.ssrc
    }

    /// The payload type of a frame; none when its codec was not negotiated.
    pub(crate) fn payload_type(&self, frame: &Frame) -> Option<u8> {
        let mut types = self.spec.payload_types.iter();
        let found = types.find(|(codec, _)| *codec == frame.info.codec);
        found.map(|(_, payload_type)| *payload_type)
    }

    /// Packets of a frame and their bytes, if they are numbered among all of the connection.
    pub(crate) fn numbered(
        &self,
        frame: &Frame,
        payload_bytes_max: usize,
    ) -> Option<(usize, usize)> {
        self.spec.extensions.transport_sequence?;
        let payloads = payloads(frame, payload_bytes_max);
        let bytes: usize = payloads.iter().map(RtpPayload::len).sum();
        let around = payloads.len() * (HEADER_BYTES + NUMBER_AND_TAG_BYTES);
        Some((payloads.len(), bytes + around))
    }

    /// Writes a frame; returns the bytes it took.
    pub(crate) fn write(
        &mut self,
        now: Instant,
        out: Outgoing<'_>,
        srtp: &mut Srtp,
        run: &mut Run<'_>,
    ) -> Result<usize, Error> {
        let payloads = payloads(out.frame, out.payload_bytes_max);
        let octets: usize = payloads.iter().map(RtpPayload::len).sum();
        let sent = Sent {
            first: self.next,
            timestamp: self.spec.line.at(out.frame.pts),
            payload_type: out.payload_type,
            payloads: Arc::clone(payloads),
            marks: self.marks(now, out),
            is_padding: false,
        };
        self.newest = Some((sent.timestamp, sent.payload_type));
        let mut bytes = 0;
        for place in 0..sent.payloads.len() {
            bytes += self.put(&sent, place, srtp, run)?;
        }
        let count = u32::try_from(sent.payloads.len()).unwrap_or(u32::MAX);
        self.next += u64::from(count);
        self.packets = self.packets.wrapping_add(count);
        let octets = u32::try_from(octets).unwrap_or(u32::MAX);
        self.octets = self.octets.wrapping_add(octets);
        self.history.push(sent);
        Ok(bytes)
    }

    /// How many packets of padding so many bytes are, and their bytes; none before the first
    /// frame, since padding has the time of one.
    pub(crate) fn padding(&self, bytes: usize) -> (usize, usize) {
        const WHOLE: usize = PADDING_BYTES + HEADER_BYTES + NUMBER_AND_TAG_BYTES;
        let packets = bytes.div_ceil(WHOLE);
        let packets = self.newest.map_or(0, |_| packets.min(PADDINGS_MAX));
        (packets, packets * WHOLE)
    }

    /// Writes packets of nothing but padding (RFC 3550 5.1) behind the newest frame. They are
    /// remembered like any other: a number that stays away would hold up the frames behind it.
    pub(crate) fn pad(
        &mut self,
        packets: usize,
        transport: u16,
        srtp: &mut Srtp,
        run: &mut Run<'_>,
    ) -> Result<(), Error> {
        let Some((timestamp, payload_type)) = self.newest else {
            return Ok(());
        };
        let padding = self.padding.get_or_insert_with(|| {
            let mut bytes = vec![0; PADDING_BYTES];
            // The last byte says how many there are.
            bytes[PADDING_BYTES - 1] = u8::MAX;
            Bytes::from(bytes).into()
        });
        let sent = Sent {
            first: self.next,
            timestamp,
            payload_type,
            payloads: vec![padding.clone(); packets].into(),
            marks: Marks {
                captured: None,
                transport: Some(transport),
            },
            is_padding: true,
        };
        for place in 0..packets {
            self.put(&sent, place, srtp, run)?;
        }
        self.next += packets as u64;
        self.packets = self
            .packets
            .wrapping_add(u32::try_from(packets).unwrap_or(u32::MAX));
        self.history.push(sent);
        Ok(())
    }

    /// Writes a packet again, if it is remembered, due and allowed; returns the bytes it took,
    /// `None` when the allowance is used up.
    pub(crate) fn repeat(
        &mut self,
        now: Instant,
        lost: Lost,
        (allowance, srtp): (&mut Allowance, &mut Srtp),
        run: &mut Run<'_>,
    ) -> Option<usize> {
        let Some((sent, place)) = self.history.find(lost.sequence) else {
            return Some(0);
        };
        let sent = sent.clone();
        let number = sent.first + place as u64;
        if !self.history.may_repeat(now, number, lost.round_trip) {
            return Some(0);
        }
        let size = self.size(&sent, place, srtp);
        if !allowance.spend(size) {
            return None;
        }
        Some(self.put(&sent, place, srtp, run).unwrap_or(0))
    }

    /// The sender report of a moment; none before the first packet.
    pub(crate) fn report(&self, t: MediaTime, ntp_time: u64) -> Option<SenderReport> {
        (self.packets > 0).then(|| SenderReport {
            ssrc: self.spec.ssrc,
            ntp_time,
            rtp_time: self.spec.line.at(t),
            packet_count: self.packets,
            octet_count: self.octets,
            ..SenderReport::default()
        })
    }

    fn marks(&mut self, now: Instant, out: Outgoing<'_>) -> Marks {
        let is_key = self.is_video && out.frame.is_key;
        let is_due = self
            .captured
            .is_none_or(|at| now.saturating_duration_since(at) >= CAPTURED_EVERY);
        let Extensions {
            mid, capture_time, ..
        } = self.spec.extensions;
        let is_marked = (is_key || is_due) && (mid.is_some() || capture_time.is_some());
        if is_marked {
            self.captured = Some(now);
        }
        Marks {
            captured: is_marked.then(|| (out.captured)(out.frame.pts)),
            transport: out.transport,
        }
    }

    fn size(&self, sent: &Sent, place: usize, srtp: &Srtp) -> usize {
        let payload = sent.payloads.get(place).map_or(0, RtpPayload::len);
        HEADER_BYTES + self.extension(sent, place).length + payload + srtp.overhead()
    }

    fn put(
        &self,
        sent: &Sent,
        place: usize,
        srtp: &mut Srtp,
        run: &mut Run<'_>,
    ) -> Result<usize, Error> {
        let Some(payload) = sent.payloads.get(place) else {
            return Ok(0);
        };
        let extension = self.extension(sent, place);
        let header_bytes = HEADER_BYTES + extension.length;
        let size = header_bytes + payload.len() + srtp.overhead();
        let number = sent.first + place as u64;
        let buffer = run.datagram(size);
        let start = buffer.len();
        let is_last = place + 1 == sent.payloads.len() && !sent.is_padding;
        let marker = u8::from(is_last && self.is_video) << 7;
        let padding = u8::from(sent.is_padding) << 5;
        buffer.put_u8(0x80 | padding | u8::from(extension.length > 0) << 4);
        buffer.put_u8(marker | sent.payload_type);
        buffer.put_u16(u16::try_from(number & 0xffff).unwrap_or(0));
        buffer.put_u32(sent.timestamp);
        buffer.put_u32(self.spec.ssrc);
        buffer.put_slice(extension.as_bytes());
        buffer.put_slice(payload.head.as_bytes());
        buffer.put_slice(&payload.body);
        let protected = srtp.protect(buffer, start, header_bytes, number);
        if protected.is_err() {
            run.forget(start);
        }
        protected.map(|()| size)
    }

    /// The header extension of a packet; empty for most.
    fn extension(&self, sent: &Sent, place: usize) -> Extension {
        let (ids, marks) = (self.spec.extensions, sent.marks);
        let mut out = Extension {
            bytes: [0; 44],
            length: 0,
        };
        if let Some(first) = marks.transport {
            let number = first.wrapping_add(u16::try_from(place).unwrap_or(0));
            out.put(ids.transport_sequence, &number.to_be_bytes());
        }
        if let Some(captured) = marks.captured.filter(|_| place == 0) {
            out.put(ids.mid, self.spec.mid.as_bytes());
            out.put(ids.capture_time, &captured.to_be_bytes());
        }
        out.finished()
    }
}

/// Profile, length, and elements with headers of one byte.
#[derive(Clone, Copy)]
struct Extension {
    bytes: [u8; 44],
    length: usize,
}

impl Extension {
    const HEAD_BYTES: usize = 4;

    fn put(&mut self, id: Option<u8>, value: &[u8]) {
        let length = u8::try_from(value.len()).ok();
        let (Some(id), Some(length @ 1..=16)) = (id, length) else {
            return;
        };
        self.length = self.length.max(Self::HEAD_BYTES);
        let element = self.bytes.get_mut(self.length..=self.length + value.len());
        if let Some((head, body)) = element.and_then(<[u8]>::split_first_mut) {
            *head = id << 4 | (length - 1);
            body.copy_from_slice(value);
            self.length += 1 + value.len();
        }
    }

    fn finished(mut self) -> Self {
        if self.length > 0 {
            self.length = self.length.next_multiple_of(4);
            let words = u16::try_from(self.length / 4 - 1).unwrap_or(0);
            let (head, _) = self.bytes.split_at_mut(Self::HEAD_BYTES);
            let (profile, length) = head.split_at_mut(2);
            profile.copy_from_slice(&ONE_BYTE.to_be_bytes());
            length.copy_from_slice(&words.to_be_bytes());
        }
        self
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// A packet that did not arrive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lost {
    pub(crate) sequence: u16,
    pub(crate) round_trip: Option<Duration>,
}
