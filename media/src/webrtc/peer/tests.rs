//! A connection whose handshake is taken for done: what leaves it, opened as a viewer opens it.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::OnceLock;

use bytes::Bytes;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::NackPair;
use rtc::rtp;
use rtc::shared::marshal::Unmarshal;
use rtc::srtp::context::Context;

use super::*;
use crate::broadcast::{Broadcasts, Limits};
use crate::frame::{Codec, Shape, TrackId, TrackInfo};
use crate::webrtc::ice::Credentials;
use crate::webrtc::message::RtpLine;
use crate::webrtc::sdp::{CAPTURE_TIME_URI, MID_URI, TRANSPORT_SEQUENCE_URI};
use crate::webrtc::{PortConfig, srtp, stun};

const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
    a=group:BUNDLE v a\r\na=fingerprint:sha-256 AA\r\na=ice-ufrag:them\r\n\
    a=ice-pwd:0123456789012345678901\r\nm=video 9 UDP/TLS/RTP/SAVPF 102\r\na=mid:v\r\n\
    a=recvonly\r\na=rtpmap:102 H264/90000\r\na=fmtp:102 packetization-mode=1\r\nEXTMAP\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:a\r\na=recvonly\r\n\
    a=rtpmap:111 opus/48000/2\r\n";

/// A viewer on loopback, and the server's end of its connection.
pub(super) struct Stage {
    port: Arc<Port>,
    burst: Burst,
    pub(super) peer: Peer,
    lines: RtpLines,
    socket: UdpSocket,
    context: Context,
    pub(super) now: Instant,
}

impl Stage {
    pub(super) async fn set(extensions: &str) -> Self {
        Self::set_for(extensions, None).await
    }

    /// For a show with a source.
    async fn set_for(extensions: &str, source: Option<&TrackInfo>) -> Self {
        let config = PortConfig {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            public_addrs: Vec::new(),
            public_port: None,
            payload_bytes_max: 1_200,
        };
        let port = Port::bind(config, Broadcasts::new(Limits::default())).unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let offer = Offer::read(&OFFER.replace("EXTMAP", extensions), source).unwrap();
        let local = Credentials {
            ufrag: "ours".into(),
            password: "secret".into(),
        };
        let line = |rate, offset| Some(RtpLine { rate, offset });
        let lines = RtpLines {
            video: line(90_000, 4_000_000_000),
            audio: line(48_000, 7),
        };
        let spec = PeerSpec {
            names: Names::new(local, offer.ice.clone()),
            offer,
            video_ssrc: 0x1234_7ff1,
            audio_ssrc: 2,
            lines,
        };
        let now = tokio::time::Instant::now().into_std();
        let mut peer = Peer::new(&spec, port.identity(), now);
        let check = stun::tests::check("ours:them", "secret", true);
        let datagram = Datagram {
            from: socket.local_addr().unwrap(),
            bytes: BytesMut::from(&check[..]),
        };
        assert_eq!(peer.receive(now, datagram), Taken::Check);
        let (keys, context) = srtp::tests::keys();
        peer.srtp = Some(Box::new(keys));
        let mut stage = Self {
            port,
            burst: Burst::default(),
            peer,
            lines,
            socket,
            context,
            now,
        };
        stage.flush();
        // Until it is asked once, nobody knows that the socket takes anything.
        stage.burst.settle(&stage.port).await;
        assert_eq!(stage.arrived().len(), 1, "the check is answered");
        stage
    }

    fn flush(&mut self) {
        self.peer.flush(&self.port, &mut self.burst);
    }

    pub(super) fn write(&mut self, frame: &Frame) {
        let out = (&*self.port, &mut self.burst);
        let wall = |t: MediaTime| {
            OffsetDateTime::UNIX_EPOCH + Duration::from_micros(t.as_micros().unsigned_abs())
        };
        self.peer.write(self.now, out, frame, wall);
    }

    /// All datagrams that came.
    pub(super) fn arrived(&self) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let mut buffer = vec![0; 2_048];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            out.push(buffer[..length].to_vec());
        }
        out
    }

    /// The packet in a datagram, unless it came before.
    pub(super) fn open(&mut self, datagram: &[u8]) -> Option<rtp::Packet> {
        let opened = self.context.decrypt_rtp(datagram).ok()?;
        rtp::Packet::unmarshal(&mut &opened[..]).ok()
    }

    fn packets(&mut self) -> Vec<rtp::Packet> {
        let arrived = self.arrived();
        let open = |datagram: &Vec<u8>| {
            let opened = self.context.decrypt_rtp(datagram).unwrap();
            rtp::Packet::unmarshal(&mut &opened[..]).unwrap()
        };
        arrived.iter().map(open).collect()
    }

    /// The viewer says that these did not arrive; what it gets.
    pub(super) fn ask(&mut self, ssrc: u32, lost: impl IntoIterator<Item = u16>) -> Vec<Vec<u8>> {
        let pairs = lost.into_iter().map(|packet_id| NackPair {
            packet_id,
            lost_packets: 0,
        });
        let pairs = pairs.collect();
        self.peer.feedback.push(Feedback::Lost { ssrc, pairs });
        let (port, burst) = (Arc::clone(&self.port), &mut self.burst);
        assert!(!self.peer.answer_reports(self.now, &port, burst));
        self.arrived()
    }
}

