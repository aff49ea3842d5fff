//! The dialogue with byte-level clients, and chunks in any split.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use tokio::time::Instant;

use super::amf::{self, Value};
use super::chunk::{ChunkError, ChunkReader, ChunkWriter, Message, MessageLimits, kind};
use super::session::{CloseReason, Session, SessionEvent};
use crate::flv::Demuxer;
use crate::frame::Kind;
use crate::request::{Refusal, RefusalCode};

fn message() -> impl Strategy<Value = (u8, Message)> {
    let payload = proptest::collection::vec(any::<u8>(), 0..2_000);
    let types = prop_oneof![Just(kind::AUDIO), Just(kind::VIDEO), Just(kind::COMMAND)];
    (3_u8..60, types, any::<u32>(), 0_u32..5, payload).prop_map(
        |(id, type_id, timestamp, stream_id, payload)| {
            (
                id,
                Message {
                    type_id,
                    stream_id,
                    timestamp,
                    payload: payload.into(),
                },
            )
        },
    )
}

fn read_all(pieces: &[&[u8]]) -> Result<Vec<Message>, ChunkError> {
    let mut reader = ChunkReader::new(MessageLimits::PUBLISHING);
    let mut out = Vec::new();
    for piece in pieces {
        reader.push(piece);
        while let Some(message) = reader.next_message()? {
            out.push(message);
        }
    }
    Ok(out)
}

proptest! {
    #[test]
    fn any_split_of_the_bytes_gives_the_same_messages(
        list in proptest::collection::vec(message(), 1..8),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut bytes = BytesMut::new();
        let mut writer = ChunkWriter::default();
        for (id, message) in &list {
            writer.write(&mut bytes, *id, message);
        }
        let mut at: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len())).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
        let expected: Vec<Message> = list.into_iter().map(|(_, m)| m).collect();
        prop_assert_eq!(read_all(&pieces), Ok(expected));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        let _ = read_all(&[&bytes]);
    }
}

/// A video message cut by a sound message on another chunk stream: raw `rml_rtmp` panics here.
#[test]
fn interleaved_chunk_streams_do_not_mix_their_bytes() {
    let mut bytes = BytesMut::new();
    let head = |id: u8, length: u64, type_id: u8, out: &mut BytesMut| {
        out.put_u8(id);
        out.put_uint(40, 3);
        out.put_uint(length, 3);
        out.put_u8(type_id);
        out.put_u32_le(1);
    };
    head(6, 300, kind::VIDEO, &mut bytes);
    bytes.put_bytes(b'v', 128);
    head(4, 200, kind::AUDIO, &mut bytes);
    bytes.put_bytes(b'a', 128);
    bytes.put_u8(0xc6);
    bytes.put_bytes(b'v', 128);
    bytes.put_u8(0xc4);
    bytes.put_bytes(b'a', 72);
    bytes.put_u8(0xc6);
    bytes.put_bytes(b'v', 44);
    let got = read_all(&[&bytes]).unwrap();
    assert_eq!(got[0].payload, Bytes::from(vec![b'a'; 200]));
    assert_eq!(got[1].payload, Bytes::from(vec![b'v'; 300]));
}

#[test]
fn extended_times_are_repeated_on_every_chunk_and_deltas_add_up() {
    let mut bytes = BytesMut::new();
    let time = 0x0100_0005;
    let payload = Bytes::from(vec![7; 300]);
    let first = Message {
        type_id: kind::AUDIO,
        stream_id: 1,
        timestamp: time,
        payload,
    };
    ChunkWriter::default().write(&mut bytes, 4, &first);
    // Type 1: delta 20, ten bytes; then type 3: the same delta again.
    bytes.put_u8(0x44);
    bytes.put_uint(20, 3);
    bytes.put_uint(2, 3);
    bytes.put_u8(kind::AUDIO);
    bytes.put_slice(&[1, 2, 0xc4, 3, 4]);
    let times: Vec<u32> = read_all(&[&bytes])
        .unwrap()
        .iter()
        .map(|m| m.timestamp)
        .collect();
    assert_eq!(times, [time, time + 20, time + 40]);
}

