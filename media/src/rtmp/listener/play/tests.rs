//! A player over RTMP, in virtual time: what it is told, and what it is sent.

use bytes::BytesMut;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::broadcast::{BroadcastKey, Limits, PublishPolicy, Publisher};
use crate::flv::Demuxer;
use crate::flv::viewer::{Control, Terms};
use crate::frame::{Codec, Kind, Sample, Shape, TrackInfo};
use crate::meter::Meter;
use crate::request::{DECISIONS_WAITING_MAX, Requests};
use crate::rtmp::amf::{self, Value};
use crate::rtmp::chunk::{ChunkReader, ChunkWriter, Message, MessageLimits, kind};
use crate::rtmp::gate::Gate;
use crate::rtmp::session::Session;
use crate::time::SourceTime;

const SECOND: Duration = Duration::from_secs(1);
/// Bytes on their way to a player; one that takes nothing holds these.
const PIPE_BYTES: usize = 512 << 10;
/// `AVCDecoderConfigurationRecord` of a 640x360 baseline stream.
const AVCC: &[u8] = &[
    1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 10, 0x67, 0x42, 0xc0, 0x1e, 0xda, 2, 0x80, 0xbf, 0xe5,
    0x40, 1, 0, 4, 0x68, 0xce, 0x3c, 0x80,
];

/// A server with one room, and somebody who publishes into it.
struct Stage {
    hub: Arc<Broadcasts>,
    gate: Gate,
    requests: Requests,
    plays: mpsc::Receiver<PlayRequest>,
    publisher: Option<Publisher>,
    /// Pictures so far.
    pictures: i64,
    picture_bytes: usize,
}

fn key() -> BroadcastKey {
    BroadcastKey::new("room_1")
}

fn track(codec: Codec, shape: Shape, config: &'static [u8]) -> TrackInfo {
    TrackInfo {
        codec,
        generation: 0,
        shape,
        config: Bytes::from_static(config),
        reorder_frames: Some(0),
    }
}

impl Stage {
    fn empty() -> Self {
        let (publish, _nobody) = mpsc::channel(1);
        let (play, plays) = mpsc::channel(DECISIONS_WAITING_MAX);
        Self {
            hub: Broadcasts::new(Limits::default()),
            gate: Gate::default(),
            requests: Requests { publish, play },
            plays,
            publisher: None,
            pictures: 0,
            picture_bytes: 100,
        }
    }

    /// A show that has run for a second.
    fn on_air() -> Self {
        let mut stage = Self::empty();
        stage.publish();
        stage.show(30);
        stage
    }

    fn publish(&mut self) {
        let at = (Instant::now(), OffsetDateTime::UNIX_EPOCH);
        let policy = PublishPolicy {
            grace: 30 * SECOND,
            ..PublishPolicy::ONCE
        };
        let mut publisher = self.hub.join(key(), at, policy).unwrap();
        let (width, height) = (640, 360);
        let picture = track(Codec::H264, Shape::Video { width, height }, AVCC);
        let (rate, channels) = (48_000, 2);
        let sound = track(Codec::Aac, Shape::Audio { rate, channels }, &[0x11, 0x90]);
        publisher.set_track(at.0, picture).unwrap();
        publisher.set_track(at.0, sound).unwrap();
        self.publisher = Some(publisher);
        self.pictures = 0;
    }

    /// Goes on with this many pictures, each with its sound; a keyframe begins every second.
    fn show(&mut self, pictures: i64) {
        let publisher = self.publisher.as_mut().unwrap();
        for _ in 0..pictures {
            let n = self.pictures;
            self.pictures += 1;
            let is_key = n % 30 == 0;
            let mut nal = vec![0x55; self.picture_bytes];
            let length = u32::try_from(nal.len() - 4).unwrap();
            nal[..4].copy_from_slice(&length.to_be_bytes());
            nal[4] = if is_key { 0x65 } else { 0x41 };
            let picture = Sample {
                kind: Kind::Video,
                dts: SourceTime::from_millis(n * 1_000 / 30),
                composition: Duration::ZERO,
                samples: 0,
                is_key,
                is_discardable: false,
                payload: nal.into(),
            };
            let sound = Sample {
                kind: Kind::Audio,
                samples: 1_600,
                is_key: true,
                payload: Bytes::from_static(&[0x21, 0x10, 0x04]),
                ..picture.clone()
            };
            publisher.write(Instant::now(), picture);
            publisher.write(Instant::now(), sound);
        }
    }

