//! The heads of tag bodies: classic FLV, and enhanced RTMP with its multitrack forms.
//!
//! Invariant: what is left of a body is a slice of it.
//!
//! Not here: what headers and frames hold.

use bytes::{Buf, Bytes};

use super::FlvError;
use crate::frame::Codec;

/// What a tag carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// Parameters of the frames that follow.
    Header,
    Frame,
}

/// A tag of the track that is taken.
#[derive(Debug)]
pub(super) struct Tag {
    pub(super) codec: Codec,
    pub(super) packet: Packet,
    pub(super) composition_ms: i32,
    pub(super) body: Bytes,
    /// True when the message held other tracks too.
    pub(super) has_others: bool,
}

/// Which of a publisher's tracks of one kind is taken: track 0, which plain tags are of, or the
/// first it names if it has no track 0.
#[derive(Debug, Default)]
pub(super) struct Choice {
    taken: Option<u8>,
}

impl Choice {
    fn takes(&mut self, id: u8, packet_type: u8) -> bool {
        let is_header = packet_type == SEQUENCE_START;
        if is_header && (id == 0 || self.taken.is_none()) {
            self.taken = Some(id);
        }
        self.taken.unwrap_or(0) == id
    }
}

/// Packet types of enhanced RTMP that picture and sound share.
const SEQUENCE_START: u8 = 0;
const CODED_FRAMES: u8 = 1;
const SEQUENCE_END: u8 = 2;
const MOD_EX: u8 = 7;
/// Those of pictures alone.
const CODED_FRAMES_X: u8 = 3;
const METADATA: u8 = 4;
const MPEG2TS_SEQUENCE_START: u8 = 5;
const VIDEO_MULTITRACK: u8 = 6;
/// Those of sound alone.
const MULTICHANNEL_CONFIG: u8 = 4;
const AUDIO_MULTITRACK: u8 = 5;

/// Forms of a multitrack message.
const ONE_TRACK: u8 = 0;
const MANY_TRACKS: u8 = 1;
const MANY_TRACKS_MANY_CODECS: u8 = 2;

/// A command frame of a seek: nothing to show.
const COMMAND_FRAME: u8 = 5;

/// Reads the head of a picture's tag; `None` when it holds nothing to show.
pub(super) fn video(payload: Bytes, choice: &mut Choice) -> Result<Option<Tag>, FlvError> {
    let mut payload = payload;
    let head = take_u8(&mut payload)?;
    if head & 0x80 == 0 {
        return classic_video(head, payload, choice);
    }
    let mut packet_type = head & 15;
    if head >> 4 & 7 == COMMAND_FRAME && packet_type != METADATA {
        return Ok(None);
    }
    packet_type = skip_mod_ex(packet_type, &mut payload)?;
    let Some(track) = one_track(packet_type, VIDEO_MULTITRACK, payload, choice)? else {
        return Err(FlvError::Multitrack);
    };
    let codec = video_codec(track.four)?;
    let mut body = track.body;
    let (packet, composition_ms) = match track.packet_type {
        SEQUENCE_START => (Packet::Header, 0),
        CODED_FRAMES if codec == Codec::Av1 => (Packet::Frame, 0),
        CODED_FRAMES => (Packet::Frame, take_i24(&mut body)?),
        CODED_FRAMES_X => (Packet::Frame, 0),
        SEQUENCE_END | METADATA | MPEG2TS_SEQUENCE_START => return Ok(None),
        _ => return Err(FlvError::Bitstream),
    };
    Ok(Some(Tag {
        codec,
        packet,
        composition_ms,
        body,
        has_others: track.has_others,
    }))
}

/// Reads the head of a sound's tag; `None` when it holds nothing to hear.
pub(super) fn audio(payload: Bytes, choice: &mut Choice) -> Result<Option<Tag>, FlvError> {
    let mut payload = payload;
    let head = take_u8(&mut payload)?;
    match head >> 4 {
        9 => {}
        10 => return classic_aac(payload, choice).map(Some),
        other => return Err(FlvError::Codec(classic_sound(other))),
    }
    let packet_type = skip_mod_ex(head & 15, &mut payload)?;
    let Some(track) = one_track(packet_type, AUDIO_MULTITRACK, payload, choice)? else {
        return Err(FlvError::Multitrack);
    };
    let codec = audio_codec(track.four)?;
    let packet = match track.packet_type {
        SEQUENCE_START => Packet::Header,
        CODED_FRAMES => Packet::Frame,
        SEQUENCE_END | MULTICHANNEL_CONFIG => return Ok(None),
        _ => return Err(FlvError::Bitstream),
    };
    Ok(Some(Tag {
        codec,
        packet,
        composition_ms: 0,
        body: track.body,
        has_others: track.has_others,
    }))
}

fn classic_video(head: u8, mut body: Bytes, choice: &mut Choice) -> Result<Option<Tag>, FlvError> {
    match head & 15 {
        7 => {}
        2 => return Err(FlvError::Codec("Sorenson H.263")),
        3 | 6 => return Err(FlvError::Codec("Screen Video")),
        4 | 5 => return Err(FlvError::Codec("VP6")),
        12 => return Err(FlvError::Codec("HEVC outside of enhanced RTMP")),
        _ => return Err(FlvError::Bitstream),
    }
    if head >> 4 == COMMAND_FRAME {
        return Ok(None);
    }
    let packet_type = take_u8(&mut body)?;
    let composition_ms = take_i24(&mut body);
    let packet = match packet_type {
        SEQUENCE_START => Packet::Header,
        CODED_FRAMES => Packet::Frame,
        SEQUENCE_END => return composition_ms.map(|_unused| None),
        _ => return Err(FlvError::Bitstream),
    };
    if !choice.takes(0, packet_type) {
        return Err(FlvError::Multitrack);
    }
    Ok(Some(Tag {
        codec: Codec::H264,
        packet,
        composition_ms: composition_ms?,
        body,
        has_others: false,
    }))
}

