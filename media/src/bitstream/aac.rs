//! AAC: what an `AudioSpecificConfig` (ISO/IEC 14496-3 1.6.2.1) says.

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
        let mut bits = Bits {
            bytes: record,
            at: 0,
        };
        let object_type = bits.object_type()?;
        let rate = bits.rate()?;
        let channels = match bits.take(4)? {
            0 => 2,
            n @ 1..=6 => n,
            7 => 8,
            _ => return Err(BadAac::Config),
        };
        if !matches!(object_type, 2 | 5 | 29) {
            return Err(BadAac::ObjectType(object_type));
        }
        let channels = u8::try_from(channels).unwrap_or(2);
        Ok(Self {
            object_type,
            rate,
            channels,
        })
    }
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Result<u32, BadAac> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8).ok_or(BadAac::Config)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Ok(value)
    }

    fn object_type(&mut self) -> Result<u8, BadAac> {
        let short = self.take(5)?;
        let value = if short == 31 {
            32 + self.take(6)?
        } else {
            short
        };
        u8::try_from(value).map_err(|_wide| BadAac::Config)
    }

    fn rate(&mut self) -> Result<u32, BadAac> {
        let index = self.take(4)?;
        let rate = if index == 15 {
            self.take(24)?
        } else {
            let row = usize::try_from(index).ok().and_then(|i| RATES.get(i));
            *row.ok_or(BadAac::Config)?
        };
        if rate == 0 {
            Err(BadAac::Config)
        } else {
            Ok(rate)
        }
    }
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
