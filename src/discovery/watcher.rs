//! The task that watches a source, and a single read of it.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::dns::WatchedName;
use super::etcd::WatchedPrefix;
use super::file;
use super::kubernetes::WatchedService;
use super::update::{FoundList, SourceId, SourceUpdate, UpdateSender, WatcherNumber};
use crate::config::{
    EtcdAccess, KubernetesConfig, PeerConfig, PeerListRules, PeerSource, ResolverConfig,
};

/// A source, and what its lists have to fit. Another value needs another watcher.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WatchedSource {
    /// The source.
    pub id: SourceId,
    /// What its lists have to fit.
    pub rules: PeerListRules,
    /// The name servers, for a name of DNS.
    pub resolver: ResolverConfig,
    /// The API server, for a service of Kubernetes.
    pub kubernetes: KubernetesConfig,
    /// The cluster, for a prefix of keys in etcd.
    pub etcd: Option<EtcdAccess>,
}

/// A source with its list so far, which fills the gaps of an incomplete answer.
pub(crate) type KnownSource = (WatchedSource, Vec<PeerConfig>);

/// Watches a source until it is dropped.
#[derive(Debug)]
pub(crate) struct SourceWatcher {
    /// What it watches.
    pub source: WatchedSource,
    /// Its number, which its updates have, too.
    pub number: WatcherNumber,
    task: AbortHandle,
}

impl SourceWatcher {
    /// Starts to watch a source: its present list is sent first. Must be called inside a Tokio runtime.
    pub(crate) fn start(known: KnownSource, updates: mpsc::Sender<SourceUpdate>) -> Self {
        let (source, known) = known;
        let number = WatcherNumber::next();
        let updates = UpdateSender::new(source.id.clone(), number, updates);
        let rules = source.rules.clone();
        let task = match source.id.source.clone() {
            PeerSource::File(path) => tokio::spawn(file::watch(path, rules, updates)),
            PeerSource::Dns(question) => {
                let name = WatchedName::new(question, rules, source.resolver.clone(), &known);
                tokio::spawn(name.watch(updates))
            }
            PeerSource::Kubernetes(service) => {
                let service = WatchedService::new(service, source.kubernetes.clone());
                tokio::spawn(service.watch(updates))
            }
            PeerSource::Etcd(prefix) => {
                let etcd = source.etcd.clone();
                let watched = WatchedPrefix::new(prefix, rules, etcd, &known);
                tokio::spawn(async move {
                    match watched {
                        Ok(watched) => watched.watch(updates).await,
                        Err(error) => {
                            updates.send(FoundList::Failed(error)).await;
                        }
                    }
                })
            }
        };
        Self {
            task: task.abort_handle(),
            number,
            source,
        }
    }
}

impl Drop for SourceWatcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads each source once, all at the same time; one without an answer `within` this time has failed. The results are in the
/// order of the sources.
pub(crate) async fn read_once(
    sources: Vec<KnownSource>,
    within: Duration,
) -> Vec<(WatchedSource, Result<Vec<PeerConfig>, String>)> {
    let mut reads = JoinSet::new();
    let mut results = Vec::new();
    for (index, (source, known)) in sources.into_iter().enumerate() {
        let panicked = Err("the read panicked".to_owned());
        results.push((source.clone(), panicked));
        reads.spawn(async move {
            let read = tokio::time::timeout(within, read(&source, &known)).await;
            let late = Err(format!(
                "`{}` did not answer within {within:?}",
                source.id.source
            ));
            (index, read.unwrap_or(late))
        });
    }
    while let Some(joined) = reads.join_next().await {
        if let Ok((index, read)) = joined
            && let Some((_, result)) = results.get_mut(index)
        {
            *result = read;
        }
    }
    results
}

async fn read(source: &WatchedSource, known: &[PeerConfig]) -> Result<Vec<PeerConfig>, String> {
    let rules = source.rules.clone();
    match source.id.source.clone() {
        PeerSource::File(path) => file::read(&path, &rules).await,
        PeerSource::Dns(question) => {
            let name = WatchedName::new(question, rules, source.resolver.clone(), known);
            name.read().await
        }
        PeerSource::Kubernetes(service) => {
            let service = WatchedService::new(service, source.kubernetes.clone());
            service.read().await
        }
        PeerSource::Etcd(prefix) => {
            let watched = WatchedPrefix::new(prefix, rules, source.etcd.clone(), known)?;
            // The problems of single keys are in the first list of the watcher, too, which follows at once.
            watched.read().await.map(|found| found.peers)
        }
    }
}
