//! A publisher of the `webrtc` crate sends over loopback, through a wire that loses packets.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rtc::interceptor::Registry;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::interceptor_registry::register_default_interceptors;
use rtc::peer_connection::configuration::media_engine::{
    MIME_TYPE_AV1, MIME_TYPE_H264, MIME_TYPE_HEVC, MIME_TYPE_OPUS, MediaEngine,
};
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::rtp;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters,
    RTCRtpEncodingParameters, RtpCodecKind,
};
use time::OffsetDateTime;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
    RTCPeerConnectionState,
};

use super::path::CHECK_EVERY;
use super::testing::{GOP, Pictures};
use super::{Accepted, Terms, WhipError, accept};
use crate::broadcast::{Broadcast, BroadcastKey, Broadcasts, Limits, Publisher, Start};
use crate::frame::{Codec, Frame, Kind, TrackId};
use crate::webrtc::sdp::{Fragment, OfferError};
use crate::webrtc::{Port, PortConfig};
use crate::whep::Patched;

const WITHIN: Duration = Duration::from_secs(20);
const PICTURE: Duration = Duration::from_millis(33);
const VIDEO_SSRC: u32 = 11;
const AUDIO_SSRC: u32 = 12;
const TERMS: Terms = Terms {
    bitrate_bps_max: 20_000_000,
};

struct Told {
    gathered: mpsc::Sender<()>,
    state: watch::Sender<RTCPeerConnectionState>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Told {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            // Told once already, or nobody waits any more.
            let _ = self.gathered.try_send(());
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.state.send_replace(state);
    }
}

fn picture_codec(codec: Codec) -> RTCRtpCodec {
    let (mime_type, line) = match codec {
        Codec::Hevc => (MIME_TYPE_HEVC, "level-id=93;profile-id=1;tier-flag=0"),
        Codec::Av1 => (MIME_TYPE_AV1, "level-idx=5;profile=0;tier=0"),
        _ => {
            let line = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
            (MIME_TYPE_H264, line)
        }
    };
    let feedback = |parameter: &str| RTCPFeedback {
        typ: "nack".into(),
        parameter: parameter.into(),
    };
    RTCRtpCodec {
        mime_type: mime_type.into(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: line.into(),
        rtcp_feedback: vec![feedback(""), feedback("pli")],
    }
}

fn sound_codec() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_OPUS.into(),
        clock_rate: 48_000,
        channels: 2,
        sdp_fmtp_line: String::new(),
        rtcp_feedback: Vec::new(),
    }
}

fn track(kind: RtpCodecKind, codec: RTCRtpCodec, ssrc: u32) -> Arc<TrackLocalStaticRTP> {
    let coding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters {
            ssrc: Some(ssrc),
            ..RTCRtpCodingParameters::default()
        },
        codec,
        ..RTCRtpEncodingParameters::default()
    };
    let (stream, label) = ("show".to_owned(), "show".to_owned());
    let id = format!("track{ssrc}");
    let track = MediaStreamTrack::new(stream, id, label, kind, vec![coding]);
    Arc::new(TrackLocalStaticRTP::new(track))
}

/// A publisher that offers a picture and sound.
struct Client {
    connection: Arc<dyn PeerConnection>,
    state: watch::Receiver<RTCPeerConnectionState>,
    video: Arc<TrackLocalStaticRTP>,
    audio: Arc<TrackLocalStaticRTP>,
    offer: String,
}

impl Client {
    async fn offer() -> Self {
        Self::offer_of(Codec::H264).await
    }

