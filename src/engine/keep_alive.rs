//! Whether the client's connection carries another request.

use http::Version;

use crate::downstream::Exchange;

/// Whether the client's connection carries another request after this one.
#[derive(Debug)]
pub(super) struct KeepAlive {
    wanted: bool,
    version: Version,
}

impl KeepAlive {
    /// `wanted`: the client wants it, and the connection has requests left.
    pub(super) fn new(wanted: bool, version: Version) -> Self {
        Self { wanted, version }
    }

    /// The connection must close: its end marks that of the response, or the request's end is not known.
    pub(super) fn forbid(&mut self) {
        self.wanted = false;
    }

    pub(super) fn is_allowed(&self) -> bool {
        self.wanted
    }

    /// The option of `Connection` for the response that begins now; `None`: HTTP/1.1 needs none.
    pub(super) fn option(&mut self, exchange: &Exchange) -> Option<&'static str> {
        let connection = &exchange.connection;
        self.wanted &= !connection.is_draining() && !connection.is_at_connection_limit();
        match (self.wanted, self.version) {
            (false, _) => Some("close"),
            (true, Version::HTTP_10) => Some("keep-alive"),
            (true, _) => None,
        }
    }
}
