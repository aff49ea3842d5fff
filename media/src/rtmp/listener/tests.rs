//! Connections on loopback: what the driver does beyond the dialogue.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use time::OffsetDateTime;

use tokio::sync::mpsc;

use super::*;
use crate::broadcast::{BroadcastKey, Limits};
use crate::request::{DECISIONS_WAITING_MAX, PlayRequest};
use crate::rtmp::amf::{self, Value};
use crate::rtmp::chunk::{ChunkReader, ChunkWriter, MessageLimits};
use crate::rtmp::gate::Turned;
use crate::rtmp::tests::{publisher, shake};

const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
/// The body of an MP3 tag.
const MP3: &[u8] = &[0x2f, 1, 2];

struct Port {
    listener: Listener,
    hub: Arc<Broadcasts>,
    requests: mpsc::Receiver<PublishRequest>,
    _plays: mpsc::Receiver<PlayRequest>,
}

async fn port() -> Port {
    let hub = Broadcasts::new(Limits::default());
    let (publish, requests) = mpsc::channel(DECISIONS_WAITING_MAX);
    let (play, plays) = mpsc::channel(DECISIONS_WAITING_MAX);
    let ask = Requests { publish, play };
    let config = ListenerConfig {
        bitrate_bps_max: 20_000_000,
    };
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind(addr, config, Arc::clone(&hub), ask);
    Port {
        listener: listener.await.unwrap(),
        hub,
        requests,
        _plays: plays,
    }
}

impl Port {
    /// A connection that has shaken hands, and the other end of its socket.
    async fn connection(&self) -> (Connection, TcpStream) {
        let addr = self.listener.local_addr().unwrap();
        let peer = TcpStream::connect(addr).await.unwrap();
        let mut connection = self.listener.accept().await;
        shake(&mut connection.session, Instant::now());
        connection.session.take_output();
        (connection, peer)
    }

    fn publisher(&self) -> Publisher {
        let key = BroadcastKey::new("room_1");
        let opened = self
            .hub
            .open(key, Instant::now(), OffsetDateTime::UNIX_EPOCH);
        opened.unwrap()
    }

    /// A connection that publishes.
    async fn live(&self) -> (Connection, TcpStream) {
        let (mut connection, peer) = self.connection().await;
        let [dialogue, _show] = publisher(&[]);
        hear(&mut connection, &dialogue);
        connection.decide(Decision::Accept(self.publisher()));
        connection.act();
        (connection, peer)
    }
}

fn hear(connection: &mut Connection, bytes: &[u8]) {
    connection.receive(&mut BytesMut::from(bytes));
    connection.act();
}

fn message(type_id: u8, stream_id: u32, payload: Bytes) -> Message {
    Message {
        type_id,
        stream_id,
        timestamp: 0,
        payload,
    }
}

fn chunks(list: &[Message]) -> BytesMut {
    let mut writer = ChunkWriter::default();
    let mut bytes = BytesMut::new();
    for message in list {
        writer.write(&mut bytes, 3, message);
    }
    bytes
}

/// The codes of the `onStatus` messages in what was said.
fn statuses(output: &[u8]) -> Vec<String> {
    let mut reader = ChunkReader::new(MessageLimits::PUBLISHING);
    reader.push(output);
    let list = std::iter::from_fn(|| reader.next_message().unwrap());
    let commands = list.filter(|m| m.type_id == kind::COMMAND);
    let values = commands.map(|m| amf::read(m.payload).unwrap());
    let infos = values.filter(|v| v[0].as_text() == Some("onStatus"));
    infos
        .map(|v| {
            v[3].property("code")
                .and_then(Value::as_text)
                .unwrap()
                .to_owned()
        })
        .collect()
}