    async fn offer_of(codec: Codec) -> Self {
        let (gathered, mut is_gathered) = mpsc::channel(1);
        let (told, state) = watch::channel(RTCPeerConnectionState::New);
        let mut media = MediaEngine::default();
        for (rtp_codec, payload_type, kind) in [
            (picture_codec(codec), 102, RtpCodecKind::Video),
            (sound_codec(), 111, RtpCodecKind::Audio),
        ] {
            let codec = RTCRtpCodecParameters {
                rtp_codec,
                payload_type,
            };
            media.register_codec(codec, kind).unwrap();
        }
        let registry = register_default_interceptors(Registry::new(), &mut media).unwrap();
        let settings = SettingEngineBuilder::new().with_include_loopback_candidate(true);
        let building = PeerConnectionBuilder::new()
            .with_setting_engine(settings.build())
            .with_media_engine(media)
            .with_interceptor_registry(registry)
            .with_handler(Arc::new(Told {
                gathered,
                state: told,
            }))
            .with_runtime(webrtc::runtime::default_runtime().unwrap())
            .with_udp_addrs(vec!["127.0.0.1:0"])
            .build();
        let connection = Box::pin(building).await.unwrap();
        let video = track(RtpCodecKind::Video, picture_codec(codec), VIDEO_SSRC);
        let audio = track(RtpCodecKind::Audio, sound_codec(), AUDIO_SSRC);
        let tracks: [Arc<dyn TrackLocal>; 2] = [
            Arc::clone(&video) as Arc<dyn TrackLocal>,
            Arc::clone(&audio) as Arc<dyn TrackLocal>,
        ];
        for track in tracks {
            connection.add_track(track).await.unwrap();
        }
        let offer = connection.create_offer(None).await.unwrap();
        connection.set_local_description(offer).await.unwrap();
        is_gathered.recv().await.unwrap();
        // A publisher sends and does not receive.
        let offer = connection.local_description().await.unwrap().sdp;
        Self {
            connection: Arc::new(connection),
            state,
            video,
            audio,
            offer: offer.replace("a=sendrecv", "a=sendonly"),
        }
    }

    async fn connect(&mut self, answer: String) {
        let answer = RTCSessionDescription::answer(answer).unwrap();
        self.connection
            .set_remote_description(answer)
            .await
            .unwrap();
        let is_connected =
            |state: &RTCPeerConnectionState| *state == RTCPeerConnectionState::Connected;
        self.state.wait_for(is_connected).await.unwrap();
    }

    /// Sends pictures and sound at their pace, and again from the beginning at their end.
    async fn send(&self, pictures: &Pictures) {
        let (mut number, mut sounds) = (65_000_u16, 0_u32);
        let mut ticks = interval(PICTURE);
        for n in 0.. {
            ticks.tick().await;
            let at = usize::try_from(n).unwrap() % pictures.all.len();
            let packets = &pictures.all[at].2;
            for (place, payload) in packets.iter().enumerate() {
                number = number.wrapping_add(1);
                let header = rtp::header::Header {
                    version: 2,
                    marker: place + 1 == packets.len(),
                    payload_type: 102,
                    sequence_number: number,
                    timestamp: n * 3_000,
                    ssrc: VIDEO_SSRC,
                    ..rtp::header::Header::default()
                };
                let payload = payload.clone();
                drop(self.video.write_rtp(rtp::Packet { header, payload }).await);
            }
            while sounds * 20 < n * 33 {
                let header = rtp::header::Header {
                    version: 2,
                    payload_type: 111,
                    sequence_number: u16::try_from(sounds & 0xffff).unwrap(),
                    timestamp: sounds * 960,
                    ssrc: AUDIO_SSRC,
                    ..rtp::header::Header::default()
                };
                sounds += 1;
                let payload = bytes::Bytes::from_static(&[0xfc, 1, 2, 3]);
                drop(self.audio.write_rtp(rtp::Packet { header, payload }).await);
            }
        }
    }
}

/// Passes datagrams both ways; every so many packets of media to the server are lost.
struct Wire {
    socket: UdpSocket,
    server: SocketAddr,
    lose_every: usize,
    /// Beside datagrams to the server go some that nobody should take.
    has_junk: bool,
}

