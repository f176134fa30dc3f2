//! Which row of the [fault table](crate::fault) an error of Pingora amounts to.

use pingora::ErrorSource::{Downstream, Internal, Unset, Upstream};
use pingora::ErrorType::{
    BindError, ConnectTimedout, ConnectionClosed, InternalError, InvalidCert, ReadError,
    ReadTimedout, SocketError, TLSHandshakeFailure, TLSHandshakeTimedout, WriteError,
    WriteTimedout,
};
use pingora::{Error, ErrorType};

use crate::fault::Fault;

/// How far an attempt had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultStage {
    /// No connection to the peer was established.
    Connecting,
    /// The connection was established, and no response had begun.
    AwaitingResponse,
    /// The response's header had passed.
    Responding,
}

/// Classifies the error that ended an attempt.
pub(crate) fn classify_error(error: &Error, stage: FaultStage) -> Fault {
    match (error.esource(), stage) {
        (Downstream, _) => classify_downstream(error.etype()),
        (Upstream, FaultStage::Connecting) => classify_connect(error.etype()),
        (Upstream, FaultStage::AwaitingResponse) => classify_before_response(error),
        (Upstream, FaultStage::Responding) => match error.etype() {
            WriteTimedout => Fault::SendTimeout,
            _ => Fault::ResponseTruncated,
        },
        (Internal | Unset, _) => Fault::Internal,
    }
}

/// Classifies the error that a connect ended with.
pub(crate) fn classify_connect(error: &ErrorType) -> Fault {
    match error {
        ConnectTimedout | TLSHandshakeTimedout => Fault::ConnectTimeout,
        TLSHandshakeFailure | InvalidCert => Fault::TlsFailed,
        // No local port or file descriptor is left, which says nothing about the peer.
        BindError | SocketError | InternalError => Fault::LocalConnectFailed,
        _ => Fault::ConnectFailed,
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

fn classify_before_response(error: &Error) -> Fault {
    match error.etype() {
        TLSHandshakeFailure | InvalidCert => Fault::TlsFailed,
        WriteTimedout => Fault::SendTimeout,
        ReadError | WriteError | ConnectionClosed => Fault::UpstreamReset,
        _ if is_unprocessed(error) || is_stream_reset(error) => Fault::UpstreamReset,
        _ => Fault::BadResponse,
    }
}

/// Whether the peer says that it did nothing with the request (RFC 9113, 8.7): it refused the stream, or
/// its GOAWAY names an earlier stream as the last one. `h2` reports a GOAWAY for such streams only.
pub(crate) fn is_unprocessed(error: &Error) -> bool {
    h2_error(error).is_some_and(|error| {
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (refused || error.is_go_away())
    })
}

/// Whether the peer reset the stream (`RST_STREAM`); its connection may be well.
pub(crate) fn is_stream_reset(error: &Error) -> bool {
    h2_error(error).is_some_and(|error| error.is_remote() && error.is_reset())
}

/// The error of HTTP/2 behind one of Pingora.
pub(crate) fn h2_error(error: &Error) -> Option<&h2::Error> {
    error.root_cause().downcast_ref()
}

#[cfg(test)]
mod tests {
    use pingora::ErrorType::{ConnectRefused, InvalidHTTPHeader};

    use super::FaultStage::{AwaitingResponse, Connecting, Responding};
    use super::*;

    fn upstream_error(kind: ErrorType, stage: FaultStage) -> Fault {
        classify_error(&Error::new_up(kind), stage)
    }

    #[test]
    fn upstream_error_while_connecting_is_a_connect_fault() {
        for (kind, fault) in [
            (ConnectRefused, Fault::ConnectFailed),
            (ConnectionClosed, Fault::ConnectFailed),
            (ConnectTimedout, Fault::ConnectTimeout),
            (TLSHandshakeTimedout, Fault::ConnectTimeout),
            (TLSHandshakeFailure, Fault::TlsFailed),
            (InvalidCert, Fault::TlsFailed),
            (BindError, Fault::LocalConnectFailed),
            (SocketError, Fault::LocalConnectFailed),
            (InternalError, Fault::LocalConnectFailed),
        ] {
            assert_eq!(upstream_error(kind.clone(), Connecting), fault, "{kind:?}");
        }
    }

    #[test]
    fn upstream_error_before_the_response_tells_a_reset_from_a_bad_response() {
        for (kind, fault) in [
            (ReadError, Fault::UpstreamReset),
            (WriteError, Fault::UpstreamReset),
            (ConnectionClosed, Fault::UpstreamReset),
            (WriteTimedout, Fault::SendTimeout),
            (TLSHandshakeFailure, Fault::TlsFailed),
            (InvalidHTTPHeader, Fault::BadResponse),
        ] {
            assert_eq!(
                upstream_error(kind.clone(), AwaitingResponse),
                fault,
                "{kind:?}"
            );
        }
    }

    #[test]
    fn upstream_error_in_the_response_truncates_it() {
        for (kind, fault) in [
            (ReadError, Fault::ResponseTruncated),
            (ConnectionClosed, Fault::ResponseTruncated),
            (WriteTimedout, Fault::SendTimeout),
        ] {
            assert_eq!(upstream_error(kind.clone(), Responding), fault, "{kind:?}");
        }
    }

    #[test]
    fn downstream_error_is_the_clients_at_every_stage() {
        for stage in [Connecting, AwaitingResponse, Responding] {
            for (kind, fault) in [
                (ReadTimedout, Fault::BodyTimeout),
                (WriteTimedout, Fault::ClientStalled),
                (ReadError, Fault::ClientGone),
                (WriteError, Fault::ClientGone),
                (ConnectionClosed, Fault::ClientGone),
                (InvalidHTTPHeader, Fault::BadRequest),
            ] {
                let error = Error::new_down(kind.clone());
                assert_eq!(classify_error(&error, stage), fault, "{kind:?}");
            }
        }
    }

    #[test]
    fn error_of_our_own_is_internal_at_every_stage() {
        for stage in [Connecting, AwaitingResponse, Responding] {
            for error in [Error::new_in(ReadError), Error::new(ReadError)] {
                assert_eq!(classify_error(&error, stage), Fault::Internal);
            }
        }
    }

    #[test]
    fn h2_error_that_the_peer_did_not_send_is_a_bad_response() {
        let refused = h2::Error::from(h2::Reason::REFUSED_STREAM);
        // An `h2::Error` that a peer sent cannot be built outside `h2`; failover tests cover it.
        let error = Error::because(ErrorType::H2Error, "test", refused).into_up();
        assert!(h2_error(&error).is_some());
        assert!(!is_unprocessed(&error) && !is_stream_reset(&error));
        assert_eq!(classify_error(&error, AwaitingResponse), Fault::BadResponse);
    }
}