fn classic_aac(mut body: Bytes, choice: &mut Choice) -> Result<Tag, FlvError> {
    let packet_type = take_u8(&mut body)?;
    let packet = match packet_type {
        SEQUENCE_START => Packet::Header,
        CODED_FRAMES => Packet::Frame,
        _ => return Err(FlvError::Bitstream),
    };
    if !choice.takes(0, packet_type) {
        return Err(FlvError::Multitrack);
    }
    Ok(Tag {
        codec: Codec::Aac,
        packet,
        composition_ms: 0,
        body,
        has_others: false,
    })
}

/// Passes modifiers: they sharpen a time to nanoseconds, or are of a later version.
fn skip_mod_ex(packet_type: u8, payload: &mut Bytes) -> Result<u8, FlvError> {
    let mut packet_type = packet_type;
    while packet_type == MOD_EX {
        let mut size = usize::from(take_u8(payload)?) + 1;
        if size == 256 {
            size = usize::from(payload.try_get_u16().map_err(short)?) + 1;
        }
        if payload.len() < size {
            return Err(FlvError::Bitstream);
        }
        payload.advance(size);
        packet_type = take_u8(payload)? & 15;
    }
    Ok(packet_type)
}

/// One track's part of a message.
struct TrackPart {
    packet_type: u8,
    four: [u8; 4],
    body: Bytes,
    has_others: bool,
}

/// The part of the track that is taken; `None` when the message has only others.
fn one_track(
    packet_type: u8,
    multitrack: u8,
    mut payload: Bytes,
    choice: &mut Choice,
) -> Result<Option<TrackPart>, FlvError> {
    if packet_type != multitrack {
        let part = TrackPart {
            packet_type,
            four: take_four(&mut payload)?,
            body: payload,
            has_others: false,
        };
        return Ok(choice.takes(0, packet_type).then_some(part));
    }
    let form = take_u8(&mut payload)?;
    let (form, packet_type) = (form >> 4, form & 15);
    if packet_type == multitrack || form > MANY_TRACKS_MANY_CODECS {
        return Err(FlvError::Bitstream);
    }
    let mut four = [0; 4];
    if matches!(form, ONE_TRACK | MANY_TRACKS) {
        four = take_four(&mut payload)?;
    }
    let (mut found, mut has_others) = (None, false);
    loop {
        if form == MANY_TRACKS_MANY_CODECS {
            four = take_four(&mut payload)?;
        }
        let id = take_u8(&mut payload)?;
        let body = if form == ONE_TRACK {
            std::mem::take(&mut payload)
        } else {
            let size = payload.try_get_uint(3).map_err(short)?;
            let size = usize::try_from(size).map_err(|_wide| FlvError::Bitstream)?;
            if payload.len() < size {
                return Err(FlvError::Bitstream);
            }
            payload.split_to(size)
        };
        if choice.takes(id, packet_type) {
            // A header of track 0 wins over that of one before it.
            has_others |= found.is_some();
            found = Some((four, body));
        } else {
            has_others = true;
        }
        if payload.is_empty() {
            break;
        }
    }
    Ok(found.map(|(four, body)| TrackPart {
        packet_type,
        four,
        body,
        has_others,
    }))
}

fn video_codec(four: [u8; 4]) -> Result<Codec, FlvError> {
    match &four {
        b"avc1" => Ok(Codec::H264),
        b"hvc1" => Ok(Codec::Hevc),
        b"av01" => Ok(Codec::Av1),
        b"vp08" => Err(FlvError::Codec("VP8")),
        b"vp09" => Err(FlvError::Codec("VP9")),
        b"vvc1" => Err(FlvError::Codec("VVC")),
        _ => Err(FlvError::Codec("this video codec")),
    }
}

fn audio_codec(four: [u8; 4]) -> Result<Codec, FlvError> {
    match &four {
        b"mp4a" => Ok(Codec::Aac),
        b"Opus" => Ok(Codec::Opus),
        b"ac-3" | b"ec-3" => Err(FlvError::Codec("AC-3")),
        b"fLaC" => Err(FlvError::Codec("FLAC")),
        b".mp3" => Err(FlvError::Codec("MP3")),
        _ => Err(FlvError::Codec("this sound codec")),
    }
}

const fn classic_sound(format: u8) -> &'static str {
    match format {
        1 => "ADPCM",
        2 | 14 => "MP3",
        4..=6 => "Nellymoser",
        7 | 8 => "G.711",
        11 => "Speex",
        _ => "uncompressed sound",
    }
}

fn short(_short: bytes::TryGetError) -> FlvError {
    FlvError::Bitstream
}

fn take_u8(from: &mut Bytes) -> Result<u8, FlvError> {
    from.try_get_u8().map_err(short)
}

/// A signed 24-bit number.
fn take_i24(from: &mut Bytes) -> Result<i32, FlvError> {
    let value = from.try_get_int(3).map_err(short)?;
    i32::try_from(value).map_err(|_wide| FlvError::Bitstream)
}

fn take_four(from: &mut Bytes) -> Result<[u8; 4], FlvError> {
    from.try_get_u32().map(u32::to_be_bytes).map_err(short)
}
