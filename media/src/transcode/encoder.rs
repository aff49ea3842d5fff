//! Encoders: H.264 by name, AAC-LC and Opus.
//!
//! Times are microseconds of T. What leaves is in the form `Frame` has: NAL units with four-byte
//! lengths and no parameter sets, raw AAC, Opus packets.

use bytes::{Bytes, BytesMut};
use ffmpeg_next::util::channel_layout::ChannelLayout;
use ffmpeg_next::util::format::{Pixel, Sample, sample};
use ffmpeg_next::util::{frame, picture};
use ffmpeg_next::{Dictionary, Error, Packet, Rational, codec, encoder};

use super::{choice, ffi};
use crate::bitstream::h264::{self, Config, NalKind};
use crate::frame::{Codec, Shape, TrackInfo};

/// Sets of each kind that one access unit may bring.
const SETS_MAX: usize = 4;

/// How a picture is to be encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoSettings {
    /// Width in luma samples, even.
    pub width: u32,
    /// Height in luma samples, even.
    pub height: u32,
    /// Target rate; the rate control's buffer holds one second of it.
    pub bitrate_bps: u32,
    /// Nominal pictures per second.
    pub frame_rate: u32,
    /// Reordered pictures in a row; 0 gives Constrained Baseline without delay, else High.
    pub b_frames: u8,
    /// The most pictures from one keyframe to the next.
    pub gop: u32,
}

/// One encoded access unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Decode time in microseconds.
    pub dts: i64,
    /// Presentation time in microseconds.
    pub pts: i64,
    /// True when decoding can start here.
    pub is_key: bool,
    /// The coded bytes as `Frame::payload` has them.
    pub payload: Bytes,
}

/// None of the encoders that were named works here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("none of the H.264 encoders {names} works: install one or name another")]
pub struct NoEncoder {
    names: String,
}

/// An open H.264 encoder.
pub struct VideoEncoder {
    encoder: encoder::video::Encoder,
    name: &'static str,
    /// Where its pictures have to lie, if not in memory.
    surfaces: Option<ffi::Surfaces>,
    settings: VideoSettings,
    info: Option<TrackInfo>,
}