    /// The show goes on in real time, and the player listens; what it was sent.
    async fn seconds(&mut self, player: &mut Player, seconds: i64) -> Vec<Message> {
        let mut heard = Vec::new();
        for _ in 0..seconds * 30 {
            self.show(1);
            tokio::time::sleep(SECOND / 30).await;
            heard.extend(player.hear().await);
        }
        heard
    }

    /// A connection of a player that shook hands and was given message stream 1.
    #[expect(
        clippy::disallowed_methods,
        reason = "a test has no server that joins its tasks"
    )]
    fn connect(&self) -> Player {
        let (near, far) = duplex(PIPE_BYTES);
        let now = Instant::now();
        let mut session = Session::new(now);
        crate::rtmp::tests::shake(&mut session, now);
        session.take_output();
        let peer = ([203, 0, 113, 7], 1_234).into();
        let connection = Connection {
            socket: far,
            peer,
            pass: self.gate.enter(now, peer.ip()).unwrap(),
            session,
            demuxer: Demuxer::new(),
            meter: Meter::new(now, 20_000_000),
            hub: Arc::clone(&self.hub),
            requests: self.requests.clone(),
            state: State::Talking,
        };
        let cancel = CancellationToken::new();
        Player {
            socket: near,
            writer: ChunkWriter::default(),
            reader: ChunkReader::new(MessageLimits::PUBLISHING),
            is_over: false,
            serving: tokio::spawn(connection.run(cancel.clone())),
            cancel,
        }
    }

    /// A player that asked for something, and its question.
    async fn ask(&mut self, name: &str) -> (Player, PlayRequest) {
        let mut player = self.connect();
        player.ask("live", 1, name).await;
        let request = self.plays.recv().await.unwrap();
        (player, request)
    }

    /// A player that may watch.
    async fn play(&mut self, terms: Terms) -> (Player, oneshot::Receiver<Control>) {
        let (player, request) = self.ask("room_1").await;
        (player, grant(request, terms))
    }
}

fn grant(request: PlayRequest, terms: Terms) -> oneshot::Receiver<Control> {
    let (opened, control) = oneshot::channel();
    let grant = PlayGrant {
        broadcast: key(),
        terms,
        opened,
    };
    request.reply.send(PlayDecision::Accept(grant)).unwrap();
    control
}

struct Player {
    socket: DuplexStream,
    writer: ChunkWriter,
    reader: ChunkReader,
    /// The server closed the connection.
    is_over: bool,
    serving: JoinHandle<()>,
    cancel: CancellationToken,
}

impl Player {
    async fn send(&mut self, type_id: u8, stream_id: u32, payload: Bytes) {
        let message = Message {
            type_id,
            stream_id,
            timestamp: 0,
            payload,
        };
        let mut bytes = BytesMut::new();
        self.writer.write(&mut bytes, 3, &message);
        self.socket.write_all(&bytes).await.unwrap();
    }

    async fn say(&mut self, stream_id: u32, values: &[Value]) {
        self.send(kind::COMMAND, stream_id, amf::write(values))
            .await;
    }

    /// As FFmpeg does it; on the last of so many message streams.
    async fn ask(&mut self, app: &str, streams: u32, name: &str) {
        let app = Value::Object(vec![("app".to_owned(), Value::text(app))]);
        self.say(0, &[Value::text("connect"), Value::Number(1.0), app])
            .await;
        for _ in 0..streams {
            let create = [Value::text("createStream"), Value::Number(2.0), Value::Null];
            self.say(0, &create).await;
        }
        let (play, id, begin) = (
            Value::text("play"),
            Value::Number(4.0),
            Value::Number(-2_000.0),
        );
        let values = [play, id, Value::Null, Value::text(name), begin];
        self.say(streams, &values).await;
    }

