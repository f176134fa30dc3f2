//! `clockwise status`

use std::fmt::{Display, Write as _};

use serde_json::Value;

use super::client::{InstanceArgs, display_value};
use crate::cli::error::CommandResult;
use crate::cli::output::Output;

pub(in crate::cli) fn status(
    instance: &InstanceArgs,
    json: bool,
    output: &mut Output,
) -> CommandResult {
    let status = instance.request("GET", "/v1/status")?;
    if json {
        output.line(&status.to_string())?;
        return output.flush();
    }
    for field in [
        "version",
        "pid",
        "stage",
        "started",
        "uptime_seconds",
        "generation",
        "config",
        "connections",
    ] {
        print_row(field, display_value(status.get(field)), output)?;
    }
    let listeners = status.get("listeners").and_then(Value::as_array);
    for listener in listeners.into_iter().flatten() {
        print_row("listener", display_value(listener.get("bound")), output)?;
    }
    print_certificates(status.get("certificates").unwrap_or(&Value::Null), output)?;
    if let Some(predecessor) = status.get("predecessor").filter(|value| !value.is_null()) {
        let field = |name: &str| display_value(predecessor.get(name));
        let (pid, connections) = (field("pid"), field("connections"));
        let line = format!("process {pid} drains {connections} connections");
        print_row("predecessor", line, output)?;
    }
    print_row("admin", display_value(status.get("admin")), output)?;
    let upstreams = status.get("upstreams").and_then(Value::as_object);
    for (name, upstream) in upstreams.into_iter().flatten() {
        print_upstream(name, upstream, output)?;
    }
    output.flush()
}

fn print_row(name: &str, value: impl Display, output: &mut Output) -> CommandResult {
    output.line(&format!("{name:<16}{value}"))
}

/// Prints an upstream, and a line for each peer that serves only some of its keys, or none.
fn print_upstream(name: &str, upstream: &Value, output: &mut Output) -> CommandResult {
    let field = |name: &str| display_value(upstream.get(name));
    let line = format!(
        "{name}: {} of {} peers available, {} requests in flight",
        field("available"),
        field("peers"),
        field("in_flight"),
    );
    print_row("upstream", line, output)?;
    if upstream.pointer("/tls/verify") == Some(&Value::Bool(false)) {
        let line = format!("{name}: the certificates of its peers are not verified");
        print_row("warning", line, output)?;
    }
    let sources = upstream.get("sources").and_then(Value::as_array);
    for source in sources.into_iter().flatten() {
        print_row(
            "source",
            format!("{name} {}", source_status(source)),
            output,
        )?;
        if source.pointer("/held/reason").is_some() {
            let line =
                format!("{name}: to accept the list that is held, run `clockwise accept {name}`");
            print_row("warning", line, output)?;
        }
    }
    let changes = upstream.get("changes").and_then(Value::as_array);
    for change in changes.into_iter().flatten() {
        print_row("change", format!("{name} {}", peer_change(change)), output)?;
    }
    let peers = upstream
        .get("peers_without_all_keys")
        .and_then(Value::as_array);
    for peer in peers.into_iter().flatten() {
        print_row("peer", format!("{name} {}", peer_status(peer)), output)?;
    }
    Ok(())
}

/// Prints a line for each ACME certificate, the number of all certificates with the earliest expiry, and a line for each
/// warning.
fn print_certificates(certificates: &Value, output: &mut Output) -> CommandResult {
    let ordered = certificates.get("ordered").and_then(Value::as_array);
    for certificate in ordered.into_iter().flatten() {
        print_row("acme", certificate_status(certificate), output)?;
    }
    let count = certificates.get("count").and_then(Value::as_u64);
    let Some(count @ 1..) = count else {
        return Ok(());
    };
    let first_expiry = display_value(certificates.get("first_expiry"));
    let line = format!("{count}, the first expires at {first_expiry}");
    print_row("certificates", line, output)?;
    let warnings = certificates.get("warnings").and_then(Value::as_array);
    for warning in warnings.into_iter().flatten() {
        let field = |name: &str| display_value(warning.get(name));
        let (file, text, help) = (field("file"), field("warning"), field("help"));
        print_row("warning", format!("{file}: {text}; {help}"), output)?;
    }
    Ok(())
}

/// Describes an ACME certificate in one line.
pub(super) fn certificate_status(certificate: &Value) -> String {
    let field = |path: &str| display_value(certificate.pointer(path));
    let is_true = |name: &str| certificate.get(name) == Some(&Value::Bool(true));
    let mut line = match certificate.get("valid_until") {
        None | Some(Value::Null) => format!("{}: no certificate yet", field("/name")),
        Some(until) => format!(
            "{}: issuer {}, valid until {}, next order at {}",
            field("/name"),
            field("/issuer"),
            display_value(Some(until)),
            field("/next_order")
        ),
    };
    if is_true("ordered_elsewhere") {
        line += ", ordered by another process";
    }
    if certificate
        .get("error")
        .is_some_and(|error| !error.is_null())
    {
        let (at, text) = (field("/error/at"), field("/error/text"));
        let _ = write!(line, "; the last order failed at {at}: {text}");
    }
    line
}

/// Describes a source of peers in one line.
pub(super) fn source_status(source: &Value) -> String {
    let field = |path: &str| source.pointer(path).filter(|value| !value.is_null());
    let (text, peers) = (
        display_value(field("/source")),
        display_value(field("/peers")),
    );
    let mut line = format!("{text}: {peers} peers");
    for (path, words) in [("/leaving", "leaving"), ("/left_out", "left out")] {
        let labels = field(path).and_then(Value::as_array);
        let labels: Vec<_> = labels
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if !labels.is_empty() {
            let _ = write!(line, ", {words}: {}", labels.join(" "));
        }
    }
    if let Some(error) = field("/error") {
        let _ = write!(line, "; {}", display_value(Some(error)));
    }
    if let Some(reason) = field("/held/reason") {
        let _ = write!(line, "; a list is held: {}", display_value(Some(reason)));
    }
    line
}

