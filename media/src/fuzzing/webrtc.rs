//! What comes in on the WebRTC port: checks, DTLS, reports, the data channel, a publisher's media.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rtc::srtp::protection_profile::ProtectionProfile;
use tokio::time::Instant;

use crate::bitstream::{av1, h264};
use crate::frame::{Codec, RtpPayload};
use crate::webrtc::arrivals::Arrivals;
use crate::webrtc::channel::Channel;
use crate::webrtc::dtls::{Dtls, Identity};
use crate::webrtc::estimate::{Estimate, Reporting};
use crate::webrtc::feedback::{self, Feedback};
use crate::webrtc::history::{Allowance, History, Marks, Sent};
use crate::webrtc::srtp::Srtp;
use crate::webrtc::stun;
use crate::whip::depacketise::Depacketiser;
use crate::whip::reorder::{Next, Reorder};

/// STUN: what reads lies within the datagram, and no password is right but the one it was made
/// with.
pub fn stun(data: &[u8]) {
    let Some(message) = stun::read(data) else {
        return;
    };
    assert!(message.username.is_none_or(|name| name.len() < data.len()));
    // The seeds that are signed are signed with "right".
    assert!(!message.is_authentic("a password that nobody has"));
    let again = stun::request(message.transaction, "a:b", "right");
    let again = stun::read(&again).expect("a request of ours reads");
    assert!(again.is_authentic("right") && again.username == Some("a:b"));
}

/// DTLS records: whatever comes first, no keys and no panic; what is answered is bounded.
///
/// Datagrams are preceded by a 16-bit length.
pub fn dtls_record(data: &[u8]) {
    static IDENTITY: OnceLock<Arc<Identity>> = OnceLock::new();
    let identity = IDENTITY.get_or_init(|| Arc::new(Identity::new().expect("a key can be made")));
    let mut dtls = Dtls::new(Arc::clone(identity), &["sha-256 00".to_owned()]);
    let now = now();
    let mut answered = 0;
    for datagram in datagrams(data) {
        let Ok(news) = dtls.receive(now, BytesMut::from(datagram)) else {
            return;
        };
        assert!(
            news.is_empty(),
            "{} news of one who knows no key",
            news.len()
        );
        answered += std::iter::from_fn(|| dtls.next())
            .map(|out| out.len())
            .sum::<usize>();
    }
    assert!(answered <= 16_384 + 16 * data.len(), "{answered} bytes");
}

/// SRTCP: nothing opens that was not made with the keys of the session.
pub fn srtp_unprotect(data: &[u8]) {
    for profile in [
        ProtectionProfile::AeadAes128Gcm,
        ProtectionProfile::Aes128CmHmacSha1_80,
    ] {
        let mut srtp = Srtp::for_fuzzing(profile);
        for datagram in datagrams(data) {
            assert!(srtp.open_report(datagram).is_err(), "{profile:?}");
        }
    }
}

/// Reports: what is read of a compound is no more than its bytes can hold.
pub fn rtcp_compound(data: &[u8]) {
    let read = feedback::read(data);
    // The smallest thing that is reported has four bytes beside its header.
    assert!(read.len() <= data.len());
    for one in read {
        match one {
            Feedback::Lost { pairs, .. } => {
                let asked: usize = pairs.iter().map(|p| feedback::sequences(*p).count()).sum();
                assert!(asked <= 17 * data.len());
            }
            Feedback::Arrivals(report) => assert!(report.len() <= data.len()),
            _ => {}
        }
    }
}

/// Packets asked for again: only those that were sent, each once in a while, and of all no more
/// than the allowance.
///
/// The first two bytes are the first sequence number; then sequence numbers that are asked for.
pub fn nack(data: &[u8]) {
    let mut rest = data;
    if rest.remaining() < 2 {
        return;
    }
    let first = u64::from(rest.get_u16()) + (1 << 16);
    let mut history = History::new(512);
    let payload = RtpPayload::from(Bytes::from_static(&[0; 1_000]));
    let frames = 200_u64;
    for n in 0..frames {
        history.push(Sent {
            first: first + n * 4,
            timestamp: 0,
            payload_type: 96,
            payloads: Arc::from(vec![payload.clone(); 4]),
            marks: Marks::default(),
            is_padding: false,
        });
    }
    let mut allowance = Allowance::new();
    let now = now();
    let (mut repeated, mut bytes) = (0_usize, 0_usize);
    while rest.remaining() >= 2 {
        let asked = rest.get_u16();
        let Some((sent, place)) = history.find(asked) else {
            continue;
        };
        let number = sent.first + u64::try_from(place).expect("a place in a frame is small");
        assert_eq!(
            number & 0xffff,
            u64::from(asked),
            "another packet than was asked for"
        );
        assert!(
            (first..first + frames * 4).contains(&number),
            "one that was never sent"
        );
        if history.may_repeat(now, number, None) && allowance.spend(1_000) {
            repeated += 1;
            bytes += 1_000;
        }
    }
    assert!(repeated <= 516, "each once, and none that has left");
    assert!(
        !allowance.spend(bytes.max(4 << 20)),
        "the allowance has an end"
    );
}

