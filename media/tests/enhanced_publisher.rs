//! A publisher over enhanced RTMP, from the bodies of its tags to the playlists.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lamplight_media::bitstream::{hevc, opus};
use lamplight_media::broadcast::{BroadcastKey, Broadcasts, Limits, Publisher};
use lamplight_media::flv::Demuxer;
use lamplight_media::frame::Kind;
use lamplight_media::hls::{Answer, Held, HlsConfig, Media, Packager, RenditionId, Stream};
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

fn hex(digits: &str) -> Bytes {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// The header of x265's 64x64, a keyframe, and a frame after it.
fn hevc_bodies() -> [Bytes; 3] {
    let sets = [
        "40010c01ffff01600000030090000003000003001e928090",
        "42010101600000030090000003000003001ea0208105964a924caf016808000003000800000300f040",
        "4401c172b42240",
    ];
    let [vps, sps, pps] = sets.map(|set| vec![hex(set)]);
    let record = hevc::Config::new(vps, sps, pps).and_then(|config| config.build());
    let head = |bytes: &[u8], body: &[u8]| Bytes::from([bytes, body].concat());
    [
        head(b"\x90hvc1", &record.expect("sets of x265")),
        head(
            b"\x93hvc1",
            &hex("000000142801af0860f9eead5ffddfd7f7f452e672bfae60"),
        ),
        head(b"\xa3hvc1", &hex("0000000b0201d0097e10c610c0fb8c")),
    ]
}

/// The same of libaom.
fn av1_bodies() -> [Bytes; 3] {
    let sequence = "0a0a00000002afff9b5f2008";
    let key = "321a10009000082082200000c1b4e5c1a2503ec8d65dffa7985e2928";
    let head = |bytes: &[u8], digits: &str| Bytes::from([bytes, &hex(digits)].concat());
    [
        head(b"\x90av01", &["81000c00", sequence].concat()),
        head(b"\x91av01", &["1200", sequence, key].concat()),
        head(b"\xa1av01", "1200321230038080fdf806c000596596281042009530"),
    ]
}

struct Feed {
    demuxer: Demuxer,
    publisher: Publisher,
}

impl Feed {
    fn push(&mut self, kind: Kind, ms: u32, body: Bytes) {
        let now = Instant::now();
        let units = self.demuxer.push(now, kind, ms, body);
        let units = units.expect("a body of a real encoder");
        if let Some(track) = units.track {
            let set = self.publisher.set_track(now, track);
            set.expect("the codec stays the same");
        }
        if let Some(sample) = units.sample {
            self.publisher.write(now, sample);
        }
    }

    /// Five seconds of 25 pictures each, a keyframe every second, Opus beside them.
    async fn play(&mut self, [header, key, inter]: [Bytes; 3]) {
        let sound = |body: &[u8]| Bytes::from([b"\x91Opus", body].concat());
        self.push(Kind::Video, 0, header);
        let head = [b"\x90Opus", &opus::head(2)[..]].concat();
        self.push(Kind::Audio, 0, head.into());
        for n in 0..125 {
            let ms = n * 40;
            let picture = if n % 25 == 0 { &key } else { &inter };
            self.push(Kind::Video, ms, picture.clone());
            for half in [0, 20] {
                self.push(Kind::Audio, ms + half, sound(&[0xfc, 0xff, 0xfe]));
            }
            tokio::time::advance(Duration::from_millis(40)).await;
            tokio::task::yield_now().await;
        }
    }
}

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
        gap_after: Duration::from_secs(2),
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
