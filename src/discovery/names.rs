//! Finds the addresses of peers that are configured by name: when a configuration is loaded, and again while a name
//! cannot be resolved.
//!
//! Each name and port is resolved once. The address in use is kept if it is still among the answers: name servers
//! change their order with each answer, and another address is another server without any known state. Otherwise the
//! first address is used. The peer's label stays the name, so a changed address moves no key.
//!
//! With `start: tolerant` a name that cannot be resolved keeps its last address, and has none otherwise; with
//! `start: strict` it is an error.
//!
//! The hosts of services (SRV) are not looked up here, but by their source (`dns`): the system could ask other servers, and
//! finds other hosts in its search domains.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::{Config, PeerAddress, StartMode};
use crate::snapshot::ResolvedAddresses;

/// A peer's name could not be resolved: no address, an error of the resolver, or a timeout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("peer `{name}`: {reason}; check the name, or write its IP address")]
pub(crate) struct Error {
    /// The name and port as configured.
    pub name: PeerAddress,
    /// Why it has no address.
    pub reason: String,
}

/// The addresses of the peers of a configuration.
#[derive(Debug, Default)]
pub(crate) struct Resolution {
    /// The addresses by name: answers of the name servers, and the last address of a name without an answer.
    pub addresses: ResolvedAddresses,
    /// The names without an answer, sorted.
    pub failures: Vec<Error>,
}

/// The result of one lookup.
pub(crate) type LookupResult = Result<(PeerAddress, SocketAddr), Error>;

/// How long the system may take to resolve one name.
pub(crate) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Resolves the addresses of all peers that are configured by name. `last`: their addresses so far, as known.
///
/// # Errors
/// With `start: strict`, the first name that cannot be resolved.
pub(crate) async fn resolve_peers(
    config: &Config,
    last: &ResolvedAddresses,
    at_most: Duration,
) -> Result<Resolution, Error> {
    resolve_names(peer_names(config), config.start, last, at_most).await
}

/// Resolves only the names of `config` that `in_force` does not have; the other names are resolved, or are looked up
/// again already.
///
/// # Errors
/// With `start: strict`, the first name that cannot be resolved.
pub(crate) async fn resolve_new_names(
    config: &Config,
    in_force: &Config,
    at_most: Duration,
) -> Result<Resolution, Error> {
    let known: HashSet<_> = peer_names(in_force).into_iter().collect();
    let mut names = peer_names(config);
    names.retain(|name| !known.contains(name));
    resolve_names(names, config.start, &ResolvedAddresses::new(), at_most).await
}

async fn resolve_names(
    names: Vec<PeerAddress>,
    start: StartMode,
    last: &ResolvedAddresses,
    at_most: Duration,
) -> Result<Resolution, Error> {
    match start {
        StartMode::Strict => resolve_all(names, last).await,
        StartMode::Tolerant => {
            let lookups = start_lookups(names.clone(), last, at_most);
            Ok(collect_within(lookups, names, last, at_most).await)
        }
    }
}

/// Looks these names up, each for [`LOOKUP_TIMEOUT`] at most; one result for each.
pub(crate) async fn look_up(
    names: Vec<PeerAddress>,
    last: &ResolvedAddresses,
) -> Vec<LookupResult> {
    let mut lookups = start_lookups(names, last, LOOKUP_TIMEOUT);
    let mut results = Vec::new();
    while let Some(joined) = lookups.join_next().await {
        results.extend(joined);
    }
    results
}

/// The peers with a name that cannot be resolved within `limit`, and the reason; for `clockwise check`. After four times the
/// limit, names that are still being resolved are left out.
pub(crate) async fn find_unresolved(
    config: &Config,
    limit: Duration,
) -> Vec<(PeerAddress, String)> {
    let mut lookups = start_lookups(peer_names(config), &ResolvedAddresses::new(), limit);
    let mut unresolved = Vec::new();
    let collect = async {
        while let Some(joined) = lookups.join_next().await {
            if let Ok(Err(error)) = joined {
                unresolved.push((error.name, error.reason));
            }
        }
    };
    // At the deadline the names found so far are enough.
    let _ = tokio::time::timeout(4 * limit, collect).await;
    unresolved
}

async fn resolve_all(
    names: Vec<PeerAddress>,
    last: &ResolvedAddresses,
) -> Result<Resolution, Error> {
    let mut lookups = start_lookups(names, last, LOOKUP_TIMEOUT);
    let mut resolution = Resolution::default();
    while let Some(joined) = lookups.join_next().await {
        // A lookup that panicked leaves its name without an address, which building the snapshot reports.
        let Ok(result) = joined else { continue };
        let (name, address) = result?;
        resolution.addresses.insert(name, address);
    }
    Ok(resolution)
}

