//! The peers that sources have, for commands that answer from a configuration alone.

use std::time::Duration;

use super::error::CliError;
use super::output::use_color;
use crate::config::{Config, DiscoveredPeers, LeftOutPeer, PeerListError, PeerSource};
use crate::discovery;

/// What the sources of a configuration say now.
pub(super) struct SourceReading {
    /// The configuration with the peers of its sources.
    pub(super) config: Config,
    /// The peers that cannot be members of their upstreams.
    pub(super) left_out: Vec<LeftOutPeer>,
    /// The sources that cannot be read, by upstream and their index in its `sources`.
    pub(super) failures: Vec<(String, usize, PeerListError)>,
}

/// How long a command waits for the answer of a source.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Reads all sources of upstreams that are `wanted`; without `asks_servers`, only files.
pub(super) fn read_sources(
    config: &Config,
    asks_servers: bool,
    wanted: impl Fn(&str) -> bool,
) -> SourceReading {
    let (mut found, mut failures) = (DiscoveredPeers::default(), Vec::new());
    let upstreams = config.upstreams.iter();
    for (name, upstream) in upstreams.filter(|(name, _)| wanted(name.as_str())) {
        for (index, source) in upstream.sources.iter().enumerate() {
            let rules = upstream.peer_list_rules();
            let read = match source {
                PeerSource::File(path) => discovery::read_source_file(path, &rules),
                _ if !asks_servers => continue,
                PeerSource::Dns(question) => {
                    let (question, resolver) = (question.clone(), config.resolver.clone());
                    ask(source, discovery::look_up_name(question, rules, resolver))
                }
                PeerSource::Kubernetes(service) => {
                    let (service, server) = (service.clone(), config.kubernetes.clone());
                    ask(source, discovery::read_service(service, server))
                }
                PeerSource::Etcd(prefix) => {
                    let (prefix, access) = (prefix.clone(), config.etcd_access());
                    let read = ask(source, discovery::read_etcd_keys(prefix, rules, access));
                    read.map(|read| {
                        let problems = read.problems.into_iter();
                        failures.extend(problems.map(|reason| {
                            let file = source.to_string();
                            let error = PeerListError::Unreadable { file, reason };
                            (name.clone(), index, error)
                        }));
                        read.peers
                    })
                }
            };
            match read {
                Ok(peers) => found.set(name, source, peers),
                Err(error) => failures.push((name.clone(), index, error)),
            }
        }
    }
    let (config, left_out) = config.with_runtime_peers(&found.into());
    SourceReading {
        config,
        left_out,
        failures,
    }
}

/// Waits for the answer of a server.
fn ask<T>(
    source: &PeerSource,
    answer: impl Future<Output = Result<T, String>>,
) -> Result<T, PeerListError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let answer = match runtime {
        Ok(runtime) => {
            let limited = async { tokio::time::timeout(ANSWER_LIMIT, answer).await };
            let answer = runtime.block_on(limited);
            answer.unwrap_or_else(|_| Err(format!("no answer within {ANSWER_LIMIT:?}")))
        }
        Err(error) => Err(error.to_string()),
    };
    answer.map_err(|reason| PeerListError::Unreadable {
        file: source.to_string(),
        reason,
    })
}

/// The configuration with the peers that the sources of an upstream have now.
///
/// # Errors
/// A source cannot be read, or one of its peers cannot be a member of the upstream.
pub(super) fn with_found_peers(config: &Config, upstream: &str) -> Result<Config, CliError> {
    let reading = read_sources(config, true, |name| name == upstream);
    if let Some((_, _, error)) = reading.failures.first() {
        return Err(CliError::Input(match error {
            PeerListError::Unreadable { .. } => format!("error: {error}"),
            PeerListError::Invalid(report) => report.render(use_color()),
        }));
    }
    match reading.left_out.first() {
        Some(left_out) => Err(CliError::Input(format!("error: {left_out}"))),
        None => Ok(reading.config),
    }
}
