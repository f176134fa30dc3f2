//! `clockwise ring owner`

use std::path::Path;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::line_reader::LineReader;
use super::scenario::UpstreamScenario;
use super::table::NO_PEER;
use super::upstream_args::UpstreamArgs;
use crate::cli::error::CommandResult;
use crate::cli::output::Output;
use crate::predict::KeyPlacement;

#[derive(Args, Debug)]
pub(in crate::cli) struct OwnerArgs {
    #[command(flatten)]
    upstream_args: UpstreamArgs,
    /// Prints the first N peers of the walk of each key, instead of only the owner
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    walk: u32,
    /// Treats this peer as down
    #[arg(long, value_name = "LABEL")]
    down: Vec<String>,
    /// The keys; a single - reads keys from standard input, one per line
    #[arg(required = true, value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    keys: Vec<String>,
}

impl OwnerArgs {
    pub(super) fn run(&self, output: &mut Output) -> CommandResult {
        let scenario = UpstreamScenario::as_configured(&self.upstream_args)?;
        let placement = scenario.placement(&self.down)?;
        if self.keys != ["-"] {
            let mut keys = self.keys.iter();
            return keys.try_for_each(|key| self.print_key(key.as_bytes(), &placement, output));
        }
        let mut keys = LineReader::open(Path::new("-"))?;
        while let Some(key) = keys.next_key()? {
            self.print_key(key, &placement, output)?;
        }
        Ok(())
    }

    fn print_key(
        &self,
        key: &[u8],
        placement: &KeyPlacement<'_>,
        output: &mut Output,
    ) -> CommandResult {
        let walk_length = self.walk as usize;
        if self.upstream_args.json {
            return output.line(&placement.key_to_json(key, walk_length).to_string());
        }
        output.bytes(key)?;
        output.bytes(b"\t")?;
        if walk_length == 1 {
            let owner = placement.owner_of(key);
            return output.line(owner.map_or(NO_PEER, |member| placement.label(member)));
        }
        let ring_key = placement.ring().key(key);
        let labels: Vec<&str> = placement.walk(&ring_key).take(walk_length).collect();
        match labels.as_slice() {
            [] => output.line(NO_PEER),
            labels => output.line(&labels.join("\t")),
        }
    }
}
