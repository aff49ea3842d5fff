//! AAC: what an `AudioSpecificConfig` (ISO/IEC 14496-3 1.6.2.1) says.

use super::bits::{BadBits, Bits};

/// Sampling rates by index.
const RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
    7_350,
];

/// Samples of an AAC frame before any spectral band replication.
pub const FRAME_SAMPLES: u32 = 1_024;

/// Why bytes are not an `AudioSpecificConfig` we can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAac {
    /// It ends early or holds reserved values.
    #[error("the AAC configuration is cut short or holds reserved values")]
    Config,
    /// An object type other than AAC-LC and HE-AAC.
    #[error("AAC object type {0} is not taken; use AAC-LC")]
    ObjectType(u8),
}

impl From<BadBits> for BadAac {
    fn from(_: BadBits) -> Self {
        Self::Config
    }
}

/// What an `AudioSpecificConfig` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// 2 AAC-LC, 5 HE-AAC, 29 HE-AAC v2: as signalled.
    pub object_type: u8,
    /// Samples per second of the AAC core.
    pub rate: u32,
    /// Channels; 0 in the record is stereo here, as decoders assume.
    pub channels: u8,
}

impl Config {
    /// Reads a record.
    ///
    /// # Errors
    /// [`BadAac`] says what is wrong.
    pub fn parse(record: &[u8]) -> Result<Self, BadAac> {
        let mut bits = Bits::new(record);
        let object_type = object_type(&mut bits)?;
        let rate = rate(&mut bits)?;
        let channels = match bits.byte(4)? {
            0 => 2,
            n @ 1..=6 => n,
            7 => 8,
            _ => return Err(BadAac::Config),
        };
        if !matches!(object_type, 2 | 5 | 29) {
            return Err(BadAac::ObjectType(object_type));
        }
        Ok(Self {
            object_type,
            rate,
            channels,
        })
    }
}

fn object_type(bits: &mut Bits<'_>) -> Result<u8, BadBits> {
    match bits.byte(5)? {
        31 => Ok(32 + bits.byte(6)?),
        short => Ok(short),
    }
}

fn rate(bits: &mut Bits<'_>) -> Result<u32, BadBits> {
    let rate = match bits.take(4)? {
        15 => bits.take(24)?,
        index => {
            let row = usize::try_from(index).ok().and_then(|i| RATES.get(i));
            *row.ok_or(BadBits)?
        }
    };
    if rate == 0 { Err(BadBits) } else { Ok(rate) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_real_encoders_are_read() {
        type Row = (&'static [u8], (u8, u32, u8));
        let cases: [Row; 5] = [
            (&[0x12, 0x10], (2, 44_100, 2)),
            (&[0x11, 0x90], (2, 48_000, 2)),
            (&[0x12, 0x08, 0x56, 0xe5, 0x00], (2, 44_100, 1)),
            (&[0x2b, 0x92, 0x08, 0x00], (5, 22_050, 2)),
            (&[0x17, 0x80, 0x5d, 0xc0, 0x10], (2, 48_000, 2)),
        ];
        for (record, expected) in cases {
            let config = Config::parse(record).unwrap();
            assert_eq!((config.object_type, config.rate, config.channels), expected);
        }
    }

    #[test]
    fn what_is_no_aac_is_refused_by_name() {
        assert_eq!(Config::parse(&[]), Err(BadAac::Config));
        assert_eq!(Config::parse(&[0x12]), Err(BadAac::Config));
        assert_eq!(Config::parse(&[0x0a, 0x10]), Err(BadAac::ObjectType(1)));
    }
}
