//! The second hash: spreads the bits of a number over the whole word.
//!
//! A key's place on the ring says who owns it; what else is decided by the key must not depend on that
//! place, or the keys of one peer would all be decided alike. Not for secrets, and not for tables that
//! an enemy can fill: the way back is known.

/// A bijection of which every output bit depends on every input bit: the finalizer of
/// `SplittableRandom` (Steele, Lea and Flood, OOPSLA 2014), in Stafford's variant 13.
#[inline]
pub const fn mix(word: u64) -> u64 {
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
            let turned: u32 = (1..=1000_u64)
                .map(|word| (mix(word) ^ mix(word ^ 1 << bit)).count_ones())
                .sum();
            assert!((31_000..33_000).contains(&turned), "bit {bit}: {turned}");
        }
    }
}