    /// What has come, and what comes while nothing else happens.
    async fn hear(&mut self) -> Vec<Message> {
        let mut bytes = BytesMut::new();
        let quiet = Duration::from_micros(10);
        while !self.is_over {
            match timeout(quiet, self.socket.read_buf(&mut bytes)).await {
                Ok(Ok(count)) if count > 0 => {}
                Ok(_) => self.is_over = true,
                Err(_quiet) => break,
            }
        }
        self.reader.push(&bytes);
        std::iter::from_fn(|| self.reader.next_message().unwrap()).collect()
    }

    /// What is said until the server hangs up.
    async fn hear_all(&mut self) -> Vec<Message> {
        let mut all = Vec::new();
        while !self.is_over {
            all.extend(self.hear().await);
            tokio::time::sleep(SECOND).await;
        }
        all
    }
}

/// The codes of what a player was told.
fn codes(messages: &[Message]) -> Vec<String> {
    let commands = messages.iter().filter(|m| m.type_id == kind::COMMAND);
    let values = commands.map(|m| amf::read(m.payload.clone()).unwrap());
    let infos = values.filter(|values| values[0].as_text() == Some("onStatus"));
    let code = |values: Vec<Value>| {
        let code = values[3].property("code").and_then(Value::as_text);
        code.unwrap().to_owned()
    };
    infos.map(code).collect()
}

/// The pictures that were sent, read as a publisher's: time and whether it is a keyframe.
fn pictures(messages: &[Message]) -> Vec<(i64, bool, usize)> {
    let mut demuxer = Demuxer::new();
    let mut found = Vec::new();
    for message in messages {
        let kind = match message.type_id {
            kind::VIDEO => Kind::Video,
            kind::AUDIO => Kind::Audio,
            _ => continue,
        };
        let (at, payload) = (message.timestamp, message.payload.clone());
        let units = demuxer.push(Instant::now(), kind, at, payload).unwrap();
        let picture = units.sample.filter(|sample| sample.kind == Kind::Video);
        let of = |s: Sample| (i64::from(message.timestamp), s.is_key, s.payload.len());
        found.extend(picture.map(of));
    }
    found
}

fn is_header(message: &Message) -> bool {
    matches!(message.type_id, kind::AUDIO | kind::VIDEO) && message.payload.get(1) == Some(&0)
}

#[tokio::test(start_paused = true)]
async fn a_player_is_told_all_that_the_specification_lists_and_begins_at_the_newest_keyframe() {
    let mut stage = Stage::on_air();
    stage.show(40);
    let (mut player, _control) = stage.play(Terms::default()).await;
    let heard = stage.seconds(&mut player, 1).await;
    let begin = heard.iter().position(|m| m.type_id == kind::USER_CONTROL);
    let list = &heard[begin.unwrap() - 1..];
    let expected = [
        (kind::COMMAND, "NetStream.Play.Reset"),
        (kind::USER_CONTROL, ""),
        (kind::COMMAND, "NetStream.Play.Start"),
        (kind::DATA, "|RtmpSampleAccess"),
    ];
    for (message, (type_id, said)) in list.iter().zip(expected) {
        assert_eq!(message.type_id, type_id, "{said}");
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        assert!(text.contains(said), "{text}");
    }
    assert_eq!(
        list[1].payload[..],
        [0, 0, 0, 0, 0, 1],
        "StreamBegin of stream 1"
    );
    let metadata = list.iter().position(|m| {
        m.type_id == kind::DATA && m.payload.windows(10).any(|text| text == b"onMetaData")
    });
    let media = &list[metadata.unwrap() + 1..];
    assert!(is_header(&media[0]) && media[0].type_id == kind::VIDEO);
    assert!(media.iter().all(|message| message.stream_id == 1));
    assert_eq!(media.iter().filter(|m| is_header(m)).count(), 2);
    let pictures = pictures(media);
    assert_eq!(pictures[0], (2_000, true, 100), "the newest keyframe");
    assert_eq!(pictures.len(), 10 + 30);
    assert!(pictures.is_sorted_by(|a, b| a.0 < b.0));
}

