//! Publishing over RTMPS, through a real socket.

use bytes::Bytes;
use lamplight_media::frame::Kind;
use lamplight_media::rtmp::client::{Client, ClientError, PublishTarget};
use serde_json::json;

use crate::support::tls::{Certificate, settings};
use crate::support::{Folder, TestServer};

/// AAC, 48 kHz, two channels: the header of an FLV sound tag's body, then one of silence.
const SOUND: [&[u8]; 2] = [&[0xaf, 0, 0x11, 0x90], &[0xaf, 1, 0x21, 0x10, 0x04]];

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_over_tls_goes_live_and_a_wrong_key_is_told_so() {
    let folder = Folder::new();
    let certificate = Certificate::write_to(&folder.0);
    let settings = settings(&folder.0);
    let mut settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    settings.push("rtmp.tls_listen=127.0.0.1:0");
    let server = TestServer::start_with(&settings).await;
    let room = server.room(&server.creator("anna").await).await;
    let path = format!("/api/v1/rooms/{room}/publish_keys");
    let key = server.post(&path, &json!({})).await.json()["key"].clone();
    let addr = server.running().bound().rtmps.unwrap();
    let publish = async |key: &str| {
        let stream = certificate.connect(addr, &[]).await.unwrap();
        let target = format!("rtmp://{addr}/live/{key}").parse::<PublishTarget>();
        Client::publish_on(stream, &target.unwrap()).await
    };

    let refused = publish("live_unknown").await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused { .. }), "{refused}");
    let mut client = publish(key.as_str().unwrap()).await.unwrap();
    for body in SOUND {
        let written = client.write(Kind::Audio, 0, Bytes::from_static(body));
        written.await.unwrap();
    }
    server.reaches(&room, "live").await;
}