impl std::fmt::Debug for VideoEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VideoEncoder")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl VideoEncoder {
    /// Opens the first of `names` that works here ([`choice::try_out`]).
    ///
    /// # Errors
    /// [`NoEncoder`] when none does.
    pub fn open<'a>(
        names: impl IntoIterator<Item = &'a str>,
        settings: &VideoSettings,
    ) -> Result<Self, NoEncoder> {
        let mut tried = Vec::new();
        for name in names {
            if choice::try_out(name).is_ok() {
                match Self::open_one(name, settings) {
                    Ok(encoder) => return Ok(encoder),
                    Err(error) => {
                        tracing::warn!(encoder = name, %error, ?settings, "no encoder opened");
                    }
                }
            }
            tried.push(name);
        }
        let names = tried.join(", ");
        Err(NoEncoder { names })
    }

    pub(super) fn open_one(name: &str, settings: &VideoSettings) -> Result<Self, Error> {
        ffi::init();
        let codec = encoder::find_by_name(name).ok_or(Error::EncoderNotFound)?;
        let mut context = codec::Context::new_with_codec(codec);
        let rate = i32::try_from(settings.bitrate_bps).map_err(|_huge| Error::InvalidData)?;
        let fps = i32::try_from(settings.frame_rate.clamp(1, 240)).unwrap_or(30);
        ffi::set_single_thread(&mut context);
        ffi::set_buffer_bits(&mut context, rate);
        let (width, height) = (settings.width, settings.height);
        let surfaces = match choice::is_on_device(name) {
            true => Some(ffi::Surfaces::vaapi(width, height)?),
            false => None,
        };
        if let Some(surfaces) = &surfaces {
            surfaces.attach(&mut context)?;
        }
        let mut video = context.encoder().video()?;
        let bits = usize::try_from(rate).map_err(|_negative| Error::InvalidData)?;
        video.set_width(width);
        video.set_height(height);
        let is_plain = surfaces.is_none();
        let format = choice::format_of(name);
        video.set_format(if is_plain { format } else { Pixel::VAAPI });
        video.set_time_base(Rational(1, 1_000_000));
        video.set_frame_rate(Some(Rational(fps, 1)));
        video.set_bit_rate(bits);
        video.set_max_bit_rate(bits);
        video.set_gop(settings.gop);
        video.set_max_b_frames(usize::from(settings.b_frames));
        Ok(Self {
            encoder: video.open_with(choice::options(name, settings))?,
            name: choice::label(name),
            surfaces,
            settings: settings.clone(),
            info: None,
        })
    }

    /// FFmpeg's name of it.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// How it wants its pictures.
    pub fn format(&self) -> Pixel {
        choice::format_of(self.name)
    }

    /// The picture size it was opened with.
    pub const fn size(&self) -> (u32, u32) {
        (self.settings.width, self.settings.height)
    }

    /// The parameters of what it makes; known once the first access unit has left.
    pub const fn info(&self) -> Option<&TrackInfo> {
        self.info.as_ref()
    }

    /// Encodes a picture of its [`Self::format`] shown at `t` microseconds; returns what is ready.
    ///
    /// # Errors
    /// FFmpeg's, when the encoder refuses the picture.
    pub fn encode(
        &mut self,
        picture: &mut frame::Video,
        t: i64,
        is_key: bool,
    ) -> Result<Vec<Encoded>, Error> {
        let kind = if is_key {
            picture::Type::I
        } else {
            picture::Type::None
        };
        let mut uploaded = None;
        if let Some(surfaces) = &self.surfaces {
            uploaded = Some(surfaces.upload(picture)?);
        }
        let picture = uploaded.as_mut().unwrap_or(picture);
        picture.set_pts(Some(t));
        picture.set_kind(kind);
        self.encoder.send_frame(picture)?;
        Ok(self.drain())
    }

    /// What is still inside; nothing can be encoded afterwards.
    pub fn finish(&mut self) -> Vec<Encoded> {
        // Refused only when it was finished before.
        let _ = self.encoder.send_eof();
        self.drain()
    }

    fn drain(&mut self) -> Vec<Encoded> {
        let mut out = Vec::new();
        let mut packet = Packet::empty();
        while self.encoder.receive_packet(&mut packet).is_ok() {
            let (Some(data), Some(pts)) = (packet.data(), packet.pts()) else {
                continue;
            };
            let payload = self.unpack(data);
            out.push(Encoded {
                dts: packet.dts().unwrap_or(pts),
                pts,
                is_key: packet.is_key(),
                payload,
            });
        }
        out
    }

    /// Takes the parameter sets out of an access unit and puts lengths before the rest.
    fn unpack(&mut self, data: &[u8]) -> Bytes {
        let (mut sps, mut pps) = (Vec::new(), Vec::new());
        let mut out = BytesMut::with_capacity(data.len() + 16);
        for nal in h264::split_annex_b(&Bytes::copy_from_slice(data)) {
            match nal.first().map_or(NalKind::Filler, |b| NalKind::of(*b)) {
                NalKind::Sps if sps.len() < SETS_MAX => sps.push(nal),
                NalKind::Pps if pps.len() < SETS_MAX => pps.push(nal),
                NalKind::Sps | NalKind::Pps | NalKind::Filler => {}
                NalKind::Slice | NalKind::Idr | NalKind::Sei | NalKind::Other => {
                    h264::put_nal(&mut out, &nal);
                }
            }
        }
        if let Ok(config) = Config::new(sps, pps) {
            let reorder_frames = Some(self.settings.b_frames.min(2));
            self.info = Some(TrackInfo {
                codec: Codec::H264,
                generation: 0,
                shape: Shape::Video {
                    width: self.settings.width,
                    height: self.settings.height,
                },
                config: config.build(),
                reorder_frames,
            });
        }
        out.freeze()
    }
}

/// Which sound encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AudioCodec {
    /// AAC-LC at 48 kHz, 1 024 samples a packet.
    Aac,
    /// Opus with 20 ms packets and in-band error correction.
    Opus,
}

impl AudioCodec {
    /// FFmpeg's name of its encoder.
    pub const fn encoder(self) -> &'static str {
        match self {
            Self::Aac => "aac",
            Self::Opus => "libopus",
        }
    }
}

/// An open encoder of 48 kHz stereo sound.
pub struct AudioEncoder {
    encoder: encoder::audio::Encoder,
    codec: AudioCodec,
}

