//! Thumbnails of live rooms over HTTP (media.md 6.7).

use std::time::Duration;

use bytes::Bytes;
use lamplight_media::bitstream::hevc;
use lamplight_media::broadcast::{EndReason, Publisher};
use lamplight_media::frame::{Codec, Kind, Sample, Shape, TrackInfo};
use lamplight_media::time::SourceTime;
use tokio::time::Instant;

use super::replay::set_private;
use crate::support::TestServer;

fn hex(digits: &str) -> Bytes {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// A show of one red keyframe of 64x64, as x265 makes it.
fn red_show(server: &TestServer, room: &str) -> Publisher {
    let sets = [
        "40010c01ffff01600000030090000003000003001e928090",
        "42010101600000030090000003000003001ea0208105964a924caf016808000003000800000300f040",
        "4401c172b42240",
    ];
    let [vps, sps, pps] = sets.map(|set| vec![hex(set)]);
    let info = TrackInfo {
        codec: Codec::Hevc,
        generation: 0,
        shape: Shape::Video {
            width: 64,
            height: 64,
        },
        config: hevc::Config::new(vps, sps, pps).unwrap().build().unwrap(),
        reorder_frames: Some(0),
    };
    let mut publisher = server.publish(room);
    publisher.set_track(Instant::now(), info).unwrap();
    let key = Sample {
        kind: Kind::Video,
        dts: SourceTime::from_millis(0),
        composition: Duration::ZERO,
        samples: 0,
        is_key: true,
        is_discardable: false,
        payload: hex("000000142801af0860f9eead5ffddfd7f7f452e672bfae60"),
    };
    publisher.write(Instant::now(), key).unwrap();
    publisher
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_room_has_a_thumbnail_that_is_kept_for_ten_seconds() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let _show = red_show(&server, &room);
    let url = server.url(&format!("/thumb/{room}.jpg"));
    let first = server.client.get(&url).send().await.unwrap();
    assert_eq!(first.status(), 200);
    assert_eq!(first.headers()["content-type"], "image/jpeg");
    assert_eq!(first.headers()["cache-control"], "public, max-age=10");
    let first = first.bytes().await.unwrap();
    assert!(first.starts_with(&[0xff, 0xd8, 0xff]) && first.ends_with(&[0xff, 0xd9]));
    let again = server.client.get(&url).send().await.unwrap();
    assert_eq!(again.bytes().await.unwrap(), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_without_a_picture_has_no_thumbnail() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let path = format!("/thumb/{room}.jpg");
    let before = server.get(&path).await;
    assert_eq!(
        (before.status, before.json()["code"].as_str()),
        (404, Some("not_live"))
    );
    let sound = TrackInfo {
        codec: Codec::Aac,
        generation: 0,
        shape: Shape::Audio {
            rate: 48_000,
            channels: 2,
        },
        config: Bytes::from_static(&[0x11, 0x90]),
        reorder_frames: None,
    };
    let mut publisher = server.publish(&room);
    publisher.set_track(Instant::now(), sound).unwrap();
    assert_eq!(server.get(&path).await.status, 404, "sound alone");
    publisher.finish(EndReason::Finished);
    for unknown in [
        "/thumb/room_none.jpg",
        "/thumb/x.png",
        &format!("/thumb/{room}"),
    ] {
        let answer = server.get(unknown).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (404, Some("not_found"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_rooms_thumbnail_needs_a_token() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let _show = red_show(&server, &room);
    let token = set_private(&server, &format!("{room}.abcdefghijkl")).await;
    let path = format!("/thumb/{room}.jpg");
    assert_eq!(server.get(&path).await.status, 401);
    let opened = server
        .client
        .get(server.url(&format!("{path}?token={token}")));
    let opened = opened.send().await.unwrap();
    assert_eq!(opened.status(), 200);
    assert_eq!(opened.headers()["cache-control"], "private, max-age=10");
}