/// All names together take `at_most`: names that are not looked up by then count as failed, and are looked up later.
async fn collect_within(
    mut lookups: JoinSet<LookupResult>,
    names: Vec<PeerAddress>,
    last: &ResolvedAddresses,
    at_most: Duration,
) -> Resolution {
    let mut open: HashSet<_> = names.into_iter().collect();
    let mut resolution = Resolution::default();
    let collect = async {
        while let Some(joined) = lookups.join_next().await {
            match joined {
                Ok(Ok((name, address))) => {
                    open.remove(&name);
                    resolution.addresses.insert(name, address);
                }
                Ok(Err(error)) => {
                    open.remove(&error.name);
                    resolution.failures.push(error);
                }
                // A lookup that panicked stays open.
                Err(_) => {}
            }
        }
    };
    // At the deadline the names that are left are those in `open`.
    let _ = tokio::time::timeout(at_most, collect).await;
    let failures = open.into_iter().map(|name| {
        let reason = no_answer_within(at_most);
        Error { name, reason }
    });
    resolution.failures.extend(failures);
    resolution
        .failures
        .sort_by(|one, other| one.name.cmp(&other.name));
    for failure in &resolution.failures {
        if let Some(address) = last.get(&failure.name) {
            resolution.addresses.insert(failure.name.clone(), *address);
        }
    }
    resolution
}

fn start_lookups(
    names: Vec<PeerAddress>,
    last: &ResolvedAddresses,
    limit: Duration,
) -> JoinSet<LookupResult> {
    let permits = Arc::new(Semaphore::new(MAX_CONCURRENT_LOOKUPS));
    let mut lookups = JoinSet::new();
    for name in names {
        let (permits, in_use) = (Arc::clone(&permits), last.get(&name).copied());
        lookups.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let answers = tokio::net::lookup_host(name.to_string());
            resolve_name(name, in_use, limit, answers).await
        });
    }
    lookups
}

/// The names of peers, each name and port once; not the hosts that a source in DNS looks up itself.
pub(crate) fn peer_names(config: &Config) -> Vec<PeerAddress> {
    let peers = config.upstreams.values().flat_map(|upstream| {
        let peers = upstream.peers.iter();
        peers.filter(move |peer| !upstream.is_unresolved_by_source(peer))
    });
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
) -> LookupResult {
    let reason = match tokio::time::timeout(limit, answers).await {
        Ok(Ok(answers)) => match choose_address(answers, in_use) {
            Some(address) => return Ok((name, address)),
            None => "the name has no address".to_owned(),
        },
        Ok(Err(error)) => error.to_string(),
        Err(_) => no_answer_within(limit),
    };
    Err(Error { name, reason })
}

fn no_answer_within(limit: Duration) -> String {
    format!("the name servers did not answer within {limit:?}")
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

/// The most lookups that run at the same time. A lookup occupies a blocking thread until the system's resolver returns,
/// after a timeout too.
const MAX_CONCURRENT_LOOKUPS: usize = 64;

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;
    use crate::config::PeerConfig;
    use crate::ring::Weight;

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
    fn host_that_a_source_in_dns_has_found_is_not_looked_up() {
        let text = "listeners: [{address: 127.0.0.1:1}]\nroutes: [{upstream: app}]\nupstreams: {app: {peers: [{file: a}, {srv: s.test}]}}\n";
        let mut config = crate::config::parse("test.yaml", text).unwrap();
        let upstream = config.upstreams.get_mut("app").unwrap();
        let peer = |host: &str, source| PeerConfig {
            address: PeerAddress::Name(host.to_owned(), 80),
            label: host.to_owned(),
            weight: Weight::ONE,
            id: None,
            server_name: None,
            source,
            is_leaving: false,
        };
        upstream.peers = vec![
            peer("a.test", None),
            peer("b.test", Some(0)),
            peer("c.test", Some(1)),
        ];
        let names: Vec<_> = peer_names(&config)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["a.test:80", "b.test:80"]);
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

    #[test]
    fn dns_failure_keeps_the_last_address_or_leaves_none() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let name = |host: &str| PeerAddress::Name(host.to_owned(), 80);
        let names = ["new", "known", "found", "late"].map(name);
        let [new, known, found, late] = names.clone();
        let last =
            ResolvedAddresses::from([(known.clone(), address(7)), (late.clone(), address(8))]);
        let error = |name: &PeerAddress| Error {
            name: name.clone(),
            reason: "the name has no address".to_owned(),
        };
        let resolution = runtime.block_on(async {
            let mut lookups = JoinSet::new();
            lookups.spawn(ready(Err(error(&new))));
            lookups.spawn(ready(Err(error(&known))));
            lookups.spawn(ready(Ok((found.clone(), address(1)))));
            lookups.spawn(pending());
            collect_within(lookups, names.to_vec(), &last, Duration::from_millis(50)).await
        });
        let expected = [
            (known.clone(), address(7)),
            (found, address(1)),
            (late.clone(), address(8)),
        ];
        assert_eq!(resolution.addresses, ResolvedAddresses::from(expected));
        let failures = resolution.failures;
        let failed: Vec<_> = failures.iter().map(|failure| &failure.name).collect();
        assert_eq!(failed, [&known, &late, &new]);
        assert!(
            failures[1].reason.contains("did not answer within"),
            "{failures:?}"
        );
    }
}
