//! What must hold for any bytes: one function per parser of network bytes.
//!
//! The targets of `media/fuzz` and the replay of their corpora in `media/tests/corpora.rs` call
//! these. Each asserts more than that nothing panics: an input read in pieces reads the same, what
//! was written reads back, what comes out is bounded by what went in.
//!
//! Not here: what well-formed input means; the tests beside each parser say that.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::time::Instant;

use crate::bitstream::h264::{self, NalKind, SpsFacts};
use crate::bitstream::{av1, hevc, opus};
use crate::flv::{Demuxer, FlvError, Units};
use crate::frame::{Codec, Kind, Sample, Shape, TrackInfo};
use crate::hls::{Directives, Skip};
use crate::rtmp::amf::{self, Value};
use crate::rtmp::chunk::{ChunkError, ChunkReader, ChunkWriter, Message, MessageLimits, kind};
use crate::rtmp::session::{Session, SessionEvent};
use crate::webrtc::sdp::Offer;
use crate::webrtc::{Answer, Credentials};

/// A fuzz target: takes any bytes, panics when something that must hold does not.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also the name of its corpus.
pub const TARGETS: [(&str, Target); 11] = [
    ("rtmp_chunk", rtmp_chunk),
    ("amf", amf),
    ("flv_tag", flv_tag),
    ("enhanced_flv", enhanced_flv),
    ("rtmp_session", rtmp_session),
    ("h264_nal", h264_nal),
    ("hevc_sps", hevc_sps),
    ("av1_obu", av1_obu),
    ("opus_toc", opus_toc),
    ("sdp_offer", sdp_offer),
    ("hls_directives", hls_directives),
];

/// Chunks: any split reads the same, and what was read can be written and read again.
///
/// The first byte is the size of the pieces.
pub fn rtmp_chunk(data: &[u8]) {
    let (piece, bytes) = piece(data);
    let whole = messages([bytes]);
    assert_eq!(whole, messages(bytes.chunks(piece)), "pieces of {piece}");
    let (list, _) = whole;
    let payload: usize = list.iter().map(|m| m.payload.len()).sum();
    assert!(payload <= bytes.len(), "payloads come from the bytes alone");

    let mut written = BytesMut::new();
    let mut writer = ChunkWriter::default();
    for message in &list {
        writer.write(&mut written, 5, message);
    }
    assert_eq!(messages([&written[..]]), (list, Ok(())));
}

fn messages<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Message>, Result<(), ChunkError>) {
    let mut reader = ChunkReader::new(MessageLimits::PUBLISHING);
    let mut list = Vec::new();
    for piece in pieces {
        reader.push(piece);
        loop {
            match reader.next_message() {
                Ok(Some(message)) => list.push(message),
                Ok(None) => break,
                Err(error) => return (list, Err(error)),
            }
        }
    }
    (list, Ok(()))
}

/// AMF0 values: what was read can be written, is no larger, and reads back the same.
pub fn amf(data: &[u8]) {
    let Ok(values) = amf::read(Bytes::copy_from_slice(data)) else {
        return;
    };
    let written = amf::write(&values);
    assert!(written.len() <= data.len(), "{} bytes", written.len());
    let again = amf::read(written.clone()).expect("our own values are within the bounds");
    // Bytes are compared, not values: NaN is no equal of itself.
    assert_eq!(amf::write(&again), written);
}

/// FLV tag bodies: samples are canonical, come after their parameters, begin at a keyframe.
///
/// A body is preceded by one byte (odd for sound), a 32-bit time and a 16-bit length.
pub fn flv_tag(data: &[u8]) {
    let mut rest = data;
    let mut demuxer = Demuxer::new();
    let mut checks = SampleChecks::default();
    let now = Instant::now();
    while rest.len() >= 7 {
        let kind = match rest.get_u8() & 1 {
            0 => Kind::Video,
            _ => Kind::Audio,
        };
        let time = rest.get_u32();
        let length = usize::from(rest.get_u16()).min(rest.len());
        let (body, after) = rest.split_at(length);
        rest = after;
        let got = demuxer.push(now, kind, time, Bytes::copy_from_slice(body));
        if !checks.take(length, got) {
            return;
        }
    }
}