/// What may come from the publisher's own address and is not its own: media that was never
/// protected, of streams and types nobody announced, cut short, with lengths that lie, and itself
/// again.
fn junk(datagram: &[u8]) -> Vec<Vec<u8>> {
    let is_media = datagram[0] >> 6 == 2;
    let mut changed = datagram.to_vec();
    changed[datagram.len() / 2] ^= 0x55;
    let mut of_another = datagram.to_vec();
    if let Some(ssrc) = of_another.get_mut(8..12) {
        ssrc.copy_from_slice(b"junk");
    }
    let plain = [&[0x80, 102, 0, 1, 0, 0, 0, 9, 0, 0, 0, 7][..], &[0x41; 40]].concat();
    let padded = [&[0xa0, 102, 0, 2, 0, 0, 0, 9, 0, 0, 0, 7, 1][..], &[255]].concat();
    let sources = [&[0x8f, 111, 0, 3, 0, 0, 0, 9][..], &[0; 8]].concat();
    let extended = [
        &[0x90, 102, 0, 4, 0, 0, 0, 9, 0, 0, 0, 7][..],
        &[0xbe, 0xde, 255, 255],
    ];
    let reports = [&[0x81, 201, 255, 255][..], &[9; 30]].concat();
    let mut out = vec![
        plain,
        padded,
        sources,
        extended.concat(),
        reports,
        vec![0x80],
        vec![255; 3],
    ];
    if is_media {
        out.extend([changed, of_another, datagram.to_vec()]);
        out.push(datagram[..datagram.len() - 5].to_vec());
    }
    out
}

impl Wire {
    async fn to(answer: &str, lose_every: usize) -> (Self, String) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut lines = answer.lines();
        let line = lines.find(|l| l.starts_with("a=candidate:")).unwrap();
        let port = line.split(' ').nth(5).unwrap();
        let server = (Ipv4Addr::LOCALHOST, port.parse().unwrap()).into();
        let ours = socket.local_addr().unwrap().port();
        let through = line.replace(&format!(" {port} "), &format!(" {ours} "));
        let wire = Self {
            socket,
            server,
            lose_every,
            has_junk: false,
        };
        (wire, answer.replace(line, &through))
    }

    async fn run(&self) {
        let (mut buffer, mut client) = (vec![0; 2_048], self.server);
        let (mut media, mut sent) = (0, 0);
        loop {
            let (length, from) = self.socket.recv_from(&mut buffer).await.unwrap();
            let datagram = &buffer[..length];
            let to = if from == self.server {
                client
            } else {
                client = from;
                let is_media = datagram[0] >> 6 == 2 && matches!(datagram[1] & 0x7f, 102 | 111);
                media += usize::from(is_media);
                if is_media && self.lose_every > 0 && media % self.lose_every == 0 {
                    continue;
                }
                // Not so much that the publisher's own has no place left in the inbox.
                sent += 1;
                if self.has_junk && sent % 7 == 0 {
                    for junk in junk(datagram) {
                        self.socket.send_to(&junk, self.server).await.unwrap();
                    }
                }
                self.server
            };
            self.socket.send_to(datagram, to).await.unwrap();
        }
    }
}

struct Server {
    hub: Arc<Broadcasts>,
    port: Arc<Port>,
}

impl Server {
    fn start() -> Self {
        let hub = Broadcasts::new(Limits::default());
        let config = PortConfig {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            public_addrs: Vec::new(),
            public_port: None,
            payload_bytes_max: 1_200,
        };
        let port = Port::bind(config, Arc::clone(&hub)).unwrap();
        Self { hub, port }
    }

    fn publisher(&self) -> Publisher {
        let key = BroadcastKey::new("room_1");
        let now = Instant::now();
        self.hub.open(key, now, OffsetDateTime::now_utc()).unwrap()
    }

    async fn accept(&self, offer: &str) -> Accepted {
        accept(&self.port, offer, TERMS, Instant::now())
            .await
            .unwrap()
    }
}

/// What a session and its wire are driven with.
struct Running {
    /// From the answer on.
    connected_after: Duration,
    leaves: CancellationToken,
    broadcast: Arc<Broadcast>,
}

