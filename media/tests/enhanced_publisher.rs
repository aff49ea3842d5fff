//! A publisher over enhanced RTMP, from the bodies of its tags to the playlists.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lamplight_media::broadcast::{BroadcastKey, Broadcasts, Limits};
use lamplight_media::flv::Demuxer;
use lamplight_media::hls::{Answer, Held, HlsConfig, Media, Packager, RenditionId, Stream};
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::enhanced::{Feed, av1_bodies, hevc_bodies};

/// Plays a show; the multivariant playlist, and the init section of its picture.
#[expect(
    clippy::disallowed_methods,
    reason = "a test runs the packager beside the publisher"
)]
async fn packaged(bodies: [Bytes; 3]) -> (String, Bytes) {
    let hub = Broadcasts::new(Limits::default());
    let key = BroadcastKey::new("room_1");
    let opened = hub.open(key, Instant::now(), OffsetDateTime::UNIX_EPOCH);
    let mut feed = Feed {
        demuxer: Demuxer::new(),
        publisher: opened.expect("the hub is empty"),
    };
    let config = HlsConfig {
        target_duration: Duration::from_secs(4),
        segment_target: Duration::from_secs(2),
        part_target: Duration::from_millis(500),
        window: Duration::from_secs(40),
        dvr: Duration::ZERO,
        gap_after: Duration::from_secs(2),
        has_rungs: false,
        has_silent_audio: false,
    };
    let stream = Stream::new("abcdefghijkl", config, Held::default());
    let broadcast = Arc::clone(feed.publisher.broadcast());
    let packager = Packager::new(broadcast, Arc::clone(&stream));
    tokio::spawn(packager.run(CancellationToken::new()));
    feed.play(bodies).await;
    let Answer::Playlist { body, .. } = stream.multivariant(None).await else {
        panic!("no multivariant playlist");
    };
    let text = String::from_utf8(body.plain.to_vec()).expect("a playlist is text");
    let init = stream
        .media(RenditionId::Src, "abcdefghijkl-init0.mp4")
        .await;
    let Media::Found(init) = init else {
        panic!("no init section");
    };
    (text, init)
}

fn holds(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

/// HLS takes the picture as it is; Opus is nothing to it without its converter, which does not run
/// here.
#[tokio::test(start_paused = true)]
async fn hevc_and_av1_reach_hls_untouched_and_opus_not_at_all() {
    let rows = [
        (hevc_bodies(), "hvc1.1.6.L30.90", b"hvcC"),
        (av1_bodies(), "av01.0.00M.08", b"av1C"),
    ];
    for (bodies, codecs, record) in rows {
        let (text, init) = packaged(bodies).await;
        assert!(text.contains(&format!("CODECS=\"{codecs}\"")), "{text}");
        assert!(text.contains("RESOLUTION=64x64"), "{text}");
        assert!(!text.contains("EXT-X-MEDIA:"), "{text}");
        assert!(holds(&init, &codecs.as_bytes()[..4]) && holds(&init, record));
    }
}
