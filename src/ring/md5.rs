//! MD5 (RFC 1321) as four words. It places keys and points and protects no secret.

use ::md5::{Digest, Md5};

/// The four words of the digest of `text`, in order; their bytes, little-endian, are the digest.
#[inline]
pub(super) fn words(text: &[u8]) -> [u32; 4] {
    let digest = Md5::digest(text);
    let (bytes, _) = digest.as_chunks();
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}
