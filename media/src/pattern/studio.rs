//! The thread that draws, sounds and encodes: FLV tags in the order in which they are due.
//!
//! It runs ahead of the clock by what its output holds and ends when nobody takes that any more.

use std::collections::VecDeque;

use bytes::Bytes;
use ffmpeg_next::util::format::Pixel;
use ffmpeg_next::util::frame::Video;
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::canvas::Canvas;
use super::scene::Scene;
use super::tone::Tone;
use super::{PatternError, Settings};
use crate::flv::body;
use crate::frame::Kind;
use crate::transcode::encoder::{
    AudioCodec, AudioEncoder, Encoded, RATE, VideoEncoder, VideoSettings,
};

/// Reordered pictures in a row, as OBS has them.
const B_FRAMES: u8 = 2;
/// The decode time of the first picture must not be negative: all stamps are this much later.
const LATER_FRAMES: i64 = 3;

/// The body of an FLV tag with its time.
#[derive(Debug)]
pub(super) struct Tag {
    pub(super) kind: Kind,
    /// Microseconds from the start of the show until it is due.
    pub(super) due_us: i64,
    pub(super) body: Bytes,
}

/// Both encoders and how far they are.
pub(super) struct Studio {
    settings: Settings,
    wall: OffsetDateTime,
    scene: Scene,
    video: VideoEncoder,
    picture: Video,
    tone: Tone,
    audio: AudioEncoder,
    priming: i64,
    pictures: u64,
    /// Samples drawn and packets made of them.
    samples: u64,
    packets: i64,
    has_header: bool,
    /// Sound that waits for the picture it is due with.
    sound: VecDeque<Tag>,
}

impl Studio {
    /// Opens both encoders for a show that begins at `wall`.
    pub(super) fn open(settings: &Settings, wall: OffsetDateTime) -> Result<Self, PatternError> {
        let Settings { width, height, .. } = *settings;
        let rate = settings.frame_rate;
        let wanted = VideoSettings {
            width,
            height,
            bitrate_bps: settings.video_bps,
            frame_rate: rate,
            b_frames: B_FRAMES,
            gop: rate * settings.gop_s,
        };
        let audio = AudioEncoder::open(AudioCodec::Aac, settings.audio_bps)?;
        let fits = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        Ok(Self {
            scene: Scene::new((fits(width), fits(height)), u64::from(rate)),
            video: VideoEncoder::open(["libx264", "libopenh264"], &wanted)?,
            picture: Video::new(Pixel::YUV420P, width, height),
            tone: Tone::new(),
            priming: i64::from(audio.priming()),
            audio,
            wall,
            pictures: 0,
            samples: 0,
            packets: 0,
            has_header: false,
            sound: VecDeque::new(),
            settings: settings.clone(),
        })
    }

    /// Makes tags until an encoder fails or nobody takes them.
    pub(super) fn run(mut self, out: &mpsc::Sender<Tag>) -> Result<(), PatternError> {
        let header = body::sound_header(&self.audio.info().config);
        self.sound.push_back(Tag {
            kind: Kind::Audio,
            due_us: 0,
            body: header,
        });
        loop {
            let shown_us = self.at_us(self.pictures);
            self.fill_sound(shown_us)?;
            for unit in self.next_picture(shown_us)? {
                for tag in self.in_order(&unit) {
                    // The other side is gone: the show is over.
                    if out.blocking_send(tag).is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// When picture `n` is shown, without what all stamps are later.
    fn at_us(&self, n: u64) -> i64 {
        let us = n * 1_000_000 / u64::from(self.settings.frame_rate);
        i64::try_from(us).unwrap_or(i64::MAX)
    }

    fn later_us(&self) -> i64 {
        LATER_FRAMES * 1_000_000 / i64::from(self.settings.frame_rate)
    }

    fn next_picture(&mut self, shown_us: i64) -> Result<Vec<Encoded>, PatternError> {
        let wall = self.wall + time::Duration::microseconds(shown_us);
        let canvas = self.scene.draw(self.pictures, wall);
        copy(canvas, &mut self.picture);
        let is_key = self
            .pictures
            .is_multiple_of(u64::from(self.settings.frame_rate * self.settings.gop_s));
        self.pictures += 1;
        let t = shown_us + self.later_us();
        Ok(self.video.encode(&mut self.picture, t, is_key)?)
    }

    /// Sound up to `until_us`.
    fn fill_sound(&mut self, until_us: i64) -> Result<(), PatternError> {
        let rate = i64::from(RATE);
        let count = self.audio.frame_samples();
        while i64::try_from(self.samples).unwrap_or(i64::MAX) * 1_000_000 / rate <= until_us {
            let (second, first) = self.sample_of_second();
            let take = u64::try_from(count).unwrap_or(0);
            let samples = self.tone.samples(second, first, take);
            let at = i64::try_from(self.samples).unwrap_or(i64::MAX);
            self.samples += take;
            for packet in self.audio.encode(&samples, at)? {
                let frame = i64::try_from(count).unwrap_or(0);
                let heard = (self.packets * frame - self.priming) * 1_000_000 / rate;
                self.packets += 1;
                self.sound.push_back(Tag {
                    kind: Kind::Audio,
                    due_us: (heard + self.later_us()).max(0),
                    body: body::sound(&packet),
                });
            }
        }
        Ok(())
    }

    /// The second of the clock that the show began in, and the next sample counted from it: the
    /// bell rings when the clock turns.
    fn sample_of_second(&self) -> (u64, u64) {
        let second = u64::from(self.wall.second());
        let into = u64::from(self.wall.microsecond()) * u64::from(RATE) / 1_000_000;
        (second, into + self.samples)
    }

    /// The tags of a picture, after the sound that is due before it.
    fn in_order(&mut self, unit: &Encoded) -> Vec<Tag> {
        let mut out = Vec::new();
        while self.sound.front().is_some_and(|tag| tag.due_us <= unit.dts) {
            out.extend(self.sound.pop_front());
        }
        let video = |body| Tag {
            kind: Kind::Video,
            due_us: unit.dts,
            body,
        };
        if !self.has_header
            && let Some(info) = self.video.info()
        {
            self.has_header = true;
            out.push(video(body::picture_header(&info.config)));
        }
        // The difference of the stamps as they are sent, so that rounding moves no picture.
        let composition_ms = u32::try_from(millis(unit.pts) - millis(unit.dts)).unwrap_or(0);
        let body = body::picture(unit.is_key, composition_ms, &unit.payload);
        out.push(video(body));
        out
    }
}

/// Microseconds to whole milliseconds, to the nearest.
pub(super) const fn millis(us: i64) -> i64 {
    (us + 500).div_euclid(1_000)
}

fn copy(from: &Canvas, to: &mut Video) {
    for (index, plane) in from.planes.iter().enumerate() {
        let width = if index == 0 {
            from.width
        } else {
            from.width / 2
        };
        let stride = to.stride(index);
        let rows = to.data_mut(index).chunks_exact_mut(stride);
        for (to, from) in rows.zip(plane.chunks_exact(width)) {
            to[..width].copy_from_slice(from);
        }
    }
}