/// Runs a publisher's session while `watch` does something with what comes of it.
async fn published<T>(
    lose_every: usize,
    watch: impl AsyncFnOnce(Running, &Client, &Held) -> T,
) -> T {
    let pictures = Pictures::of(4 * GOP);
    published_as((Codec::H264, pictures), (lose_every, false), watch).await
}

async fn published_as<T>(
    (codec, pictures): (Codec, Pictures),
    (lose_every, has_junk): (usize, bool),
    watch: impl AsyncFnOnce(Running, &Client, &Held) -> T,
) -> T {
    let server = Server::start();
    let mut client = Client::offer_of(codec).await;
    let accepted = server.accept(&client.offer).await;
    let (mut wire, answer) = Wire::to(&accepted.answer, lose_every).await;
    wire.has_junk = has_junk;
    let publisher = server.publisher();
    let leaves = CancellationToken::new();
    let cancel = CancellationToken::new();
    let mut running = Running {
        connected_after: Duration::MAX,
        leaves: leaves.clone(),
        broadcast: Arc::clone(publisher.broadcast()),
    };
    let Accepted {
        control, session, ..
    } = accepted;
    let hub = Arc::clone(&server.hub);
    let session = session.run(publisher, leaves, cancel.clone(), hub);
    let port = Arc::clone(&server.port);
    let held = Held { control };
    let served = async {
        tokio::join!(port.run(cancel.clone()), wire.run());
    };
    let goes_on = async {
        let answered = Instant::now();
        client.connect(answer).await;
        running.connected_after = answered.elapsed();
        let client = &client;
        tokio::select! {
            () = client.send(&pictures) => unreachable!("it sends for ever"),
            got = watch(running, client, &held) => got,
        }
    };
    let with_session = async {
        let (got, ()) = tokio::join!(goes_on, session);
        got
    };
    tokio::select! {
        () = Box::pin(served) => unreachable!("the port is open for ever"),
        got = timeout(WITHIN, Box::pin(with_session)) => got.expect("it comes in time"),
    }
}

/// What is left of an accepted publisher beside its session.
struct Held {
    control: crate::whep::Control,
}

