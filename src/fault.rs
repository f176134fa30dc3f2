//! Every way in which a request can fail: one table, for HTTP/1, HTTP/2 and gRPC alike.
//!
//! A failure is classified once: in [`proxy`](crate::proxy) from Pingora's error, in [`engine`](crate::engine) from the
//! error of a socket or of the codec, or in [`downstream`](crate::downstream) from the limit that was exceeded. Its row
//! here determines the client's response, the log, the metrics, the peer's record and the retry.

use crate::grpc::GrpcStatus;
use crate::policy::retry::RetryClass;

/// The party that caused a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The client: its request, its body, or its connection.
    Client,
    /// The peer, or the way to it; the upstream, if no peer is available.
    Peer,
    /// Clockwise itself, the end of its process, or a limit that is not about either side.
    Proxy,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
struct FaultRow {
    name: &'static str,
    status: u16,
    grpc_status: GrpcStatus,
    blame: Blame,
    retry: RetryClass,
}

/// Declares [`Fault`] together with its rows, so that no variant is without one.
macro_rules! faults {
    ($( $(#[$doc:meta])* $fault:ident = $name:literal, $status:literal, $grpc:ident, $blame:ident, $retry:ident; )*) => {
        /// The way in which a request failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault {
            $( $(#[$doc])* $fault, )*
        }

        impl Fault {
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$( Self::$fault, )*];

            const fn row(self) -> FaultRow {
                match self {
                    $( Self::$fault => FaultRow {
                        name: $name,
                        status: $status,
                        grpc_status: GrpcStatus::$grpc,
                        blame: Blame::$blame,
                        retry: RetryClass::$retry,
                    }, )*
                }
            }
        }
    };
}

faults! {
    // fault                  = name,                          status, gRPC,         blame,  retry

    // The request is refused.
    /// The request is malformed.
    BadRequest                = "bad_request",                 400, Internal,          Client, Never;
    /// `Host` is missing, repeated, or not the name of a host.
    BadHost                   = "bad_host",                    400, Internal,          Client, Never;
    /// The path is not normal and `normalize_path` is `reject`, or another route may be meant (`%2F`, `\`).
    AmbiguousPath             = "ambiguous_path",              400, Internal,          Client, Never;
    /// None of the upstream's key sources is present, and `missing_key` is `reject`.
    MissingKey                = "missing_key",                 400, Internal,          Client, Never;
    /// The route requires a client certificate, and the connection has none.
    ClientCertificateRequired = "client_certificate_required", 403, PermissionDenied,  Client, Never;
    /// No route matches the host and path.
    NoRoute                   = "no_route",                    404, Unimplemented,     Client, Never;
    /// No route for the host and path takes the method.
    MethodNotAllowed          = "method_not_allowed",          405, Unimplemented,     Client, Never;
    /// The body is larger than `max_body_size`.
    BodyTooLarge              = "body_too_large",              413, ResourceExhausted, Client, Never;
    /// The request target is longer than `max_uri_length`.
    UriTooLong                = "uri_too_long",                414, ResourceExhausted, Client, Never;
    /// The host differs from the SNI, on a listener that asks for client certificates.
    Misdirected               = "misdirected",                 421, Unavailable,       Client, Never;
    /// The header is larger than `max_header_size`.
    HeaderTooLarge            = "header_too_large",            431, ResourceExhausted, Client, Never;

    /// The request has a transfer coding other than `chunked`.
    CodingUnsupported         = "coding_unsupported",          501, Unimplemented,     Client, Never;
    /// The request's major version of HTTP is not one that the listener speaks.
    VersionUnsupported        = "version_unsupported",         505, Unimplemented,     Client, Never;

    // The client is too slow, or gone. nginx's 499 is logged only: no client is there to read it.
    /// The header was not complete within `header_timeout`.
    HeaderTimeout             = "header_timeout",              408, DeadlineExceeded,  Client, Never;
    /// The body was not complete in time.
    BodyTimeout               = "body_timeout",                408, DeadlineExceeded,  Client, Never;
    /// The body was slower than `min_body_rate`.
    BodyTooSlow               = "body_too_slow",               408, DeadlineExceeded,  Client, Never;
    /// The client left before its response was complete.
    ClientGone                = "client_gone",                 499, Cancelled,         Client, Never;
    /// The client did not take the response within `write_timeout`, or took it slower than `min_body_rate`.
    ClientStalled             = "client_stalled",              499, Cancelled,         Client, Never;

    // No peer was reached: nothing was sent.
    /// No peer of the upstream is available.
    NoAvailablePeer           = "no_available_peer",           503, Unavailable,       Peer,   Never;
    /// No connection to the peer: refused, or unreachable.
    ConnectFailed             = "connect_failed",              502, Unavailable,       Peer,   AnyRequest;
    /// No connection to any peer: this host has no port or file descriptor left for one.
    LocalConnectFailed        = "connect_failed",              502, Unavailable,       Proxy,  AnyRequest;
    /// No connection to the peer within `connect`.
    ConnectTimeout            = "connect_timeout",             504, DeadlineExceeded,  Peer,   AnyRequest;
    /// The peer's certificate, TLS version or protocol is not acceptable.
    TlsFailed                 = "tls_failed",                  502, Unavailable,       Peer,   AnyRequest;

    // The peer was reached.
    /// The peer did not take the request within `write`.
    SendTimeout               = "send_timeout",                504, DeadlineExceeded,  Peer,   Never;
    /// The peer closed the connection, or reset the stream, before it responded.
    UpstreamReset             = "upstream_reset",              502, Unavailable,       Peer,   IdempotentRequest;
    /// The peer did not begin to respond within `first_byte`.
    FirstByteTimeout          = "first_byte_timeout",          504, DeadlineExceeded,  Peer,   Never;
    /// The peer's response is malformed.
    BadResponse               = "bad_response",                502, Unavailable,       Peer,   Never;
    /// The response ended before it was complete.
    ResponseTruncated         = "response_truncated",          502, Unavailable,       Peer,   Never;
    /// The peer paused in its response for longer than `read`.
    ResponseStalled           = "response_stalled",            504, DeadlineExceeded,  Peer,   Never;
    /// The request took longer than `request_timeout`, or gRPC's `grpc-timeout`.
    RequestTimeout            = "request_timeout",             504, DeadlineExceeded,  Peer,   Never;

    // Clockwise ended the exchange.
    /// Nothing passed through the tunnel for `tunnel.idle`.
    TunnelIdle                = "tunnel_idle",                 504, DeadlineExceeded,  Proxy,  Never;
    /// The tunnel was open for `tunnel.total`.
    TunnelTotal               = "tunnel_total",                504, DeadlineExceeded,  Proxy,  Never;
    /// The key of a long stream moved to another peer, and the stream was closed.
    KeyMoved                  = "moved",                       503, Unavailable,       Proxy,  Never;
    /// The process, or the HTTP/2 connection, ended before the request did.
    Aborted                   = "aborted",                     503, Unavailable,       Proxy,  Never;
    /// An error of Clockwise.
    Internal                  = "internal",                    500, Internal,          Proxy,  Never;
    /// A panic of Clockwise.
    Panic                     = "panic",                       500, Internal,          Proxy,  Never;
}

impl Fault {
    /// The text in the access log, the `fault` label of the metrics, the error page and `grpc-message`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The status of HTTP.
    pub fn status(self) -> u16 {
        self.row().status
    }

    /// The status of gRPC.
    pub fn grpc_status(self) -> GrpcStatus {
        self.row().grpc_status
    }

    /// The party that caused the failure.
    pub fn blame(self) -> Blame {
        self.row().blame
    }

    /// The requests that may be sent to another peer after the failure.
    pub fn retry(self) -> RetryClass {
        self.row().retry
    }

    /// Whether the client is not there to read a response.
    pub fn is_client_abort(self) -> bool {
        matches!(self, Self::ClientGone | Self::ClientStalled)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The mapping in gRPC's `http-grpc-status-mapping.md`, which is for clients. A proxy has more exact codes for a
    /// limit on time or size, a missing permission and a missing route.
    fn expected_grpc_status(status: u16) -> GrpcStatus {
        match status {
            400 | 500 => GrpcStatus::Internal,
            403 => GrpcStatus::PermissionDenied,
            404 | 405 | 501 | 505 => GrpcStatus::Unimplemented,
            408 | 504 => GrpcStatus::DeadlineExceeded,
            413 | 414 | 431 => GrpcStatus::ResourceExhausted,
            421 | 502 | 503 => GrpcStatus::Unavailable,
            499 => GrpcStatus::Cancelled,
            other => panic!("no rule for {other}"),
        }
    }

    #[test]
    fn every_fault_has_the_grpc_status_of_its_http_status() {
        for fault in Fault::ALL {
            let expected = expected_grpc_status(fault.status());
            assert_eq!(fault.grpc_status(), expected, "{fault:?}");
        }
    }

    #[test]
    fn every_fault_blames_the_side_that_its_status_blames() {
        for fault in Fault::ALL {
            // 501 and 505 say of the request that it is not understood.
            let status = fault.status();
            let is_client_error = (400..500).contains(&status) || [501, 505].contains(&status);
            assert_eq!(fault.blame() == Blame::Client, is_client_error, "{fault:?}");
        }
    }

    #[test]
    fn fault_names_are_distinct_words_of_a_metric_label() {
        let mut names = BTreeSet::new();
        for fault in Fault::ALL {
            let name = fault.name();
            let is_word = name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(is_word, "{name}");
            let is_second_row = *fault == Fault::LocalConnectFailed;
            assert_eq!(names.insert(name), !is_second_row, "{name}");
        }
    }

    #[test]
    fn only_failures_before_a_response_are_retried() {
        let with = |class| {
            let faults = Fault::ALL.iter().filter(|fault| fault.retry() == class);
            faults.copied().collect::<Vec<_>>()
        };
        assert_eq!(
            with(RetryClass::AnyRequest),
            [
                Fault::ConnectFailed,
                Fault::LocalConnectFailed,
                Fault::ConnectTimeout,
                Fault::TlsFailed
            ]
        );
        assert_eq!(with(RetryClass::IdempotentRequest), [Fault::UpstreamReset]);
    }

    #[test]
    fn client_abort_is_exactly_what_nginx_logs_as_499() {
        for fault in Fault::ALL {
            assert_eq!(fault.is_client_abort(), fault.status() == 499, "{fault:?}");
        }
    }
}
