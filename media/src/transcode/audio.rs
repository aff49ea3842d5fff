//! The publisher's sound in another form, Opus for WebRTC or AAC for HLS: decode, resample to
//! 48 kHz stereo, encode.
//!
//! Samples lie on a line anchored at T of the first one decoded; packets are cut from it at regular
//! steps, so their T is exact whatever the rounding of the publisher's stamps. Missing sound is
//! concealed up to 100 ms and silence beyond, so that the line has no hole. What the encoder
//! puts in front is taken out: a decoder's output at T of a packet is the source's sound at that T.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ffmpeg_next::util::channel_layout::ChannelLayout;
use ffmpeg_next::util::format::{Sample, sample};
use ffmpeg_next::util::frame;
use ffmpeg_next::{Error, Packet, Rational, codec, decoder, software::resampling};

use super::encoder::{AudioCodec, AudioEncoder, RATE};
use super::ffi;
use crate::frame::{Codec, Frame, TrackInfo};
use crate::time::MediaTime;

/// Bits per second.
const OPUS_BPS: u32 = 96_000;
pub(super) const AAC_BPS: u32 = 128_000;
/// Stamps may stray this far from the line before it is mended.
const STRAY_MAX_US: i64 = 8_000;
/// Samples that are missing are made up from what was heard before: 100 ms at most.
const CONCEALED_MAX: usize = 4_800;
/// Samples that this is made of: 20 ms.
const RECENT: usize = 960;
/// A gap up to this is filled; a larger one starts a new line.
const GAP_MAX_US: i64 = 10_000_000;

/// From frames of the source to packets of another codec.
pub struct SoundConverter {
    source: Option<(Arc<TrackInfo>, decoder::Audio)>,
    resampler: Option<resampling::Context>,
    encoder: AudioEncoder,
    line: Option<Line>,
    /// T of what the encoder was given and has not answered with a packet.
    given: VecDeque<i64>,
    discontinuities: u32,
}

impl fmt::Debug for SoundConverter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoundConverter")
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

impl SoundConverter {
    /// Opens the encoder; the decoder follows with the first frame.
    ///
    /// # Errors
    /// FFmpeg's, when the build has no such encoder.
    pub fn open(codec: AudioCodec) -> Result<Self, Error> {
        Self::open_at(
            codec,
            match codec {
                AudioCodec::Opus => OPUS_BPS,
                AudioCodec::Aac => AAC_BPS,
            },
        )
    }

    /// Opens the encoder for so many bits per second; the decoder follows with the first frame.
    ///
    /// # Errors
    /// FFmpeg's, when the build has no such encoder.
    pub fn open_at(codec: AudioCodec, bitrate_bps: u32) -> Result<Self, Error> {
        Ok(Self {
            source: None,
            resampler: None,
            encoder: AudioEncoder::open(codec, bitrate_bps)?,
            line: None,
            given: VecDeque::new(),
            discontinuities: 0,
        })
    }

    /// The parameters of what it makes.
    pub fn info(&self) -> TrackInfo {
        self.encoder.info()
    }

    /// How long each packet lasts.
    pub fn packet_length(&self) -> Duration {
        let samples = u32::try_from(self.encoder.frame_samples()).unwrap_or(0);
        Duration::from_secs(1) * samples / RATE
    }

