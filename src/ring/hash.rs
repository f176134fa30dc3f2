//! Positions on the circle.

use std::fmt;

/// A position on the circle: 32 bits, or 64 in the dialects with 64-bit hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub u64);

/// Eight hexadecimal digits, 16 above 32 bits: the only form in which a hash is shown, in the access log and in JSON. As a
/// number it would not be exact everywhere: JSON's are doubles to many programs (RFC 8259 §6).
impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(hash) = self;
        if high_half(*hash) == 0 {
            write!(f, "{hash:08x}")
        } else {
            write!(f, "{hash:016x}")
        }
    }
}

/// Separates the parts of a key that some dialects hash one by one: ASCII unit separator, which cannot
/// occur in a header field (RFC 9110 §5.5).
pub const KEY_PART_SEPARATOR: u8 = 0x1f;

/// Separates the lines of a header field in a part of a key, which dialect `envoy` hashes one after the other: ASCII record
/// separator, which cannot occur in a header field (RFC 9110 §5.5).
pub(super) const KEY_LINE_SEPARATOR: u8 = 0x1e;

/// The lower 32 bits.
#[expect(
    clippy::cast_possible_truncation,
    reason = "keeps the low half on purpose"
)]
pub(super) const fn low_half(word: u64) -> u32 {
    word as u32
}

/// The upper 32 bits.
pub(super) const fn high_half(word: u64) -> u32 {
    low_half(word >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_shown_with_8_digits_or_16_above_32_bits() {
        for (hash, shown) in [
            (0, "00000000"),
            (0x00c0_ffee, "00c0ffee"),
            (0xffff_ffff, "ffffffff"),
            (1 << 32, "0000000100000000"),
            (u64::MAX, "ffffffffffffffff"),
        ] {
            assert_eq!(Hash(hash).to_string(), shown);
        }
    }
}
