//! Names of peers to addresses, when a configuration is loaded.
//!
//! A name is looked up once. Of its addresses the one in use is kept, where it is still among them:
//! name servers give the same answers in another order each time, and another address is another
//! server, of which nothing is known. Else it is the first. The label stays the name, so a changed
//! address moves no key.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::{Config, PeerAddress};
use crate::snapshot::ResolvedAddresses;

/// How long the system may take to find one name's addresses.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Names that are looked up at once; each takes a thread.
const MAX_CONCURRENT_LOOKUPS: usize = 64;

/// A peer's name has no address.
#[derive(Debug, thiserror::Error)]
#[error("peer `{address}`: {reason}; check the name, or write its IP address")]
pub struct Error {
    address: PeerAddress,
    reason: String,
}

/// The addresses of all peers that are written as names.
pub(super) async fn resolve_peers(config: &Config) -> Result<ResolvedAddresses, Error> {
    resolve_peers_preferring(config, &ResolvedAddresses::new()).await
}

/// Like [`addresses`], where some are `known` already, and in use.
pub(super) async fn resolve_peers_preferring(
    config: &Config,
    known: &ResolvedAddresses,
) -> Result<ResolvedAddresses, Error> {
    let permits = Arc::new(Semaphore::new(MAX_CONCURRENT_LOOKUPS));
    let mut lookups = JoinSet::new();
    for name in peer_names(config) {
        let (permits, known) = (Arc::clone(&permits), known.get(&name).copied());
        lookups.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let answers = tokio::net::lookup_host(name.to_string());
            resolve_name(name, known, LOOKUP_TIMEOUT, answers).await
        });
    }
    let mut found = ResolvedAddresses::new();
    while let Some(done) = lookups.join_next().await {
        // A lookup that panicked leaves its name without an address, which the snapshot reports.
        let Ok(result) = done else { continue };
        let (name, address) = result?;
        found.insert(name, address);
    }
    Ok(found)
}

/// Each name once.
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
    known: Option<SocketAddr>,
    limit: Duration,
    answers: impl Future<Output = io::Result<Answers>>,
) -> Result<(PeerAddress, SocketAddr), Error> {
    let reason = match tokio::time::timeout(limit, answers).await {
        Ok(Ok(answers)) => match choose_address(answers, known) {
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
    known: Option<SocketAddr>,
) -> Option<SocketAddr> {
    let answers: Vec<_> = answers.collect();
    known
        .filter(|known| answers.contains(known))
        .or_else(|| answers.first().copied())
}

fn is_name(address: &PeerAddress) -> bool {
    matches!(address, PeerAddress::Name(..))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn look_up(
        known: Option<u8>,
        answers: impl Future<Output = io::Result<std::vec::IntoIter<SocketAddr>>>,
    ) -> Result<SocketAddr, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let name = PeerAddress::Name("a.test".to_owned(), 80);
        let limit = Duration::from_millis(10);
        let found = resolve_name(name, known.map(address), limit, answers);
        let found = runtime.unwrap().block_on(found);
        found
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
        assert_eq!(look_up(None, answers(&[1, 2, 3])), Ok(address(1)));
        assert_eq!(look_up(Some(3), answers(&[1, 2, 3])), Ok(address(3)));
        assert_eq!(look_up(Some(4), answers(&[1, 2, 3])), Ok(address(1)));
    }

    #[test]
    fn dns_name_without_address_is_an_error_in_time() {
        let silent = look_up(None, pending()).unwrap_err();
        assert!(
            silent.contains("`a.test:80`: the name servers did not answer within 10ms"),
            "{silent}"
        );
        let empty = look_up(None, answers(&[])).unwrap_err();
        assert!(empty.contains("has no address"), "{empty}");
    }
}
