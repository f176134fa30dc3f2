//! Errors of the parsers.

/// Why bytes are not a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProxyHeaderError {
    /// They do not begin with a signature of the protocol.
    #[error("no PROXY protocol header")]
    Signature,
    /// The header is longer than 107 bytes in version 1, or [`MAX_LENGTH`](super::v2::MAX_LENGTH) in version 2.
    #[error("the PROXY protocol header is too long")]
    TooLong,
    /// The signature is right, the rest is malformed.
    #[error("malformed PROXY protocol header")]
    Syntax,
    /// The `CRC32c` checksum (RFC 4960 appendix B) does not match.
    #[error("the checksum of the PROXY protocol header is wrong")]
    Checksum,
}