pub(super) fn frame(track: TrackId, t_us: i64, bytes: usize) -> Frame {
    let t = MediaTime::from_micros(t_us);
    let length = u32::try_from(bytes - 4).unwrap().to_be_bytes();
    let (codec, payload) = match track.kind() {
        Kind::Video => (Codec::H264, [&length[..], &vec![0x41; bytes - 4]].concat()),
        Kind::Audio => (Codec::Opus, vec![9; bytes]),
    };
    Frame {
        track,
        info: Arc::new(TrackInfo {
            codec,
            generation: 0,
            shape: Shape::Audio {
                rate: 48_000,
                channels: 2,
            },
            config: Bytes::new(),
            reorder_frames: None,
        }),
        dts: t,
        pts: t,
        duration: None,
        is_key: false,
        is_discardable: false,
        discontinuities: 0,
        payload: payload.into(),
        rtp: OnceLock::new(),
        flv: OnceLock::new(),
        chunks: OnceLock::new(),
        arrived: OnceLock::new(),
    }
}

#[test]
fn ntp_time_counts_from_1900_and_ends_with_its_era() {
    let at = |seconds: i64, nanos: i64| {
        let unix = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        ntp_time(OffsetDateTime::from_unix_timestamp_nanos(unix).unwrap())
    };
    assert_eq!(at(0, 0), 2_208_988_800 << 32);
    assert_eq!(at(0, 500_000_000), 2_208_988_800 << 32 | 1 << 31);
    // The next era begins in 2036.
    assert_eq!(at(2_085_978_496, 0), 0);
}

#[tokio::test]
async fn a_frame_is_one_burst_of_packets_in_sequence_with_the_marker_on_the_last() {
    let mut stage = Stage::set("").await;
    // Sequence numbers begin just below half a round, which is no limit.
    let mut expected = 0x7ff1_u16;
    for n in 0..20 {
        let t = MediaTime::from_micros(n * 33_333);
        stage.write(&frame(TrackId::Clean, n * 33_333, 9_580));
        let packets = stage.packets();
        assert_eq!(packets.len(), 9 - 1);
        for (place, packet) in packets.iter().enumerate() {
            let header = &packet.header;
            assert_eq!(header.sequence_number, expected);
            assert_eq!(header.timestamp, stage.lines.video.unwrap().at(t));
            assert_eq!((header.payload_type, header.ssrc), (102, 0x1234_7ff1));
            assert_eq!(header.marker, place + 1 == packets.len());
            assert!(packet.payload.len() <= 1_200 && header.extensions.is_empty());
            expected = expected.wrapping_add(1);
        }
    }
    assert_eq!(stage.burst.datagrams, 161);
    assert!(stage.burst.calls <= 161);
}

#[tokio::test]
async fn what_was_lost_comes_again_to_the_bit_once_a_round_trip() {
    let extensions = format!("a=extmap:3 {MID_URI}\r\na=extmap:5 {CAPTURE_TIME_URI}\r\n");
    let mut stage = Stage::set(&extensions).await;
    stage.write(&frame(TrackId::Clean, 0, 9_580));
    let sent = stage.arrived();
    let again = stage.ask(0x1234_7ff1, [0x7ff1, 0x7ff4, 0x7ff1, 0x7ff0, 0x7fff]);
    assert_eq!(again, [sent[0].clone(), sent[3].clone()]);
    assert!(
        stage.ask(0x1234_7ff1, [0x7ff1]).is_empty(),
        "it is under way"
    );
    assert!(stage.ask(99, [0x7ff1]).is_empty(), "no such stream");
    stage.now += Duration::from_millis(60);
    assert_eq!(stage.ask(0x1234_7ff1, [0x7ff1]), [sent[0].clone()]);
    stage.peer.round_trip.measured = Some(Duration::from_millis(100));
    stage.now += Duration::from_millis(60);
    assert!(stage.ask(0x1234_7ff1, [0x7ff1]).is_empty());
    assert_eq!(stage.peer.counts().repeated, 3);
}

