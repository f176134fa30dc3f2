//! Finds the addresses of peers that are configured by name: once, when a configuration is loaded.
//!
//! Each name and port is resolved once. The address in use is kept if it is still among the answers: name servers
//! change their order with each answer, and another address is another server without any known state. Otherwise the
//! first address is used. The peer's label stays the name, so a changed address moves no key.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::{Config, PeerAddress};
use crate::snapshot::ResolvedAddresses;

/// A peer's name could not be resolved: no address, an error of the resolver, or a timeout.
#[derive(Debug, thiserror::Error)]
#[error("peer `{address}`: {reason}; check the name, or write its IP address")]
pub(crate) struct Error {
    address: PeerAddress,
    reason: String,
}

/// Resolves the addresses of all peers that are configured by name.
pub(crate) async fn resolve_peers(config: &Config) -> Result<ResolvedAddresses, Error> {
    resolve_peers_keeping_addresses(config, &ResolvedAddresses::new()).await
}

/// Like [`resolve_peers`], but keeps an address in `in_use` if it is still among the answers.
pub(crate) async fn resolve_peers_keeping_addresses(
    config: &Config,
    in_use: &ResolvedAddresses,
) -> Result<ResolvedAddresses, Error> {
    let permits = Arc::new(Semaphore::new(MAX_CONCURRENT_LOOKUPS));
    let mut lookups = JoinSet::new();
    for name in peer_names(config) {
        let (permits, in_use) = (Arc::clone(&permits), in_use.get(&name).copied());
        lookups.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let answers = tokio::net::lookup_host(name.to_string());
            resolve_name(name, in_use, LOOKUP_TIMEOUT, answers).await
        });
    }
    let mut resolved = ResolvedAddresses::new();
    while let Some(joined) = lookups.join_next().await {
        // A lookup that panicked leaves its name without an address, which building the snapshot reports.
        let Ok(result) = joined else { continue };
        let (name, address) = result?;
        resolved.insert(name, address);
    }
    Ok(resolved)
}

/// The peers with a name that cannot be resolved within `limit`, and the reason; for `clockwise check`. After four times the
/// limit, names that are still being resolved are left out.
pub(crate) async fn find_unresolved(
    config: &Config,
    limit: Duration,
) -> Vec<(PeerAddress, String)> {
    let permits = Arc::new(Semaphore::new(MAX_CONCURRENT_LOOKUPS));
    let mut lookups = JoinSet::new();
    for name in peer_names(config) {
        let permits = Arc::clone(&permits);
        lookups.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let answers = tokio::net::lookup_host(name.to_string());
            resolve_name(name, None, limit, answers).await
        });
    }
    let mut unresolved = Vec::new();
    let collect = async {
        while let Some(joined) = lookups.join_next().await {
            if let Ok(Err(error)) = joined {
                unresolved.push((error.address, error.reason));
            }
        }
    };
    // At the deadline the names found so far are enough.
    let _ = tokio::time::timeout(4 * limit, collect).await;
    unresolved
}

/// The peers that are configured by name, each name and port once.
fn peer_names(config: &Config) -> Vec<PeerAddress> {
    let peers = config
        .upstreams
        .values()
        .flat_map(|upstream| &upstream.peers);
    let mut names: Vec<_> = peers
        .map(|peer| &peer.address)
        .filter(|address| is_name(address))
        .cloned()
        .collect();
    names.sort();
    names.dedup();
    names
}

async fn resolve_name<Answers: Iterator<Item = SocketAddr>>(
    name: PeerAddress,
    in_use: Option<SocketAddr>,
    limit: Duration,
    answers: impl Future<Output = io::Result<Answers>>,
) -> Result<(PeerAddress, SocketAddr), Error> {
    let reason = match tokio::time::timeout(limit, answers).await {
        Ok(Ok(answers)) => match choose_address(answers, in_use) {
            Some(address) => return Ok((name, address)),
            None => "the name has no address".to_owned(),
        },
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the name servers did not answer within {limit:?}"),
    };
    Err(Error {
        address: name,
        reason,
    })
}

fn choose_address(
    answers: impl Iterator<Item = SocketAddr>,
    in_use: Option<SocketAddr>,
) -> Option<SocketAddr> {
    let answers: Vec<_> = answers.collect();
    in_use
        .filter(|address| answers.contains(address))
        .or_else(|| answers.first().copied())
}

fn is_name(address: &PeerAddress) -> bool {
    matches!(address, PeerAddress::Name(..))
}

/// How long the system may take to resolve one name.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// The most lookups that run at the same time. A lookup occupies a blocking thread until the system's resolver returns,
/// after a timeout too.
const MAX_CONCURRENT_LOOKUPS: usize = 64;

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn resolve(
        in_use: Option<u8>,
        answers: impl Future<Output = io::Result<std::vec::IntoIter<SocketAddr>>>,
    ) -> Result<SocketAddr, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let name = PeerAddress::Name("a.test".to_owned(), 80);
        let limit = Duration::from_millis(10);
        let resolved = resolve_name(name, in_use.map(address), limit, answers);
        let resolved = runtime.unwrap().block_on(resolved);
        resolved
            .map(|(_, address)| address)
            .map_err(|error| error.to_string())
    }

    fn address(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 80).into()
    }

    fn answers(last: &[u8]) -> impl Future<Output = io::Result<std::vec::IntoIter<SocketAddr>>> {
        let addresses: Vec<_> = last.iter().copied().map(address).collect();
        ready(Ok(addresses.into_iter()))
    }

    #[test]
    fn dns_address_in_use_is_kept_while_it_is_in_the_answers() {
        assert_eq!(resolve(None, answers(&[1, 2, 3])), Ok(address(1)));
        assert_eq!(resolve(Some(3), answers(&[1, 2, 3])), Ok(address(3)));
        assert_eq!(resolve(Some(4), answers(&[1, 2, 3])), Ok(address(1)));
    }

    #[test]
    fn dns_name_without_address_is_an_error_in_time() {
        let silent = resolve(None, pending()).unwrap_err();
        assert!(
            silent.contains("`a.test:80`: the name servers did not answer within 10ms"),
            "{silent}"
        );
        let empty = resolve(None, answers(&[])).unwrap_err();
        assert!(empty.contains("has no address"), "{empty}");
    }
}
