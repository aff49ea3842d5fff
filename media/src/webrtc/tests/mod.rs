//! A viewer of the `webrtc` crate watches over loopback, through a wire that loses packets.

mod channel;
mod own_codec;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rtc::data_channel::RTCDataChannelInit;
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::interceptor::Registry;
use rtc::peer_connection::configuration::interceptor_registry::register_default_interceptors;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_H264, MediaEngine};
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp_transceiver::rtp_sender::{RTCRtpCodec, RTCRtpCodecParameters, RtpCodecKind};
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use time::OffsetDateTime;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;
use webrtc::data_channel::{DataChannel, DataChannelEvent};
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
    RTCPeerConnectionState,
};

use super::sdp::Fragment;
use super::{Port, PortConfig, stun};
use crate::broadcast::{BroadcastKey, Broadcasts, Limits, Publisher, TrackWriter};
use crate::cue::{At, CueKind, NewCue};
use crate::frame::{Codec, Frame, Kind, Sample, Shape, TrackId, TrackInfo};
use crate::time::{MediaTime, SourceTime};
use crate::whep::{self, Control, PatchError, Patched, Rendition, Session, Terms, WhepError};

const AVCC: &[u8] = &[
    1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 15, 0x67, 0x42, 0xc0, 0x1e, 0xda, 0x02, 0x80, 0xbf, 0xe5,
    0x84, 0, 0, 0x03, 0, 0x04, 1, 0, 4, 0x68, 0xce, 0x3c, 0x80,
];
const PAYLOAD_TYPE: u8 = 102;
const OWN_PAYLOAD_TYPE: u8 = 49;
const GOP: i64 = 15;
const PICTURE: Duration = Duration::from_millis(33);
const WITHIN: Duration = Duration::from_secs(20);
/// One in so many packets of the picture is lost.
const LOST: usize = 7;

/// The publisher: 30 pictures a second of several packets each.
struct Show {
    hub: Arc<Broadcasts>,
    publisher: Publisher,
    pictures: i64,
    /// A keyframe, and any other picture.
    payloads: [Bytes; 2],
}

impl Show {
    fn start(reorder_frames: u8) -> Self {
        Self::of(
            picture_info(reorder_frames),
            [picture(true), picture(false)],
        )
    }

    fn of(info: TrackInfo, payloads: [Bytes; 2]) -> Self {
        let hub = Broadcasts::new(Limits::default());
        let key = BroadcastKey::new("room_1");
        let now = Instant::now();
        let mut publisher = hub.open(key, now, OffsetDateTime::now_utc()).unwrap();
        publisher.set_track(now, info).unwrap();
        Self {
            hub,
            publisher,
            pictures: 0,
            payloads,
        }
    }

    fn picture(&mut self) {
        let n = self.pictures;
        self.pictures += 1;
        let sample = Sample {
            kind: Kind::Video,
            dts: SourceTime::from_millis(n * 33),
            composition: Duration::ZERO,
            samples: 0,
            is_key: n % GOP == 0,
            is_discardable: false,
            payload: self.payloads[usize::from(n % GOP != 0)].clone(),
        };
        self.publisher.write(Instant::now(), sample).unwrap();
    }
}

fn picture_info(reorder_frames: u8) -> TrackInfo {
    TrackInfo {
        codec: Codec::H264,
        generation: 0,
        shape: Shape::Video {
            width: 640,
            height: 360,
        },
        config: Bytes::from_static(AVCC),
        reorder_frames: Some(reorder_frames),
    }
}

fn picture(is_key: bool) -> Bytes {
    let (header, length) = if is_key { (0x65, 5_000) } else { (0x41, 3_000) };
    let mut payload = BytesMut::new();
    payload.put_u32(length);
    payload.put_u8(header);
    payload.put_bytes(1, usize::try_from(length).unwrap() - 1);
    payload.freeze()
}

/// What the viewer's connection tells.
#[derive(Debug)]
struct Told {
    gathered: mpsc::Sender<()>,
    tracks: mpsc::Sender<Arc<dyn TrackRemote>>,
    is_connected: Arc<AtomicBool>,
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
        if state == RTCPeerConnectionState::Connected {
            self.is_connected.store(true, Ordering::Release);
        }
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        drop(self.tracks.try_send(track));
    }
}

