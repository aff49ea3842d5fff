//! The decoders of pictures: access units in decode order to pictures in presentation order.

use std::fmt;

use ffmpeg_next::util::frame;
use ffmpeg_next::{Error, Packet, codec, decoder};

use super::ffi;
use crate::frame::{Codec, Frame, TrackInfo};

/// FFmpeg's own AV1 decoder works on hardware only.
const AV1_DECODER: &str = "libdav1d";

fn find(codec: Codec) -> Option<ffmpeg_next::Codec> {
    match codec {
        Codec::H264 => decoder::find(codec::Id::H264),
        Codec::Hevc => decoder::find(codec::Id::HEVC),
        Codec::Av1 => decoder::find_by_name(AV1_DECODER),
        Codec::Aac | Codec::Opus => None,
    }
}

/// An open decoder of one format.
pub struct VideoDecoder {
    decoder: decoder::Video,
}

impl fmt::Debug for VideoDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VideoDecoder").finish_non_exhaustive()
    }
}

impl VideoDecoder {
    /// Opens a decoder for a track.
    ///
    /// # Errors
    /// FFmpeg's, when the build has no decoder of the codec or the parameters are unusable.
    pub fn open(info: &TrackInfo) -> Result<Self, Error> {
        ffi::init();
        let found = find(info.codec).ok_or(Error::DecoderNotFound)?;
        let mut context = codec::Context::new_with_codec(found);
        ffi::set_extradata(&mut context, &info.config)?;
        ffi::set_single_thread(&mut context);
        ffi::set_packet_micros(&mut context);
        let decoder = context.decoder().video()?;
        Ok(Self { decoder })
    }

    /// Decodes an access unit; returns the pictures that are now due, each with its T in
    /// microseconds. An access unit the decoder cannot use gives none.
    pub fn decode(&mut self, frame: &Frame) -> Vec<(i64, frame::Video)> {
        let mut packet = Packet::copy(&frame.payload);
        packet.set_pts(Some(frame.pts.as_micros()));
        packet.set_dts(Some(frame.dts.as_micros()));
        if frame.is_key {
            packet.set_flags(codec::packet::Flags::KEY);
        }
        if let Err(error) = self.decoder.send_packet(&packet) {
            tracing::debug!(%error, dts = frame.dts.as_micros(), "skipped an undecodable frame");
        }
        self.drain()
    }

    /// The pictures still inside; the decoder starts afresh at the next keyframe.
    pub fn finish(&mut self) -> Vec<(i64, frame::Video)> {
        // Refused only when it was finished before.
        let _ = self.decoder.send_eof();
        let out = self.drain();
        self.decoder.flush();
        out
    }

    fn drain(&mut self) -> Vec<(i64, frame::Video)> {
        let mut out = Vec::new();
        loop {
            let mut picture = frame::Video::empty();
            if self.decoder.receive_frame(&mut picture).is_err() {
                return out;
            }
            if let Some(t) = picture.pts().or_else(|| picture.timestamp()) {
                out.push((t, picture));
            }
        }
    }
}
