//! What went wrong with a request, judged once: whose blame, and which status.
//!
//! The only place that knows statuses for failures. What follows for the peer and for further attempts
//! is [`retry`](super::retry)'s.

use pingora::ErrorSource::{Downstream, Internal, Unset, Upstream};
use pingora::ErrorType::{
    ConnectTimedout, ConnectionClosed, InvalidCert, ReadError, ReadTimedout, TLSHandshakeFailure,
    TLSHandshakeTimedout, WriteError, WriteTimedout,
};
use pingora::{Error, ErrorType};

use crate::downstream::AbortReason;

/// What went wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// `Host` is missing, or is not the name of a host.
    BadHost,
    /// The request makes no sense.
    BadRequest,
    /// The client's body did not come in time.
    BodyTimeout,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// The route is for clients with a certificate, and this one has shown none.
    ClientCertificateRequired,
    /// The client left before its response was complete.
    ClientGone,
    /// The client did not take the response in time.
    ClientStalled,
    /// No connection to the peer.
    ConnectFailed,
    /// No connection to the peer in time.
    ConnectTimeout,
    /// The process ended before the request did.
    Aborted,
    /// The peer did not begin to answer in time.
    FirstByteTimeout,
    /// The header is larger than allowed.
    HeaderTooLarge,
    /// Our own failure.
    Internal,
    /// The peer's answer makes no sense.
    BadResponse,
    /// The route is not for this method.
    MethodNotAllowed,
    /// The name in TLS and the one in the request differ, where clients show certificates.
    Misdirected,
    /// The stream's key has moved to another peer, and the stream was ended.
    KeyMoved,
    /// None of the key sources is present, and the upstream refuses that.
    MissingKey,
    /// No peer is up.
    NoAvailablePeer,
    /// No route is for this host and path.
    NoRoute,
    /// Our own code panicked.
    Panic,
    /// The whole request took longer than it may.
    RequestTimeout,
    /// The peer closed the connection before it answered.
    UpstreamReset,
    /// The response broke off.
    ResponseTruncated,
    /// The peer paused for too long in the middle of its response.
    ResponseStalled,
    /// The peer did not take the request in time.
    SendTimeout,
    /// The peer could not prove who it is, or does not speak what it has to.
    TlsFailed,
    /// Nothing passed through the tunnel for too long.
    TunnelIdle,
    /// The tunnel was open for as long as it may be.
    TunnelTotal,
    /// The request target is longer than allowed.
    UriTooLong,
}

impl Fault {
    /// The status that the client is sent, if it was sent none yet. 499, as nginx has it, is never
    /// seen by a client: it is gone.
    pub(super) fn status(self) -> u16 {
        match self {
            Self::BadHost | Self::BadRequest | Self::MissingKey => 400,
            Self::ClientCertificateRequired => 403,
            Self::NoRoute => 404,
            Self::MethodNotAllowed => 405,
            Self::BodyTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::UriTooLong => 414,
            Self::Misdirected => 421,
            Self::HeaderTooLarge => 431,
            Self::ClientGone | Self::ClientStalled => 499,
            Self::Internal | Self::Panic => 500,
            Self::BadResponse
            | Self::ConnectFailed
            | Self::UpstreamReset
            | Self::ResponseTruncated
            | Self::TlsFailed => 502,
            Self::Aborted | Self::KeyMoved | Self::NoAvailablePeer => 503,
            Self::ConnectTimeout
            | Self::FirstByteTimeout
            | Self::RequestTimeout
            | Self::ResponseStalled
            | Self::SendTimeout
            | Self::TunnelIdle
            | Self::TunnelTotal => 504,
        }
    }

