//! How many connections each client has.
//!
//! Memory is bounded by the connections themselves: who has none is not remembered. The keys are
//! hashed with a secret, so nobody can choose addresses that meet in one place.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::Mutex;

use crate::config::PerClientLimitConfig;

/// Parts that are locked on their own.
const SHARDS: usize = 16;

/// How many connections each client has; a client is a network of addresses.
#[derive(Debug, Default)]
pub(super) struct ClientConnectionCounts {
    shards: [Mutex<HashMap<IpNet, u32>>; SHARDS],
    hasher: RandomState,
}

impl ClientConnectionCounts {
    /// A place for one more connection of this client; `None`: it has as many as it may.
    pub(super) fn acquire(
        self: &Arc<Self>,
        client: IpAddr,
        rule: PerClientLimitConfig,
    ) -> Option<ClientPermit> {
        let network = client_network(client, rule);
        let mut taken = self.shard(&network).lock();
        let count = taken.entry(network).or_insert(0);
        if *count >= rule.limit {
            return None;
        }
        *count += 1;
        drop(taken);
        Some(ClientPermit {
            counts: Arc::clone(self),
            network,
        })
    }

    fn release(&self, network: IpNet) {
        let mut taken = self.shard(&network).lock();
        if let Some(count) = taken.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&network);
            }
        }
        // A crowd that has left leaves no memory behind.
        if taken.len() * 4 < taken.capacity() {
            taken.shrink_to_fit();
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "invariant: a remainder is below the divisor"
    )]
    fn shard(&self, network: &IpNet) -> &Mutex<HashMap<IpNet, u32>> {
        let [place, ..] = self.hasher.hash_one(network).to_ne_bytes();
        &self.shards[usize::from(place) % SHARDS]
    }
}

/// One connection's place among its client's; left when dropped.
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

fn client_network(client: IpAddr, rule: PerClientLimitConfig) -> IpNet {
    let client = client.to_canonical();
    let bits = if client.is_ipv4() {
        rule.v4_prefix
    } else {
        rule.v6_prefix
    };
    IpNet::new(client, bits).map_or(client.into(), |network| network.trunc())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn rule(limit: u32) -> PerClientLimitConfig {
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
        let clients = Arc::new(ClientConnectionCounts::default());
        let seat = |client: &str| clients.acquire(address(client), rule(2));
        let held = [seat("192.0.2.1"), seat("::ffff:192.0.2.1")];
        assert!(held.iter().all(Option::is_some));
        assert!(seat("192.0.2.1").is_none());
        assert!(seat("192.0.2.2").is_some());
        drop(held);
        assert!(seat("192.0.2.1").is_some());
    }

    #[test]
    fn per_client_limit_counts_an_ipv6_prefix_as_one_client() {
        let clients = Arc::new(ClientConnectionCounts::default());
        let seat = |client: &str| clients.acquire(address(client), rule(1));
        let _held = seat("2001:db8::1").unwrap();
        assert!(seat("2001:db8::ffff:1").is_none());
        assert!(seat("2001:db8:0:1::1").is_some());
        let exact = PerClientLimitConfig {
            v6_prefix: 128,
            ..rule(1)
        };
        assert!(clients.acquire(address("2001:db8::2"), exact).is_some());
    }

    #[test]
    fn per_client_limit_forgets_clients_without_connections() {
        let clients = Arc::new(ClientConnectionCounts::default());
        let seats: Vec<_> = (0..10_000_u32)
            .filter_map(|n| clients.acquire(std::net::Ipv4Addr::from(n).into(), rule(1)))
            .collect();
        assert_eq!(seats.len(), 10_000);
        drop(seats);
        for shard in &clients.shards {
            let left = shard.lock();
            assert!(
                left.is_empty() && left.capacity() < 16,
                "{}",
                left.capacity()
            );
        }
    }

    #[test]
    fn per_client_limit_is_never_exceeded_across_threads() {
        let clients = Arc::new(ClientConnectionCounts::default());
        let most = Mutex::new((0_u32, 0_u32));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let Some(seat) = clients.acquire(address("192.0.2.1"), rule(3)) else {
                            continue;
                        };
                        let mut count = most.lock();
                        count.0 += 1;
                        count.1 = count.1.max(count.0);
                        drop(count);
                        most.lock().0 -= 1;
                        drop(seat);
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.lock().1));
        assert!(clients.shards.iter().all(|shard| shard.lock().is_empty()));
    }
}