#[tokio::test]
async fn a_fatal_fault_is_told_and_counted_once_whatever_follows_it() {
    let port = port().await;
    let (mut connection, _peer) = port.live().await;
    let sound = message(kind::AUDIO, 1, Bytes::from_static(MP3));
    hear(&mut connection, &chunks(&vec![sound; 200]));
    let output = connection.session.take_output();
    let said = ["NetStream.Publish.Start", "NetStream.Publish.Rejected"];
    assert_eq!(statuses(&output), said);
    assert_eq!(port.hub.stats().rejections(), [("rtmp", "codec", 1)]);
    assert!(matches!(connection.state, State::Done));
    assert!(
        port.hub.list().is_empty(),
        "the broadcast ended with the fault"
    );
}

/// The publisher goes on sending while it is refused: unread input would reset the connection.
#[tokio::test]
async fn a_refusal_reaches_a_publisher_that_is_still_sending() {
    let Port {
        listener,
        mut requests,
        ..
    } = port().await;
    let addr = listener.local_addr().unwrap();
    let serve = async {
        let run = listener.accept().await.run(CancellationToken::new());
        tokio::pin!(run);
        loop {
            tokio::select! {
                () = &mut run => return,
                Some(request) = requests.recv() => {
                    let refusal = try_again();
                    request.reply.send(Decision::Reject(refusal)).unwrap();
                }
            }
        }
    };
    let publish = async {
        let mut peer = TcpStream::connect(addr).await.unwrap();
        peer.write_all(&[&[3][..], &[0; 1_536]].concat())
            .await
            .unwrap();
        let mut answer = vec![0; 1 + 1_536 + 1_536];
        peer.read_exact(&mut answer).await.unwrap();
        let [dialogue, _show] = publisher(&[]);
        let media = message(kind::VIDEO, 1, Bytes::from(vec![0x17; 60_000]));
        let media = chunks(&vec![media; 30]);
        let all = [&answer[1..1 + 1_536], &dialogue, &media].concat();
        let (mut read, mut write) = peer.split();
        let mut output = Vec::new();
        let (read, written) = tokio::join!(read.read_to_end(&mut output), write.write_all(&all));
        (read.map(drop), written, statuses(&output))
    };
    let ((), (read, written, codes)) = tokio::join!(serve, publish);
    assert!(read.is_ok() && written.is_ok(), "{read:?} {written:?}");
    assert_eq!(codes, ["NetStream.Publish.Rejected"]);
}

/// A close between the last commands of GStreamer would be an error to it.
#[tokio::test(start_paused = true)]
async fn a_publisher_that_stops_is_given_the_time_to_hang_up_first() {
    let port = port().await;
    let (connection, mut peer) = port.live().await;
    let began = Instant::now();
    let stop = async {
        let command = [
            Value::text("FCUnpublish"),
            Value::Number(3.0),
            Value::Null,
            Value::text("live_key"),
        ];
        let bytes = amf::write(&command);
        let stops = chunks(&[message(kind::COMMAND, 0, bytes)]);
        peer.write_all(&stops).await.unwrap();
        let mut output = Vec::new();
        peer.read_to_end(&mut output).await.unwrap();
        began.elapsed()
    };
    let ((), closed_after) = tokio::join!(connection.run(CancellationToken::new()), stop);
    assert!(closed_after >= LINGER, "{closed_after:?}");
}

/// What a stranger did on ten connections, until nobody of that address may come any more.
async fn refused_ten_times(port: &Port, work: impl Fn(&mut Connection)) -> Option<Turned> {
    let gate = Gate::default();
    for _ in 0..10 {
        let (mut connection, _peer) = port.connection().await;
        connection.pass = gate.enter(Instant::now(), STRANGER).unwrap();
        work(&mut connection);
    }
    gate.enter(Instant::now(), STRANGER).err()
}

fn publish_key(key: &str) -> BytesMut {
    let app = vec![("app".to_owned(), Value::text("live"))];
    let number = Value::Number;
    let commands = [
        vec![Value::text("connect"), number(1.0), Value::Object(app)],
        vec![Value::text("createStream"), number(2.0), Value::Null],
        vec![
            Value::text("publish"),
            number(3.0),
            Value::Null,
            Value::text(key),
        ],
    ];
    let list = commands.map(|values| {
        let stream_id = u32::from(values.len() == 4);
        message(kind::COMMAND, stream_id, amf::write(&values))
    });
    chunks(&list)
}

