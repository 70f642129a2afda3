//! Arithmetic with CRC-32C. The checksum is linear, so that of two pieces one after the other follows from those of the
//! pieces, and a piece whose checksum is known need not be read again.

use crc32c::crc32c_append;

/// The checksum of the end of some bytes, known to whoever hands them on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndSum {
    /// Where the end begins, as a position in the bytes.
    pub(crate) from: usize,
    /// CRC-32C of all from there on.
    pub(crate) crc: u32,
}

impl EndSum {
    /// The checksum of something whose own is `before` and of `bytes` behind it, which this is the end of.
    pub(crate) fn after(self, before: u32, bytes: &[u8]) -> u32 {
        let end_bytes = bytes.len() - self.from;
        let sum = shift(crc32c_append(before, &bytes[..self.from]), end_bytes) ^ self.crc;
        debug_assert_eq!(sum, crc32c_append(before, bytes), "the end has another checksum");
        sum
    }
}

/// CRC-32C's polynomial, bit-reflected as the checksum itself: bit 31 is the coefficient of x⁰.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// x to the power 8·2^k modulo the polynomial: the factor for 2^k bytes.
const BYTE_POWERS: [u32; usize::BITS as usize] = {
    let mut powers = [0; usize::BITS as usize];
    let mut power = 1 << 23; // x⁸
    let mut k = 0;
    while k < powers.len() {
        powers[k] = power;
        power = multiply(power, power);
        k += 1;
    }
    powers
};

/// What becomes of a difference between two checksums after `bytes` further bytes, in less than a microsecond.
pub(crate) fn shift(difference: u32, bytes: usize) -> u32 {
    let mut shifted = difference;
    let mut left = bytes;
    while left != 0 {
        shifted = multiply(BYTE_POWERS[left.trailing_zeros() as usize], shifted);
        left &= left - 1;
    }
    shifted
}

/// Product of two polynomials over GF(2), modulo CRC-32C's.
const fn multiply(a: u32, b: u32) -> u32 {
    let mut product = 0;
    let mut term = b;
    let mut bit = 1 << 31;
    while bit != 0 {
        if a & bit != 0 {
            product ^= term;
        }
        term = (term >> 1) ^ if term & 1 == 0 { 0 } else { POLYNOMIAL };
        bit >>= 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_end_gives_the_same_checksum_as_its_bytes() {
        for len in [21, 22, 100, 4096, 10_007, 65_536 + 21, 1_000_003] {
            let bytes: Vec<u8> = (0..len).map(|i: usize| (i * 31 % 251) as u8).collect();
            for from in [0, 1, 21] {
                let end = EndSum { from, crc: crc32c::crc32c(&bytes[from..]) };
                let before = crc32c::crc32c(b"head");
                assert_eq!(end.after(before, &bytes), crc32c_append(before, &bytes), "{len} from {from}");
            }
        }
    }
}
