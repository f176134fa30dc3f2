//! Bob Jenkins' one-at-a-time hash, as libmemcached and twemproxy have it in C: a byte is a signed `char`.

/// The hash of these bytes.
pub(super) fn one_at_a_time(text: &[u8]) -> u32 {
    let mut hash = signed_bytes(text).fold(0_u32, |hash, byte| {
        let hash = hash.wrapping_add(byte);
        let hash = hash.wrapping_add(hash << 10);
        hash ^ (hash >> 6)
    });
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

/// The bytes as 32-bit words. As a signed `char` in C, each is sign-extended.
pub(super) fn signed_bytes(text: &[u8]) -> impl Iterator<Item = u32> {
    text.iter()
        .map(|byte| i32::from(byte.cast_signed()).cast_unsigned())
}
