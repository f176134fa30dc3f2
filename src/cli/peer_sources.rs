//! The peers that sources have, for commands that answer from a configuration alone.

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

/// Reads the files of all sources whose upstream is `wanted`.
pub(super) fn read_sources(config: &Config, wanted: impl Fn(&str) -> bool) -> SourceReading {
    let (mut found, mut failures) = (DiscoveredPeers::default(), Vec::new());
    let upstreams = config.upstreams.iter();
    for (name, upstream) in upstreams.filter(|(name, _)| wanted(name.as_str())) {
        for (index, source) in upstream.sources.iter().enumerate() {
            let PeerSource::File(path) = source;
            match discovery::read_source_file(path, &upstream.peer_list_rules()) {
                Ok(peers) => found.set(name, source, peers),
                Err(error) => failures.push((name.clone(), index, error)),
            }
        }
    }
    let (config, left_out) = config.with_discovered(&found);
    SourceReading {
        config,
        left_out,
        failures,
    }
}

/// The configuration with the peers that the sources of an upstream have now.
///
/// # Errors
/// A source cannot be read, or one of its peers cannot be a member of the upstream.
pub(super) fn with_found_peers(config: &Config, upstream: &str) -> Result<Config, CliError> {
    let reading = read_sources(config, |name| name == upstream);
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
