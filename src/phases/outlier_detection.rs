//! Outlier detection: counts the failures of a peer in real requests, and ejects the peer after too many in a row.
//!
//! A success is the header of a final response, not a connection: a peer that accepts connections and answers 500, or
//! nothing, is of no use. Failures of the client, of pooled connections that the peer had closed, and time-outs of the
//! whole request, which the client may have used up, are neither.

use std::time::Duration;

use http::StatusCode;

use super::context::Context;
use crate::clock;
use crate::fault::{Blame, Fault};
use crate::policy::ejection::{EjectionPolicy, FailureKind};
use crate::telemetry::metrics::PeerTlsFailure;
use crate::tls::describe_failure;
use crate::upstream::EjectionOutcome;

/// Counts the failure, if the peer is to blame, and ejects the peer after too many of them. `tls`: why the handshake
/// failed, if it did.
pub(crate) fn record_connect_failure(ctx: &Context, fault: Fault, tls: Option<PeerTlsFailure>) {
    let (Some(upstream), Some(peer)) = (ctx.upstream(), ctx.peer()) else {
        return;
    };
    if fault.blame() != Blame::Peer {
        return;
    }
    if let Some(failure) = tls {
        upstream.metrics.tls_failures.inc(failure);
    }
    peer.metrics.connect_failures.inc();
    // Without a configured name the peer's certificate must have the name that the client chose. A client must not
    // be able to eject peers.
    if tls.is_some() && peer.server_name.is_none() {
        return;
    }
    let why = tls.map_or("connects fail", describe_failure);
    record_failure(ctx, FailureKind::Connect, why, clock::since_start());
}

/// Counts the failure of an attempt that had a connection; not once the final response has begun.
pub(super) fn record_attempt_failure(ctx: &Context, fault: Fault) {
    let (kind, why) = match fault {
        Fault::FirstByteTimeout => (FailureKind::Timeout, "it does not respond in time"),
        Fault::SendTimeout => (FailureKind::Timeout, "it does not take requests in time"),
        Fault::UpstreamReset => (FailureKind::Reset, "it ends connections before it responds"),
        Fault::BadResponse => (FailureKind::Reset, "its responses are malformed"),
        _ => return,
    };
    if ctx.peer_status == 0 {
        record_failure(ctx, kind, why, clock::since_start());
    }
}

/// Counts the final response of a peer: a failure, or a success. 501 and 505 are neither: they say of the request that
/// the peer does not understand it.
pub(super) fn record_response(ctx: &Context, status: StatusCode, now: Duration) {
    let (Some(upstream), Some(peer), Some(attempt)) = (ctx.upstream(), ctx.peer(), &ctx.attempt)
    else {
        return;
    };
    let detection = &upstream.config.outlier_detection;
    let counts_5xx = |policy: &EjectionPolicy| policy.counted.contains(FailureKind::ServerError);
    if !status.is_server_error() || !detection.as_ref().is_some_and(counts_5xx) {
        peer.on_success(attempt.started, now);
    } else if !matches!(
        status,
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED
    ) {
        record_failure(ctx, FailureKind::ServerError, "its responses are 5xx", now);
    }
}

fn record_failure(ctx: &Context, kind: FailureKind, why: &str, now: Duration) {
    let (Some(upstream), Some(peer), Some(attempt)) = (ctx.upstream(), ctx.peer(), &ctx.attempt)
    else {
        return;
    };
    let Some(policy) = &upstream.config.outlier_detection else {
        return;
    };
    let (name, label) = (&upstream.name, &peer.label);
    match upstream.on_peer_failure(attempt.member, kind, policy, now) {
        None => {}
        Some(EjectionOutcome::Ejected { length }) => {
            peer.metrics.ejections.inc();
            log::warn!("upstream {name}: peer {label} is ejected for {length:?}: {why}");
        }
        Some(EjectionOutcome::Prevented) => {
            upstream.metrics.ejections_prevented.inc();
        }
    }
}
