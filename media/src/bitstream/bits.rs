//! Bits of headers, most significant first, never read past their end.

/// The bits end early, or a number in them does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bits end early")]
pub(super) struct BadBits;

/// Zeros before the one of an Exp-Golomb number of 32 bits.
const GOLOMB_ZEROS_MAX: u32 = 31;

/// Reads bits.
#[derive(Clone, Debug)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// A number of `count` bits, at most 32.
    pub(super) fn take(&mut self, count: u32) -> Result<u32, BadBits> {
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u32::from(self.flag()?);
        }
        Ok(value)
    }

    /// A number of `count` bits, at most 8.
    pub(super) fn byte(&mut self, count: u32) -> Result<u8, BadBits> {
        u8::try_from(self.take(count)?).map_err(|_wide| BadBits)
    }

    pub(super) fn flag(&mut self) -> Result<bool, BadBits> {
        let byte = self.bytes.get(self.at / 8).ok_or(BadBits)?;
        let is_set = byte >> (7 - self.at % 8) & 1 == 1;
        self.at += 1;
        Ok(is_set)
    }

    pub(super) fn skip(&mut self, count: u32) -> Result<(), BadBits> {
        let count = usize::try_from(count).map_err(|_wide| BadBits)?;
        let at = self.at.checked_add(count).ok_or(BadBits)?;
        if at > self.bytes.len() * 8 {
            return Err(BadBits);
        }
        self.at = at;
        Ok(())
    }

    /// `ue(v)` of ITU-T H.265 9.2.
    pub(super) fn golomb(&mut self) -> Result<u32, BadBits> {
        let zeros = self.zeros()?;
        if zeros > GOLOMB_ZEROS_MAX {
            return Err(BadBits);
        }
        let rest = u64::from(self.take(zeros)?) + (1 << zeros) - 1;
        u32::try_from(rest).map_err(|_wide| BadBits)
    }

    /// `uvlc()` of AV1 4.10.3, where 32 zeros and more stand for the largest number.
    pub(super) fn uvlc(&mut self) -> Result<u32, BadBits> {
        let zeros = self.zeros()?;
        if zeros > GOLOMB_ZEROS_MAX {
            return Ok(u32::MAX);
        }
        let rest = u64::from(self.take(zeros)?) + (1 << zeros) - 1;
        u32::try_from(rest).map_err(|_wide| BadBits)
    }

    /// Counts zeros up to the next one, which it passes.
    fn zeros(&mut self) -> Result<u32, BadBits> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
        }
        Ok(zeros)
    }
}

/// The payload of a NAL unit without the bytes that keep start codes out of it (H.265 7.3.1.1).
pub(super) fn unescaped(nal: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for &byte in nal {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_the_order_of_their_bits() {
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0010, 0xff]);
        assert_eq!(bits.take(3), Ok(5));
        assert_eq!(bits.golomb(), Ok(5), "00110");
        assert_eq!(bits.golomb(), Ok(1), "010");
        assert_eq!(bits.skip(3), Ok(()));
        assert_eq!(bits.byte(8), Ok(0xbf));
        assert_eq!(bits.skip(3), Err(BadBits));
        assert_eq!(bits.take(2), Ok(3));
        assert_eq!(bits.flag(), Err(BadBits));
    }

    #[test]
    fn a_number_of_33_bits_is_none_in_one_code_and_the_largest_in_the_other() {
        let zeros = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(Bits::new(&zeros).golomb(), Err(BadBits));
        assert_eq!(Bits::new(&zeros).uvlc(), Ok(u32::MAX));
        let largest = [0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(Bits::new(&largest).golomb(), Ok(u32::MAX - 1));
        assert_eq!(Bits::new(&[0; 9]).golomb(), Err(BadBits));
    }

    #[test]
    fn only_a_three_behind_two_zeros_is_taken_out() {
        let nal = [3, 0, 3, 0, 0, 3, 0, 0, 3, 3, 0, 0, 0, 3];
        assert_eq!(unescaped(&nal), [3, 0, 3, 0, 0, 0, 0, 3, 0, 0, 0]);
    }
}