/// Enhanced tags whose heads are always right, so that what follows them is reached.
///
/// A body is preceded by one byte (codec in the low three bits, packet type in the next three, the
/// highest for the form of many tracks), one of time and a 16-bit length.
pub fn enhanced_flv(data: &[u8]) {
    const FOURS: [&[u8; 4]; 8] = [
        b"avc1", b"hvc1", b"av01", b"Opus", b"mp4a", b"hvc1", b"av01", b"Opus",
    ];
    let mut rest = data;
    let mut demuxer = Demuxer::new();
    let mut checks = SampleChecks::default();
    let mut now = Instant::now();
    while rest.len() >= 4 {
        let (what, time) = (rest.get_u8(), rest.get_u8());
        let length = usize::from(rest.get_u16()).min(rest.len());
        let (body, after) = rest.split_at(length);
        rest = after;
        let four = FOURS.into_iter().cycle().nth(usize::from(what & 7));
        let four = four.expect("a cycle has no end");
        let packet = what >> 3 & 7;
        let is_sound = matches!(four, b"Opus" | b"mp4a");
        let many = if is_sound { 5 } else { 6 };
        let mut tag = BytesMut::new();
        if what & 0x80 == 0 {
            tag.put_slice(&[0x90 | packet]);
            tag.put_slice(four);
        } else {
            tag.put_slice(&[0x90 | many, 0x10 | packet]);
            tag.put_slice(four);
        }
        tag.put_slice(body);
        let kind = if is_sound { Kind::Audio } else { Kind::Video };
        now += Duration::from_millis(u64::from(time) * 10);
        let length = tag.len();
        let got = demuxer.push(now, kind, u32::from(time), tag.freeze());
        if !checks.take(length, got) {
            return;
        }
    }
}

/// What holds for all samples of one session.
#[derive(Default)]
struct SampleChecks {
    video: Option<Codec>,
    audio: Option<Codec>,
    has_key: bool,
}

impl SampleChecks {
    /// Returns false when the session ended.
    fn take(&mut self, length: usize, got: Result<Units, FlvError>) -> bool {
        let units = match got {
            Ok(units) => units,
            Err(error) => return !error.is_fatal(),
        };
        if let Some(track) = &units.track {
            assert!(!track.config.is_empty());
            if let Some((width, height)) = track.picture_size() {
                assert!((1..=7_680).contains(&width) && (1..=4_320).contains(&height));
                (self.video, self.has_key) = (Some(track.codec), false);
            } else {
                self.audio = Some(track.codec);
            }
        }
        match &units.sample {
            Some(sample) if sample.kind == Kind::Video => self.picture(length, sample),
            Some(sample) => {
                assert!(self.audio.is_some(), "sound before its parameters");
                assert!(!sample.payload.is_empty() && sample.payload.len() < length);
                assert!((1..=5_760).contains(&sample.samples));
            }
            None => {}
        }
        true
    }

    fn picture(&mut self, length: usize, sample: &Sample) {
        let codec = self.video.expect("no picture comes before its parameters");
        self.has_key |= sample.is_key;
        assert!(self.has_key, "a picture before the first keyframe");
        assert!(sample.composition < Duration::from_millis(1 << 23));
        // A length of one byte becomes one of four, for a NAL unit of at least one byte.
        assert!(sample.payload.len() <= 4 * length);
        match codec {
            Codec::H264 => h264_picture(sample),
            Codec::Hevc => hevc_picture(sample),
            _ => av1_picture(sample),
        }
    }
}

fn h264_picture(sample: &Sample) {
    let (mut has_idr, mut has_picture) = (false, false);
    for nal in h264::nals(&sample.payload) {
        let nal = nal.expect("a sample has four-byte lengths that fit");
        let kind = NalKind::of(nal.first().copied().unwrap_or(0));
        assert!(!matches!(
            kind,
            NalKind::Sps | NalKind::Pps | NalKind::Filler
        ));
        has_idr |= kind == NalKind::Idr;
        has_picture |= matches!(kind, NalKind::Idr | NalKind::Slice);
    }
    assert!(has_picture);
    assert_eq!(sample.is_key, has_idr);
}

fn hevc_picture(sample: &Sample) {
    let (mut has_irap, mut has_picture) = (false, false);
    for nal in h264::nals(&sample.payload) {
        let nal = nal.expect("a sample has four-byte lengths that fit");
        assert_eq!(hevc::layer(nal), Some(0));
        match hevc::NalKind::of(nal.first().copied().unwrap_or(0)) {
            hevc::NalKind::Irap => (has_irap, has_picture) = (true, true),
            hevc::NalKind::Slice => has_picture = true,
            hevc::NalKind::Sei | hevc::NalKind::Other => {}
            kind => panic!("{kind:?} in a payload"),
        }
    }
    assert!(has_picture);
    assert_eq!(sample.is_key, has_irap);
}

fn av1_picture(sample: &Sample) {
    let kinds = av1::obus(&sample.payload).map(|obu| obu.expect("OBUs that fit").kind);
    let kinds: Vec<av1::ObuKind> = kinds.collect();
    assert!(kinds.contains(&av1::ObuKind::Frame));
    assert!(!kinds.contains(&av1::ObuKind::Filler));
}