/// Sixty-five datagrams that ask for all of the history, again and again.
#[tokio::test]
async fn a_viewer_that_asks_for_everything_gets_a_fifth_of_it() {
    let mut stage = Stage::set("").await;
    let mut sent = 0;
    for n in 0..60 {
        stage.write(&frame(TrackId::Clean, n * 33_333, 9_580));
        sent += stage.arrived().iter().map(Vec::len).sum::<usize>();
    }
    let (mut again, began) = (0, stage.burst.datagrams);
    for _ in 0..65 {
        stage.now += Duration::from_millis(60);
        let got = stage.ask(0x1234_7ff1, (0..6_000).map(|n| 0x7ff1 + n % 480));
        again += got.iter().map(Vec::len).sum::<usize>();
    }
    assert!(
        again > 0 && again <= sent / 5 + (16 << 10),
        "{again} of {sent}"
    );
    assert!(stage.burst.datagrams - began < 150);
}

/// The far end shows sound with the picture that was captured with it.
#[tokio::test]
async fn both_streams_report_the_same_moment_of_the_same_line() {
    let mut stage = Stage::set("").await;
    let t = MediaTime::from_micros(5_432_100);
    let at = || {
        (
            t,
            OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        )
    };
    stage.peer.report(stage.now, at);
    stage.flush();
    assert!(stage.arrived().is_empty(), "nothing was sent yet");
    // The picture lags behind the sound, as one that was encoded again does.
    stage.write(&frame(TrackId::Clean, 5_300_000, 3_000));
    stage.write(&frame(TrackId::Opus, 5_400_000, 200));
    stage.arrived();
    stage.peer.report(stage.now, at);
    stage.peer.report(stage.now, at);
    stage.flush();
    let reports: Vec<SenderReport> = stage
        .arrived()
        .iter()
        .map(|datagram| {
            let opened = stage.context.decrypt_rtcp(datagram).unwrap();
            SenderReport::unmarshal(&mut &opened[..]).unwrap()
        })
        .collect();
    let [video, audio] = reports.as_slice() else {
        panic!("{reports:?}");
    };
    assert_eq!(video.ntp_time, audio.ntp_time);
    assert_eq!(video.rtp_time, stage.lines.video.unwrap().at(t));
    assert_eq!(audio.rtp_time, stage.lines.audio.unwrap().at(t));
    assert_eq!((video.packet_count, audio.packet_count), (3, 1));
    assert_eq!(audio.octet_count, 200);
}

#[tokio::test]
async fn a_keyframe_and_each_second_say_when_they_were_captured() {
    let extensions = format!("a=extmap:3 {MID_URI}\r\na=extmap:5 {CAPTURE_TIME_URI}\r\n");
    let mut stage = Stage::set(&extensions).await;
    let mut marked = Vec::new();
    for n in 0..60 {
        let mut frame = frame(TrackId::Clean, n * 33_333, 3_000);
        frame.is_key = n == 10;
        stage.write(&frame);
        stage.now += Duration::from_micros(33_333);
        let packets = stage.packets();
        for (place, packet) in packets.iter().enumerate() {
            let captured = packet.header.get_extension(5);
            assert_eq!(packet.header.get_extension(3).is_some(), captured.is_some());
            let Some(captured) = captured else { continue };
            assert_eq!(
                (place, packet.header.get_extension(3).unwrap()),
                (0, "v".into())
            );
            let t = Duration::from_micros(33_333) * u32::try_from(n).unwrap();
            let wall = OffsetDateTime::UNIX_EPOCH + t;
            assert_eq!(captured[..], ntp_time(wall).to_be_bytes());
            marked.push(n);
        }
    }
    assert_eq!(marked, [0, 10, 41]);
}

#[tokio::test]
async fn a_viewers_reference_time_is_answered_with_its_middle() {
    let mut stage = Stage::set("").await;
    let ntp = 0x1122_3344_5566_7788;
    stage
        .peer
        .feedback
        .push(Feedback::ReferenceTime { ssrc: 77, ntp });
    let (port, burst) = (Arc::clone(&stage.port), &mut stage.burst);
    stage.peer.answer_reports(stage.now, &port, burst);
    stage.flush();
    let arrived = stage.arrived();
    let opened = stage.context.decrypt_rtcp(&arrived[0]).unwrap();
    let report = ExtendedReport::unmarshal(&mut &opened[..]).unwrap();
    assert_eq!(report.sender_ssrc, 0x1234_7ff1);
    let block = report.reports[0].as_any().downcast_ref::<DLRRReportBlock>();
    let expected = DLRRReport {
        ssrc: 77,
        last_rr: 0x3344_5566,
        dlrr: 0,
    };
    assert_eq!(block.unwrap().reports, [expected]);
}