/// A viewer that asks for a picture, and for cues if it opens their channel.
struct Viewer {
    connection: Arc<dyn PeerConnection>,
    tracks: mpsc::Receiver<Arc<dyn TrackRemote>>,
    channel: Option<Arc<dyn DataChannel>>,
    is_connected: Arc<AtomicBool>,
    offer: String,
}

/// What a viewer is like.
#[derive(Clone, Debug, Default)]
struct Traits {
    has_channel: bool,
    /// It protects media with the older profile only.
    is_old: bool,
    /// Beside H.264 it takes another codec: its name and its parameters.
    own: Option<(&'static str, &'static str)>,
    terms: Terms,
}

impl Viewer {
    async fn offer(traits: Traits) -> Self {
        let (gathered, mut is_gathered) = mpsc::channel(1);
        let (send, tracks) = mpsc::channel(1);
        let is_connected = Arc::new(AtomicBool::new(false));
        let mut media = MediaEngine::default();
        let line = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
        let own = traits.own.map(|own| (OWN_PAYLOAD_TYPE, own));
        let h264 = (PAYLOAD_TYPE, (MIME_TYPE_H264, line));
        for (payload_type, (mime_type, line)) in own.into_iter().chain([h264]) {
            let codec = RTCRtpCodecParameters {
                rtp_codec: RTCRtpCodec {
                    mime_type: mime_type.to_owned(),
                    clock_rate: 90_000,
                    channels: 0,
                    sdp_fmtp_line: line.to_owned(),
                    rtcp_feedback: Vec::new(),
                },
                payload_type,
            };
            media.register_codec(codec, RtpCodecKind::Video).unwrap();
        }
        let registry = register_default_interceptors(Registry::new(), &mut media).unwrap();
        let mut settings = SettingEngineBuilder::new().with_include_loopback_candidate(true);
        if traits.is_old {
            let profile = SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80;
            settings = settings.with_srtp_protection_profiles(vec![profile]);
        }
        let building = PeerConnectionBuilder::new()
            .with_setting_engine(settings.build())
            .with_media_engine(media)
            .with_interceptor_registry(registry)
            .with_handler(Arc::new(Told {
                gathered,
                tracks: send,
                is_connected: Arc::clone(&is_connected),
            }))
            .with_runtime(webrtc::runtime::default_runtime().unwrap())
            .with_udp_addrs(vec!["127.0.0.1:0"])
            .build();
        let connection = Box::pin(building).await.unwrap();
        let init = RTCRtpTransceiverInit {
            direction: RTCRtpTransceiverDirection::Recvonly,
            ..RTCRtpTransceiverInit::default()
        };
        let added = connection.add_transceiver_from_kind(RtpCodecKind::Video, Some(init));
        added.await.unwrap();
        let mut channel = None;
        if traits.has_channel {
            let init = RTCDataChannelInit {
                ordered: true,
                protocol: "lamplight.cues.1".into(),
                ..RTCDataChannelInit::default()
            };
            let opened = connection.create_data_channel("cues", Some(init));
            channel = Some(opened.await.unwrap());
        }
        let offer = connection.create_offer(None).await.unwrap();
        connection.set_local_description(offer).await.unwrap();
        is_gathered.recv().await.unwrap();
        let offer = connection.local_description().await.unwrap().sdp;
        Self {
            connection: Arc::new(connection),
            tracks,
            channel,
            is_connected,
            offer,
        }
    }

    async fn accept(&self, answer: String) {
        let answer = RTCSessionDescription::answer(answer).unwrap();
        self.connection
            .set_remote_description(answer)
            .await
            .unwrap();
    }
}

/// Passes datagrams both ways, and loses some of the picture's.
struct Wire {
    socket: UdpSocket,
    server: SocketAddr,
    /// The viewer throws away what comes before its side of DTLS is done, so it waits here.
    early: Vec<Vec<u8>>,
    is_connected: Arc<AtomicBool>,
    lost: usize,
}