#[tokio::test]
async fn every_way_to_be_refused_counts_towards_the_ban() {
    let port = port().await;
    let banned = Some(Turned::RefusedTooOften);
    for key in ["", &"k".repeat(600), "a\0b"] {
        let work = |connection: &mut Connection| hear(connection, &publish_key(key));
        assert_eq!(refused_ten_times(&port, work).await, banned, "{key:.5}");
    }
    let too_early = chunks(&[message(
        kind::COMMAND,
        1,
        amf::write(&[Value::text("publish"), Value::Number(1.0), Value::Null]),
    )]);
    let work = |connection: &mut Connection| hear(connection, &too_early);
    assert_eq!(refused_ten_times(&port, work).await, banned, "out of order");

    let work = |connection: &mut Connection| {
        hear(connection, &publish_key("live_key"));
        connection.decide(Decision::Accept(port.publisher()));
        let mp3 = message(kind::AUDIO, 1, Bytes::from_static(MP3));
        hear(connection, &chunks(&[mp3.clone(), mp3]));
    };
    assert_eq!(
        refused_ten_times(&port, work).await,
        banned,
        "after the start"
    );

    let (full, _waiting) = mpsc::channel(1);
    let taken = full.clone().reserve_owned().await.unwrap();
    let work = |connection: &mut Connection| {
        connection.requests.publish = full.clone();
        hear(connection, &publish_key("live_key"));
    };
    assert_eq!(refused_ten_times(&port, work).await, banned, "full queue");
    drop(taken);
}

#[tokio::test]
async fn a_connection_that_said_nothing_is_counted_as_no_handshake_and_unknown_words_are_counted() {
    let port = port().await;
    let addr = port.listener.local_addr().unwrap();
    drop(TcpStream::connect(addr).await.unwrap());
    port.listener
        .accept()
        .await
        .run(CancellationToken::new())
        .await;
    assert_eq!(port.hub.stats().rejections(), [("rtmp", "handshake", 1)]);

    let (mut connection, peer) = port.live().await;
    let word = |name| amf::write(&[Value::text(name), Value::Number(9.0), Value::Null]);
    let list = ["setPeerInfo", "x"].map(|name| message(kind::COMMAND, 1, word(name)));
    hear(&mut connection, &chunks(&list));
    drop(peer);
    connection.run(CancellationToken::new()).await;
    assert_eq!(port.hub.stats().total("unknown_commands_total"), 2);
}

#[tokio::test]
async fn what_an_address_may_do_counts_on_two_ports_together() {
    let port = port().await;
    let beside = port.listener.beside(SocketAddr::from(([127, 0, 0, 1], 0)));
    let beside = beside.await.unwrap();
    let now = Instant::now();
    let waiting: Vec<_> = (0..50)
        .map(|_| port.listener.gate.enter(now, STRANGER).unwrap())
        .collect();
    let turned = beside.gate.enter(now, STRANGER).err();
    assert_eq!(turned, Some(Turned::TooFast));
    drop(waiting);
}

#[tokio::test]
async fn a_stream_that_is_not_made_in_the_time_of_the_handshake_is_given_up() {
    let port = port().await;
    let addr = port.listener.local_addr().unwrap();
    let _peer = TcpStream::connect(addr).await.unwrap();
    let connection = port.listener.accept().await;
    tokio::time::pause();
    let begun = Instant::now();
    let never = |_socket| std::future::pending::<io::Result<TcpStream>>();
    assert!(connection.over(never).await.is_none());
    assert_eq!(begun.elapsed().as_secs(), 5);
    let expected = [("rtmp", "timeout_handshake", 1)];
    assert_eq!(port.hub.stats().rejections(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_listener_out_of_descriptors_says_so_once_a_minute() {
    let port = port().await;
    let start = Instant::now();
    let says = (0..1_800_u32).filter(|n| {
        let now = start + ACCEPT_PAUSE * *n;
        let err = io::Error::from_raw_os_error(24);
        port.listener.warn_of_accept(now, &err)
    });
    assert_eq!(says.count(), 3);
}
