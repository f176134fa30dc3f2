//! Reads the configuration file and resolves its names, for a reload.

use std::path::Path;

use super::blocking::run_blocking;
use crate::config::{self, Config};
use crate::discovery;
use crate::lifecycle::ControlError;
use crate::snapshot::ResolvedAddresses;

/// A configuration that a reload puts in force.
pub(super) struct LoadedConfig {
    pub(super) config: Config,
    /// The addresses of its peers' names.
    pub(super) addresses: ResolvedAddresses,
    /// The warnings about the configuration, one line each.
    pub(super) warnings: Vec<String>,
}

/// Reads the file, and resolves its names; an address in use is kept if it is still among a name's addresses.
pub(super) async fn load(
    path: &Path,
    in_use: &ResolvedAddresses,
) -> Result<LoadedConfig, ControlError> {
    let path = path.to_owned();
    let read = move || config::load_with_warnings(&path).map_err(|report| report.render(false));
    let (config, warnings) = run_blocking(read).await?;
    let addresses = discovery::resolve_peers_keeping_addresses(&config, in_use)
        .await
        .map_err(|error| ControlError::Failed(error.to_string()))?;
    Ok(LoadedConfig {
        config,
        addresses,
        warnings,
    })
}
