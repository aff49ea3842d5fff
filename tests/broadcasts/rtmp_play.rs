//! RTMP play: who may watch, what the others are told, and the session over the API (media.md 7).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lamplight_media::rtmp::amf::{self, Value};
use lamplight_media::rtmp::chunk::{ChunkReader, ChunkWriter, Message, MessageLimits, kind};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::TestServer;
use crate::support::show::Show;

const UNKNOWN: &str = "room_01M86VRGYAE3AR7SWFHPWY1Y64";
const WITHIN: Duration = Duration::from_secs(15);
const HANDSHAKE_BYTES: usize = 1_536;

/// A player over RTMP.
struct Player {
    socket: TcpStream,
    reader: ChunkReader,
    is_over: bool,
}

impl Player {
    /// Asks for a name under an application.
    async fn ask(server: &TestServer, app: &str, name: &str) -> Self {
        let mut socket = TcpStream::connect(server.running().bound().rtmp)
            .await
            .unwrap();
        let hello = [&[3][..], &[0; HANDSHAKE_BYTES]].concat();
        socket.write_all(&hello).await.unwrap();
        let mut answer = [0; 1 + 2 * HANDSHAKE_BYTES];
        socket.read_exact(&mut answer).await.unwrap();
        socket
            .write_all(&answer[1..=HANDSHAKE_BYTES])
            .await
            .unwrap();
        let object = Value::Object(vec![("app".to_owned(), Value::text(app))]);
        let [connect, create, play] = ["connect", "createStream", "play"].map(Value::text);
        let commands = [
            (0, vec![connect, Value::Number(1.0), object]),
            (0, vec![create, Value::Number(2.0), Value::Null]),
            (
                1,
                vec![play, Value::Number(3.0), Value::Null, Value::text(name)],
            ),
        ];
        let (mut bytes, mut writer) = (BytesMut::new(), ChunkWriter::default());
        for (stream_id, values) in commands {
            let message = Message {
                type_id: kind::COMMAND,
                stream_id,
                timestamp: 0,
                payload: amf::write(&values),
            };
            writer.write(&mut bytes, 3, &message);
        }
        socket.write_all(&bytes).await.unwrap();
        Self {
            socket,
            reader: ChunkReader::new(MessageLimits::PUBLISHING),
            is_over: false,
        }
    }

    /// The next message; `None` when the server has closed.
    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.reader.next_message().unwrap() {
                return Some(message);
            }
            let mut bytes = BytesMut::new();
            let read = timeout(WITHIN, self.socket.read_buf(&mut bytes)).await;
            if read.expect("it says or sends something").unwrap_or(0) == 0 {
                self.is_over = true;
                return None;
            }
            self.reader.push(&bytes);
        }
    }

    /// The next code that it is told.
    async fn told(&mut self) -> Option<String> {
        loop {
            let message = self.next().await?;
            if message.type_id == kind::COMMAND
                && let Some(code) = code(message.payload)
            {
                return Some(code);
            }
        }
    }

    /// The first picture, and the name of the session that stands before it.
    async fn first_picture(&mut self) -> (Message, String) {
        let mut session = None;
        loop {
            let message = self.next().await.expect("the show goes on");
            match message.type_id {
                kind::DATA => {
                    let values = amf::read(message.payload).unwrap();
                    let named = values.iter().find_map(|value| value.property("session"));
                    let named = named.and_then(Value::as_text).map(str::to_owned);
                    session = session.or(named);
                }
                kind::VIDEO if message.payload[1] != 0 => return (message, session.unwrap()),
                _ => {}
            }
        }
    }
}

fn code(payload: Bytes) -> Option<String> {
    let values = amf::read(payload).unwrap();
    let code = values.get(3)?.property("code")?.as_text()?;
    (values[0].as_text() == Some("onStatus")).then(|| code.to_owned())
}

