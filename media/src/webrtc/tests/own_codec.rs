//! A viewer that takes the source's own codec beside H.264.

use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_AV1, MIME_TYPE_HEVC};

use super::*;
use crate::whip::depacketise::{Depacketiser, testing};

/// So many packets of the picture are looked at, about five each.
const PACKETS: u16 = 100;

/// A show in this codec: a viewer puts together what its publisher sent.
async fn watched(codec: Codec, own: (&'static str, &'static str)) {
    let info = TrackInfo {
        codec,
        config: testing::config(codec),
        ..picture_info(0)
    };
    let payload = |is_key| testing::payload(codec, is_key, &[vec![7; 4_000], vec![9; 300]]);
    let sent = [payload(true), payload(false)];
    let mut show = Show::of(info, sent.clone());
    (0..GOP + 5).for_each(|_| show.picture());
    let port = port(&show);
    let traits = Traits {
        own: Some(own),
        ..Traits::default()
    };
    let (mut viewer, mut wire, session) = join(&port, &show, traits).await;
    let watch = async {
        let track = viewer.tracks.recv().await.unwrap();
        let (mut packets, mut first) = (std::collections::BTreeMap::new(), None);
        while let Some(event) = track.poll().await {
            let TrackRemoteEvent::OnRtpPacket(packet) = event else {
                continue;
            };
            assert_eq!(packet.header.payload_type, OWN_PAYLOAD_TYPE);
            let start = *first.get_or_insert(packet.header.sequence_number);
            // Not yet round: sequence numbers are compared from where they began.
            packets.insert(packet.header.sequence_number.wrapping_sub(start), packet);
            if (0..PACKETS).all(|n| packets.contains_key(&n)) {
                break;
            }
        }
        packets
    };
    let packets = while_served(&port, (session, &mut wire), show, watch).await;
    let mut depacketiser = Depacketiser::new(codec);
    let mut units = Vec::new();
    for (_, packet) in packets.range(..PACKETS) {
        let (time, is_last) = (packet.header.timestamp, packet.header.marker);
        let pushed = depacketiser.push(time, is_last, &packet.payload);
        units.extend(pushed.unwrap());
    }
    assert!(units.len() > 10 && units[0].is_key, "{}", units.len());
    for unit in units {
        assert_eq!(unit.payload, sent[usize::from(!unit.is_key)], "{codec:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_puts_the_pictures_of_hevc_together() {
    let own = (MIME_TYPE_HEVC, "level-id=93;profile-id=1;tier-flag=0");
    watched(Codec::Hevc, own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_puts_the_pictures_of_av1_together() {
    watched(Codec::Av1, (MIME_TYPE_AV1, "level-idx=5;profile=0;tier=0")).await;
}
