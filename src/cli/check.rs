//! `clockwise check`

use clap::Args;

use super::config_args::ConfigArgs;
use super::error::{CliError, CommandResult};
use super::host_check;
use super::output::{Output, use_color};
use super::peer_sources;
use crate::config::{self, CheckedConfig, PeerListError, Report, StartMode};
use crate::server;

/// The options of `clockwise check`.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Prints one JSON object per problem
    #[arg(long)]
    json: bool,
    /// Does not look up names, nor test ports, sockets, the access log and the state file on this machine
    #[arg(long)]
    offline: bool,
}

pub(super) fn check(options: &CheckArgs, output: &mut Output) -> CommandResult {
    let (path, json) = (options.config.path(), options.json);
    let (checked, mut report) = config::check_with_places(&path);
    let mut lists = Vec::new();
    if let Some(mut checked) = checked.filter(|_| !server::is_upgrade_check()) {
        lists = add_peer_lists(&mut checked, !options.offline, &mut report);
        if !options.offline {
            host_check::add_warnings(&checked, &mut report);
        }
    }
    let reports: Vec<_> = [report].into_iter().chain(lists).collect();
    let has_errors = reports.iter().any(Report::has_errors);
    let shown = reports.iter().filter(|report| !report.is_empty());
    if json {
        for problem in shown.clone().flat_map(Report::diagnostics) {
            let problem = serde_json::to_string(&problem)
                .map_err(|error| CliError::Input(error.to_string()))?;
            output.line(&problem)?;
        }
    } else if !has_errors {
        for report in shown.clone() {
            output.line(&report.render(false))?;
        }
    }
    if !has_errors {
        if !json {
            output.line(&format!("{}: ok", path.display()))?;
        }
        return output.flush();
    }
    output.flush()?;
    // With `json`, standard output already has every problem.
    let texts = shown.map(|report| report.render(use_color()));
    let texts: Vec<_> = texts.filter(|_| !json).collect();
    Err(CliError::Input(texts.join("\n\n")))
}

/// Reads the lists of all sources. Adds their peers to the configuration, a warning for each list that cannot be read, and
/// one for each peer that is left out; returns the reports of lists with errors.
fn add_peer_lists(
    checked: &mut CheckedConfig,
    asks_name_servers: bool,
    report: &mut Report,
) -> Vec<Report> {
    let reading = peer_sources::read_sources(&checked.config, asks_name_servers, |_| true);
    let spans = &checked.places.sources;
    let place = |upstream: &str, index: usize| spans.get(upstream)?.get(index).copied();
    let help = match checked.config.start {
        StartMode::Tolerant => {
            "until it can be read, the upstream has the peers that the state file knows, or none of this source"
        }
        StartMode::Strict => "with `start: strict` this keeps `run` from starting",
    };
    let mut lists = Vec::new();
    for (upstream, index, error) in reading.failures {
        match error {
            PeerListError::Unreadable { .. } => {
                report.add_warning(place(&upstream, index), error.to_string(), help);
            }
            PeerListError::Invalid(list) => lists.push(*list),
        }
    }
    for peer in reading.left_out {
        let upstream = checked.config.upstreams.get(&peer.upstream);
        let sources = upstream.map(|upstream| upstream.sources.iter());
        let index = sources.and_then(|mut all| all.position(|source| *source == peer.source));
        let place = index.and_then(|index| place(&peer.upstream, index));
        report.add_warning(place, peer.to_string(), "`run` serves without this peer");
    }
    for (name, upstream) in &reading.config.upstreams {
        let peers = upstream.peers.iter();
        for peer in peers.filter(|peer| upstream.is_unresolved_by_source(peer)) {
            let index = peer.source.unwrap_or_default();
            let message = format!("upstream {name}: peer {} has no address", peer.label);
            let help = "until the name servers have one, the peer gets no requests";
            report.add_warning(place(name, index), message, help);
        }
    }
    checked.config = reading.config;
    lists
}