#[tokio::test(start_paused = true)]
async fn large_pictures_arrive_whole_on_any_message_stream() {
    let mut stage = Stage::empty();
    stage.publish();
    stage.picture_bytes = 150_000;
    stage.show(3);
    let mut both = Vec::new();
    for streams in [1, 3] {
        let mut player = stage.connect();
        player.ask("live", streams, "room_1").await;
        let request = stage.plays.recv().await.unwrap();
        let control = grant(request, Terms::default());
        let heard = player.hear().await;
        let media = heard.iter().filter(|m| m.type_id == kind::VIDEO);
        assert!(media.clone().all(|m| m.stream_id == streams));
        both.push(pictures(&heard));
        drop(control);
    }
    let expected = [(0, true), (33, false), (66, false)].map(|(ms, key)| (ms, key, 150_000));
    assert_eq!(both, [expected.to_vec(), expected.to_vec()]);
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_reaches_the_server_and_its_no_the_player() {
    for (app, name, room, query) in [
        (
            "live",
            "room_1?token=pt1.a.b&rendition=v480",
            "room_1",
            "token=pt1.a.b&rendition=v480",
        ),
        ("live?token=x", "room_1", "room_1", "token=x"),
        ("live/room_1", "", "room_1", ""),
    ] {
        let mut stage = Stage::empty();
        let mut player = stage.connect();
        player.ask(app, 1, name).await;
        let request = stage.plays.recv().await.unwrap();
        assert_eq!(request.app, "live");
        assert_eq!(
            (request.room.as_str(), request.query.as_str()),
            (room, query)
        );
    }
    for (code, said) in [
        (RefusalCode::UnknownRoom, "NetStream.Play.StreamNotFound"),
        (RefusalCode::NotAllowed, "NetStream.Play.Failed"),
        (RefusalCode::TryAgain, "NetStream.Play.Failed"),
    ] {
        let mut stage = Stage::empty();
        for _ in 0..20 {
            let (mut player, request) = stage.ask("room_2").await;
            let sentence = "Because.".to_owned();
            let refusal = Refusal { code, sentence };
            request.reply.send(PlayDecision::Reject(refusal)).unwrap();
            assert_eq!(codes(&player.hear_all().await), [said]);
        }
        let count = stage.hub.stats().total("viewer_sessions_total");
        assert_eq!(count, 20, "and none was shut out");
    }
    let mut stage = Stage::empty();
    let (mut player, request) = stage.ask("room_1").await;
    drop(request);
    assert_eq!(codes(&player.hear_all().await), ["NetStream.Play.Failed"]);
}

#[tokio::test(start_paused = true)]
async fn a_question_out_of_place_is_answered_and_ends_the_connection() {
    for (streams, name) in [(0, "room_1"), (1, "")] {
        let mut stage = Stage::empty();
        let mut player = stage.connect();
        player.ask("live", streams, name).await;
        assert_eq!(codes(&player.hear_all().await), ["NetStream.Play.Failed"]);
        assert!(stage.plays.try_recv().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_player_waits_ten_seconds_for_a_publisher() {
    let mut stage = Stage::empty();
    let began = Instant::now();
    let (mut player, control) = stage.play(Terms::default()).await;
    let said = codes(&player.hear_all().await);
    assert_eq!(said, ["NetStream.Play.StreamNotFound"]);
    let waited = began.elapsed().as_secs();
    assert!((10..15).contains(&waited), "{waited}");
    control.await.expect_err("it never began");

    let (mut player, control) = stage.play(Terms::default()).await;
    tokio::time::sleep(9 * SECOND).await;
    assert!(codes(&player.hear().await).is_empty());
    stage.publish();
    let heard = stage.seconds(&mut player, 1).await;
    let begun = ["NetStream.Play.Reset", "NetStream.Play.Start"];
    assert_eq!(codes(&heard), begun);
    assert_eq!(pictures(&heard).len(), 30);
    let control = control.await.unwrap();
    assert!(control.playhead().is_some() && control.measured().frames > 30);
    let counts = stage
        .publisher
        .unwrap()
        .broadcast()
        .audience()
        .counts(Instant::now());
    assert_eq!((counts.rtmp.viewers, counts.sessions()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_comes_back_goes_on_for_the_same_player() {
    let mut stage = Stage::on_air();
    let (mut player, _control) = stage.play(Terms::default()).await;
    let before = stage.seconds(&mut player, 1).await;
    stage.publisher.take().unwrap().finish(EndReason::Lost);
    tokio::time::sleep(20 * SECOND).await;
    assert!(player.hear().await.is_empty());
    stage.publish();
    let after = stage.seconds(&mut player, 1).await;
    assert!(!player.is_over && codes(&after).is_empty());
    assert_eq!(after.iter().filter(|m| is_header(m)).count(), 2);
    let all = [before, after].concat();
    let pictures = pictures(&all);
    assert!(pictures.is_sorted_by(|a, b| a.0 < b.0), "{pictures:?}");
    let gap = pictures.windows(2).map(|two| two[1].0 - two[0].0).max();
    assert!(gap.unwrap() >= 19_000, "as long as it was: {gap:?}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_show_a_kick_and_an_expiry_are_told() {
    let mut stage = Stage::on_air();
    let (mut player, _control) = stage.play(Terms::default()).await;
    stage.seconds(&mut player, 1).await;
    let broadcast = Arc::clone(stage.publisher.as_ref().unwrap().broadcast());
    broadcast.end(EndReason::Finished);
    let said = codes(&player.hear_all().await);
    assert_eq!(said, ["NetStream.Play.UnpublishNotify"]);

    let mut stage = Stage::on_air();
    let (mut player, control) = stage.play(Terms::default()).await;
    stage.seconds(&mut player, 1).await;
    control.await.unwrap().end("kicked");
    assert_eq!(codes(&player.hear_all().await), ["NetStream.Play.Failed"]);

    let mut stage = Stage::on_air();
    let terms = Terms {
        expires_at: Some(Instant::now() + 5 * SECOND),
        ..Terms::default()
    };
    let (mut player, control) = stage.play(terms).await;
    let heard = stage.seconds(&mut player, 6).await;
    assert_eq!(codes(&heard)[2..], ["NetStream.Play.Failed"]);
    control.await.unwrap().gone().await;

    let mut stage = Stage::on_air();
    let (mut player, _control) = stage.play(Terms::default()).await;
    stage.seconds(&mut player, 1).await;
    player.cancel.cancel();
    assert_eq!(codes(&player.hear_all().await), ["NetStream.Play.Failed"]);
}

#[tokio::test(start_paused = true)]
async fn a_player_that_says_that_it_stops_is_let_go() {
    let mut stage = Stage::on_air();
    let (mut player, control) = stage.play(Terms::default()).await;
    stage.seconds(&mut player, 1).await;
    let stop = [
        Value::text("deleteStream"),
        Value::Number(0.0),
        Value::Null,
        Value::Number(1.0),
    ];
    player.say(0, &stop).await;
    control.await.unwrap().gone().await;
    drop(player.socket);
    player.serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_player_that_takes_nothing_is_closed_and_one_that_is_late_goes_to_the_newest() {
    let mut stage = Stage::on_air();
    stage.picture_bytes = 20_000;
    let (mut late, control) = stage.play(Terms::default()).await;
    let before = stage.seconds(&mut late, 1).await;
    // Half a megabyte is on its way, and what comes after is passed over.
    for _ in 0..6 * 30 {
        stage.show(1);
        tokio::time::sleep(SECOND / 30).await;
    }
    let after = stage.seconds(&mut late, 2).await;
    let control = control.await.unwrap();
    let measured = control.measured();
    assert!(measured.skipped > 60, "{measured:?}");
    assert!(measured.lag < SECOND, "{measured:?}");
    let times = pictures(&[before, after].concat());
    assert!(times.is_sorted_by(|a, b| a.0 < b.0));
    let jump = times.windows(2).find(|two| two[1].0 - two[0].0 > 1_000);
    assert!(jump.unwrap()[1].1, "to a keyframe: {jump:?}");

    for _ in 0..25 * 30 {
        stage.show(1);
        tokio::time::sleep(SECOND / 30).await;
    }
    control.gone().await;
    late.hear().await;
    assert!(late.is_over);
    late.serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn pings_are_sent_and_a_player_that_answers_none_and_takes_nothing_is_closed() {
    let is_ping = |m: &&Message| m.type_id == kind::USER_CONTROL && m.payload[..2] == [0, 6];
    let mut stage = Stage::on_air();
    let (mut silent, _control) = stage.play(Terms::default()).await;
    let (mut alive, _other) = stage.play(Terms::default()).await;
    let heard = stage.seconds(&mut silent, 1).await;
    assert_eq!(heard.iter().filter(is_ping).count(), 0);
    alive.hear().await;
    stage.hub.find(&key()).unwrap();
    // Nobody sends, and the show is not over.
    let (mut pings, mut closed_after) = (0, None);
    for second in 0..150 {
        tokio::time::sleep(SECOND).await;
        let heard = silent.hear().await;
        pings += heard.iter().filter(is_ping).count();
        closed_after = closed_after.or_else(|| silent.is_over.then_some(second));
        let heard = alive.hear().await;
        for ping in heard.iter().filter(is_ping) {
            let mut pong = ping.payload.to_vec();
            pong[1] = 7;
            alive.send(kind::USER_CONTROL, 0, pong.into()).await;
        }
    }
    assert!(matches!(closed_after, Some(85..=95)), "{closed_after:?}");
    assert!((2..=3).contains(&pings), "{pings}");
    assert!(!alive.is_over);
    let heard = stage.seconds(&mut alive, 1).await;
    assert_eq!(
        heard.iter().filter(|m| m.type_id == kind::VIDEO).count(),
        30
    );
}

#[tokio::test(start_paused = true)]
async fn a_pause_stops_the_frames_and_the_newest_come_after_it() {
    let mut stage = Stage::on_air();
    let (mut player, _control) = stage.play(Terms::default()).await;
    stage.seconds(&mut player, 1).await;
    let pause = |is_paused| {
        let (name, id) = (Value::text("pause"), Value::Number(0.0));
        [
            name,
            id,
            Value::Null,
            Value::Boolean(is_paused),
            Value::Number(0.0),
        ]
    };
    player.say(1, &pause(true)).await;
    let heard = stage.seconds(&mut player, 6).await;
    assert_eq!(codes(&heard), ["NetStream.Pause.Notify"]);
    let media = |m: &&Message| m.type_id == kind::VIDEO;
    assert!(
        heard.iter().filter(media).count() <= 1,
        "what was on its way"
    );
    player.say(1, &pause(false)).await;
    let heard = stage.seconds(&mut player, 1).await;
    assert_eq!(codes(&heard), ["NetStream.Unpause.Notify"]);
    let first = heard.iter().find(media).unwrap();
    assert!(
        first.timestamp >= 7_000 && first.payload[0] == 0x17,
        "{first:?}"
    );

    player.say(1, &pause(true)).await;
    stage.seconds(&mut player, 1).await;
    let broadcast = Arc::clone(stage.publisher.as_ref().unwrap().broadcast());
    broadcast.end(EndReason::Finished);
    let said = codes(&player.hear_all().await);
    assert_eq!(said, ["NetStream.Play.UnpublishNotify"]);
}