#[test]
fn a_chunk_size_changes_between_the_chunks_of_another_stream() {
    let mut bytes = BytesMut::new();
    bytes.put_slice(&[6, 0, 0, 0, 0, 1, 44, kind::VIDEO, 1, 0, 0, 0]);
    bytes.put_bytes(b'v', 128);
    bytes.put_slice(&[
        2,
        0,
        0,
        0,
        0,
        0,
        4,
        kind::SET_CHUNK_SIZE,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0xff,
    ]);
    bytes.put_u8(0xc6);
    bytes.put_bytes(b'v', 172);
    assert_eq!(read_all(&[&bytes]).unwrap()[0].payload.len(), 300);
}

#[test]
fn abort_drops_what_was_begun() {
    let mut bytes = BytesMut::new();
    bytes.put_slice(&[6, 0, 0, 0, 0, 1, 44, kind::VIDEO, 1, 0, 0, 0]);
    bytes.put_bytes(b'x', 128);
    bytes.put_slice(&[2, 0, 0, 0, 0, 0, 4, kind::ABORT, 0, 0, 0, 0, 0, 0, 0, 6]);
    bytes.put_slice(&[6, 0, 0, 0, 0, 0, 2, kind::VIDEO, 1, 0, 0, 0, b'o', b'k']);
    let got = read_all(&[&bytes]).unwrap();
    assert_eq!(got.len(), 1);
    assert_eq!(&got[0].payload[..], b"ok");
}

#[test]
fn chunks_that_lie_are_refused_by_name() {
    let set_size = |size: u32| {
        let mut b = vec![2, 0, 0, 0, 0, 0, 4, kind::SET_CHUNK_SIZE, 0, 0, 0, 0];
        b.extend(size.to_be_bytes());
        b
    };
    // A message of 256 bytes each of which 128 come, and whole messages of none.
    let begun = |n: u16| {
        let mut b = vec![1];
        b.extend(n.to_le_bytes());
        b.extend([0, 0, 0, 0, 1, 0, kind::AUDIO, 1, 0, 0, 0]);
        b.extend([0; 128]);
        b
    };
    let whole = |n: u16| {
        let mut b = vec![1];
        b.extend(n.to_le_bytes());
        b.extend([0, 0, 0, 0, 0, 0, kind::AUDIO, 1, 0, 0, 0]);
        b
    };
    let unfinished: Vec<u8> = (0..65).flat_map(begun).collect();
    let many: Vec<u8> = (0..1_025).flat_map(whole).collect();
    assert!(
        read_all(&[&unfinished[..64 * (3 + 11 + 128)]])
            .unwrap()
            .is_empty()
    );
    assert_eq!(read_all(&[&many[..1_024 * (3 + 11)]]).unwrap().len(), 1_024);
    let cases = [
        (set_size(0), ChunkError::ChunkSize),
        (set_size(127), ChunkError::ChunkSize),
        (set_size(1 << 31), ChunkError::ChunkSize),
        (vec![0xc5], ChunkError::ChunkOrder),
        (vec![0x45, 0, 0, 0, 0, 0, 1, 8], ChunkError::ChunkOrder),
        (
            vec![5, 0, 0, 0, 0xff, 0xff, 0xff, kind::VIDEO, 1, 0, 0, 0],
            ChunkError::MessageTooLarge,
        ),
        (unfinished, ChunkError::MessageTooLarge),
        (many, ChunkError::ChunkOrder),
    ];
    for (bytes, expected) in cases {
        assert_eq!(read_all(&[&bytes]), Err(expected));
    }
}

