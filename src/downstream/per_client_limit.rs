//! The limit on open connections of one client.
//!
//! The table has entries only for clients with an open connection, which bounds its memory. The keys are hashed
//! with a random seed, so that clients cannot choose addresses that collide.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::Mutex;

use crate::config::PerClientLimitConfig;

/// Parts of the table, each with its own lock.
const SHARDS: usize = 16;

/// The open connections of each client; a client is a network of addresses.
#[derive(Debug, Default)]
pub(super) struct ClientConnectionCounts {
    shards: [Mutex<HashMap<IpNet, u32>>; SHARDS],
    hasher: RandomState,
}

impl ClientConnectionCounts {
    /// Counts one more connection; `None`: the client has reached the limit.
    pub(super) fn acquire(
        self: &Arc<Self>,
        client: IpAddr,
        config: PerClientLimitConfig,
    ) -> Option<ClientPermit> {
        let network = client_network(client, config);
        let mut counts = self.shard(&network).lock();
        let count = counts.entry(network).or_insert(0);
        if *count >= config.limit {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(ClientPermit {
            counts: Arc::clone(self),
            network,
        })
    }

    fn release(&self, network: IpNet) {
        let mut counts = self.shard(&network).lock();
        if let Some(count) = counts.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&network);
            }
        }
        // Frees memory after a peak.
        if counts.len() * 4 < counts.capacity() {
            counts.shrink_to_fit();
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "invariant: a remainder is below the divisor"
    )]
    fn shard(&self, network: &IpNet) -> &Mutex<HashMap<IpNet, u32>> {
        let [byte, ..] = self.hasher.hash_one(network).to_ne_bytes();
        &self.shards[usize::from(byte) % SHARDS]
    }
}

/// Counts one connection for its client until it is dropped.
#[derive(Debug)]
pub(super) struct ClientPermit {
    counts: Arc<ClientConnectionCounts>,
    network: IpNet,
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        self.counts.release(self.network);
    }
}

fn client_network(client: IpAddr, config: PerClientLimitConfig) -> IpNet {
    let client = client.to_canonical();
    let bits = if client.is_ipv4() {
        config.v4_prefix
    } else {
        config.v6_prefix
    };
    IpNet::new(client, bits).map_or(client.into(), |network| network.trunc())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn config(limit: u32) -> PerClientLimitConfig {
        PerClientLimitConfig {
            limit,
            ..PerClientLimitConfig::DEFAULT
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn per_client_limit_refuses_only_connections_above_it() {
        let counts = Arc::new(ClientConnectionCounts::default());
        let acquire = |client: &str| counts.acquire(address(client), config(2));
        let permits = [acquire("192.0.2.1"), acquire("::ffff:192.0.2.1")];
        assert!(permits.iter().all(Option::is_some));
        assert!(acquire("192.0.2.1").is_none());
        assert!(acquire("192.0.2.2").is_some());
        drop(permits);
        assert!(acquire("192.0.2.1").is_some());
    }

    #[test]
    fn per_client_limit_counts_an_ipv6_prefix_as_one_client() {
        let counts = Arc::new(ClientConnectionCounts::default());
        let acquire = |client: &str| counts.acquire(address(client), config(1));
        let _permit = acquire("2001:db8::1").unwrap();
        assert!(acquire("2001:db8::ffff:1").is_none());
        assert!(acquire("2001:db8:0:1::1").is_some());
        let exact = PerClientLimitConfig {
            v6_prefix: 128,
            ..config(1)
        };
        assert!(counts.acquire(address("2001:db8::2"), exact).is_some());
    }

    #[test]
    fn per_client_limit_removes_clients_without_connections() {
        let counts = Arc::new(ClientConnectionCounts::default());
        let permits: Vec<_> = (0..10_000_u32)
            .filter_map(|n| counts.acquire(std::net::Ipv4Addr::from(n).into(), config(1)))
            .collect();
        assert_eq!(permits.len(), 10_000);
        drop(permits);
        for shard in &counts.shards {
            let counts = shard.lock();
            assert!(
                counts.is_empty() && counts.capacity() < 16,
                "{}",
                counts.capacity()
            );
        }
    }

    #[test]
    fn per_client_limit_is_never_exceeded_across_threads() {
        let counts = Arc::new(ClientConnectionCounts::default());
        let open_and_most = Mutex::new((0_u32, 0_u32));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let Some(permit) = counts.acquire(address("192.0.2.1"), config(3)) else {
                            continue;
                        };
                        let mut open = open_and_most.lock();
                        open.0 += 1;
                        open.1 = open.1.max(open.0);
                        drop(open);
                        open_and_most.lock().0 -= 1;
                        drop(permit);
                    }
                });
            }
        });
        assert!((1..=3).contains(&open_and_most.lock().1));
        assert!(counts.shards.iter().all(|shard| shard.lock().is_empty()));
    }
}
