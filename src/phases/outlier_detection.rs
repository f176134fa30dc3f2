//! Outlier detection: counts failed connects to a peer, and ejects the peer after too many.

use super::context::Context;
use crate::clock;
use crate::fault::{Blame, Fault};
use crate::policy::ejection::EjectionPolicy;
use crate::telemetry::metrics::PeerTlsFailure;
use crate::tls::describe_failure;

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
    let Some(detection) = &upstream.config.outlier_detection else {
        return;
    };
    let policy = EjectionPolicy {
        failures: detection.failures,
        base_ejection: detection.eject,
        max_ejection: detection.max_eject,
    };
    if let Some(length) = peer.on_connect_failure(&policy, clock::since_start()) {
        peer.metrics.ejections.inc();
        let why = tls.map_or("connects fail", describe_failure);
        log::warn!(
            "upstream {}: peer {} is ejected for {length:?}: {why}",
            upstream.name,
            peer.label
        );
    }
}