/// Sound at 23 ms, then type 3 chunks: what ffmpeg and GStreamer write for sound of one size. A
/// time that is no step means itself again, as librtmp has it.
#[test]
fn a_type_3_chunk_after_a_type_0_one_takes_its_time_as_the_step_while_that_can_be_one() {
    let cases = [
        (0, [0, 0, 0]),
        (23, [23, 46, 69]),
        (3_000, [3_000, 6_000, 9_000]),
        (3_001, [3_001, 3_001, 3_001]),
        (0x00f0_0000, [0x00f0_0000; 3]),
    ];
    for (time, expected) in cases {
        let mut bytes = BytesMut::new();
        bytes.put_u8(4);
        bytes.put_uint(time, 3);
        bytes.put_slice(&[0, 0, 1, kind::AUDIO, 1, 0, 0, 0, 9, 0xc4, 9, 0xc4, 9]);
        let list = read_all(&[&bytes]).unwrap();
        let times: Vec<u32> = list.iter().map(|m| m.timestamp).collect();
        assert_eq!(times, expected);
    }
}

/// A client that speaks bytes.
struct Client {
    session: Session,
    writer: ChunkWriter,
    reader: ChunkReader,
    now: Instant,
}

/// Shakes hands with a fresh session.
pub(super) fn shake(session: &mut Session, now: Instant) {
    let mut c0_c1 = vec![3; 1];
    c0_c1.extend([0; 1_536]);
    session.receive(now, &c0_c1);
    let answer = session.take_output();
    assert_eq!(answer.len(), 1 + 1_536 + 1_536);
    session.receive(now, &answer[1..1 + 1_536]);
}

impl Client {
    fn shaken() -> Self {
        let now = Instant::now();
        let mut session = Session::new(now);
        shake(&mut session, now);
        let limits = MessageLimits::PUBLISHING;
        Self {
            session,
            writer: ChunkWriter::default(),
            reader: ChunkReader::new(limits),
            now,
        }
    }

    fn send(&mut self, type_id: u8, stream_id: u32, payload: Bytes) {
        let mut bytes = BytesMut::new();
        let message = Message {
            type_id,
            stream_id,
            timestamp: 0,
            payload,
        };
        self.writer.write(&mut bytes, 3, &message);
        self.session.receive(self.now, &bytes);
    }

    fn command(&mut self, stream_id: u32, values: &[Value]) {
        self.send(kind::COMMAND, stream_id, amf::write(values));
    }

    /// The messages the server has sent: type, and values of commands.
    fn answers(&mut self) -> Vec<(u8, u32, Vec<Value>)> {
        let output = self.session.take_output();
        self.reader.push(&output);
        let mut out = Vec::new();
        while let Some(m) = self.reader.next_message().unwrap() {
            let values = match m.type_id {
                kind::COMMAND => amf::read(m.payload).unwrap(),
                _ => Vec::new(),
            };
            out.push((m.type_id, m.stream_id, values));
        }
        out
    }

    fn connect(&mut self, extra: Vec<(String, Value)>) {
        let mut object = vec![
            ("app".to_owned(), Value::text("live")),
            ("type".to_owned(), Value::text("nonprivate")),
            ("tcUrl".to_owned(), Value::text("rtmp://127.0.0.1/live")),
        ];
        object.extend(extra);
        let connect = Value::text("connect");
        self.command(0, &[connect, Value::Number(1.0), Value::Object(object)]);
    }

    /// As OBS does it.
    fn publish(&mut self, key: &str) {
        for (n, name) in [(2.0, "releaseStream"), (3.0, "FCPublish")] {
            let values = [
                Value::text(name),
                Value::Number(n),
                Value::Null,
                Value::text(key),
            ];
            self.command(0, &values);
        }
        self.command(
            0,
            &[Value::text("createStream"), Value::Number(4.0), Value::Null],
        );
        let values = [
            Value::text("publish"),
            Value::Number(5.0),
            Value::Null,
            Value::text(key),
            Value::text("live"),
        ];
        self.command(1, &values);
    }

    /// Publishing was asked for and granted; all answers were read.
    fn accepted() -> Self {
        let mut client = Self::shaken();
        client.connect(Vec::new());
        client.publish("live_key");
        assert!(client.asked().is_some());
        client.session.accept(client.now);
        client.answers();
        client
    }

    fn closed(&mut self) -> Option<CloseReason> {
        while let Some(event) = self.session.poll() {
            if let SessionEvent::Closed(reason) = event {
                return Some(reason);
            }
        }
        None
    }