    /// Takes a frame of the source; returns the packets now complete, each with its T in
    /// microseconds.
    ///
    /// # Errors
    /// FFmpeg's, when there is no decoder for the source or the encoder fails.
    pub fn push(&mut self, frame: &Frame) -> Result<Vec<(i64, Bytes)>, Error> {
        self.follow_source(&frame.info)?;
        self.follow_jumps(frame.discontinuities);
        let Some((_, decoder)) = &mut self.source else {
            return Ok(Vec::new());
        };
        let mut packet = Packet::copy(&frame.payload);
        packet.set_pts(Some(frame.pts.as_micros()));
        if let Err(error) = decoder.send_packet(&packet) {
            tracing::debug!(%error, t = frame.pts.as_micros(), "skipped undecodable sound");
        }
        let mut decoded = frame::Audio::empty();
        let mut t = frame.pts.as_micros();
        let mut heard = Vec::new();
        while decoder.receive_frame(&mut decoded).is_ok() {
            heard.push((t, decoded));
            decoded = frame::Audio::empty();
            if let Some((_, last)) = heard.last() {
                t += samples_to_us(i64::try_from(last.samples()).unwrap_or(0), last.rate());
            }
        }
        for (t, mut decoded) in heard {
            let samples = self.resample(&mut decoded)?;
            let line = self.line.get_or_insert_with(|| Line::new(t));
            if !line.push(t, &samples) {
                self.line.insert(Line::new(t)).push(t, &samples);
            }
        }
        self.encode()
    }

    /// Lets silence reach up to `t`, as if the source had sent it: gives the packets now complete.
    ///
    /// # Errors
    /// FFmpeg's, when the encoder fails.
    pub fn silence_until(
        &mut self,
        t: MediaTime,
        discontinuities: u32,
    ) -> Result<Vec<(i64, Bytes)>, Error> {
        self.follow_jumps(discontinuities);
        let t = t.as_micros();
        let line = self.line.get_or_insert_with(|| Line::new(t));
        if !line.push(t, &[]) {
            self.line = Some(Line::new(t));
        }
        self.encode()
    }

    /// A jump of T begins a new line.
    fn follow_jumps(&mut self, discontinuities: u32) {
        if discontinuities != self.discontinuities {
            self.discontinuities = discontinuities;
            self.line = None;
        }
    }

    fn follow_source(&mut self, info: &Arc<TrackInfo>) -> Result<(), Error> {
        let is_open = self.source.as_ref();
        if is_open.is_some_and(|(open, _)| open.is_same_format(info)) {
            return Ok(());
        }
        self.source = None;
        self.resampler = None;
        self.source = Some((Arc::clone(info), open_decoder(info)?));
        Ok(())
    }

    fn resample(&mut self, decoded: &mut frame::Audio) -> Result<Vec<[f32; 2]>, Error> {
        if decoded.channel_layout().is_empty() {
            decoded.set_channel_layout(ChannelLayout::default(i32::from(decoded.channels())));
        }
        let (format, layout, rate) = (decoded.format(), decoded.channel_layout(), decoded.rate());
        let is_same = self.resampler.as_ref().map(resampling::Context::input);
        let is_same = is_same
            .is_some_and(|i| i.format == format && i.channel_layout == layout && i.rate == rate);
        let to = Sample::F32(sample::Type::Planar);
        if !is_same {
            self.resampler = None;
        }
        let resampler = match &mut self.resampler {
            Some(resampler) => resampler,
            none => none.insert(resampling::Context::get(
                format,
                layout,
                rate,
                to,
                ChannelLayout::STEREO,
                RATE,
            )?),
        };
        // Room for what the resampler still holds, or it would hold more with every frame.
        let ratio = usize::try_from(RATE / rate.max(1) + 1).unwrap_or(1);
        let mut out = frame::Audio::new(to, decoded.samples() * ratio + 256, ChannelLayout::STEREO);
        resampler.run(decoded, &mut out)?;
        let (left, right) = (out.plane::<f32>(0), out.plane::<f32>(1));
        let pairs = left.iter().zip(right).take(out.samples());
        Ok(pairs.map(|(l, r)| [*l, *r]).collect())
    }

    fn encode(&mut self) -> Result<Vec<(i64, Bytes)>, Error> {
        let mut out = Vec::new();
        let skip = samples_to_us(i64::from(self.encoder.priming()), RATE);
        let Some(line) = &mut self.line else {
            return Ok(out);
        };
        while let Some((at, samples)) = line.take(self.encoder.frame_samples()) {
            self.given
                .push_back(line.anchor + samples_to_us(at, RATE) - skip);
            // An encoder may answer with a packet of what it was given before.
            for packet in self.encoder.encode(&samples, at)? {
                out.extend(self.given.pop_front().map(|t| (t, packet)));
            }
        }
        Ok(out)
    }
}