/// Describes an operator's change of a peer in one line.
pub(super) fn peer_change(change: &Value) -> String {
    let field = |path: &str| change.pointer(path).filter(|value| !value.is_null());
    let text = |path: &str| display_value(field(path));
    let peer = match field("/change").and_then(Value::as_str) {
        Some("set") => {
            let id = field("/id").map(|id| format!(", id {}", display_value(Some(id))));
            let id = id.unwrap_or_default();
            format!("{}, weight {}{id}", text("/address"), text("/weight"))
        }
        Some("weight") => format!("weight {}", text("/weight")),
        _ => "removed".to_owned(),
    };
    let (label, since) = (text("/label"), text("/since"));
    let mut line = format!("{label}: {peer}, by an operator since {since}");
    if field("/listed").is_some() {
        let (address, weight) = (text("/listed/address"), text("/listed/weight"));
        let source = field("/listed/source").map(|source| display_value(Some(source)));
        let source = source.unwrap_or_else(|| "the configuration".to_owned());
        let _ = write!(line, "; {source} has {address}, weight {weight}");
    }
    if let Some(reason) = field("/without_effect") {
        let _ = write!(line, "; without effect: {}", display_value(Some(reason)));
    }
    line
}

/// Why a peer serves only some of its keys or none, and for how long.
fn peer_status(peer: &Value) -> String {
    let field = |path: &str| peer.pointer(path).filter(|value| !value.is_null());
    let number = |path: &str| field(path).and_then(Value::as_f64);
    let is_drained = field("/drained") == Some(&Value::Bool(true));
    let state = if is_drained {
        "drained".to_owned()
    } else {
        display_value(field("/state"))
    };
    let mut line = format!("{}: {state}", display_value(field("/label")));
    for cause in ["ejected", "suppressed"] {
        let Some(seconds) = number(&format!("/{cause}_for_seconds")) else {
            continue;
        };
        // The line begins with the state: the same word is not written twice.
        if state != cause {
            let _ = write!(line, ", {cause}");
        }
        let _ = write!(line, " for {seconds:.0} s");
    }
    if let (Some(share), Some(seconds)) = (
        number("/slow_start/share"),
        number("/slow_start/seconds_left"),
    ) {
        let _ = write!(
            line,
            ", serves {:.0} % of its keys, all in {seconds:.0} s",
            share * 100.0
        );
    }
    let keys = field("/drain/keys").filter(|_| !is_drained);
    let keys = keys.and_then(Value::as_u64);
    if let (Some(keys), Some(seconds)) = (keys, number("/drain/seconds_left")) {
        let noun = if keys == 1 { "key" } else { "keys" };
        let _ = write!(line, ", serves {keys} {noun} for up to {seconds:.0} s");
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn status_line_of_a_source_shows_what_needs_an_operator() {
        let source = json!({"source": "file:p.yaml", "peers": 3, "leaving": ["a", "b"], "left_out": [],
            "error": null, "held": {"peers": 0, "reason": "it is empty, and 3 peers are in force"}});
        assert_eq!(
            source_status(&source),
            "file:p.yaml: 3 peers, leaving: a b; a list is held: it is empty, and 3 peers are in force"
        );
        let source = json!({"source": "file:p.yaml", "peers": 0, "leaving": [], "left_out": ["c"],
            "error": "no such file", "held": null});
        assert_eq!(
            source_status(&source),
            "file:p.yaml: 0 peers, left out: c; no such file"
        );
    }

    #[test]
    fn status_line_of_a_change_shows_what_it_hides_and_whether_it_has_an_effect() {
        let listed = json!({"address": "10.0.0.1:80", "weight": 1, "source": null});
        for (change, expected) in [
            (
                json!({"label": "a", "change": "set", "since": "T", "address": "10.0.0.9:80", "weight": 2, "id": "7", "listed": listed}),
                "a: 10.0.0.9:80, weight 2, id 7, by an operator since T; the configuration has 10.0.0.1:80, weight 1",
            ),
            (
                json!({"label": "a", "change": "weight", "since": "T", "weight": 2, "listed": {"address": "x", "weight": 1, "source": "file:p"}}),
                "a: weight 2, by an operator since T; file:p has x, weight 1",
            ),
            (
                json!({"label": "a", "change": "remove", "since": "T", "listed": null, "without_effect": "no peer"}),
                "a: removed, by an operator since T; without effect: no peer",
            ),
        ] {
            assert_eq!(peer_change(&change), expected);
        }
    }

    #[test]
    fn status_line_of_a_peer_shows_remaining_time_per_cause() {
        for (peer, expected) in [
            (
                json!({"label": "a", "state": "ejected", "ejected_for_seconds": 8.2, "suppressed_for_seconds": 792}),
                "a: ejected for 8 s, suppressed for 792 s",
            ),
            (
                json!({"label": "a", "state": "draining", "drain": {"keys": 1, "seconds_left": 60}}),
                "a: draining, serves 1 key for up to 60 s",
            ),
            (
                json!({"label": "a", "state": "draining", "drained": true, "drain": {"keys": 0, "seconds_left": 60}}),
                "a: drained",
            ),
        ] {
            assert_eq!(peer_status(&peer), expected);
        }
    }
}
