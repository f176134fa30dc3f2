//! A new connection to a peer that is not pooled afterwards.
//!
//! Pingora 0.9.1 has no option for it: `idle_timeout: 0` keeps a connection out of the pool afterwards, but the request may
//! still get one that is there. So the peer also gets a pool key that no connection has. Without this, a retry after
//! a pooled connection that is stale could get the next stale one, and a WebSocket would start on a used connection.
//!
//! It can be removed when a peer can forbid reuse: README.md, request 5.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use pingora::upstreams::peer::HttpPeer;

/// Makes the next request to this peer use a new connection, which is not pooled afterwards.
pub(crate) fn require(peer: &mut HttpPeer) {
    peer.options.idle_timeout = Some(Duration::ZERO);
    peer.group_key = unique_pool_key();
}

/// A pool key that no connection has.
fn unique_pool_key() -> u64 {
    /// Pooled connections have group key 0, or a large one.
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pool_keys_of_unshared_connections_are_distinct() {
        let (one, other) = (unique_pool_key(), unique_pool_key());
        assert!(one != other && one != 0 && other != 0);
    }
}