async fn viewers(server: &TestServer, room: &str) -> serde_json::Value {
    let path = format!("/api/v1/media/broadcasts/{room}");
    server.get_as_operator(&path).await.json()["viewers"]["rtmp"]["now"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_player_is_sent_the_show_counted_shown_and_kicked() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let mut show = Show::start(&server, &room);
    show.run_to(90);
    let mut player = Player::ask(&server, "live", &room).await;
    let (picture, session) = player.first_picture().await;
    assert_eq!((picture.timestamp, picture.payload[0]), (2_000, 0x17));
    assert_eq!(viewers(&server, &room).await, 1);
    let path = format!("/api/v1/media/sessions/{session}");
    let shown = server.get_as_operator(&path).await.json();
    assert_eq!(
        (&shown["protocol"], &shown["room"]),
        (&json!("rtmp"), &json!(room))
    );
    assert_eq!(shown["viewer"]["rendition"], "src");
    let newest_us = shown["playhead_us"][1].as_i64().unwrap();
    assert!((2_966_000..3_000_000).contains(&newest_us), "{shown}");
    assert_eq!(server.delete(&path).await.status, 204);
    assert_eq!(
        player.told().await.as_deref(),
        Some("NetStream.Play.Failed")
    );
    while player.next().await.is_some() {}
    let left = async {
        while viewers(&server, &room).await != 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(WITHIN, left).await.expect("it counts no more");
    assert_eq!(server.get_as_operator(&path).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_played_is_refused_by_its_code() {
    let server = TestServer::start().await;
    let creator = server.creator("bert").await;
    let room = server.room(&creator).await;
    let mut show = Show::start(&server, &room);
    show.run_to(90);
    let private = server.room(&creator).await;
    let mut tx = server.app().db.begin().await.unwrap();
    let sql = "UPDATE room_access SET watch = 'token' WHERE room_id = $1";
    let query = sqlx::query(sql).bind(private.clone());
    query.execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    let (missing, failed) = ("NetStream.Play.StreamNotFound", "NetStream.Play.Failed");
    for (app, name, expected) in [
        ("live", UNKNOWN.to_owned(), missing),
        ("live", "x".repeat(500), missing),
        ("vod", room.clone(), missing),
        ("live", format!("{room}?rendition=v1080"), failed),
        ("live", format!("{room}?rendition=big"), failed),
        (
            "live",
            format!("{room}?rendition=src&rendition=v480"),
            failed,
        ),
        ("live", format!("{room}?audio=mp3"), failed),
        ("live", private.clone(), failed),
        ("live", format!("{private}?token=pt1.forged.mac"), failed),
    ] {
        let mut player = Player::ask(&server, app, &name).await;
        assert_eq!(
            player.told().await.as_deref(),
            Some(expected),
            "{app}/{name}"
        );
        assert_eq!(player.next().await.map(|m| m.type_id), None, "{app}/{name}");
    }

    let mut show = Show::start(&server, &private);
    show.run_to(90);
    let path = format!("/api/v1/media/broadcasts/{private}/tokens");
    let made = server.post(&path, &json!({ "viewer_id": "ada" })).await;
    let token = made.json()["token"].as_str().unwrap().to_owned();
    for (app, name) in [
        ("live".to_owned(), format!("{private}?token={token}")),
        (format!("live?token={token}"), private.clone()),
    ] {
        let mut player = Player::ask(&server, &app, &name).await;
        player.first_picture().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_player_that_comes_before_the_host_is_there_when_the_show_begins() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("cora").await).await;
    let mut player = Player::ask(&server, "live", &room).await;
    let mut show = Show::start(&server, &room);
    show.run_to(30);
    player.first_picture().await;
    drop(show);
    let told = ["NetStream.Play.UnpublishNotify"].map(str::to_owned);
    assert_eq!(player.told().await, told.into_iter().next());
    while player.next().await.is_some() {}
    assert!(player.is_over);
}
