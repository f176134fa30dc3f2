//! Finds the row of the [fault table](crate::fault) for an error of Pingora, and whether the request may be repeated.

use pingora::ErrorSource::{Downstream, Internal, Unset, Upstream};
use pingora::ErrorType::{
    BindError, ConnectTimedout, ConnectionClosed, Custom, H2Downgrade, H2Error, InternalError,
    InvalidCert, ReadError, ReadTimedout, SocketError, TLSHandshakeFailure, TLSHandshakeTimedout,
    WriteError, WriteTimedout,
};
use pingora::{Error, ErrorType};

use crate::fault::Fault;
use crate::http1::{MessageKind, Refusal};
use crate::phases::attempt::FaultStage;
use crate::phases::retry::Repeatable;
use crate::upstream_http1::PARTIAL_RESPONSE;

/// Classifies the error that ended an attempt.
pub(super) fn classify_error(error: &Error, stage: FaultStage) -> Fault {
    match (error.esource(), stage) {
        (Downstream, _) => classify_downstream(error),
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
        // No local port or file descriptor is left: the peer is not to blame.
        BindError | SocketError | InternalError => Fault::LocalConnectFailed,
        _ => Fault::ConnectFailed,
    }
}

fn classify_downstream(error: &Error) -> Fault {
    // The codec has refused the request's body.
    if let Some(refusal) = error.root_cause().downcast_ref::<Refusal>() {
        return refusal.fault(MessageKind::Request);
    }
    match error.etype() {
        ReadTimedout => Fault::BodyTimeout,
        WriteTimedout => Fault::ClientStalled,
        ReadError | WriteError | ConnectionClosed => Fault::ClientGone,
        _ => Fault::BadRequest,
    }
}

/// Whether the response could not be written to the client.
pub(super) fn is_failed_write(error: &Error) -> bool {
    *error.esource() == Downstream && matches!(error.etype(), WriteError | WriteTimedout)
}

fn classify_before_response(error: &Error) -> Fault {
    match error.etype() {
        TLSHandshakeFailure | InvalidCert => Fault::TlsFailed,
        WriteTimedout => Fault::SendTimeout,
        ReadError | WriteError | ConnectionClosed | Custom(PARTIAL_RESPONSE) => {
            Fault::UpstreamReset
        }
        _ if is_unprocessed(error) || is_stream_reset(error) => Fault::UpstreamReset,
        _ => Fault::BadResponse,
    }
}

/// Whether the peer says that it did nothing with the request (RFC 9113 §8.7): it refused the stream, or
/// its GOAWAY names an earlier stream as the last one. `h2` reports a GOAWAY for such streams only.
fn is_unprocessed(error: &Error) -> bool {
    h2_error(error).is_some_and(|error| {
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (refused || error.is_go_away())
    })
}

/// Whether the peer reset the stream (`RST_STREAM`); its connection may still work.
fn is_stream_reset(error: &Error) -> bool {
    h2_error(error).is_some_and(|error| error.is_remote() && error.is_reset())
}

/// The error of HTTP/2 that caused an error of Pingora.
fn h2_error(error: &Error) -> Option<&h2::Error> {
    error.root_cause().downcast_ref()
}

/// Whether an error before the response allows the request to be repeated, and at which peer. `reused`: the
/// connection was from the pool. `falls_back`: HTTP/1.1 is left to be tried.
pub(super) fn before_response(error: &Error, reused: bool, falls_back: bool) -> Repeatable {
    let unprocessed = is_unprocessed(error);
    let downgraded = falls_back && *error.etype() == H2Downgrade;
    if *error.esource() == Upstream && (unprocessed || downgraded) {
        return Repeatable::STALE_CONNECTION;
    }
    let fault = classify_error(error, FaultStage::AwaitingResponse);
    let closed = matches!(error.etype(), ReadError | WriteError | ConnectionClosed)
        && !is_stream_reset(error);
    Repeatable {
        stale_connection: reused && closed && fault == Fault::UpstreamReset,
        ..Repeatable::on_any_connection(fault)
    }
}

/// Whether a shared connection of HTTP/2 had ended, and no new one was tried.
pub(super) fn is_stale_connection(error: &Error, is_fresh: bool) -> bool {
    !is_fresh && *error.etype() == H2Error && h2_error(error).is_some()
}

#[cfg(test)]
mod tests {
    use pingora::ErrorType::{ConnectRefused, InvalidHTTPHeader};