/// A connection: any split gives the same events, and nothing happens after its end.
///
/// The first byte is the size of the pieces; the second says where the bytes begin: at the
/// handshake (0), after it (1), or, with any other value, once publishing was accepted.
pub fn rtmp_session(data: &[u8]) {
    let (piece, bytes) = piece(data);
    let (&start, bytes) = bytes.split_first().unwrap_or((&2, &[]));
    let now = Instant::now();
    let open = || match start {
        0 => Session::new(now),
        1 => shaken(now),
        _ => publishing(now),
    };
    let whole = drive(now, open(), [bytes]);
    let pieces = drive(now, open(), bytes.chunks(piece));
    assert_eq!(whole, pieces, "pieces of {piece}");
}

/// Runs a session to its end; returns its events in words.
fn drive<'a>(
    now: Instant,
    mut session: Session,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<String> {
    let mut demuxer = Demuxer::new();
    let mut checks = SampleChecks::default();
    let mut events = Vec::new();
    let mut is_closed = false;
    for piece in pieces {
        session.receive(now, piece);
        while let Some(event) = session.poll() {
            assert!(!is_closed, "{event:?} came after the end");
            events.push(format!("{event:?}"));
            match event {
                SessionEvent::PublishRequested { stream_name, .. } => {
                    assert!(!stream_name.is_empty());
                    session.accept(now);
                }
                SessionEvent::Media(message) => {
                    let kind = match message.type_id {
                        kind::VIDEO => Kind::Video,
                        _ => Kind::Audio,
                    };
                    let length = message.payload.len();
                    let got = demuxer.push(now, kind, message.timestamp, message.payload);
                    checks.take(length, got);
                }
                SessionEvent::Encoder(name) => assert!(name.len() <= 4 * 256, "{name}"),
                SessionEvent::Finished | SessionEvent::Closed(_) => is_closed = true,
            }
        }
        let output = session.take_output();
        // The handshake is the longest answer; each message gets a few short ones.
        assert!(output.len() <= 4_096 + 512 * piece.len());
        assert!(is_closed || session.deadline().is_some());
    }
    events
}

/// A session whose client has shaken hands.
fn shaken(now: Instant) -> Session {
    let mut session = Session::new(now);
    let mut hello = vec![3];
    hello.resize(1 + 1_536, 0);
    session.receive(now, &hello);
    let answer = session.take_output();
    session.receive(now, answer.get(1..1 + 1_536).unwrap_or_default());
    session
}

/// A session that was allowed to publish on message stream 1.
fn publishing(now: Instant) -> Session {
    let mut session = shaken(now);
    let number = Value::Number;
    let app = vec![("app".to_owned(), Value::text("live"))];
    let commands = [
        (
            0,
            vec![Value::text("connect"), number(1.0), Value::Object(app)],
        ),
        (
            0,
            vec![Value::text("createStream"), number(2.0), Value::Null],
        ),
        (
            1,
            vec![
                Value::text("publish"),
                number(3.0),
                Value::Null,
                Value::text("key"),
            ],
        ),
    ];
    let mut bytes = BytesMut::new();
    let mut writer = ChunkWriter::default();
    for (stream_id, values) in commands {
        let message = Message {
            type_id: kind::COMMAND,
            stream_id,
            timestamp: 0,
            payload: amf::write(&values),
        };
        writer.write(&mut bytes, 3, &message);
    }
    session.receive(now, &bytes);
    let asked = session.poll();
    assert!(matches!(asked, Some(SessionEvent::PublishRequested { .. })));
    session.accept(now);
    session.take_output();
    session
}

/// H.264: records and NAL units survive being written and read.
pub fn h264_nal(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(config) = h264::Config::parse(&bytes) {
        let _ = config.facts();
        let four = h264::Config {
            length_bytes: 4,
            ..config
        };
        assert_eq!(h264::Config::parse(&four.build()), Ok(four));
    }
    if let Ok(facts) = SpsFacts::parse(data) {
        assert!(facts.width > 0 && facts.height > 0);
    }
    for length_bytes in [1, 2, 4] {
        let units = h264::nals_of(data, length_bytes);
        let good: Vec<&[u8]> = units.map_while(Result::ok).collect();
        assert!(good.iter().all(|nal| !nal.is_empty()));
        let mut written = BytesMut::new();
        for nal in &good {
            h264::put_nal(&mut written, nal);
        }
        let again: Result<Vec<&[u8]>, _> = h264::nals(&written).collect();
        assert_eq!(again, Ok(good));
    }
    let units = h264::split_annex_b(&bytes);
    let mut joined = BytesMut::new();
    for unit in &units {
        joined.put_slice(&[0, 0, 0, 1]);
        joined.put_slice(unit);
    }
    assert_eq!(h264::split_annex_b(&joined.freeze()), units);
}

