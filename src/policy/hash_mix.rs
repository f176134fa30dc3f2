//! The second hash: mixes the bits of a number over the whole word.
//!
//! A key's position on the ring decides its owner. Other decisions about the key must not depend on that
//! position, or they would be the same for all keys of a peer. Not for secrets, nor for tables that an
//! attacker can fill: the function is invertible.

/// A bijection; every output bit depends on every input bit. The finalizer of
/// `SplittableRandom` (Steele, Lea and Flood, OOPSLA 2014), in Stafford's variant 13.
#[inline]
pub(crate) const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_mix_input_bit_flips_half_of_the_output_bits() {
        for bit in 0..u64::BITS {
            let flipped: u32 = (1..=1000_u64)
                .map(|word| (mix(word) ^ mix(word ^ 1 << bit)).count_ones())
                .sum();
            assert!((31_000..33_000).contains(&flipped), "bit {bit}: {flipped}");
        }
    }
}
