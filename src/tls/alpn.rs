//! Protocol names for ALPN (RFC 7301).

/// HTTP/2 over TLS (RFC 9113 §3.1).
pub(crate) const ALPN_H2: &[u8] = b"h2";

/// The TLS-ALPN-01 validation of an ACME authority (RFC 8737 §6.2); no data follows the handshake.
pub(crate) const ALPN_ACME: &[u8] = b"acme-tls/1";
