//! The dialogue with byte-level clients.

mod chunks;
mod hostile;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use tokio::time::Instant;

use super::amf::{self, Value};
use super::chunk::{ChunkError, ChunkReader, ChunkWriter, Message, MessageLimits, kind};
use super::session::{CloseReason, Session, SessionEvent};
use crate::flv::Demuxer;
use crate::frame::Kind;
use crate::request::{Refusal, RefusalCode};

/// A client that speaks bytes.
struct Client {
    session: Session,
    writer: ChunkWriter,
    reader: ChunkReader,
    now: Instant,
}

/// Shakes hands with a fresh session.
pub(crate) fn shake(session: &mut Session, now: Instant) {
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
                    SessionEvent::Encoder(_) => {}
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