fn open_decoder(info: &TrackInfo) -> Result<decoder::Audio, Error> {
    ffi::init();
    let id = match info.codec {
        Codec::Aac => codec::Id::AAC,
        Codec::Opus => codec::Id::OPUS,
        Codec::H264 | Codec::Hevc | Codec::Av1 => return Err(Error::DecoderNotFound),
    };
    let found = decoder::find(id).ok_or(Error::DecoderNotFound)?;
    let mut context = codec::Context::new_with_codec(found);
    ffi::set_extradata(&mut context, &info.config)?;
    ffi::set_single_thread(&mut context);
    ffi::set_packet_micros(&mut context);
    context.set_time_base(Rational(1, 1_000_000));
    context.decoder().audio()
}

fn samples_to_us(samples: i64, rate: u32) -> i64 {
    samples * 1_000_000 / i64::from(rate.max(1))
}

/// A run of samples at 48 kHz without a hole.
#[derive(Debug)]
struct Line {
    /// T of sample 0, in microseconds.
    anchor: i64,
    /// Number of the first sample still waiting.
    taken: i64,
    waiting: VecDeque<[f32; 2]>,
    /// The newest samples of the source.
    recent: VecDeque<[f32; 2]>,
}

impl Line {
    const fn new(anchor: i64) -> Self {
        Self {
            anchor,
            taken: 0,
            waiting: VecDeque::new(),
            recent: VecDeque::new(),
        }
    }

    /// Appends samples heard at `t`; false when they lie too far away to belong to this line.
    fn push(&mut self, t: i64, samples: &[[f32; 2]]) -> bool {
        let count = self.taken + i64::try_from(self.waiting.len()).unwrap_or(0);
        let stray = t - self.anchor - samples_to_us(count, RATE);
        if stray.abs() > GAP_MAX_US {
            return false;
        }
        let mut from = 0;
        if stray.abs() > STRAY_MAX_US {
            let width = stray.abs() * i64::from(RATE) / 1_000_000;
            let width = usize::try_from(width).unwrap_or(0);
            if stray > 0 {
                self.conceal(width);
            } else {
                from = width.min(samples.len());
            }
        }
        self.waiting.extend(samples.iter().skip(from));
        self.recent.extend(samples);
        let old = self.recent.len().saturating_sub(RECENT);
        self.recent.drain(..old);
        true
    }

    /// Stands in for samples that are missing: what was heard last, back and forth, and ever less
    /// of it; silence where too many are.
    fn conceal(&mut self, count: usize) {
        let fades = if count <= CONCEALED_MAX {
            CONCEALED_MAX
        } else {
            RECENT
        };
        let length = self.recent.len();
        for at in 0..count {
            let place = at % (2 * length).max(1);
            let back = if place < length {
                length - 1 - place
            } else {
                place - length
            };
            let left = fades.saturating_sub(at);
            let [left, fades] = [left, fades].map(|n| u16::try_from(n).unwrap_or(u16::MAX));
            let gain = f32::from(left) / f32::from(fades);
            let heard = self.recent.get(back).copied().unwrap_or_default();
            self.waiting.push_back(heard.map(|level| level * gain));
        }
        // What comes after so much silence is not like what came before.
        if count > CONCEALED_MAX {
            self.recent.clear();
        }
    }

    /// The next `count` samples and the number of the first.
    fn take(&mut self, count: usize) -> Option<(i64, Vec<[f32; 2]>)> {
        if self.waiting.len() < count {
            return None;
        }
        let at = self.taken;
        self.taken += i64::try_from(count).unwrap_or(0);
        Some((at, self.waiting.drain(..count).collect()))
    }
}
