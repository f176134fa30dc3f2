//! `clockwise ring …`: answers from a configuration alone, without a network.

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
    /// Which peer each key goes to: one line per key, key and label with a tab between
    Owner(owner::OwnerArgs),
    /// The points of each peer and its exact share of the key space (estimated if the dialect has no points)
    Show(show::ShowArgs),
    /// What a change moves from which peer to which: the exact share of the key space, and of given keys
    Diff(diff::DiffArgs),
    /// The load that the requests of an access log cause at each peer, now and after a change
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
