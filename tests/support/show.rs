//! A synthetic show written into the hub: pictures and sound with the stamps of a publisher.

use std::time::Duration;

use bytes::Bytes;
use lamplight_media::broadcast::Publisher;
use lamplight_media::frame::{Codec, Kind, Sample, Shape, TrackInfo};
use lamplight_media::time::SourceTime;
use tokio::time::Instant;

use super::TestServer;

/// `AVCDecoderConfigurationRecord` of a 640x360 constrained baseline stream.
const AVCC: &[u8] = &[
    1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 15, 0x67, 0x42, 0xc0, 0x1e, 0xda, 0x02, 0x80, 0xbf, 0xe5,
    0x84, 0, 0, 0x03, 0, 0x04, 1, 0, 4, 0x68, 0xce, 0x3c, 0x80,
];
/// Pictures between keyframes: two seconds.
const GOP: i64 = 60;
const PICTURES_PER_S: i64 = 30;
const SOUND_RATE: i64 = 48_000;
const SOUND_SAMPLES: i64 = 1_024;

/// 30 pictures a second and AAC, as fast as they are asked for.
pub(crate) struct Show {
    pub(crate) publisher: Publisher,
    pictures: i64,
    sounds: i64,
}

impl Show {
    /// A show without a frame yet.
    pub(crate) fn start(server: &TestServer, room: &str) -> Self {
        Self::start_with(server, room, picture_info())
    }

    /// A show with this picture, of which no frame is there yet.
    pub(crate) fn start_with(server: &TestServer, room: &str, picture: TrackInfo) -> Self {
        let mut publisher = server.publish(room);
        for info in [picture, sound_info()] {
            publisher.set_track(Instant::now(), info).unwrap();
        }
        Self {
            publisher,
            pictures: 0,
            sounds: 0,
        }
    }

    /// Writes pictures, with the sound beside them, until there are so many.
    pub(crate) fn run_to(&mut self, pictures: i64) {
        while self.pictures < pictures {
            self.picture();
            while self.sounds * SOUND_SAMPLES * PICTURES_PER_S <= self.pictures * SOUND_RATE {
                self.sound();
            }
        }
    }

    fn picture(&mut self) {
        let n = self.pictures;
        self.pictures += 1;
        let is_key = n % GOP == 0;
        let payload = if is_key {
            Bytes::from_static(&[0, 0, 0, 3, 0x65, 1, 2])
        } else {
            Bytes::from_static(&[0, 0, 0, 3, 0x41, 1, 2])
        };
        let sample = Sample {
            kind: Kind::Video,
            dts: SourceTime::from_millis(n * 1_000 / PICTURES_PER_S),
            composition: Duration::ZERO,
            samples: 0,
            is_key,
            is_discardable: false,
            payload,
        };
        self.publisher.write(Instant::now(), sample).unwrap();
    }

    fn sound(&mut self) {
        let n = self.sounds;
        self.sounds += 1;
        let sample = Sample {
            kind: Kind::Audio,
            dts: SourceTime::from_millis(n * SOUND_SAMPLES * 1_000 / SOUND_RATE),
            composition: Duration::ZERO,
            samples: 1_024,
            is_key: true,
            is_discardable: false,
            payload: Bytes::from_static(&[0x21, 0x10, 0x04]),
        };
        self.publisher.write(Instant::now(), sample).unwrap();
    }
}

fn picture_info() -> TrackInfo {
    TrackInfo {
        codec: Codec::H264,
        generation: 0,
        shape: Shape::Video {
            width: 640,
            height: 360,
        },
        config: Bytes::from_static(AVCC),
        reorder_frames: Some(0),
    }
}

/// A picture of another codec, by the beginning of its configuration record.
pub(crate) fn picture_of(codec: Codec, record: &[u8]) -> TrackInfo {
    TrackInfo {
        codec,
        config: Bytes::copy_from_slice(record),
        ..picture_info()
    }
}

fn sound_info() -> TrackInfo {
    TrackInfo {
        codec: Codec::Aac,
        generation: 0,
        shape: Shape::Audio {
            rate: 48_000,
            channels: 2,
        },
        config: Bytes::from_static(&[0x11, 0x90]),
        reorder_frames: None,
    }
}
