//! Whether the client's connection carries another request.

use http::Version;

use super::super::exchange::Exchange;

/// The longest body that is read and dropped after a response of our own, to keep the connection; bytes.
const MAX_DRAINED: u64 = 256 * 1024;

/// Whether a body of this length, in bytes, is read and dropped after a response of our own.
pub(crate) fn is_short(length: u64) -> bool {
    length <= MAX_DRAINED
}

/// Whether the client's connection carries another request after this one.
#[derive(Debug)]
pub(crate) struct KeepAlive {
    wanted: bool,
    version: Version,
    is_body_due: bool,
}

impl KeepAlive {
    /// `wanted`: the client keeps the connection, and `keepalive_requests` allows another request.
    pub(crate) fn new(wanted: bool, version: Version) -> Self {
        Self {
            wanted,
            version,
            is_body_due: false,
        }
    }

    /// Whether the client has yet to send some of the request's body. A response that begins before it has closes the
    /// connection, as the end of that body may never come, and says so (RFC 9112 §9.6).
    pub(crate) fn set_body_due(&mut self, is_due: bool) {
        self.is_body_due = is_due;
    }

    /// Makes the connection close after this response; for example, because only the close marks its end.
    pub(crate) fn forbid(&mut self) {
        self.wanted = false;
    }

    pub(crate) fn is_allowed(&self) -> bool {
        self.wanted
    }

    /// The option of `Connection` for the response that begins now; `None`: none, as HTTP/1.1 persists without one
    /// (RFC 9112 §9.3).
    pub(crate) fn option(&mut self, exchange: &Exchange) -> Option<&'static str> {
        let connection = &exchange.connection;
        self.wanted &= !(self.is_body_due
            || exchange.is_keepalive_forbidden()
            || connection.is_draining()
            || connection.is_at_connection_limit());
        match (self.wanted, self.version) {
            (false, _) => Some("close"),
            (true, Version::HTTP_10) => Some("keep-alive"),
            (true, _) => None,
        }
    }
}
