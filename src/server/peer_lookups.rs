//! Names of peers that could not be resolved: reported, counted, and looked up again until they are resolved.
//!
//! This happens only with `start: tolerant`. With `start: strict` such a name makes the start or the reload fail.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::clock;
use crate::config::{Config, PeerAddress, PeerConfig};
use crate::discovery::{self, LookupResult};
use crate::lifecycle::ControlError;
use crate::policy::lookup_backoff::LookupBackoff;
use crate::snapshot::{ResolvedAddresses, Snapshot};
use crate::upstream::{Peer, Upstream};

/// The names to look up again.
#[derive(Debug, Default)]
pub(super) struct PeerLookups {
    retries: BTreeMap<PeerAddress, LookupBackoff>,
    /// The lookups in progress. Kept here, because [`Self::run_until_found`] is dropped whenever the instance handles
    /// another event.
    round: Option<JoinHandle<Vec<LookupResult>>>,
}

impl PeerLookups {
    /// Replaces the names to look up by those that could not be resolved for `snapshot`, which is now in force. Counts each
    /// failure.
    pub(super) fn replace(&mut self, failures: &[discovery::Error], snapshot: &Snapshot) {
        let now = clock::since_start();
        let retry = |failure: &discovery::Error| {
            count_failure(snapshot, &failure.name);
            let first = LookupBackoff::after_first_failure(now, rand::random());
            (failure.name.clone(), first)
        };
        self.retries = failures.iter().map(retry).collect();
    }

    /// Adds the names that could not be resolved for new peers of `snapshot`, which is now in force, and forgets those that
    /// no peer has any more. Counts each failure.
    pub(super) fn update(&mut self, failures: &[discovery::Error], snapshot: &Snapshot) {
        let names: HashSet<_> = peers(snapshot).map(|(config, _)| &config.address).collect();
        self.retries.retain(|name, _| names.contains(name));
        for failure in failures {
            count_failure(snapshot, &failure.name);
            self.note_failure(failure.name.clone());
        }
    }

    /// Schedules another lookup of these names: the addresses that were found could not be put in force.
    pub(super) fn retry_later(&mut self, found: ResolvedAddresses, error: &ControlError) {
        log::warn!(
            "cannot apply the new addresses of peers: {error}; their names are looked up again"
        );
        for name in found.into_keys() {
            self.note_failure(name);
        }
    }

    /// Looks up each name when it is due, and returns the addresses of the first round that has found any. The names of
    /// these addresses are not looked up again. Counts each failure at the peers with that name. Cancel-safe.
    pub(super) async fn run_until_found(&mut self, snapshot: &Snapshot) -> ResolvedAddresses {
        loop {
            if self.round.is_none() {
                self.wait_until_due().await;
                self.round = Some(self.start_round(snapshot));
            }
            let Some(round) = &mut self.round else {
                continue;
            };
            // A round that panicked has no results: its names stay due, and the next round begins at once.
            let results = round.await.unwrap_or_default();
            self.round = None;
            let found = self.take_found(results, snapshot);
            if !found.is_empty() {
                return found;
            }
        }
    }

    async fn wait_until_due(&self) {
        let Some(next) = self.retries.values().map(|retry| retry.next()).min() else {
            return std::future::pending().await;
        };
        tokio::time::sleep(next.saturating_sub(clock::since_start())).await;
    }

    /// Starts a round of lookups: for the names that are due now or within [`ROUND_TOLERANCE`], so that names that failed
    /// together are looked up together again.
    fn start_round(&self, snapshot: &Snapshot) -> JoinHandle<Vec<LookupResult>> {
        let soon = clock::since_start().saturating_add(ROUND_TOLERANCE);
        let due = self.retries.iter().filter(|(_, retry)| retry.is_due(soon));
        let names: Vec<_> = due.map(|(name, _)| name.clone()).collect();
        let last = snapshot.addresses();
        tokio::spawn(async move { discovery::look_up(names, &last).await })
    }

