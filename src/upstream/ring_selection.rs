//! The ring as a selection for Pingora's own [`LoadBalancer`], for any Pingora program.
//!
//! A backend's label is the text of its address; its weight is clamped to 1 ..= 256, and a backend of
//! weight 0 is left out. Clockwise itself searches the ring directly, with its own state of each peer.
//!
//! [`RingSelectionIter`] returns every backend once. So `max_iterations` of [`LoadBalancer::select`] must
//! be at least the number of backends: then it finds a healthy one, however few there are. (Pingora's own
//! ring returns a backend at each of its points, and each time counts.)
//!
//! [`LoadBalancer`]: pingora::lb::LoadBalancer
//! [`LoadBalancer::select`]: pingora::lb::LoadBalancer::select

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pingora::lb::Backend;
use pingora::lb::selection::{BackendIter, BackendSelection};

use crate::ring::{self, Dialect, WalkCursor, Weight};

/// A ring of Pingora's backends: `LoadBalancer<RingSelection>`, configured by a [`Dialect`].
pub struct RingSelection {
    ring: ring::Ring,
    /// In the ring's member order.
    backends: Vec<Backend>,
}

impl BackendSelection for RingSelection {
    type Iter = RingSelectionIter;
    type Config = Dialect;

    /// The trait does not let this fail: with more points or backends than a ring can have, an error is
    /// logged and the ring is empty, which selects nothing.
    fn build_with_config(backends: &BTreeSet<Backend>, dialect: &Dialect) -> Self {
        let members = members(backends);
        let labels = members
            .iter()
            .map(|(label, (weight, _))| (label.as_str(), *weight));
        let ring = ring::Ring::new(*dialect, labels).unwrap_or_else(|error| {
            log::error!("no backend can be selected: {error}");
            ring::Ring::empty()
        });
        Self {
            ring,
            backends: members.into_values().map(|(_, backend)| backend).collect(),
        }
    }

    fn build(backends: &BTreeSet<Backend>) -> Self {
        Self::build_with_config(backends, &Dialect::default())
    }

    fn iter(self: &Arc<Self>, key: &[u8]) -> RingSelectionIter {
        let cursor = WalkCursor::new(&self.ring, &self.ring.key(key));
        RingSelectionIter {
            ring: Arc::clone(self),
            cursor,
        }
    }
}

/// Iterates over every backend once, in clockwise order from a key, its owner first.
pub struct RingSelectionIter {
    ring: Arc<RingSelection>,
    cursor: WalkCursor,
}

impl BackendIter for RingSelectionIter {
    fn next(&mut self) -> Option<&Backend> {
        let member = self.cursor.next(&self.ring.ring)?;
        self.ring.backends.get(member.index())
    }
}

/// The backends by label. If one address occurs with several weights the greatest counts, the last in the set.
fn members(backends: &BTreeSet<Backend>) -> BTreeMap<String, (Weight, Backend)> {
    let member = |backend: &Backend| {
        Some((
            backend.addr.to_string(),
            (weight(backend.weight)?, backend.clone()),
        ))
    };
    backends.iter().filter_map(member).collect()
}

/// The clamped weight; `None` for 0.
fn weight(weight: usize) -> Option<Weight> {
    Weight::new(
        u16::try_from(weight)
            .unwrap_or(u16::MAX)
            .min(Weight::MAX.get()),
    )
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use pingora::lb::discovery::Static;
    use pingora::lb::{Backends, LoadBalancer};

    use super::*;

    fn backend(number: usize, weight: usize) -> Backend {
        Backend::new_with_weight(&format!("10.0.0.{number}:80"), weight).unwrap()
    }

    fn balancer(backends: BTreeSet<Backend>, dialect: Dialect) -> LoadBalancer<RingSelection> {
        let backends = Backends::new(Static::new(backends));
        let balancer = LoadBalancer::from_backends_with_config(backends, Some(dialect));
        let mut update = Box::pin(balancer.update());
        let done = update
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(done.is_ready(), "static backends are there at once");
        drop(update);
        balancer
    }

    fn keys() -> impl Iterator<Item = Vec<u8>> {
        (0..1000).map(|number| format!("key {number}").into_bytes())
    }

    #[test]
    fn ring_selection_matches_the_ring() {
        let weights = [1, 2, 300, 0, 7];
        let backends = weights
            .iter()
            .enumerate()
            .map(|(number, weight)| backend(number, *weight));
        for dialect in [Dialect::default(), Dialect::circle(3).unwrap()] {
            let balancer = balancer(backends.clone().collect(), dialect);
            let members = [(0, 1), (1, 2), (2, 256), (4, 7)];
            let members = members.map(|(n, w)| (backend(n, 1).addr.to_string(), Weight::new(w)));
            let pairs = members
                .iter()
                .map(|(label, weight)| (label.as_str(), weight.unwrap()));
            let ring = ring::Ring::new(dialect, pairs).unwrap();
            for key in keys() {
                let owner = ring.owner(&ring.key(&key)).unwrap();
                let selected = balancer.select(&key, 4).unwrap();
                assert_eq!(selected.addr.to_string(), members[owner.index()].0);
            }
        }
    }

    #[test]
    fn ring_selection_with_one_healthy_peer_of_100_selects_it() {
        let healthy = backend(42, 1);
        let balancer = balancer(
            (0..100).map(|n| backend(n, 1)).collect(),
            Dialect::default(),
        );
        for key in keys() {
            let selected = balancer.select_with(&key, 100, |backend, _| *backend == healthy);
            assert_eq!(selected.as_ref(), Some(&healthy));
        }
    }

    #[test]
    fn ring_selection_keeps_unix_sockets_and_deduplicates_addresses() {
        let mut socket = backend(1, 1);
        let path = std::os::unix::net::SocketAddr::from_pathname("/run/a.sock").unwrap();
        socket.addr = pingora::protocols::l4::socket::SocketAddr::Unix(path);
        let set = BTreeSet::from([socket, backend(2, 1), backend(2, 9)]);
        let ring = RingSelection::build(&set);
        let found: Vec<_> = ring
            .backends
            .iter()
            .map(|b| (b.addr.to_string(), b.weight))
            .collect();
        assert_eq!(
            found,
            [("/run/a.sock".to_owned(), 1), ("10.0.0.2:80".to_owned(), 9)]
        );
    }

    #[test]
    fn ring_selection_without_peers_is_empty() {
        let ring = Arc::new(RingSelection::build(&BTreeSet::from([backend(1, 0)])));
        assert!(ring.iter(b"key").next().is_none());
    }
}