    use super::*;
    use crate::fault::Blame;
    use crate::phases::attempt::FaultStage::{AwaitingResponse, Connecting, Responding};
    use crate::policy::retry::RetryClass;

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
    fn upstream_error_before_the_response_is_a_reset_or_a_bad_response() {
        for (kind, fault) in [
            (ReadError, Fault::UpstreamReset),
            (WriteError, Fault::UpstreamReset),
            (ConnectionClosed, Fault::UpstreamReset),
            (Custom(PARTIAL_RESPONSE), Fault::UpstreamReset),
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
        let error = Error::because(H2Error, "test", refused).into_up();
        assert!(h2_error(&error).is_some());
        assert!(!is_unprocessed(&error) && !is_stream_reset(&error));
        assert_eq!(classify_error(&error, AwaitingResponse), Fault::BadResponse);
    }

    fn repeatable(error: &Error, reused: bool) -> (RetryClass, bool) {
        let repeat = before_response(error, reused, false);
        (repeat.class, repeat.stale_connection)
    }

    #[test]
    fn upstream_failure_before_the_response_follows_the_fault_table() {
        for (kind, class) in [
            (ReadError, RetryClass::IdempotentRequest),
            (WriteError, RetryClass::IdempotentRequest),
            (ConnectionClosed, RetryClass::IdempotentRequest),
            (WriteTimedout, RetryClass::Never),
            (InvalidHTTPHeader, RetryClass::Never),
            (H2Error, RetryClass::Never),
            (H2Downgrade, RetryClass::Never),
        ] {
            let error = Error::new_up(kind.clone());
            assert_eq!(repeatable(&error, false), (class, false), "{kind:?}");
        }
    }

    #[test]
    fn closed_connection_is_stale_only_if_it_was_reused() {
        for kind in [ReadError, WriteError, ConnectionClosed] {
            let error = Error::new_up(kind.clone());
            let expected = (RetryClass::IdempotentRequest, true);
            assert_eq!(repeatable(&error, true), expected, "{kind:?}");
        }
        for (kind, class) in [
            // The peer had begun to answer.
            (Custom(PARTIAL_RESPONSE), RetryClass::IdempotentRequest),
            (WriteTimedout, RetryClass::Never),
            (InvalidHTTPHeader, RetryClass::Never),
        ] {
            let error = Error::new_up(kind.clone());
            assert_eq!(repeatable(&error, true), (class, false), "{kind:?}");
        }
    }

    #[test]
    fn failure_of_the_client_or_of_our_own_is_final() {
        for kind in [ReadError, WriteError, ConnectionClosed, ReadTimedout] {
            for error in [Error::new_down(kind.clone()), Error::new_in(kind.clone())] {
                for reused in [false, true] {
                    let expected = (RetryClass::Never, false);
                    assert_eq!(repeatable(&error, reused), expected, "{error}");
                }
            }
        }
    }

    #[test]
    fn downgrade_to_http1_repeats_every_request_if_http1_is_untried() {
        let error = Error::new_up(H2Downgrade);
        let repeat = |falls_back| before_response(&error, false, falls_back);
        assert_eq!(repeat(true), Repeatable::STALE_CONNECTION);
        assert_eq!(repeat(false).class, RetryClass::Never);
    }

    #[test]
    fn failure_in_the_response_is_final() {
        for kind in [ReadError, WriteError, ConnectionClosed, WriteTimedout] {
            let fault = classify_error(&Error::new_up(kind), Responding);
            let repeat = Repeatable::on_any_connection(fault);
            assert_eq!(repeat.class, RetryClass::Never, "{fault:?}");
        }
    }

    #[test]
    fn connect_failure_repeats_every_request_and_blames_local_shortage_on_no_peer() {
        for (kind, blame) in [
            (ConnectRefused, Blame::Peer),
            (ConnectTimedout, Blame::Peer),
            (TLSHandshakeFailure, Blame::Peer),
            (BindError, Blame::Proxy),
            (SocketError, Blame::Proxy),
            (InternalError, Blame::Proxy),
        ] {
            let fault = classify_connect(&kind);
            assert_eq!(fault.blame(), blame, "{kind:?}");
            let repeat = Repeatable::on_any_connection(fault);
            assert_eq!(repeat.class, RetryClass::AnyRequest, "{kind:?}");
        }
    }

    #[test]
    fn shared_h2_connection_that_ended_is_stale_until_a_fresh_one_was_tried() {
        let reason = h2::Error::from(h2::Reason::NO_ERROR);
        let ended = Error::because(H2Error, "test", reason);
        assert!(is_stale_connection(&ended, false));
        assert!(!is_stale_connection(&ended, true));
        assert!(!is_stale_connection(&Error::new_up(H2Error), false));
        assert!(!is_stale_connection(
            &Error::new_up(ConnectionClosed),
            false
        ));
    }
}