impl Wire {
    /// A wire to the server of an answer, and the answer that leads there.
    async fn to(answer: &str, is_connected: Arc<AtomicBool>) -> (Self, String) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut lines = answer.lines();
        let line = lines.find(|l| l.starts_with("a=candidate:")).unwrap();
        let port = line.split(' ').nth(5).unwrap();
        let server = (Ipv4Addr::LOCALHOST, port.parse().unwrap()).into();
        let ours = socket.local_addr().unwrap().port();
        let line_through = line.replace(&format!(" {port} "), &format!(" {ours} "));
        let wire = Self {
            socket,
            server,
            early: Vec::new(),
            is_connected,
            lost: 0,
        };
        (wire, answer.replace(line, &line_through))
    }

    async fn run(&mut self) {
        let (mut buffer, mut viewer, mut pictures) = (vec![0; 2_048], self.server, 0);
        loop {
            let (length, from) = self.socket.recv_from(&mut buffer).await.unwrap();
            let datagram = &buffer[..length];
            let to = if from == self.server {
                let is_picture = datagram[0] >> 6 == 2
                    && matches!(datagram[1] & 0x7f, PAYLOAD_TYPE | OWN_PAYLOAD_TYPE);
                pictures += usize::from(is_picture);
                if is_picture && pictures % LOST == 0 {
                    self.lost += 1;
                    continue;
                }
                if is_picture && !self.is_connected.load(Ordering::Acquire) {
                    self.early.push(datagram.to_vec());
                    continue;
                }
                if is_picture {
                    for early in self.early.drain(..) {
                        self.socket.send_to(&early, viewer).await.unwrap();
                    }
                }
                viewer
            } else {
                viewer = from;
                self.server
            };
            self.socket.send_to(datagram, to).await.unwrap();
        }
    }
}

fn port(show: &Show) -> Arc<Port> {
    let config = PortConfig {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        public_addrs: Vec::new(),
        public_port: None,
        payload_bytes_max: 1_200,
    };
    Port::bind(config, Arc::clone(&show.hub)).unwrap()
}

/// A viewer that has its answer, over a wire.
async fn join(port: &Arc<Port>, show: &Show, traits: Traits) -> (Viewer, Wire, Session) {
    let (viewer, wire, session, _) = join_and_hold(port, show, traits).await;
    (viewer, wire, session)
}

async fn join_and_hold(
    port: &Arc<Port>,
    show: &Show,
    traits: Traits,
) -> (Viewer, Wire, Session, Control) {
    let viewer = Viewer::offer(traits.clone()).await;
    let broadcast = show.publisher.broadcast();
    let (terms, now) = (traits.terms, Instant::now());
    let accepted = whep::accept(port, broadcast, &viewer.offer, terms, now).unwrap();
    let (wire, answer) = Wire::to(&accepted.answer, Arc::clone(&viewer.is_connected)).await;
    viewer.accept(answer).await;
    (viewer, wire, accepted.session, accepted.control)
}

/// The type of NAL unit that an RTP payload begins or goes on with.
fn nal_type(payload: &[u8]) -> u8 {
    match payload[0] & 0x1f {
        28 => payload[1] & 0x1f,
        24 => payload[3] & 0x1f,
        kind => kind,
    }
}

