//! The viewers: connections of the `webrtc` crate that count what they get.

use std::io::BufRead;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rtc::interceptor::Registry;
use rtc::peer_connection::configuration::interceptor_registry::register_default_interceptors;
use rtc::peer_connection::configuration::media_engine::{
    MIME_TYPE_H264, MIME_TYPE_OPUS, MediaEngine,
};
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::rtp_transceiver::rtp_sender::{RTCRtpCodec, RTCRtpCodecParameters, RtpCodecKind};
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use tokio::sync::mpsc;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
};

/// What one viewer got.
#[derive(Debug)]
struct Listener {
    gathered: mpsc::Sender<()>,
    sees: mpsc::Sender<()>,
    packets: Arc<AtomicU64>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Listener {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            // Told once already, or the bench is over.
            let _ = self.gathered.try_send(());
        }
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let (sees, packets) = (self.sees.clone(), Arc::clone(&self.packets));
        tokio::spawn(async move {
            let mut is_first = track.kind().await == RtpCodecKind::Video;
            while let Some(event) = track.poll().await {
                if let TrackRemoteEvent::OnRtpPacket(_packet) = event {
                    packets.fetch_add(1, Ordering::Relaxed);
                    if std::mem::take(&mut is_first) {
                        let _ = sees.try_send(());
                    }
                }
            }
        });
    }
}

/// Opens `count` viewers, an offer and an answer a line each; then answers `packets`.
pub(crate) fn run(count: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let packets = Arc::new(AtomicU64::new(0));
        let (sees, mut seen) = mpsc::channel(count);
        let mut viewers = Vec::new();
        for _ in 0..count {
            viewers.push(connect(sees.clone(), Arc::clone(&packets)).await);
        }
        for _ in 0..count {
            seen.recv().await.unwrap();
        }
        println!("all see the show");
        while read().as_deref() == Some("packets") {
            println!("{}", packets.load(Ordering::Relaxed));
        }
        drop(viewers);
    });
}

async fn connect(sees: mpsc::Sender<()>, packets: Arc<AtomicU64>) -> Arc<dyn PeerConnection> {
    let (gathered, mut is_gathered) = mpsc::channel(1);
    let listener = Arc::new(Listener {
        gathered,
        sees,
        packets,
    });
    let mut media = codecs();
    let registry = register_default_interceptors(Registry::new(), &mut media).unwrap();
    let settings = SettingEngineBuilder::new()
        .with_include_loopback_candidate(true)
        .build();
    let connection = PeerConnectionBuilder::new()
        .with_setting_engine(settings)
        .with_media_engine(media)
        .with_interceptor_registry(registry)
        .with_handler(listener)
        .with_runtime(webrtc::runtime::default_runtime().unwrap())
        .with_udp_addrs(vec!["127.0.0.1:0"])
        .build()
        .await
        .unwrap();
    for kind in [RtpCodecKind::Video, RtpCodecKind::Audio] {
        let init = RTCRtpTransceiverInit {
            direction: RTCRtpTransceiverDirection::Recvonly,
            ..RTCRtpTransceiverInit::default()
        };
        connection
            .add_transceiver_from_kind(kind, Some(init))
            .await
            .unwrap();
    }
    let offer = connection.create_offer(None).await.unwrap();
    connection.set_local_description(offer).await.unwrap();
    is_gathered.recv().await.unwrap();
    let offer = connection.local_description().await.unwrap().sdp;
    println!("{}", offer.trim_end().replace("\r\n", "\t"));
    let answer = read().unwrap().replace('\t', "\r\n");
    let answer = RTCSessionDescription::answer(answer).unwrap();
    connection.set_remote_description(answer).await.unwrap();
    Arc::new(connection)
}

fn codecs() -> MediaEngine {
    let mut media = MediaEngine::default();
    let codec = |mime: &str, rate: u32, channels: u16, line: &str, payload_type: u8| {
        RTCRtpCodecParameters {
            rtp_codec: RTCRtpCodec {
                mime_type: mime.to_owned(),
                clock_rate: rate,
                channels,
                sdp_fmtp_line: line.to_owned(),
                rtcp_feedback: Vec::new(),
            },
            payload_type,
        }
    };
    let line = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
    let video = codec(MIME_TYPE_H264, 90_000, 0, line, 102);
    media.register_codec(video, RtpCodecKind::Video).unwrap();
    let audio = codec(MIME_TYPE_OPUS, 48_000, 2, "minptime=10;useinbandfec=1", 111);
    media.register_codec(audio, RtpCodecKind::Audio).unwrap();
    media
}

/// A line from the server; `None` when it has gone.
fn read() -> Option<String> {
    let mut line = String::new();
    let count = std::io::stdin().lock().read_line(&mut line).ok()?;
    (count > 0).then(|| line.trim_end().to_owned())
}