/// So many frames of a track, from its first keyframe on.
async fn frames(broadcast: &Broadcast, track: TrackId, count: usize) -> Vec<Arc<Frame>> {
    let mut cursor = broadcast.cursor(track, Start::OldestKey);
    let mut out = Vec::new();
    while out.len() < count {
        out.push(cursor.next().await.expect("the show goes on").frame);
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_stands_before_its_path_is_checked_for_the_second_time() {
    published(0, async |running, _client, _held| {
        let after = running.connected_after;
        assert!(after < CHECK_EVERY, "connected after {after:?}");
        running.leaves.cancel();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_on_the_way_is_sent_again_and_pictures_are_whole() {
    published(9, async |running, _client, _held| {
        let broadcast = &running.broadcast;
        let pictures = frames(broadcast, TrackId::Video, 60).await;
        let sounds = frames(broadcast, TrackId::Audio, 60).await;
        let info = broadcast.source(Kind::Video).unwrap();
        assert_eq!(
            (info.codec, info.picture_size()),
            (Codec::H264, Some((160, 96)))
        );
        let gaps = pictures
            .windows(2)
            .filter(|pair| pair[1].dts.micros_since(pair[0].dts) > 34_000);
        assert_eq!(gaps.count(), 0, "no picture is missing");
        assert_eq!(sounds[0].info.codec, Codec::Opus);
        running.leaves.cancel();
    })
    .await;
}

/// The row of spec media.md 9 on RTP: what is not the publisher's changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn junk_and_repetitions_from_the_publishers_address_change_nothing() {
    let sent = (Codec::H264, Pictures::of(4 * GOP));
    published_as(sent, (0, true), async |running, _client, _held| {
        let broadcast = &running.broadcast;
        let pictures = frames(broadcast, TrackId::Video, 60).await;
        let sounds = frames(broadcast, TrackId::Audio, 60).await;
        for (frames, length_us) in [(&pictures, 34_000), (&sounds, 21_000)] {
            let steps = frames.windows(2);
            let steps = steps.map(|pair| pair[1].dts.micros_since(pair[0].dts));
            assert!(
                steps.into_iter().all(|us| us <= length_us),
                "something is missing"
            );
        }
        running.leaves.cancel();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_of_hevc_and_av1_come_in_as_those_of_h264_do() {
    for codec in [Codec::Hevc, Codec::Av1] {
        let pictures = Pictures::of_codec(codec, 4 * GOP);
        let sent: Vec<_> = pictures
            .all
            .iter()
            .map(|(_, sent, _)| sent.clone())
            .collect();
        let watch = async |running: Running, _client: &Client, _held: &Held| {
            let broadcast = &running.broadcast;
            for frame in frames(broadcast, TrackId::Video, 30).await {
                assert!(sent.contains(&frame.payload), "{codec:?}");
            }
            let info = broadcast.source(Kind::Video).unwrap();
            assert_eq!((info.codec, info.picture_size()), (codec, Some((198, 108))));
            running.leaves.cancel();
        };
        published_as((codec, pictures), (9, false), watch).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_leaves_is_told_goodbye_and_is_missed_for_a_while() {
    published(0, async |running, client, _held| {
        frames(&running.broadcast, TrackId::Video, 5).await;
        running.leaves.cancel();
        let mut state = client.state.clone();
        let is_over = |state: &RTCPeerConnectionState| {
            !matches!(
                state,
                RTCPeerConnectionState::New
                    | RTCPeerConnectionState::Connecting
                    | RTCPeerConnectionState::Connected
            )
        };
        state.wait_for(is_over).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn candidates_need_no_restart_and_a_restart_names_us_anew() {
    published(0, async |running, client, held| {
        frames(&running.broadcast, TrackId::Video, 5).await;
        let mut lines = client.offer.lines();
        let ufrag = lines.find_map(|l| l.strip_prefix("a=ice-ufrag:")).unwrap();
        let fragment = Fragment::read(&format!("a=ice-ufrag:{ufrag}\r\n")).unwrap();
        let patched = held.control.patch(Instant::now(), &fragment);
        assert_eq!(patched, Ok(Patched::Candidates));
        let again = "a=ice-ufrag:another\r\na=ice-pwd:0123456789012345678901\r\n";
        let tag = held.control.tag();
        let fragment = Fragment::read(again).unwrap();
        let patched = held.control.patch(Instant::now(), &fragment).unwrap();
        assert!(matches!(patched, Patched::Restarted(text) if text.contains("a=ice-ufrag:")));
        assert_ne!(held.control.tag(), tag);
        // The old path lives until the new one works.
        frames(&running.broadcast, TrackId::Video, 30).await;
        running.leaves.cancel();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_nobody_connects_to_is_gone_and_leaves_its_name() {
    let server = Server::start();
    let client = Client::offer().await;
    let accepted = server.accept(&client.offer).await;
    let publisher = server.publisher();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let hub = Arc::clone(&server.hub);
    let session = accepted.session;
    session
        .run(publisher, CancellationToken::new(), cancel, hub)
        .await;
    let again = "a=ice-ufrag:another\r\na=ice-pwd:0123456789012345678901\r\n";
    let fragment = Fragment::read(again).unwrap();
    assert!(accepted.control.patch(Instant::now(), &fragment).is_err());
    assert!(server.hub.list().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_ours_on_the_outside() {
    let server = Server::start();
    let client = Client::offer().await;
    let answer = server.accept(&client.offer).await.answer;
    let count = |start: &str| {
        answer
            .lines()
            .filter(|line| line.starts_with(start))
            .count()
    };
    assert_eq!(count("a=candidate:"), 1, "{answer}");
    assert_eq!(count("a=end-of-candidates"), 1);
    assert_eq!(count("a=ice-lite"), 1);
    assert_eq!(count("a=setup:passive"), 2);
    assert_eq!(count("a=recvonly"), 2);
    assert_eq!(count("a=group:BUNDLE"), 1);
    assert!(
        !answer.contains("rtx") && !answer.contains("a=rid"),
        "{answer}"
    );
    let port = server.port.local_addr().port();
    assert!(
        answer.contains(&format!(" 127.0.0.1 {port} typ host")),
        "{answer}"
    );
}

/// What an encoder offers that sends something else than H.264.
#[tokio::test(flavor = "multi_thread")]
async fn without_h264_the_first_codec_that_can_be_taken_is() {
    let h264 = "H264/90000\r\na=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;\
                profile-level-id=42e01f";
    let server = Server::start();
    let offer = Client::offer().await.offer;
    assert!(offer.contains(h264), "{offer}");
    let both = "AV1/90000\r\na=fmtp:102 level-idx=8;profile=0;tier=0\r\na=rtpmap:98 H265/90000";
    let interleaved = "H265/90000\r\na=fmtp:102 sprop-max-don-diff=3\r\na=rtpmap:98 AV1/90000";
    let cases = [
        (
            "H265/90000\r\na=fmtp:102 level-id=93;profile-id=1;tier-flag=0",
            102,
            "H265/90000",
        ),
        ("H265/90000", 102, "H265/90000"),
        (
            "AV1/90000\r\na=fmtp:102 level-idx=8;profile=0;tier=0",
            102,
            "AV1/90000",
        ),
        ("AV1/90000", 102, "AV1/90000"),
        (both, 98, "H265/90000"),
        (interleaved, 98, "AV1/90000"),
        ("VP8/90000\r\na=rtpmap:98 AV1/90000", 98, "AV1/90000"),
    ];
    for (forms, payload_type, name) in cases {
        let offer = offer.replace(h264, forms);
        let formats = if forms.contains(":98 ") {
            "98 102"
        } else {
            "102"
        };
        let offer = offer.replace("SAVPF 102", &format!("SAVPF {formats}"));
        let answer = server.accept(&offer).await.answer;
        let mut lines = answer.lines().map(str::trim_end);
        let video = lines.find(|line| line.starts_with("m=video")).unwrap();
        assert!(
            video.ends_with(&format!(" {payload_type}")),
            "{forms}: {answer}"
        );
        let map = format!("a=rtpmap:{payload_type} {name}");
        assert!(lines.clone().any(|line| line == map), "{forms}: {answer}");
        // The feedback was offered for one of them.
        let has_feedback = lines.any(|line| line == "a=rtcp-fb:102 nack pli");
        assert_eq!(has_feedback, payload_type == 102, "{forms}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_cannot_be_taken_says_what_would_do() {
    let server = Server::start();
    let offer = Client::offer().await.offer;
    let cases = [
        (offer.replace("a=sendonly", "a=recvonly"), 422),
        (offer.replace("a=sendonly", "a=inactive"), 422),
        (offer.replace("H264/90000", "VP8/90000"), 422),
        (offer.replace("opus/48000/2", "PCMU/8000"), 422),
        (
            offer.replace("packetization-mode=1", "packetization-mode=0"),
            422,
        ),
        (offer.replacen("a=msid:show", "a=msid:other", 1), 422),
        (offer.replace("a=setup:actpass", "a=setup:passive"), 422),
        (offer.replace("a=group:BUNDLE 0 1", "a=group:BUNDLE 0"), 422),
        (offer.replace("a=ice-pwd", "a=x"), 400),
        ("v=0\r\n".into(), 400),
    ];
    for (offer, status) in cases {
        let refused = accept(&server.port, &offer, TERMS, Instant::now()).await;
        let refused = refused.map(|_| ()).unwrap_err();
        let got = match &refused {
            WhipError::Offer(OfferError::Unservable(_)) => 422,
            WhipError::Offer(OfferError::Unreadable(_)) => 400,
            _ => 0,
        };
        assert_eq!(got, status, "{refused}: {offer}");
    }
}
