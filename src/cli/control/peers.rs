//! `clockwise peers`: changes of the peers of the running instance.

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::client::{InstanceArgs, display_value, percent_encode};
use super::status::peer_change;
use crate::cli::error::{CliError, CommandResult};
use crate::cli::output::Output;
use crate::predict::percent;

/// What to change.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PeersCommand {
    /// Adds a peer, or replaces the one with this label
    Set(SetArgs),
    /// Adds a peer; refused if the label exists
    Add(SetArgs),
    #[command(
        about = "Removes a peer, also if the configuration or a source has it; with drain, it keeps its active keys first"
    )]
    Remove(ChangedPeerArgs),
    /// Changes the weight of a peer, and nothing else of it
    Weight(WeightArgs),
    /// Forgets the changes of a peer, or of all peers of the upstream
    Reset(ResetArgs),
}

/// How a change is made.
#[derive(Args, Debug)]
pub(in crate::cli) struct ChangeOptions {
    /// Only shows what would change
    #[arg(long)]
    dry_run: bool,
    #[arg(
        long,
        help = "Changes the peer even if more keys move than max_moved allows, or no peer is left"
    )]
    force: bool,
    #[command(flatten)]
    instance: InstanceArgs,
    /// Prints the response as JSON
    #[arg(long)]
    json: bool,
}

/// A peer with its address.
#[derive(Args, Debug)]
pub(in crate::cli) struct SetArgs {
    /// The name of the upstream
    upstream: String,
    /// The label of the peer
    label: String,
    /// Its address, as in the configuration
    address: String,
    /// Its weight [default: 1]
    #[arg(long, value_name = "N")]
    weight: Option<String>,
    /// The text or number that the ring hashes instead of the label
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The name in its certificate, for an upstream with TLS
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    #[command(flatten)]
    options: ChangeOptions,
}

/// A peer that exists.
#[derive(Args, Debug)]
pub(in crate::cli) struct ChangedPeerArgs {
    /// The name of the upstream
    upstream: String,
    /// The label of the peer
    label: String,
    #[command(flatten)]
    options: ChangeOptions,
}

/// A peer that exists, and its weight.
#[derive(Args, Debug)]
pub(in crate::cli) struct WeightArgs {
    /// The name of the upstream
    upstream: String,
    /// The label of the peer
    label: String,
    /// Its weight
    weight: String,
    #[command(flatten)]
    options: ChangeOptions,
}

/// The changes to forget.
#[derive(Args, Debug)]
pub(in crate::cli) struct ResetArgs {
    /// The name of the upstream
    upstream: String,
    /// The label of the peer [default: all peers]
    label: Option<String>,
    #[command(flatten)]
    options: ChangeOptions,
}

pub(in crate::cli) fn peers(command: &PeersCommand, output: &mut Output) -> CommandResult {
    match command {
        PeersCommand::Set(set) => put(set, &[], output),
        PeersCommand::Add(add) => put(add, &["add"], output),
        PeersCommand::Remove(remove) => {
            let path = peer_path(&remove.upstream, &remove.label);
            send(("DELETE", &path, &[]), None, &remove.options, output)
        }
        PeersCommand::Weight(weight) => {
            let path = peer_path(&weight.upstream, &weight.label);
            let body = Map::from_iter([("weight".to_owned(), parse_weight(&weight.weight)?)]);
            send(("PUT", &path, &[]), Some(body), &weight.options, output)
        }
        PeersCommand::Reset(reset) => {
            let path = match &reset.label {
                Some(label) => format!("{}/reset", peer_path(&reset.upstream, label)),
                None => format!("/v1/upstreams/{}/reset", percent_encode(&reset.upstream)),
            };
            send(("POST", &path, &[]), None, &reset.options, output)
        }
    }
}

fn put(set: &SetArgs, flags: &[&str], output: &mut Output) -> CommandResult {
    let path = peer_path(&set.upstream, &set.label);
    let mut body = Map::from_iter([("address".to_owned(), set.address.clone().into())]);
    if let Some(weight) = &set.weight {
        body.insert("weight".to_owned(), parse_weight(weight)?);
    }
    for (key, value) in [("id", &set.id), ("server_name", &set.server_name)] {
        if let Some(value) = value {
            body.insert(key.to_owned(), value.clone().into());
        }
    }
    send(("PUT", &path, flags), Some(body), &set.options, output)
}

