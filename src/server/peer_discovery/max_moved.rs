//! Whether new lists would move more keys of an upstream than its `max_moved` allows.

use crate::config::UpstreamConfig;
use crate::policy::peer_list::HoldReason;
use crate::predict::share;
use crate::snapshot::moved_by_peers;

/// Why the peers of `after` must be held, if they move too many keys. Leaving peers do not count: their keys have been
/// moving since they left. Builds both rings.
pub(super) fn exceeds_max_moved(
    before: &UpstreamConfig,
    after: &UpstreamConfig,
) -> Option<HoldReason> {
    let allowed = after.max_moved?;
    // A ring that cannot be built fails in the reload or at the start, with its reason.
    let moved = moved_by_peers(&without_leaving(before), &without_leaving(after)).ok()?;
    (share(moved) > allowed).then_some(HoldReason::Moved { moved, allowed })
}

fn without_leaving(upstream: &UpstreamConfig) -> UpstreamConfig {
    let mut upstream = upstream.clone();
    upstream.peers.retain(|peer| !peer.is_leaving);
    upstream
}
