//! Reads the configuration file, adds the peers of its sources, and resolves its names, for a reload.

use std::path::Path;

use super::blocking::run_blocking;
use super::peer_discovery::{PeerDiscovery, PreparedSources};
use super::peer_lookups::{self, LookupWarning};
use crate::config::{self, Config};
use crate::discovery;
use crate::lifecycle::ControlError;
use crate::snapshot::ResolvedAddresses;

/// A configuration that a reload puts in force.
pub(super) struct LoadedConfig {
    pub(super) config: Config,
    /// Its sources, with their lists.
    pub(super) sources: PreparedSources,
    /// The addresses of its peers' names.
    pub(super) addresses: ResolvedAddresses,
    /// The names that could not be resolved; with `start: tolerant` only.
    pub(super) lookup_failures: Vec<discovery::Error>,
    /// What that means for each peer with such a name.
    pub(super) lookup_warnings: Vec<LookupWarning>,
    /// The warnings about the configuration, one line each.
    pub(super) warnings: Vec<String>,
}

/// Reads the file, and resolves its names; an address in use is kept if it is still among a name's addresses, and with
/// `start: tolerant` also if the name cannot be resolved.
pub(super) async fn load(
    path: &Path,
    in_use: &ResolvedAddresses,
    discovery: &PeerDiscovery,
) -> Result<LoadedConfig, ControlError> {
    let path = path.to_owned();
    let read = move || config::load_with_warnings(&path).map_err(|report| report.render(false));
    let (config, mut warnings) = run_blocking(read).await?;
    let (config, sources) = discovery.prepare(&config).await?;
    warnings.extend(sources.warnings.iter().cloned());
    let resolution = discovery::resolve_peers(&config, in_use, discovery::LOOKUP_TIMEOUT)
        .await
        .map_err(|error| ControlError::Failed(error.to_string()))?;
    let (addresses, lookup_failures) = (resolution.addresses, resolution.failures);
    Ok(LoadedConfig {
        lookup_warnings: peer_lookups::warnings(&config, &addresses, &lookup_failures),
        config,
        sources,
        addresses,
        lookup_failures,
        warnings,
    })
}
