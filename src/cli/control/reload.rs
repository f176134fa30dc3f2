//! `clockwise reload`

use clap::Args;
use serde_json::Value;

use super::client::{InstanceArgs, display_value};
use crate::cli::error::CommandResult;
use crate::cli::output::Output;
use crate::predict::percent;

/// A reload of the running instance, from the file that it runs.
#[derive(Args, Debug)]
pub(in crate::cli) struct ReloadArgs {
    /// Only shows what would change
    #[arg(long)]
    dry_run: bool,
    #[arg(long, help = "Reloads even if more keys move than max_moved allows")]
    force: bool,
    #[command(flatten)]
    instance: InstanceArgs,
    /// Prints the response as JSON
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn reload(reload: &ReloadArgs, output: &mut Output) -> CommandResult {
    let options = [("dry_run", reload.dry_run), ("force", reload.force)];
    let answer = reload
        .instance
        .request_with_config("/v1/reload", &options)?;
    if reload.json {
        output.line(&answer.to_string())?;
        return output.flush();
    }
    print_plan(answer.get("plan").unwrap_or(&Value::Null), output)?;
    let warnings = answer.get("lookup_warnings").and_then(Value::as_array);
    for warning in warnings.into_iter().flatten() {
        output.line(&format!("warning: {}", display_value(Some(warning))))?;
    }
    let config = display_value(answer.get("config"));
    if reload.dry_run {
        output.line(&format!("dry run of {config}: nothing was changed"))?;
    } else {
        output.line(&format!(
            "generation {} is in force, from {config}",
            display_value(answer.get("generation"))
        ))?;
    }
    output.flush()
}

/// Prints what a reload changes, one change per line.
fn print_plan(plan: &Value, output: &mut Output) -> CommandResult {
    for kind in ["listeners", "routes"] {
        print_changes(kind.trim_end_matches('s'), plan.get(kind), output)?;
    }
    for (name, upstream) in plan
        .get("upstreams")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let moved = upstream.get("moved_hashes").and_then(Value::as_u64);
        let moved = percent(moved.unwrap_or(0));
        output.line(&format!(
            "upstream {name}: {}, {moved} % of its keys move",
            display_value(upstream.get("change"))
        ))?;
        print_changes("  peer", upstream.get("peers"), output)?;
    }
    let needs_upgrade = plan
        .get("needs_upgrade")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    for key in needs_upgrade {
        output.line(&format!(
            "the change of {} takes effect only after an upgrade",
            display_value(Some(key))
        ))?;
    }
    Ok(())
}

fn print_changes(kind: &str, changes: Option<&Value>, output: &mut Output) -> CommandResult {
    for (change, names) in changes.and_then(Value::as_object).into_iter().flatten() {
        for name in names.as_array().into_iter().flatten() {
            output.line(&format!("{kind} {}: {change}", display_value(Some(name))))?;
        }
    }
    Ok(())
}
