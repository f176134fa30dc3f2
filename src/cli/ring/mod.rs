//! `clockwise ring …`: answers from a configuration and the lists of its sources alone, without an instance.

mod diff;
mod line_reader;
mod owner;
mod replay;
mod scenario;
mod show;
mod table;
mod upstream_args;

use clap::Subcommand;

use super::error::CommandResult;
use super::output::Output;

/// What to compute from an upstream's ring.
#[derive(Debug, Subcommand)]
pub(super) enum RingCommand {
    /// The peer of each key: one line per key, with key and label separated by a tab
    Owner(owner::OwnerArgs),
    /// The points of each peer and its exact share of the key space (estimated if the dialect has no points)
    Show(show::ShowArgs),
    /// How much a change moves between each pair of peers: the exact share of the key space, and of given keys
    Diff(diff::DiffArgs),
    /// The load that the requests of an access log cause at each peer, now and after a change
    ///
    /// The code that serves chooses the peers, with two differences. During a slow start a replay computes the total
    /// weight of the peers at each request; the proxy recounts it in 64 steps. A replay spreads all hot keys, at most 64;
    /// the proxy divides the keys by hash into 16 sets, and spreads at most 4 hot keys of each set.
    Replay(replay::ReplayArgs),
}

impl RingCommand {
    pub(super) fn run(self, output: &mut Output) -> CommandResult {
        match self {
            Self::Owner(owner) => owner.run(output),
            Self::Show(show) => show.run(output),
            Self::Diff(diff) => diff.run(output),
            Self::Replay(replay) => replay.run(output),
        }?;
        output.flush()
    }
}