/// Reports on the arrival of every packet: as many packets as it says at most, in their order; the
/// estimate stays within its bounds.
pub fn twcc(data: &[u8]) {
    let Some(report) = Arrivals::read(data) else {
        return;
    };
    let statuses: Vec<_> = report.statuses().collect();
    for pair in statuses.windows(2) {
        let [one, next] = pair else { continue };
        assert_eq!(one.number.wrapping_add(1), next.number);
    }
    let now = now();
    let mut estimate = Estimate::new(
        now,
        Reporting {
            every_packet: true,
            own_estimate: false,
        },
    );
    if let Some(first) = statuses.first() {
        // So that some of what is reported was sent.
        for n in 0..=first.number.min(2_000) {
            estimate.number(now + Duration::from_millis(n.into()), 1, 1_200);
        }
    }
    estimate.arrived(now + Duration::from_secs(3), &report);
    is_within_bounds(&estimate);
}

/// Estimates of a viewer: whatever number it reports, what is believed stays within bounds.
pub fn remb(data: &[u8]) {
    let now = now();
    let mut estimate = Estimate::new(
        now,
        Reporting {
            every_packet: false,
            own_estimate: true,
        },
    );
    for one in feedback::read(data) {
        if let Feedback::Estimate(bps) = one {
            estimate.told(bps);
            is_within_bounds(&estimate);
        }
    }
    for bits in data.chunks_exact(4) {
        let bits = bits.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        estimate.told(f32::from_bits(bits));
        is_within_bounds(&estimate);
    }
}

fn is_within_bounds(estimate: &Estimate) {
    let bps = estimate.bps();
    assert!(
        (100_000..=1_000_000_000).contains(&bps),
        "{bps} bits a second"
    );
}

/// SCTP and DCEP: nothing opens without the dance of an association, and answers are bounded.
pub fn sctp_dcep(data: &[u8]) {
    let now = now();
    let mut channel = Channel::new(now, 5_000, 65_536);
    let mut answered = 0;
    for packet in datagrams(data) {
        channel.receive(now, Bytes::copy_from_slice(packet));
        answered += channel.next(now).iter().map(Bytes::len).sum::<usize>();
    }
    assert!(!channel.is_open, "nobody knows the cookie");
    // A state cookie for each who asks.
    let most = 4_096 * (1 + data.len() / 16);
    assert!(answered <= most, "{answered} bytes");
}

/// RTP payloads of a publisher: what leaves can be read, in order and within bounds, and begins
/// with a keyframe after each loss.
///
/// The first byte is the codec. Before each payload stand a byte of marks, by bits: it is the last
/// of its unit, a new unit begins, there was a loss; and a byte of its length.
pub fn rtp_payload(data: &[u8]) {
    let Some((&codec, mut rest)) = data.split_first() else {
        return;
    };
    let codec = [Codec::H264, Codec::Hevc, Codec::Av1][usize::from(codec) % 3];
    let mut depacketiser = Depacketiser::new(codec);
    let (mut time, mut newest, mut needs_key, mut bytes) = (0, 0, true, 0);
    while let Some((&[marks, length], after)) = rest.split_first_chunk::<2>() {
        let (payload, after) = after.split_at(after.len().min(length.into()));
        rest = after;
        if marks & 4 != 0 {
            depacketiser.lose();
            needs_key = true;
        }
        time += u32::from(marks >> 1 & 1);
        let pushed = depacketiser.push(time, marks & 1 != 0, payload);
        for unit in pushed.unwrap_or_default() {
            assert!(
                unit.is_key || !needs_key,
                "nothing begins between keyframes"
            );
            needs_key = false;
            assert!(newest <= unit.rtp_time && unit.rtp_time <= time);
            newest = unit.rtp_time;
            bytes += unit.payload.len();
            assert!(!unit.payload.is_empty());
            match codec {
                Codec::Av1 => assert!(av1::obus(&unit.payload).all(|obu| obu.is_ok())),
                _ => assert!(h264::nals(&unit.payload).all(|nal| nal.is_ok())),
            }
        }
    }
    assert!(
        bytes <= 5 * data.len(),
        "payloads come from the bytes alone"
    );
}

/// Order: numbers come out in order, each once, and a gap is told before what follows it.
///
/// Three bytes a packet: milliseconds since the last, and its number.
pub fn jitter(data: &[u8]) {
    let mut reorder = Reorder::default();
    let mut now = Instant::now();
    let mut last: Option<u16> = None;
    let mut has_gap = true;
    let mut rest = data;
    while rest.remaining() >= 3 {
        now += Duration::from_millis(rest.get_u8().into());
        let number = rest.get_u16();
        reorder.push(now, number, number);
        let asks = reorder.asks(now);
        assert!(asks.len() <= 200, "{} asks", asks.len());
        assert!(reorder.missing() <= 3_000, "{} missing", reorder.missing());
        while let Some(next) = reorder.pop(now) {
            match next {
                Next::Lost => has_gap = true,
                Next::Packet(number) => {
                    let is_next = last.is_none_or(|last| last.wrapping_add(1) == number);
                    assert!(is_next || has_gap, "{number} after {last:?}");
                    (last, has_gap) = (Some(number), false);
                }
            }
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// What is preceded by a 16-bit length.
fn datagrams(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        if rest.remaining() < 2 {
            return None;
        }
        let length = usize::from(rest.get_u16()).min(rest.len());
        let (one, after) = rest.split_at(length);
        rest = after;
        Some(one)
    })
}