    /// Returns the addresses that a round has found; counts the names that failed, and schedules their next lookup. Ignores
    /// names that a reload has removed since the round began.
    fn take_found(&mut self, results: Vec<LookupResult>, snapshot: &Snapshot) -> ResolvedAddresses {
        let mut found = ResolvedAddresses::new();
        for result in results {
            match result {
                Ok((name, address)) => {
                    if self.retries.remove(&name).is_some() {
                        found.insert(name, address);
                    }
                }
                Err(error) => {
                    if self.retries.contains_key(&error.name) {
                        log::debug!("{error}");
                        count_failure(snapshot, &error.name);
                        self.note_failure(error.name);
                    }
                }
            }
        }
        found
    }

    fn note_failure(&mut self, name: PeerAddress) {
        let (now, random) = (clock::since_start(), rand::random());
        self.retries
            .entry(name)
            .and_modify(|retry| *retry = retry.after_failure(now, random))
            .or_insert_with(|| LookupBackoff::after_first_failure(now, random));
    }
}

/// The consequence of a failed lookup for one peer with that name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LookupWarning {
    upstream: String,
    label: String,
    /// The message for the log and for the result of a reload.
    pub(super) text: String,
    is_unresolved: bool,
}

/// One warning for each peer with a name that could not be resolved. `addresses`: the addresses that the peers get, with the last
/// one of a name that keeps it.
pub(super) fn warnings(
    config: &Config,
    addresses: &ResolvedAddresses,
    failures: &[discovery::Error],
) -> Vec<LookupWarning> {
    if failures.is_empty() {
        return Vec::new();
    }
    let reasons: BTreeMap<_, _> = failures
        .iter()
        .map(|one| (&one.name, &one.reason))
        .collect();
    let warning = |upstream: &String, peer: &PeerConfig| {
        let reason = reasons.get(&peer.address)?;
        let address = addresses.get(&peer.address);
        let consequence = match address {
            Some(address) => format!("it keeps the address {address}"),
            None => "it is unresolved and gets no requests".to_owned(),
        };
        let (label, name) = (&peer.label, &peer.address);
        Some(LookupWarning {
            text: format!(
                "upstream {upstream}: peer {label}: cannot resolve `{name}`: {reason}; {consequence}, and the name is looked up again"
            ),
            upstream: upstream.clone(),
            label: label.clone(),
            is_unresolved: address.is_none(),
        })
    };
    let upstreams = config.upstreams.iter();
    upstreams
        .flat_map(|(name, upstream)| {
            upstream
                .peers
                .iter()
                .filter_map(move |peer| warning(name, peer))
        })
        .collect()
}

/// Logs these warnings, except for peers that were unresolved in `previous` already: the log gets one line when a peer
/// becomes unresolved, and one ([`log_new_addresses`]) when it has an address.
pub(super) fn log_warnings(warnings: &[LookupWarning], previous: Option<&Snapshot>) {
    let was_unresolved = |warning: &LookupWarning| {
        let upstream = previous?.upstreams.get(&warning.upstream)?;
        Some(upstream.peer_by_label(&warning.label)?.is_unresolved())
    };
    for warning in warnings {
        if !(warning.is_unresolved && was_unresolved(warning) == Some(true)) {
            log::warn!("{}", warning.text);
        }
    }
}

/// Adds these warnings to the result of a reload, after those about sources of peers.
pub(super) fn add_to_result(
    result: &mut serde_json::Value,
    mut texts: Vec<String>,
    warnings: Vec<LookupWarning>,
) {
    if let Some(result) = result.as_object_mut() {
        texts.extend(warnings.into_iter().map(|warning| warning.text));
        result.insert("lookup_warnings".to_owned(), texts.into());
    }
}

/// Counts one failed lookup at each peer with this name.
fn count_failure(snapshot: &Snapshot, name: &PeerAddress) {
    for (_, peer) in peers(snapshot).filter(|(config, _)| config.address == *name) {
        peer.metrics.lookup_failures.inc();
    }
}

/// Logs the warnings of a reload, and the addresses that it has found.
pub(super) fn log_changes(warnings: &[LookupWarning], before: &Snapshot, after: &Snapshot) {
    log_warnings(warnings, Some(before));
    log_new_addresses(before, after);
}