    /// For the access log, the `fault` label of the metrics, and the error page.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::BadHost => "bad_host",
            Self::BadRequest => "bad_request",
            Self::BadResponse => "bad_response",
            Self::BodyTimeout => "body_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::ClientCertificateRequired => "client_certificate_required",
            Self::ClientGone => "client_gone",
            Self::ClientStalled => "client_stalled",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::Aborted => "cut",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::HeaderTooLarge => "header_too_large",
            Self::Internal => "internal",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Misdirected => "misdirected",
            Self::MissingKey => "missing_key",
            Self::KeyMoved => "moved",
            Self::NoAvailablePeer => "no_peer",
            Self::NoRoute => "no_route",
            Self::Panic => "panic",
            Self::RequestTimeout => "request_timeout",
            Self::UpstreamReset => "reset",
            Self::ResponseTruncated => "response_cut",
            Self::ResponseStalled => "response_stalled",
            Self::SendTimeout => "send_timeout",
            Self::TlsFailed => "tls_failed",
            Self::TunnelIdle => "tunnel_idle",
            Self::TunnelTotal => "tunnel_total",
            Self::UriTooLong => "uri_too_long",
        }
    }
}

/// How far a request had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultStage {
    /// No connection to the peer stood.
    Connecting,
    /// It stood, but no response had begun.
    AwaitingResponse,
    /// The response's header had passed.
    Responding,
}

/// What the final error of a request amounts to.
pub(super) fn classify_error(error: &Error, stage: FaultStage) -> Fault {
    match error.esource() {
        Downstream => classify_downstream(error.etype()),
        Upstream => classify_upstream(error.etype(), stage),
        Internal | Unset => Fault::Internal,
    }
}

/// What a deadline that passed amounts to; `sent`: the request's body was complete.
pub(super) fn classify_abort(cause: AbortReason, sent: bool) -> Fault {
    match cause {
        AbortReason::FirstByteTimeout if sent => Fault::FirstByteTimeout,
        AbortReason::FirstByteTimeout | AbortReason::PeerWriteTimeout => Fault::SendTimeout,
        AbortReason::PeerReadTimeout => Fault::ResponseStalled,
        AbortReason::TunnelIdleTimeout => Fault::TunnelIdle,
        AbortReason::TunnelTotalTimeout => Fault::TunnelTotal,
        AbortReason::RequestTimeout => Fault::RequestTimeout,
        AbortReason::ClientGone => Fault::ClientGone,
        AbortReason::ClientWriteTimeout => Fault::ClientStalled,
        AbortReason::KeyMoved => Fault::KeyMoved,
        AbortReason::HeaderTooLarge => Fault::HeaderTooLarge,
        // Of the connection; no request is cut by these.
        AbortReason::IdleTimeout | AbortReason::HeaderTimeout | AbortReason::Http2Abuse => {
            Fault::Aborted
        }
    }
}

fn classify_downstream(error: &ErrorType) -> Fault {
    match error {
        ReadTimedout => Fault::BodyTimeout,
        WriteTimedout => Fault::ClientStalled,
        ReadError | WriteError | ConnectionClosed => Fault::ClientGone,
        _ => Fault::BadRequest,
    }
}

fn classify_upstream(error: &ErrorType, stage: FaultStage) -> Fault {
    match (stage, error) {
        (FaultStage::Connecting, ConnectTimedout | TLSHandshakeTimedout) => Fault::ConnectTimeout,
        (
            FaultStage::Connecting | FaultStage::AwaitingResponse,
            TLSHandshakeFailure | InvalidCert,
        ) => Fault::TlsFailed,
        (FaultStage::Connecting, _) => Fault::ConnectFailed,
        (_, WriteTimedout) => Fault::SendTimeout,
        (FaultStage::Responding, _) => Fault::ResponseTruncated,
        (_, ReadError | WriteError | ConnectionClosed) => Fault::UpstreamReset,
        _ => Fault::BadResponse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abort_reason_maps_to_one_fault_name() {
        for cause in [
            AbortReason::PeerReadTimeout,
            AbortReason::RequestTimeout,
            AbortReason::KeyMoved,
            AbortReason::Http2Abuse,
        ] {
            let fault = classify_abort(cause, true);
            assert_eq!(cause.status_and_fault(), (fault.status(), fault.name()));
        }
    }
}
