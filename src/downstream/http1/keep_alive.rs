//! Whether the client's connection carries another request.

use bytes::BytesMut;
use http::Version;

use super::super::exchange::Exchange;
use super::received_body::ReceivedBody;

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

    /// Before a response of our own begins: the connection closes after it, unless the rest of the request's body has arrived
    /// or is short. A client that waits for 100 may never send it.
    pub(crate) fn before_own_response(&mut self, body: &mut ReceivedBody, input: &mut BytesMut) {
        let is_due = !body.is_complete()
            && (body.expects_continue() || !body.discard(input) && !body.is_short());
        self.set_body_due(is_due);
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

#[cfg(test)]
mod tests {
    use super::super::super::connection_limit::ConnectionLimit;
    use super::*;
    use crate::config::DownstreamConfig;
    use crate::http1::BodyLength;

    #[tokio::test]
    async fn connection_closes_after_our_own_response_unless_the_bodys_rest_arrived_or_is_short() {
        let exact = BodyLength::Exact;
        for (length, expects_continue, arrived, persists) in [
            (BodyLength::Empty, true, "", true),
            (exact(5), false, "", true),
            (exact(5), true, "", false),
            (exact(5), true, "hello", false),
            (exact(256 * 1024), false, "", true),
            (exact(256 * 1024 + 1), false, "", false),
            (BodyLength::Chunked, false, "", false),
            (BodyLength::Chunked, false, "5\r\nhello\r\n", false),
            (
                BodyLength::Chunked,
                false,
                "5\r\nhello\r\n0\r\n\r\nGET ",
                true,
            ),
            (BodyLength::Chunked, false, "x", false),
        ] {
            let limit = ConnectionLimit::new(None);
            let (exchange, _client) = Exchange::for_test(DownstreamConfig::DEFAULT, &limit);
            let mut body = ReceivedBody::new(length, expects_continue);
            let mut keep_alive = KeepAlive::new(true, Version::HTTP_11);
            keep_alive.before_own_response(&mut body, &mut BytesMut::from(arrived));
            let option = keep_alive.option(&exchange);
            let expected = if persists { None } else { Some("close") };
            assert_eq!(option, expected, "{length:?} {arrived:?}");
            assert_eq!(keep_alive.is_allowed(), persists, "{length:?} {arrived:?}");
        }
    }
}
