//! Positions on the circle.

/// A position on the circle: 32 bits, or 64 in the dialects with 64-bit hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub u64);

/// Separates the parts of a key that some dialects hash one by one: ASCII unit separator, which cannot
/// occur in a header field (RFC 9110 §5.5).
pub const KEY_PART_SEPARATOR: u8 = 0x1f;

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
