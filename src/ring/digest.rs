//! MD5 (RFC 1321), for placing keys. It protects nothing and must not be used for that.
//!
//! The digest of the key is nearly the whole cost of a select, and MD5 is one chain of 64 steps
//! that no processor can overlap. Two things make this one faster than a general one: a short text
//! is padded in place, without a buffer that waits for more of it, and in the second round the two
//! halves of the mixing function, which have no bit in common, are added one after the other, so
//! that only one of them is on the chain.

/// Bytes in a block.
const BLOCK: usize = 64;
/// Bytes in the last block before the length of the text.
const ROOM: usize = BLOCK - 8;

/// The four words of the digest; written one after the other, little-endian, they are its bytes.
#[inline]
pub(super) fn words(text: &[u8]) -> [u32; 4] {
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    let mut state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    for block in blocks {
        state = compress(state, block);
    }
    finish(state, rest, text.len())
}

/// The last block, or two: what is left of the text, one bit, zeros, and the length in bits.
#[inline]
fn finish(mut state: [u32; 4], rest: &[u8], length: usize) -> [u32; 4] {
    let mut block = [0; BLOCK];
    if let Some((text, padding)) = block.split_at_mut_checked(rest.len()) {
        text.copy_from_slice(rest);
        padding.iter_mut().take(1).for_each(|bit| *bit = 0x80);
    }
    if rest.len() >= ROOM {
        state = compress(state, &block);
        block = [0; BLOCK];
    }
    if let Some(end) = block.last_chunk_mut() {
        *end = (length as u64).wrapping_mul(8).to_le_bytes();
    }
    compress(state, &block)
}

/// One step of the chain for each of the four words of the state.
macro_rules! four {
    ($mix:ident, $state:ident, $words:ident, $turns:expr, [$($word:literal $sine:literal),*]) => {
        let [mut a, mut b, mut c, mut d] = $state;
        let mut turns = $turns.into_iter();
        $(
            let sum = a.wrapping_add($words[$word]).wrapping_add($sine);
            let mixed = $mix(sum, b, c, d).rotate_left(turns.next().unwrap_or_default());
            (a, b, c, d) = (d, b.wrapping_add(mixed), b, c);
        )*
        $state = [a, b, c, d];
    };
}

/// Mixes one block into the state (RFC 1321 section 3.4).
#[inline]
fn compress(before: [u32; 4], block: &[u8; BLOCK]) -> [u32; 4] {
    let (bytes, _) = block.as_chunks();
    let mut words = [0; 16];
    for (word, bytes) in words.iter_mut().zip(bytes) {
        *word = u32::from_le_bytes(*bytes);
    }
    let mut state = before;
    four!(f, state, words, [7, 12, 17, 22], [0 0xd76a_a478, 1 0xe8c7_b756, 2 0x2420_70db, 3 0xc1bd_ceee]);
    four!(f, state, words, [7, 12, 17, 22], [4 0xf57c_0faf, 5 0x4787_c62a, 6 0xa830_4613, 7 0xfd46_9501]);
    four!(f, state, words, [7, 12, 17, 22], [8 0x6980_98d8, 9 0x8b44_f7af, 10 0xffff_5bb1, 11 0x895c_d7be]);
    four!(f, state, words, [7, 12, 17, 22], [12 0x6b90_1122, 13 0xfd98_7193, 14 0xa679_438e, 15 0x49b4_0821]);
    four!(g, state, words, [5, 9, 14, 20], [1 0xf61e_2562, 6 0xc040_b340, 11 0x265e_5a51, 0 0xe9b6_c7aa]);
    four!(g, state, words, [5, 9, 14, 20], [5 0xd62f_105d, 10 0x0244_1453, 15 0xd8a1_e681, 4 0xe7d3_fbc8]);
    four!(g, state, words, [5, 9, 14, 20], [9 0x21e1_cde6, 14 0xc337_07d6, 3 0xf4d5_0d87, 8 0x455a_14ed]);
    four!(g, state, words, [5, 9, 14, 20], [13 0xa9e3_e905, 2 0xfcef_a3f8, 7 0x676f_02d9, 12 0x8d2a_4c8a]);
    four!(h, state, words, [4, 11, 16, 23], [5 0xfffa_3942, 8 0x8771_f681, 11 0x6d9d_6122, 14 0xfde5_380c]);
    four!(h, state, words, [4, 11, 16, 23], [1 0xa4be_ea44, 4 0x4bde_cfa9, 7 0xf6bb_4b60, 10 0xbebf_bc70]);
    four!(h, state, words, [4, 11, 16, 23], [13 0x289b_7ec6, 0 0xeaa1_27fa, 3 0xd4ef_3085, 6 0x0488_1d05]);
    four!(h, state, words, [4, 11, 16, 23], [9 0xd9d4_d039, 12 0xe6db_99e5, 15 0x1fa2_7cf8, 2 0xc4ac_5665]);
    four!(i, state, words, [6, 10, 15, 21], [0 0xf429_2244, 7 0x432a_ff97, 14 0xab94_23a7, 5 0xfc93_a039]);
    four!(i, state, words, [6, 10, 15, 21], [12 0x655b_59c3, 3 0x8f0c_cc92, 10 0xffef_f47d, 1 0x8584_5dd1]);
    four!(i, state, words, [6, 10, 15, 21], [8 0x6fa8_7e4f, 15 0xfe2c_e6e0, 6 0xa301_4314, 13 0x4e08_11a1]);
    four!(i, state, words, [6, 10, 15, 21], [4 0xf753_7e82, 11 0xbd3a_f235, 2 0x2ad7_d2bb, 9 0xeb86_d391]);
    for (word, before) in state.iter_mut().zip(before) {
        *word = word.wrapping_add(before);
    }
    state
}

const fn f(sum: u32, b: u32, c: u32, d: u32) -> u32 {
    sum.wrapping_add(d ^ (b & (c ^ d)))
}

const fn g(sum: u32, b: u32, c: u32, d: u32) -> u32 {
    sum.wrapping_add(c & !d).wrapping_add(b & d)
}

const fn h(sum: u32, b: u32, c: u32, d: u32) -> u32 {
    sum.wrapping_add(b ^ (c ^ d))
}

const fn i(sum: u32, b: u32, c: u32, d: u32) -> u32 {
    sum.wrapping_add(c ^ (b | !d))
}

#[cfg(test)]
mod tests {
    use md5::{Digest, Md5};
    use proptest::prelude::*;

    use super::*;

    fn bytes(text: &[u8]) -> Vec<u8> {
        words(text)
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }

    #[test]
    fn agrees_with_the_md5_crate_at_every_length_around_a_block() {
        let text: Vec<u8> = (0..=u8::MAX).collect();
        for length in 0..text.len() {
            let text = &text[..length];
            assert_eq!(bytes(text), Md5::digest(text).to_vec(), "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_md5_crate(text in prop::collection::vec(any::<u8>(), 0..1000)) {
            prop_assert_eq!(bytes(&text), Md5::digest(&text).to_vec());
        }
    }
}