    fn asked(&mut self) -> Option<(String, String)> {
        match self.session.poll() {
            Some(SessionEvent::PublishRequested {
                app, stream_name, ..
            }) => Some((app, stream_name)),
            _ => None,
        }
    }
}

fn codes(answers: &[(u8, u32, Vec<Value>)]) -> Vec<String> {
    answers
        .iter()
        .filter_map(|(_, _, values)| {
            let name = values.first()?.as_text()?;
            let code = values
                .iter()
                .find_map(|v| v.property("code"))
                .and_then(Value::as_text);
            Some(code.map_or_else(|| name.to_owned(), |c| format!("{name} {c}")))
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn obs_publishes() {
    let mut client = Client::shaken();
    // OBS sets its chunk size before it connects.
    client.send(
        kind::SET_CHUNK_SIZE,
        0,
        Bytes::from_static(&[0, 0, 0x10, 0]),
    );
    client.connect(Vec::new());
    let answers = client.answers();
    let types: Vec<u8> = answers.iter().map(|a| a.0).collect();
    assert_eq!(
        types,
        [
            kind::WINDOW_ACK_SIZE,
            kind::SET_PEER_BANDWIDTH,
            kind::COMMAND
        ]
    );
    assert_eq!(codes(&answers), ["_result NetConnection.Connect.Success"]);
    client.publish("live_key?token=1");
    let answers = client.answers();
    assert_eq!(
        codes(&answers),
        [
            "_result",
            "_result",
            "onFCPublish NetStream.Publish.Start",
            "_result"
        ]
    );
    assert_eq!(
        answers[3].2[3],
        Value::Number(1.0),
        "the stream's id is the fourth value"
    );
    assert_eq!(client.asked(), Some(("live".into(), "live_key".into())));
    client.session.accept(client.now);
    let answers = client.answers();
    assert_eq!(answers[0].0, kind::USER_CONTROL);
    assert_eq!(codes(&answers), ["onStatus NetStream.Publish.Start"]);
    client.send(kind::AUDIO, 1, Bytes::from_static(&[0xaf, 0, 0x12, 0x10]));
    assert!(matches!(client.session.poll(), Some(SessionEvent::Media(m)) if m.type_id == 8));
    let gone = [
        Value::text("deleteStream"),
        Value::Number(6.0),
        Value::Null,
        Value::Number(1.0),
    ];
    client.command(0, &gone);
    assert!(matches!(
        client.session.poll(),
        Some(SessionEvent::Finished)
    ));
}

#[tokio::test(start_paused = true)]
async fn enhanced_fields_are_answered_only_when_they_were_sent() {
    for is_enhanced in [false, true] {
        let mut client = Client::shaken();
        let list = Value::List(vec![Value::text("hvc1")]);
        let extra = if is_enhanced {
            vec![("fourCcList".to_owned(), list)]
        } else {
            Vec::new()
        };
        client.connect(extra);
        let answers = client.answers();
        let properties = &answers.last().unwrap().2[2];
        assert_eq!(properties.property("fourCcList").is_some(), is_enhanced);
        assert_eq!(properties.property("capsEx").is_some(), is_enhanced);
    }
}

#[tokio::test(start_paused = true)]
async fn gstreamer_publishes_with_transaction_zero_and_deletes_by_name() {
    let mut client = Client::shaken();
    client.connect(Vec::new());
    client.answers();
    client.command(
        0,
        &[Value::text("createStream"), Value::Number(2.0), Value::Null],
    );
    let key = Value::text("live_key");
    let values = [
        Value::text("publish"),
        Value::Number(0.0),
        Value::Null,
        key.clone(),
    ];
    client.command(1, &values);
    assert!(client.asked().is_some());
    client.session.accept(client.now);
    client.command(
        0,
        &[
            Value::text("deleteStream"),
            Value::Number(0.0),
            Value::Null,
            key,
        ],
    );
    assert!(matches!(
        client.session.poll(),
        Some(SessionEvent::Finished)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_gets_a_sentence_as_the_last_message_before_the_close() {
    let mut client = Client::shaken();
    client.connect(Vec::new());
    client.publish("live_wrong");
    client.answers();
    assert!(client.asked().is_some());
    let sentence = "This stream key is not known.".to_owned();
    client.session.refuse(&Refusal {
        code: RefusalCode::UnknownKey,
        sentence: sentence.clone(),
    });
    let answers = client.answers();
    let (_, stream_id, values) = answers.last().unwrap();
    let info = &values[3];
    assert_eq!(*stream_id, 1);
    assert_eq!(info.property("level"), Some(&Value::text("error")));
    assert_eq!(
        info.property("code"),
        Some(&Value::text("NetStream.Publish.BadName"))
    );
    assert_eq!(info.property("description"), Some(&Value::Text(sentence)));
    assert_eq!(
        client.closed(),
        Some(CloseReason::Refused(RefusalCode::UnknownKey))
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_in_the_url_counts_and_an_empty_one_is_told_where_to_put_it() {
    let mut client = Client::shaken();
    client.connect(vec![]);
    client.command(
        0,
        &[Value::text("createStream"), Value::Number(2.0), Value::Null],
    );
    let publish = [
        Value::text("publish"),
        Value::Number(3.0),
        Value::Null,
        Value::text(""),
    ];
    client.command(1, &publish);
    let answers = client.answers();
    let info = &answers.last().unwrap().2[3];
    let text = info
        .property("description")
        .and_then(Value::as_text)
        .unwrap();
    assert!(text.contains("Stream Key"), "{text}");

    let mut client = Client::shaken();
    let object = vec![("app".to_owned(), Value::text("live/live_key?x=1"))];
    let connect = [
        Value::text("connect"),
        Value::Number(1.0),
        Value::Object(object),
    ];
    client.command(0, &connect);
    client.command(
        0,
        &[Value::text("createStream"), Value::Number(2.0), Value::Null],
    );
    client.command(1, &publish);
    assert_eq!(client.asked(), Some(("live".into(), "live_key".into())));
}

#[tokio::test(start_paused = true)]
async fn bad_input_closes_with_its_reason() {
    let nested: Vec<u8> = [10, 0, 0, 0, 1].repeat(10_000);
    let short = amf::write(&[Value::text("connect")]);
    let nan = amf::write(&[Value::text("connect"), Value::Number(f64::NAN), Value::Null]);
    let cases = [
        (kind::COMMAND, Bytes::from(nested), CloseReason::Amf),
        (kind::COMMAND, nan, CloseReason::Amf),
        (kind::COMMAND, short, CloseReason::Dialogue),
        (
            kind::SET_CHUNK_SIZE,
            Bytes::from_static(&[0, 0, 0, 0]),
            chunk_error(ChunkError::ChunkSize),
        ),
    ];
    for (type_id, payload, expected) in cases {
        let mut client = Client::shaken();
        client.send(type_id, 0, payload);
        assert_eq!(client.closed(), Some(expected));
    }
    for stray in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 2, 0]] {
        let mut session = Session::new(Instant::now());
        session.receive(Instant::now(), stray);
        assert!(matches!(
            session.poll(),
            Some(SessionEvent::Closed(CloseReason::Handshake))
        ));
    }
}

const fn chunk_error(error: ChunkError) -> CloseReason {
    CloseReason::Chunk(error)
}

#[tokio::test(start_paused = true)]
async fn publish_out_of_order_is_refused() {
    let mut client = Client::shaken();
    client.publish("live_key");
    assert!(client.closed().is_some(), "before connect");

    let mut client = Client::shaken();
    client.connect(Vec::new());
    client.publish("live_key");
    assert!(client.asked().is_some());
    client.session.accept(client.now);
    client.publish("live_key");
    assert_eq!(client.closed(), Some(CloseReason::Dialogue), "twice");
}

#[tokio::test(start_paused = true)]
async fn media_before_publishing_is_ignored_within_a_bound() {
    let mut client = Client::shaken();
    client.connect(Vec::new());
    for _ in 0..65 {
        client.send(kind::VIDEO, 1, Bytes::from(vec![0; 60_000]));
    }
    assert_eq!(client.closed(), None);
    for _ in 0..10 {
        client.send(kind::VIDEO, 1, Bytes::from(vec![0; 60_000]));
    }
    assert_eq!(client.closed(), Some(CloseReason::Dialogue));
}

#[tokio::test(start_paused = true)]
async fn each_stage_has_its_own_time_limit() {
    let mut session = Session::new(Instant::now());
    session.receive(Instant::now(), &[3, 0, 0]);
    let at = session.deadline().unwrap();
    session.tick(at);
    assert!(matches!(
        session.poll(),
        Some(SessionEvent::Closed(CloseReason::TimeoutHandshake))
    ));

    let mut client = Client::shaken();
    client.session.tick(client.session.deadline().unwrap());
    assert_eq!(client.closed(), Some(CloseReason::TimeoutConnect));

    let mut client = Client::shaken();
    client.connect(Vec::new());
    client.session.tick(client.session.deadline().unwrap());
    assert_eq!(client.closed(), Some(CloseReason::TimeoutPublish));

    let mut client = Client::shaken();
    client.connect(Vec::new());
    client.publish("live_key");
    client.session.poll();
    client.session.accept(client.now);
    client.session.tick(client.session.deadline().unwrap());
    assert_eq!(client.closed(), Some(CloseReason::TimeoutMedia));
}

/// An aggregate of sound tags without a body, each a millisecond after the other.
fn empty_tags(count: u32) -> Bytes {
    let mut out = BytesMut::new();
    for n in 0..count {
        out.put_u8(kind::AUDIO);
        out.put_uint(0, 3);
        out.put_uint(u64::from(n), 3);
        out.put_slice(&[0, 0, 0, 0]);
        out.put_u32(11);
    }
    out.freeze()
}

#[tokio::test(start_paused = true)]
async fn the_tags_of_an_aggregate_are_messages_and_their_number_is_bounded() {
    let mut client = Client::accepted();
    client.send(kind::AGGREGATE, 1, empty_tags(1_024));
    for n in 0..1_024 {
        let event = client.session.poll();
        assert!(
            matches!(&event, Some(SessionEvent::Media(m)) if m.timestamp == n),
            "{event:?}"
        );
    }
    assert!(client.session.poll().is_none());
    client.send(kind::AGGREGATE, 1, empty_tags(1_025));
    assert_eq!(
        client.closed(),
        Some(chunk_error(ChunkError::MessageTooLarge))
    );
}

/// A fault in the first of many messages: one sentence, one end, and none of what came behind it.
#[tokio::test(start_paused = true)]
async fn nothing_is_said_or_handed_on_after_a_refusal() {
    let mut client = Client::accepted();
    client.send(kind::AGGREGATE, 1, empty_tags(500));
    assert!(matches!(
        client.session.poll(),
        Some(SessionEvent::Media(_))
    ));
    let refusal = Refusal {
        code: RefusalCode::Unsupported,
        sentence: "No.".into(),
    };
    for _ in 0..3 {
        client.session.refuse(&refusal);
    }
    let expected = ["onStatus NetStream.Publish.Rejected"];
    assert_eq!(codes(&client.answers()), expected);
    assert!(matches!(
        client.session.poll(),
        Some(SessionEvent::Closed(CloseReason::Refused(_)))
    ));
    client.send(kind::AUDIO, 1, Bytes::from_static(&[0xaf, 0, 0x12, 0x10]));
    assert!(client.session.poll().is_none());
}

#[tokio::test(start_paused = true)]
async fn media_that_comes_behind_the_question_waits_for_the_decision() {
    let mut client = Client::shaken();
    client.connect(Vec::new());
    client.publish("live_key");
    client.send(kind::VIDEO, 1, Bytes::from(vec![0x17; 200_000]));
    assert!(client.asked().is_some());
    assert!(client.session.poll().is_none());
    client.session.accept(client.now);
    let event = client.session.poll();
    assert!(matches!(event, Some(SessionEvent::Media(m)) if m.payload.len() == 200_000));
}

#[tokio::test(start_paused = true)]
async fn metadata_in_another_code_page_is_no_reason_to_end_a_show() {
    let title = |text: &[u8]| {
        let length = u16::try_from(text.len()).unwrap().to_be_bytes();
        let head = [&[2, 0, 10][..], b"onMetaData", &[3, 0, 5], b"title", &[2]].concat();
        [&head[..], &length, text, &[0, 0, 9]].concat()
    };
    let mut client = Client::accepted();
    client.send(kind::DATA, 1, title(&[b'c', b'a', b'f', 0xe9]).into());
    assert_eq!(client.closed(), None);
    client.send(kind::DATA, 1, title(&[b'a'; 9_000]).into());
    assert_eq!(
        client.closed(),
        Some(CloseReason::Amf),
        "a text over its bound"
    );
}

#[tokio::test(start_paused = true)]
async fn creating_streams_does_not_put_off_the_time_to_publish() {
    let mut client = Client::shaken();
    client.connect(Vec::new());
    let until = client.session.deadline();
    client.now += std::time::Duration::from_secs(9);
    let create = [Value::text("createStream"), Value::Number(4.0), Value::Null];
    client.command(0, &create);
    assert_eq!(codes(&client.answers()).last().unwrap(), "_result");
    assert_eq!(client.session.deadline(), until);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_none_is_refused_with_what_is_wrong_with_it() {
    let long = "k".repeat(513);
    let cases: [(&[u8], &str); 4] = [
        (b"", "There is no stream key."),
        (long.as_bytes(), "longer than any key"),
        (b"live\0key", "characters that no key has"),
        (b"live\xffkey", "characters that no key has"),
    ];
    for (key, says) in cases {
        let mut client = Client::shaken();
        client.connect(Vec::new());
        let create = [Value::text("createStream"), Value::Number(4.0), Value::Null];
        client.command(0, &create);
        client.answers();
        let head = [Value::text("publish"), Value::Number(5.0), Value::Null];
        let length = u16::try_from(key.len()).unwrap().to_be_bytes();
        let payload = [&amf::write(&head)[..], &[2], &length, key].concat();
        client.send(kind::COMMAND, 1, payload.into());
        let answers = client.answers();
        let (_, stream_id, values) = answers.last().unwrap();
        let text = values[3].property("description").and_then(Value::as_text);
        assert!(text.unwrap().contains(says), "{text:?}");
        let code = values[3].property("code").and_then(Value::as_text);
        assert_eq!((*stream_id, code), (1, Some("NetStream.Publish.BadName")));
        assert_eq!(client.closed(), Some(CloseReason::Dialogue), "{says}");
    }
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_and_a_small_window_is_acknowledged_by_halves() {
    let mut client = Client::accepted();
    let ping = Bytes::from_static(&[0, 6, 0, 0, 0x12, 0x34]);
    client.send(kind::USER_CONTROL, 0, ping);
    let output = client.session.take_output();
    assert_eq!(output[12..], [0, 7, 0, 0, 0x12, 0x34]);

    client.send(kind::WINDOW_ACK_SIZE, 0, Bytes::from_static(&[0, 0, 0, 0]));
    client.send(
        kind::WINDOW_ACK_SIZE,
        0,
        Bytes::from_static(&[0, 0, 0x20, 0]),
    );
    client.answers();
    let mut acknowledged = 0;
    for _ in 0..100 {
        // Sound of 100 bytes with a header of 12.
        client.send(kind::AUDIO, 1, Bytes::from(vec![0xaf; 100]));
        assert!(matches!(
            client.session.poll(),
            Some(SessionEvent::Media(_))
        ));
        acknowledged += client.answers().len();
    }
    assert_eq!(acknowledged, 11_200 / 4_096);
}

#[tokio::test(start_paused = true)]
async fn who_connects_and_goes_has_not_shaken_hands() {
    let mut session = Session::new(Instant::now());
    session.hang_up();
    assert!(matches!(
        session.poll(),
        Some(SessionEvent::Closed(CloseReason::Handshake))
    ));
    let mut client = Client::shaken();
    client.session.hang_up();
    assert!(client.closed().is_none());
}

/// A publisher after the handshake: the dialogue, for whose answer it waits, and the show.
pub(super) fn publisher(frames: &[(u32, Vec<u8>)]) -> [BytesMut; 2] {
    let mut writer = ChunkWriter::default();
    let mut put = |out: &mut BytesMut, id, type_id, stream_id, timestamp, payload: Bytes| {
        let message = Message {
            type_id,
            stream_id,
            timestamp,
            payload,
        };
        writer.write(out, id, &message);
    };
    let (mut dialogue, mut show) = (BytesMut::new(), BytesMut::new());
    let object = Value::Object(vec![("app".to_owned(), Value::text("live"))]);
    let [connect, create, publish] = ["connect", "createStream", "publish"].map(Value::text);
    let commands = [
        (0, vec![connect, Value::Number(1.0), object]),
        (0, vec![create, Value::Number(2.0), Value::Null]),
        (
            1,
            vec![publish, Value::Number(3.0), Value::Null, Value::text("key")],
        ),
    ];
    for (stream_id, values) in commands {
        put(
            &mut dialogue,
            3,
            kind::COMMAND,
            stream_id,
            0,
            amf::write(&values),
        );
    }
    let record = [
        1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 10, 0x67, 0x42, 0xc0, 0x1e, 0xda, 2, 0x80, 0xbf, 0xe5,
        0x40, 1, 0, 4, 0x68, 0xce, 0x3c, 0x80,
    ];
    let header = [&[0x17, 0, 0, 0, 0][..], &record].concat();
    put(&mut show, 6, kind::VIDEO, 1, 0, header.into());
    let header = Bytes::from_static(&[0xaf, 0, 0x12, 0x10]);
    put(&mut show, 4, kind::AUDIO, 1, 0, header);
    for (n, (time, bytes)) in frames.iter().enumerate() {
        let length = u32::try_from(bytes.len() + 1).unwrap().to_be_bytes();
        let nal: u8 = if n == 0 { 0x65 } else { 0x41 };
        let picture = [&[0x17, 1, 0, 0, 0][..], &length, &[nal], bytes].concat();
        put(&mut show, 6, kind::VIDEO, 1, *time, picture.into());
        let sound = [&[0xaf, 1][..], bytes].concat();
        put(&mut show, 4, kind::AUDIO, 1, *time, sound.into());
    }
    [dialogue, show]
}

/// The samples of a publisher whose dialogue and show come cut at these places.
fn samples_of(bytes: &[BytesMut; 2], cuts: &[prop::sample::Index]) -> Vec<String> {
    let mut client = Client::shaken();
    let mut demuxer = Demuxer::new();
    let mut samples = Vec::new();
    for part in bytes {
        let mut at: Vec<usize> = cuts.iter().map(|c| c.index(part.len())).collect();
        at.extend([0, part.len()]);
        at.sort_unstable();
        for w in at.windows(2) {
            client.session.receive(client.now, &part[w[0]..w[1]]);
            while let Some(event) = client.session.poll() {
                match event {
                    SessionEvent::PublishRequested { .. } => client.session.accept(client.now),
                    SessionEvent::Media(m) => {
                        let kind = match m.type_id {
                            kind::VIDEO => Kind::Video,
                            _ => Kind::Audio,
                        };
                        let units = demuxer.push(client.now, kind, m.timestamp, m.payload);
                        samples.extend(units.unwrap().sample.map(|s| format!("{s:?}")));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    samples
}

proptest! {
    #[test]
    fn any_split_of_a_publishers_bytes_gives_the_same_samples(
        frames in proptest::collection::vec(
            (any::<u32>(), proptest::collection::vec(any::<u8>(), 1..400)), 1..5),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 1..30),
    ) {
        let bytes = publisher(&frames);
        let whole = samples_of(&bytes, &[]);
        prop_assert_eq!(whole.len(), 2 * frames.len());
        prop_assert_eq!(samples_of(&bytes, &cuts), whole);
    }
}