/// Logs each peer that is configured by name and has another address than before; not those that became unresolved.
pub(super) fn log_new_addresses(before: &Snapshot, after: &Snapshot) {
    let named = peers(after).filter(|(config, _)| matches!(config.address, PeerAddress::Name(..)));
    for (config, peer) in named {
        let (upstream, label, address) = (peer.upstream_name(), &peer.label, &peer.address);
        let previous = before.upstreams.get(upstream);
        let Some(previous) = previous.and_then(|previous| previous.peer_by_label(label)) else {
            continue;
        };
        if previous.address != *address && !peer.is_unresolved() {
            let name = &config.address;
            log::info!(
                "upstream {upstream}: peer {label}: `{name}` is resolved, its address is {address}"
            );
        }
    }
}

fn peers(snapshot: &Snapshot) -> impl Iterator<Item = (&PeerConfig, &Peer)> {
    let upstreams = snapshot.upstreams.values();
    upstreams.flat_map(|upstream: &std::sync::Arc<Upstream>| {
        upstream.config.peers.iter().zip(upstream.peers())
    })
}

/// Names that are due within this time are looked up together.
const ROUND_TOLERANCE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    fn name(host: &str) -> PeerAddress {
        PeerAddress::Name(host.to_owned(), 80)
    }

    fn failure(host: &str) -> discovery::Error {
        discovery::Error {
            name: name(host),
            reason: "the name has no address".to_owned(),
        }
    }

    fn config(peers: &str) -> Config {
        let text = format!(
            "listeners: [{{address: 127.0.0.1:1}}]\nroutes: [{{upstream: app}}]\nupstreams: {{app: {{health: off, peers: {peers}}}}}\n"
        );
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("clockwise.yaml");
        std::fs::write(&path, text).unwrap();
        crate::config::load(&path).unwrap()
    }

    fn snapshot(peers: &str) -> Snapshot {
        let metrics = crate::telemetry::metrics::Metrics::new("1", jiff::Timestamp::UNIX_EPOCH);
        Snapshot::new(config(peers), &ResolvedAddresses::new(), None, &metrics).unwrap()
    }

    #[test]
    fn lookup_results_of_names_that_a_reload_removed_are_ignored() {
        let snapshot = snapshot("[{label: a, address: a.test:80}, {label: c, address: c.test:80}]");
        let mut lookups = PeerLookups::default();
        lookups.replace(&[failure("a.test"), failure("c.test")], &snapshot);
        let address = ([127, 0, 0, 1], 80).into();
        let results = vec![
            Ok((name("a.test"), address)),
            Ok((name("b.test"), address)),
            Err(failure("c.test")),
            Err(failure("d.test")),
        ];
        let found = lookups.take_found(results, &snapshot);
        assert_eq!(found, ResolvedAddresses::from([(name("a.test"), address)]));
        let open: Vec<_> = lookups.retries.keys().cloned().collect();
        assert_eq!(open, [name("c.test")]);
        let failures = |label| {
            let peer = snapshot.upstreams["app"].peer_by_label(label).unwrap();
            peer.metrics.lookup_failures.get()
        };
        assert_eq!((failures("a"), failures("c")), (1, 2));
    }

    #[test]
    fn lookup_failure_warns_for_each_peer_with_the_name() {
        let config = config(
            "[{label: a, address: a.test:80}, {label: b, address: b.test:80}, {label: c, address: a.test:80}]",
        );
        let addresses = ResolvedAddresses::from([(name("b.test"), ([127, 0, 0, 1], 80).into())]);
        assert_eq!(warnings(&config, &addresses, &[]), []);
        let found = warnings(&config, &addresses, &[failure("a.test"), failure("b.test")]);
        let labels: Vec<_> = found
            .iter()
            .map(|one| (&*one.label, one.is_unresolved))
            .collect();
        assert_eq!(labels, [("a", true), ("b", false), ("c", true)]);
        assert!(found[1].text.contains("it keeps the address 127.0.0.1:80"));
    }
}