/// HEVC: a set that reads gives a record that reads back; a record survives the same.
pub fn hevc_sps(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(facts) = hevc::SpsFacts::parse(data) {
        assert!(facts.width > 0 && facts.height > 0);
        assert!((8..=15).contains(&facts.luma_bits) && (1..=7).contains(&facts.sub_layers));
        let other = Bytes::from_static(&[0x40, 1, 0]);
        let (vps, pps) = (vec![other.clone()], vec![other]);
        if let Ok(config) = hevc::Config::new(vps, vec![bytes.clone()], pps) {
            let record = config.build().expect("the set was read before");
            assert_eq!(hevc::Config::parse(&record), Ok(config));
        }
    }
    if let Ok(config) = hevc::Config::parse(&bytes)
        && let Ok(record) = config.build()
    {
        let four = hevc::Config {
            length_bytes: 4,
            ..config
        };
        assert_eq!(hevc::Config::parse(&record), Ok(four));
    }
}

/// AV1: OBUs put together are the unit; records and sequence headers survive being written.
pub fn av1_obu(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let whole: Vec<&[u8]> = av1::obus(data)
        .map_while(|obu| Some(obu.ok()?.whole))
        .collect();
    assert!(data.starts_with(&whole.concat()));
    assert!(whole.iter().all(|obu| !obu.is_empty()));
    let record = av1::Config::parse(&bytes).ok().flatten();
    let sequence = av1::Config::new(bytes).ok();
    for config in record.into_iter().chain(sequence) {
        assert!(config.facts.width > 0 && config.facts.height > 0);
        assert_eq!(av1::Config::parse(&config.build()), Ok(Some(config)));
    }
}

/// Opus: packets have a length a decoder can have; headers give what one of ours gives.
pub fn opus_toc(data: &[u8]) {
    if let Ok(samples) = opus::samples(data) {
        assert!(samples > 0 && samples <= 5_760 && samples.is_multiple_of(120));
    }
    if let Ok(channels) = opus::channels(data) {
        assert_eq!(opus::channels(&opus::head(channels)), Ok(channels));
    }
}

/// A source whose record begins with these bytes.
fn picture_info(codec: Codec, head: &[u8]) -> TrackInfo {
    TrackInfo {
        codec,
        generation: 0,
        shape: Shape::Video {
            width: 640,
            height: 360,
        },
        config: [head, &[0; 10]].concat().into(),
        reorder_frames: Some(0),
    }
}

/// Offers: the answer to one has its sections in its order, and is not much longer.
pub fn sdp_offer(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let sources = [
        None,
        Some((Codec::H264, [1, 77, 0])),
        Some((Codec::Hevc, [1, 1, 0x60])),
        Some((Codec::Av1, [0x81, 0, 0x0c])),
    ];
    for source in sources {
        let source = source.map(|(codec, head)| picture_info(codec, &head));
        let Ok(offer) = Offer::read(text, source.as_ref()) else {
            continue;
        };
        let ours = Credentials {
            ufrag: "ufrag".into(),
            password: "password".into(),
        };
        let answer = Answer {
            offer: &offer,
            session: 1,
            ice: &ours,
            fingerprint: "AA",
            candidates: &[],
            video_ssrc: 1,
            audio_ssrc: 2,
        };
        let answer = answer.text();
        let kinds = |text: &str| -> Vec<String> {
            let sections = text.lines().filter_map(|line| line.strip_prefix("m="));
            let kinds = sections.filter_map(|section| section.split(' ').next());
            kinds.map(str::to_owned).collect()
        };
        assert_eq!(kinds(&answer), kinds(text));
        assert!(answer.len() <= text.len() + 2_048 * (offer.sections.len() + 1));
        let is_line = |line: &str| line.get(1..2) == Some("=") && !line.contains(['\r', '\0']);
        assert!(answer.split_terminator("\r\n").all(is_line));
    }
}

/// Delivery directives: what was read can be written and reads back, beside other parameters.
pub fn hls_directives(data: &[u8]) {
    let Ok(query) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(directives) = Directives::parse(query) else {
        return;
    };
    assert!(directives.part.is_none() || directives.msn.is_some());
    let skip = directives.skip.map(|skip| match skip {
        Skip::Segments => "_HLS_skip=YES".to_owned(),
        Skip::DateRanges => "_HLS_skip=v2".to_owned(),
    });
    let part = directives.part.map(|part| format!("_HLS_part={part}"));
    let msn = directives.msn.map(|msn| format!("_HLS_msn={msn}"));
    let other = Some("token=a".to_owned());
    let pairs: Vec<String> = [skip, other, part, msn].into_iter().flatten().collect();
    assert_eq!(Directives::parse(&pairs.join("&")), Ok(directives));
}

/// The first byte as the size of pieces, and the rest.
fn piece(data: &[u8]) -> (usize, &[u8]) {
    match data.split_first() {
        Some((&size, rest)) => (usize::from(size).max(1), rest),
        None => (1, data),
    }
}
