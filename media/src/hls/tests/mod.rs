//! What the tests share: a live show with its packager, and the fixtures of its tracks.

mod cutting;
mod playlists;
mod rung_cutting;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::broadcast::{BroadcastKey, Broadcasts, Limits, Publisher};
use crate::frame::{Codec, Kind, Sample, Shape, TrackInfo};
use crate::time::{MediaTime, SourceTime};

const CONFIG: HlsConfig = HlsConfig {
    target_duration: Duration::from_secs(4),
    segment_target: Duration::from_secs(2),
    part_target: Duration::from_millis(500),
    window: Duration::from_secs(40),
    dvr: Duration::ZERO,
    gap_after: Duration::from_secs(2),
    has_rungs: false,
    has_silent_audio: false,
};

const SPS: &[u8] = &[
    0x67, 0x64, 0x00, 0x1e, 0xac, 0xd9, 0x40, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00,
    0x01, 0x00, 0x00, 0x03, 0x00, 0x3c, 0x0f, 0x16, 0x2d, 0x96,
];

fn video_info() -> TrackInfo {
    let pps = Bytes::from_static(&[0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0]);
    let config =
        crate::bitstream::h264::Config::new(vec![Bytes::from_static(SPS)], vec![pps]).unwrap();
    TrackInfo {
        codec: Codec::H264,
        generation: 0,
        shape: Shape::Video {
            width: 640,
            height: 360,
        },
        config: config.build(),
        reorder_frames: Some(2),
    }
}

fn audio_info() -> TrackInfo {
    TrackInfo {
        codec: Codec::Aac,
        generation: 0,
        shape: Shape::Audio {
            rate: 44_100,
            channels: 2,
        },
        config: Bytes::from_static(&[0x12, 0x10]),
        reorder_frames: None,
    }
}

/// A live show: publisher, packager, stream.
struct Show {
    _hub: Arc<Broadcasts>,
    publisher: Option<Publisher>,
    stream: Arc<Stream>,
    packager: tokio::task::JoinHandle<()>,
    pictures: i64,
    sounds: i64,
}

impl Show {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test runs the packager beside the publisher"
    )]
    fn start() -> Self {
        let hub = Broadcasts::new(Limits::default());
        let wall = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let mut publisher = hub
            .open(BroadcastKey::new("room_1"), Instant::now(), wall)
            .unwrap();
        publisher.set_track(Instant::now(), video_info()).unwrap();
        publisher.set_track(Instant::now(), audio_info()).unwrap();
        let broadcast = Arc::clone(publisher.broadcast());
        let stream = Stream::new("abcdefghijkl", CONFIG, Held::default());
        let packager = Packager::new(broadcast, Arc::clone(&stream));
        let packager = tokio::spawn(packager.run(CancellationToken::new()));
        Self {
            _hub: hub,
            publisher: Some(publisher),
            stream,
            packager,
            pictures: 0,
            sounds: 0,
        }
    }

    async fn run(&mut self, pictures: i64) {
        for _ in 0..pictures {
            let n = self.pictures;
            self.pictures += 1;
            let us = n * 1_000_000 / 30;
            while MediaTime::from_ticks(self.sounds * 1_024, 44_100).as_micros() <= us {
                let ms = self.sounds * 1_024 * 1_000 / 44_100;
                self.write(Kind::Audio, ms, true);
                self.sounds += 1;
            }
            self.write(Kind::Video, n * 1_000 / 30, n % 60 == 0);
            tokio::time::advance(Duration::from_micros(33_333)).await;
            tokio::task::yield_now().await;
        }
    }

    fn write(&mut self, kind: Kind, ms: i64, is_key: bool) {
        let sample = Sample {
            kind,
            dts: SourceTime::from_millis(ms),
            composition: Duration::ZERO,
            samples: if kind == Kind::Audio { 1_024 } else { 0 },
            is_key,
            is_discardable: false,
            payload: Bytes::from_static(&[0, 0, 0, 1, 0x65]),
        };
        self.publisher
            .as_mut()
            .unwrap()
            .write(Instant::now(), sample);
    }

    async fn playlist(&self, rendition: RenditionId, query: &str) -> String {
        let directives = Directives::parse(query).unwrap();
        text(&self.stream.playlist(rendition, directives).await)
    }
}

fn text(answer: &Answer) -> String {
    match answer {
        Answer::Playlist { body, .. } => String::from_utf8(body.plain.to_vec()).unwrap(),
        other => format!("{other:?}"),
    }
}
