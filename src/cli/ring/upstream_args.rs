//! The arguments that name an upstream of a configuration.

use clap::Args;

use crate::cli::config_args::ConfigArgs;
use crate::cli::error::CliError;
use crate::cli::peer_sources;
use crate::config;

/// The upstream that a `ring` command is about.
#[derive(Args, Debug)]
pub(super) struct UpstreamArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// The name of the upstream
    #[arg(short, long, value_name = "NAME")]
    pub(super) upstream: String,
    /// Prints the result as JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl UpstreamArgs {
    /// Loads a configuration, and takes the upstream from it.
    pub(super) fn load_upstream(
        &self,
        file: &ConfigArgs,
    ) -> Result<config::UpstreamConfig, CliError> {
        let mut config = peer_sources::with_found_peers(&file.load()?, &self.upstream)?;
        config.upstreams.remove(&self.upstream).ok_or_else(|| {
            let names: Vec<_> = config.upstreams.keys().map(String::as_str).collect();
            CliError::Input(format!(
                "there is no upstream `{}` in `{}`; there are: {}",
                self.upstream,
                file.path().display(),
                names.join(", ")
            ))
        })
    }
}