impl std::fmt::Debug for AudioEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AudioEncoder").field(&self.codec).finish()
    }
}

/// Samples per second of every sound made here.
pub const RATE: u32 = 48_000;

impl AudioEncoder {
    /// Opens it.
    ///
    /// # Errors
    /// FFmpeg's, when the build has no such encoder.
    pub fn open(codec: AudioCodec, bitrate_bps: u32) -> Result<Self, Error> {
        ffi::init();
        let format = match codec {
            AudioCodec::Aac => Sample::F32(sample::Type::Planar),
            AudioCodec::Opus => Sample::F32(sample::Type::Packed),
        };
        let found = encoder::find_by_name(codec.encoder()).ok_or(Error::EncoderNotFound)?;
        let mut context = codec::Context::new_with_codec(found);
        ffi::set_single_thread(&mut context);
        context.set_flags(codec::Flags::GLOBAL_HEADER);
        let mut audio = context.encoder().audio()?;
        audio.set_rate(48_000);
        audio.set_format(format);
        audio.set_channel_layout(ChannelLayout::STEREO);
        audio.set_channels(2);
        audio.set_time_base(Rational(1, 48_000));
        audio.set_bit_rate(usize::try_from(bitrate_bps).map_err(|_huge| Error::InvalidData)?);
        let mut options = Dictionary::new();
        if codec == AudioCodec::Opus {
            options.set("frame_duration", "20");
            options.set("compression_level", "5");
            options.set("fec", "1");
            options.set("packet_loss", "5");
        }
        let encoder = audio.open_with(options)?;
        Ok(Self { encoder, codec })
    }

    /// Samples of each channel that one call of [`Self::encode`] takes.
    pub const fn frame_samples(&self) -> usize {
        match self.codec {
            AudioCodec::Aac => 1_024,
            AudioCodec::Opus => 960,
        }
    }

    /// Samples a decoder gives before the first that was encoded.
    pub fn priming(&self) -> u32 {
        ffi::initial_padding(&self.encoder)
    }

    /// The parameters of what it makes.
    pub fn info(&self) -> TrackInfo {
        TrackInfo {
            codec: match self.codec {
                AudioCodec::Aac => Codec::Aac,
                AudioCodec::Opus => Codec::Opus,
            },
            generation: 0,
            shape: Shape::Audio {
                rate: RATE,
                channels: 2,
            },
            config: ffi::extradata(&self.encoder).into(),
            reorder_frames: None,
        }
    }

    /// Encodes one frame of [`Self::frame_samples`] samples, left and right; returns packets in
    /// the order of the frames given (the first may come one call late).
    ///
    /// # Errors
    /// FFmpeg's, when the encoder refuses the frame.
    pub fn encode(&mut self, samples: &[[f32; 2]], at: i64) -> Result<Vec<Bytes>, Error> {
        let mut frame = match self.codec {
            AudioCodec::Aac => planar(samples),
            AudioCodec::Opus => packed(samples),
        };
        frame.set_rate(RATE);
        frame.set_pts(Some(at));
        self.encoder.send_frame(&frame)?;
        let mut out = Vec::new();
        let mut packet = Packet::empty();
        while self.encoder.receive_packet(&mut packet).is_ok() {
            out.extend(packet.data().map(Bytes::copy_from_slice));
        }
        Ok(out)
    }
}

fn planar(samples: &[[f32; 2]]) -> frame::Audio {
    let format = Sample::F32(sample::Type::Planar);
    let mut frame = frame::Audio::new(format, samples.len(), ChannelLayout::STEREO);
    for channel in 0..2 {
        let plane = frame.plane_mut::<f32>(channel);
        for (to, from) in plane.iter_mut().zip(samples) {
            *to = from[channel];
        }
    }
    frame
}

fn packed(samples: &[[f32; 2]]) -> frame::Audio {
    let format = Sample::F32(sample::Type::Packed);
    let mut frame = frame::Audio::new(format, samples.len(), ChannelLayout::STEREO);
    let plane = frame.data_mut(0).chunks_exact_mut(4);
    for (to, from) in plane.zip(samples.iter().flatten()) {
        to.copy_from_slice(&from.to_ne_bytes());
    }
    frame
}
