//! RTMP and FLV: the bytes of a publisher.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::time::Instant;

use super::piece;
use crate::bitstream::h264::{self, NalKind};
use crate::bitstream::{av1, hevc};
use crate::flv::{Demuxer, FlvError, Units};
use crate::frame::{Codec, Kind, Sample};
use crate::rtmp::amf::{self, Value};
use crate::rtmp::chunk::{ChunkError, ChunkReader, ChunkWriter, Message, MessageLimits, kind};
use crate::rtmp::session::{Session, SessionEvent};

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

/// A handshake: any split of it is answered the same, within what a handshake answers.
///
/// The first byte is the size of the pieces.
pub fn handshake(data: &[u8]) {
    let (piece, bytes) = piece(data);
    let now = Instant::now();
    let shake = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut session = Session::new(now);
        let (mut events, mut answered) = (Vec::new(), 0);
        for piece in pieces {
            session.receive(now, piece);
            events.extend(std::iter::from_fn(|| session.poll()).map(|event| format!("{event:?}")));
            answered += session.take_output().len();
        }
        (events, answered)
    };
    if bytes.is_empty() {
        return;
    }
    let whole = shake(&mut std::iter::once(bytes));
    let pieces = shake(&mut bytes.chunks(piece));
    assert_eq!(whole, pieces, "pieces of {piece}");
    // Our version, our random bytes, and theirs once they came; each message gets a short answer.
    assert!(whole.1 <= 4_096 + 512 * bytes.len());
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
                SessionEvent::PlayRequested { name, .. } => {
                    assert!(!name.is_empty());
                    session.accept(now);
                }
                SessionEvent::Paused(_) => assert!(session.playing_on().is_some()),
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
