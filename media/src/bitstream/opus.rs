//! Opus: how long a packet is, and the identification header of a stream (RFC 6716, RFC 7845).

use bytes::{BufMut, Bytes, BytesMut};

/// Samples per second of every Opus stream, whatever it was made from.
pub const RATE: u32 = 48_000;
/// The longest packet: 120 ms.
const PACKET_SAMPLES_MAX: u32 = RATE / 1_000 * 120;
/// Bytes of a header whose channels are mapped the plain way.
pub const HEAD_BYTES: usize = 19;

/// Why bytes are not Opus that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOpus {
    /// The header is cut short or of a version nobody knows.
    #[error("the Opus header is cut short or of an unknown version")]
    Head,
    /// More channels than two, or mapped in another way.
    #[error("Opus with more than two channels is not taken")]
    Channels,
    /// A packet of no frames, or of more than 120 ms.
    #[error("the Opus packet has no frames or is longer than 120 ms")]
    Packet,
}

/// The channels that an `OpusHead` names.
///
/// # Errors
/// [`BadOpus`] says what is wrong.
pub fn channels(head: &[u8]) -> Result<u8, BadOpus> {
    let fields = head.strip_prefix(b"OpusHead").ok_or(BadOpus::Head)?;
    let byte = |at: usize| fields.get(at).copied().ok_or(BadOpus::Head);
    // The upper half of the version changes when old readers must not go on.
    if byte(0)? & 0xf0 != 0 || head.len() < HEAD_BYTES {
        return Err(BadOpus::Head);
    }
    match (byte(1)?, byte(10)?) {
        (channels @ 1..=2, 0) => Ok(channels),
        (0, _) => Err(BadOpus::Head),
        _ => Err(BadOpus::Channels),
    }
}

/// An `OpusHead` for streams that came without one.
pub fn head(channels: u8) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD_BYTES);
    out.put_slice(b"OpusHead");
    out.put_slice(&[1, channels]);
    out.put_u16_le(0);
    out.put_u32_le(RATE);
    out.put_slice(&[0, 0, 0]);
    out.freeze()
}

/// Samples of a packet at 48 kHz, from its table of contents (RFC 6716 3.1 and 3.2).
///
/// # Errors
/// [`BadOpus::Packet`] when it has none, or too many.
pub fn samples(packet: &[u8]) -> Result<u32, BadOpus> {
    let toc = *packet.first().ok_or(BadOpus::Packet)?;
    let frame = match toc >> 3 {
        // SILK: 10, 20, 40, 60 ms.
        config @ 0..=11 => [480, 960, 1_920, 2_880]
            .get(usize::from(config & 3))
            .copied(),
        // Hybrid: 10, 20 ms.
        config @ 12..=15 => [480, 960].get(usize::from(config & 1)).copied(),
        // CELT: 2.5, 5, 10, 20 ms.
        config => [120, 240, 480, 960].get(usize::from(config & 3)).copied(),
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1).ok_or(BadOpus::Packet)? & 63),
    };
    let samples = frame.unwrap_or(0) * frames;
    if samples == 0 || samples > PACKET_SAMPLES_MAX {
        return Err(BadOpus::Packet);
    }
    Ok(samples)
}

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    reason = "the tests cut constants of known length"
)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_every_mode_say_how_long_they_are() {
        let rows: [(&[u8], u32); 9] = [
            // CELT fullband of 20 ms, as browsers and OBS send it.
            (&[0xfc, 1], 960),
            (&[0xe0, 1], 120),
            (&[0x18, 1], 2_880),
            (&[0x00, 1], 480),
            (&[0x68, 1], 960),
            (&[0x79, 1, 2], 1_920),
            (&[0x1a, 1, 2], 5_760),
            (&[0xfb, 3], 2_880),
            (&[0xfb, 0x80 | 6], 5_760),
        ];
        for (packet, expected) in rows {
            assert_eq!(samples(packet), Ok(expected), "{packet:02x?}");
        }
        let bad: [&[u8]; 5] = [&[], &[0xfb], &[0xfb, 0], &[0xfb, 7], &[0x1b, 3]];
        for packet in bad {
            assert_eq!(samples(packet), Err(BadOpus::Packet), "{packet:02x?}");
        }
    }

    #[test]
    fn a_header_says_its_channels_and_only_plain_ones_are_taken() {
        for count in [1, 2] {
            assert_eq!(channels(&head(count)), Ok(count));
        }
        let with = |at: usize, value: u8| {
            let mut bytes = head(2).to_vec();
            bytes[at] = value;
            channels(&bytes)
        };
        assert_eq!(
            with(8, 0x0f),
            Ok(2),
            "a later version that old readers may read"
        );
        assert_eq!(with(8, 0x10), Err(BadOpus::Head));
        assert_eq!(with(9, 0), Err(BadOpus::Head));
        assert_eq!(with(9, 6), Err(BadOpus::Channels));
        assert_eq!(with(18, 1), Err(BadOpus::Channels));
        for length in 0..HEAD_BYTES {
            assert_eq!(channels(&head(2)[..length]), Err(BadOpus::Head));
        }
    }
}