/// Keeps the server's side and the wire going while `viewer` does something.
async fn while_served<T>(
    port: &Arc<Port>,
    served: (Session, &mut Wire),
    mut show: Show,
    viewer: impl Future<Output = T>,
) -> T {
    let cancel = CancellationToken::new();
    let (session, wire) = served;
    let hub = Arc::clone(&show.hub);
    let goes_on = async {
        let mut ticks = interval(PICTURE);
        loop {
            ticks.tick().await;
            show.picture();
        }
    };
    let served = async {
        tokio::join!(
            Arc::clone(port).run(cancel.clone()),
            session.run(cancel.clone(), hub),
            wire.run(),
            goes_on,
        )
    };
    tokio::select! {
        _ended = Box::pin(served) => unreachable!("the show goes on"),
        got = timeout(WITHIN, viewer) => got.expect("it comes in time"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_sees_the_newest_keyframe_first_and_gets_lost_packets_again() {
    let mut show = Show::start(0);
    (0..2 * GOP + 5).for_each(|_| show.picture());
    let port = port(&show);
    let (mut viewer, mut wire, session) = join(&port, &show, Traits::default()).await;
    let watch = async {
        let track = viewer.tracks.recv().await.unwrap();
        let (mut kinds, mut got) = (Vec::new(), BTreeSet::new());
        let (mut first, mut began) = (None, None);
        while let Some(event) = track.poll().await {
            let TrackRemoteEvent::OnRtpPacket(packet) = event else {
                continue;
            };
            let start = *first.get_or_insert(packet.header.sequence_number);
            if *began.get_or_insert(packet.header.timestamp) == packet.header.timestamp {
                kinds.push(nal_type(&packet.payload));
            }
            // Not yet round: sequence numbers are compared from where they began.
            got.insert(packet.header.sequence_number.wrapping_sub(start));
            let whole = (0..200).all(|n| got.contains(&n));
            if whole {
                break;
            }
        }
        kinds
    };
    let kinds = while_served(&port, (session, &mut wire), show, watch).await;
    assert_eq!(
        kinds.first(),
        Some(&7),
        "parameter sets come first: {kinds:?}"
    );
    assert!(kinds.contains(&5), "then the keyframe: {kinds:?}");
    assert!(!kinds.contains(&1), "and nothing older: {kinds:?}");
    assert!(
        wire.lost >= 200 / LOST,
        "{} were lost on the way",
        wire.lost
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_loss_and_nothing_else_asks_the_encoder_for_a_keyframe() {
    // Pictures out of order are not passed through: the viewer watches the made track.
    let show = Show::start(2);
    let port = port(&show);
    let (mut viewer, mut wire, session) = join(&port, &show, Traits::default()).await;
    let made = show.publisher.broadcast().made(TrackId::Clean);
    let info = made.set_info(picture_info(0));
    let watch = async {
        let mut ticks = interval(PICTURE);
        let mut written = 0;
        let track = loop {
            tokio::select! {
                track = viewer.tracks.recv() => break track.unwrap(),
                _ = ticks.tick() => write_made(&made, &info, &mut written),
            }
        };
        // Joining may itself have asked for one.
        let _ = made.take_keyframe_request(Instant::now());
        let ssrc = track.ssrcs().await.into_iter().next().unwrap();
        let mut asked_at = Vec::new();
        // Half of them without a loss, longer than requests are held back.
        for n in 0..60 {
            ticks.tick().await;
            write_made(&made, &info, &mut written);
            if n >= 30 {
                let loss = PictureLossIndication {
                    sender_ssrc: 1,
                    media_ssrc: ssrc,
                };
                track.write_rtcp(vec![Box::new(loss)]).await.unwrap();
            }
            if made.take_keyframe_request(Instant::now()) {
                asked_at.push(n);
            }
        }
        asked_at
    };
    let asked_at = while_served(&port, (session, &mut wire), show, watch).await;
    assert!(!asked_at.is_empty(), "thirty losses were told");
    assert!(asked_at.iter().all(|n| *n >= 30), "{asked_at:?}");
    assert!(asked_at.len() <= 3, "at most one in 500 ms: {asked_at:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_with_the_older_protection_only_sees_the_show() {
    let mut show = Show::start(0);
    (0..5).for_each(|_| show.picture());
    let port = port(&show);
    let traits = Traits {
        is_old: true,
        ..Traits::default()
    };
    let (mut viewer, mut wire, session) = join(&port, &show, traits).await;
    let watch = async {
        let track = viewer.tracks.recv().await.unwrap();
        let mut count = 0;
        while count < 50 {
            let event = track.poll().await.unwrap();
            count += usize::from(matches!(event, TrackRemoteEvent::OnRtpPacket(_)));
        }
    };
    while_served(&port, (session, &mut wire), show, watch).await;
}

/// The viewer's network changes: it asks for a restart, checks a new path and nominates it.
#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_restarts_ice_gets_its_media_on_the_new_path() {
    let mut show = Show::start(0);
    (0..5).for_each(|_| show.picture());
    let port = port(&show);
    let joined = join_and_hold(&port, &show, Traits::default()).await;
    let (mut viewer, mut wire, session, control) = joined;
    let server = wire.server;
    let restart = async {
        let track = viewer.tracks.recv().await.unwrap();
        track.poll().await.unwrap();
        let tag = control.tag();
        let asked = Fragment {
            ufrag: "again".into(),
            password: Some("another password of the viewer".into()),
        };
        let patched = control.patch(Instant::now(), &asked);
        let Ok(Patched::Restarted(answer)) = patched else {
            panic!("{patched:?}");
        };
        assert_ne!(control.tag(), tag);
        let value = |name| {
            answer
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap()
        };
        let (ufrag, password) = (value("a=ice-ufrag:"), value("a=ice-pwd:"));
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let check = stun::tests::check(&format!("{ufrag}:again"), password, true);
        socket.send_to(&check, server).await.unwrap();
        let mut buffer = vec![0; 2_048];
        loop {
            let length = socket.recv(&mut buffer).await.unwrap();
            let datagram = &buffer[..length];
            if datagram[0] >> 6 == 2 {
                break;
            }
            let message = stun::read(datagram).unwrap();
            if message.kind == stun::Kind::Request {
                assert!(message.is_authentic("another password of the viewer"));
                // The old path has been in use until now.
                track.poll().await.unwrap();
                let (id, password) = (message.transaction, "another password of the viewer");
                let proof = stun::success(id, server, password);
                socket.send_to(&proof, server).await.unwrap();
            }
        }
    };
    while_served(&port, (session, &mut wire), show, restart).await;
}

#[tokio::test]
async fn a_fragment_is_of_the_session_in_force_or_begins_another() {
    let show = Show::start(0);
    let port = port(&show);
    let (viewer, _wire, session, control) = join_and_hold(&port, &show, Traits::default()).await;
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let fragment = |ufrag: &str, password: Option<&str>| Fragment {
        ufrag: ufrag.into(),
        password: password.map(str::to_owned),
    };
    let ours = {
        let mut lines = viewer.offer.lines();
        let line = lines.find_map(|line| line.strip_prefix("a=ice-ufrag:"));
        line.unwrap().to_owned()
    };
    let tag = control.tag();
    assert_eq!(
        control.patch(now, &fragment(&ours, None)),
        Ok(Patched::Candidates)
    );
    let new = control.patch(now, &fragment("new1", None));
    assert_eq!(new, Err(PatchError::NoPassword));
    assert_eq!(control.tag(), tag);
    let password = Some("0123456789012345678901");
    assert!(matches!(
        control.patch(now, &fragment("new1", password)),
        Ok(Patched::Restarted(_))
    ));
    assert_ne!(control.tag(), tag);
    let storm = control.patch(now, &fragment("new2", password));
    assert_eq!(storm, Err(PatchError::TooFast));
    assert_eq!(
        control.patch(later, &fragment("new1", None)),
        Ok(Patched::Candidates)
    );
    let late = control.patch(later, &fragment(&ours, password));
    assert_eq!(late, Err(PatchError::Past), "a fragment that was overtaken");
    drop(session);
    let gone = control.patch(later, &fragment("new2", password));
    assert_eq!(gone, Err(PatchError::Gone));
}

fn write_made(made: &TrackWriter, info: &Arc<TrackInfo>, written: &mut i64) {
    let dts = MediaTime::from_micros(*written * 33_333);
    made.write(Frame {
        track: TrackId::Clean,
        info: Arc::clone(info),
        dts,
        pts: dts,
        duration: None,
        is_key: *written == 0,
        is_discardable: false,
        discontinuities: 0,
        payload: picture(*written == 0),
        rtp: OnceLock::new(),
        flv: OnceLock::new(),
        chunks: OnceLock::new(),
        arrived: OnceLock::new(),
    });
    *written += 1;
}