/// A weight as a number of JSON. The instance knows which ones its ring has.
fn parse_weight(text: &str) -> Result<Value, CliError> {
    let weight: Result<serde_json::Number, _> = text.parse();
    weight
        .map(Value::Number)
        .map_err(|_| CliError::Input(format!("error: `{text}` is not a weight; write a number")))
}

fn peer_path(upstream: &str, label: &str) -> String {
    format!(
        "/v1/upstreams/{}/peers/{}",
        percent_encode(upstream),
        percent_encode(label)
    )
}

fn send(
    (method, path, flags): (&str, &str, &[&str]),
    body: Option<Map<String, Value>>,
    options: &ChangeOptions,
    output: &mut Output,
) -> CommandResult {
    let own = [("dry_run", options.dry_run), ("force", options.force)];
    let own = own
        .iter()
        .filter(|(_, is_set)| *is_set)
        .map(|(name, _)| *name);
    let query: Vec<_> = own.chain(flags.iter().copied()).collect();
    let path = format!("{path}?{}", query.join("&"));
    let body = body.map(|fields| Value::Object(fields).to_string());
    let answer = options
        .instance
        .request_with_body(method, &path, &body.unwrap_or_default())?;
    if options.json {
        output.line(&answer.to_string())?;
        return output.flush();
    }
    print_answer(&answer, output)?;
    output.flush()
}

fn print_answer(answer: &Value, output: &mut Output) -> CommandResult {
    let field = |path: &str| display_value(answer.pointer(path));
    let is_true = |name: &str| answer.get(name) == Some(&Value::Bool(true));
    let (upstream, label) = (field("/upstream"), field("/label"));
    let change = answer.get("change").filter(|change| !change.is_null());
    let what = match (change, answer.get("label").filter(|label| !label.is_null())) {
        (Some(change), _) => peer_change(change),
        (None, Some(_)) => format!("{label}: no change is left"),
        (None, None) => format!("forgets the changes of: {}", forgotten(answer)),
    };
    let drains = if is_true("drains") {
        "; it drains first"
    } else {
        ""
    };
    output.line(&format!("{upstream} {what}{drains}"))?;
    print_movement(answer.get("movement").unwrap_or(&Value::Null), output)?;
    let warnings = answer.get("warnings").and_then(Value::as_array);
    for warning in warnings.into_iter().flatten() {
        output.line(&format!("warning: {}", display_value(Some(warning))))?;
    }
    let peers = field("/peers");
    let last = if is_true("dry_run") {
        format!("dry run: nothing was changed; the upstream would have {peers} peers")
    } else if is_true("changed") {
        format!(
            "generation {} is in force, with {peers} peers",
            field("/generation")
        )
    } else {
        "nothing was to change".to_owned()
    };
    output.line(&last)
}

/// The labels with changes that are forgotten.
fn forgotten(answer: &Value) -> String {
    let labels = answer.get("forgotten").and_then(Value::as_array);
    let labels = labels.into_iter().flatten();
    let labels: Vec<_> = labels.map(|label| display_value(Some(label))).collect();
    if labels.is_empty() {
        "no peer".to_owned()
    } else {
        labels.join(" ")
    }
}

/// Prints the share of the keys that moves, and the largest movements between two peers.
fn print_movement(movement: &Value, output: &mut Output) -> CommandResult {
    let moved = movement.pointer("/moved/hashes").and_then(Value::as_u64);
    let estimated = if movement.get("exact") == Some(&Value::Bool(true)) {
        ""
    } else {
        " (estimated)"
    };
    let moved = percent(moved.unwrap_or(0));
    output.line(&format!("{moved} % of the keys move{estimated}"))?;
    let pairs = movement.get("pairs").and_then(Value::as_array);
    let pairs = pairs.map(Vec::as_slice).unwrap_or_default();
    for pair in pairs.iter().take(MAX_PRINTED_PAIRS) {
        let hashes = pair.get("hashes").and_then(Value::as_u64).unwrap_or(0);
        let (from, to) = (
            display_value(pair.get("from")),
            display_value(pair.get("to")),
        );
        output.line(&format!("  {} %  {from} -> {to}", percent(hashes)))?;
    }
    if let Some(more @ 1..) = pairs.len().checked_sub(MAX_PRINTED_PAIRS) {
        output.line(&format!(
            "  and {more} more pairs of peers; --json lists all"
        ))?;
    }
    Ok(())
}

/// The most pairs of peers that are printed.
const MAX_PRINTED_PAIRS: usize = 20;