#[tokio::test]
async fn a_probe_is_padding_in_sequence_that_can_be_had_again() {
    let extensions =
        format!("a=extmap:4 {TRANSPORT_SEQUENCE_URI}\r\na=rtcp-fb:102 transport-cc\r\n");
    let mut stage = Stage::set(&extensions).await;
    assert!(stage.peer.probe(stage.now, 2_000_000));
    let write_probe = |stage: &mut Stage| {
        let out = (&*stage.port, &mut stage.burst);
        stage.peer.write_probe(stage.now, out);
    };
    write_probe(&mut stage);
    assert!(
        stage.arrived().is_empty(),
        "padding has the time of a frame"
    );
    stage.write(&frame(TrackId::Clean, 0, 3_000));
    let mut expected: u16 = 0x7ff1 + 3;
    let mut transport: u16 = 3;
    let (mut bytes, mut again) = (stage.arrived().len() * 1_000, Vec::new());
    for _ in 0..20 {
        write_probe(&mut stage);
        for datagram in stage.arrived() {
            let opened = stage.context.decrypt_rtp(&datagram).unwrap();
            assert_eq!(opened[0] & 0x20, 0x20, "it says that it is padding");
            assert_eq!(opened.last(), Some(&255));
            let packet = rtp::Packet::unmarshal(&mut &opened[..]).unwrap();
            let header = &packet.header;
            assert_eq!((header.sequence_number, header.marker), (expected, false));
            assert_eq!(
                header.timestamp,
                stage.lines.video.unwrap().at(MediaTime::ZERO)
            );
            let number = header.get_extension(4).unwrap();
            assert_eq!(number[..2], transport.to_be_bytes());
            assert!(packet.payload.is_empty());
            (expected, transport) = (expected + 1, transport + 1);
            bytes += datagram.len();
            again = datagram;
        }
        stage.now += Duration::from_millis(10);
    }
    let sent_bps = bytes * 8 * 5;
    assert!((1_900_000..2_150_000).contains(&sent_bps), "{sent_bps}");
    assert_eq!(stage.ask(0x1234_7ff1, [expected - 1]), [again]);
    stage.now += Duration::from_secs(2);
    assert_eq!(
        stage.peer.probed(stage.now),
        Some(false),
        "nobody told of it"
    );
}

/// From the source's HEVC to the H.264 that is made of it, and back.
#[tokio::test]
async fn a_move_to_another_codec_changes_the_payload_type_and_nothing_else() {
    let own = "a=rtpmap:49 H265/90000\r\na=rtcp-fb:49 nack\r\n";
    let hevc = TrackInfo {
        codec: Codec::Hevc,
        config: Bytes::from_static(&[1, 1, 0x60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 93]),
        ..(*frame(TrackId::Video, 0, 8).info).clone()
    };
    let mut stage = Stage::set_for(own, Some(&hevc)).await;
    let hevc = Arc::new(hevc);
    let (mut sent, mut got) = (Vec::new(), Vec::new());
    let moves = [TrackId::Video, TrackId::Rung(360), TrackId::Video];
    for (n, track) in (0..).zip(moves) {
        let mut frame = frame(track, n * 100_000, 3_000);
        if track == TrackId::Video {
            frame.info = Arc::clone(&hevc);
            // A slice of HEVC, as the other is of H.264.
            frame.payload = [&frame.payload[..4], &[2; 2_996]].concat().into();
        }
        stage.write(&frame);
        let datagrams = stage.arrived();
        assert!(datagrams.len() > 2, "{track}");
        let line = stage.lines.video.unwrap();
        for datagram in datagrams {
            let header = rtp::Packet::unmarshal(&mut &datagram[..]).unwrap().header;
            assert_eq!(header.timestamp, line.at(frame.pts), "{track}");
            assert_eq!(header.ssrc, 0x1234_7ff1);
            sent.push(datagram);
            got.push(header);
        }
    }
    let mut types: Vec<u8> = got.iter().map(|header| header.payload_type).collect();
    types.dedup();
    assert_eq!(types, [49, 102, 49]);
    for pair in got.windows(2) {
        let next = pair[0].sequence_number.wrapping_add(1);
        assert_eq!(pair[1].sequence_number, next);
    }
    // What is sent again is what it was, although another codec plays now.
    let lost = got.iter().position(|header| header.payload_type == 102);
    let lost = lost.unwrap();
    let again = stage.ask(0x1234_7ff1, [got[lost].sequence_number]);
    assert_eq!(again, [sent[lost].clone()]);
    let unknown = TrackInfo {
        codec: Codec::Av1,
        ..(*hevc).clone()
    };
    let mut frame = frame(TrackId::Video, 400_000, 3_000);
    frame.info = Arc::new(unknown);
    stage.write(&frame);
    assert_eq!(stage.packets().len(), 0, "AV1 was not negotiated");
}
