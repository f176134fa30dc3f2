//! `clockwise status`, `drain`, `enable`: questions and orders to the running instance.
//!
//! The instance speaks HTTP on its control socket; one request per connection is all that is needed.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::output::Output;
use super::{CliError, CommandResult, ConfigArgs};
use crate::predict::percent;
use crate::{config, server};

/// An instance that answers a question at all does so at once.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// An upgrade takes as long as the new process does; the instance has the limit.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(3600);

/// How to reach the running instance.
#[derive(Args, Debug)]
pub(super) struct InstanceArgs {
    /// Its control socket
    #[arg(long, value_name = "SOCK", conflicts_with = "config")]
    control: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// A peer of the running instance.
#[derive(Args, Debug)]
pub(super) struct PeerArgs {
    /// The upstream
    upstream: String,
    /// The peer's label
    label: String,
    #[command(flatten)]
    instance: InstanceArgs,
    /// The answer as the instance gave it
    #[arg(long)]
    json: bool,
}

/// A reload of the running instance.
#[derive(Args, Debug)]
pub(super) struct ReloadArgs {
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    #[arg(long, help = "Even if more keys move than max_moved allows")]
    force: bool,
    #[command(flatten)]
    instance: InstanceArgs,
    /// The answer as the instance gave it
    #[arg(long)]
    json: bool,
}

/// An upgrade of the running instance.
#[derive(Args, Debug)]
pub(super) struct UpgradeArgs {
    #[arg(long, help = "Even if more keys move than max_moved allows")]
    force: bool,
    #[command(flatten)]
    instance: InstanceArgs,
    /// The answer as the instance gave it
    #[arg(long)]
    json: bool,
}

/// What can be done with a certificate of the running instance.
#[derive(Debug, Subcommand)]
pub(super) enum CertificateCommand {
    /// Orders it anew, now; the one before is shown until the new one is there
    Renew(CertificateArgs),
    /// Orders it anew, and has the one before revoked
    Revoke(CertificateArgs),
}

/// A certificate that the running instance orders.
#[derive(Args, Debug)]
pub(super) struct CertificateArgs {
    /// Its first name
    name: String,
    #[command(flatten)]
    instance: InstanceArgs,
    /// The answer as the instance gave it
    #[arg(long)]
    json: bool,
}

impl InstanceArgs {
    /// As told; else as the configuration says, where there is one; else the default.
    fn socket(&self) -> Result<PathBuf, CliError> {
        if let Some(control) = &self.control {
            return Ok(control.clone());
        }
        let file = self.config.path();
        if self.config.config.is_some() && !file.exists() {
            return Err(CliError::Input(format!(
                "there is no file `{}`",
                file.display()
            )));
        }
        let configured = config::control_socket(&file);
        Ok(configured.unwrap_or_else(server::default_control_path))
    }

    fn request(&self, method: &str, path: &str) -> Result<Value, CliError> {
        let socket = self.socket()?;
        let unreachable = |error: io::Error| {
            let socket = socket.display();
            CliError::Instance(format!(
                "no instance answers on `{socket}`: {error}; is it running, and is this its socket?"
            ))
        };
        let answer = exchange(&socket, method, path).map_err(unreachable)?;
        let (status, body) = parse_response(&answer)
            .ok_or_else(|| unreachable(io::ErrorKind::InvalidData.into()))?;
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let why = body
            .get("error")
            .and_then(Value::as_str)
            .unwrap_or("no reason given");
        match status {
            412 => Err(CliError::Limit(why.to_owned())),
            _ => Err(CliError::Instance(format!(
                "the instance refused ({status}): {why}"
            ))),
        }
    }
}

pub(super) fn status(instance: &InstanceArgs, json: bool, output: &mut Output) -> CommandResult {
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
        "connections",
    ] {
        output.line(&format!("{field:<16}{}", display_value(status.get(field))))?;
    }
    let listeners = status.get("listeners").and_then(Value::as_array);
    for listener in listeners.into_iter().flatten() {
        output.line(&format!(
            "{:<16}{}",
            "listener",
            display_value(listener.get("bound"))
        ))?;
    }
    print_certificates(status.get("certificates").unwrap_or(&Value::Null), output)?;
    if let Some(before) = status.get("predecessor").filter(|value| !value.is_null()) {
        let part = |field: &str| display_value(before.get(field));
        let (pid, connections) = (part("pid"), part("connections"));
        let label = "predecessor";
        output.line(&format!(
            "{label:<16}process {pid} drains {connections} connections"
        ))?;
    }
    output.line(&format!(
        "{:<16}{}",
        "admin",
        display_value(status.get("admin"))
    ))?;
    for (name, upstream) in status
        .get("upstreams")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let part = |field: &str| display_value(upstream.get(field));
        output.line(&format!(
            "{:<16}{name}: {} of {} peers available, {} requests in flight",
            "upstream",
            part("available"),
            part("peers"),
            part("in_flight"),
        ))?;
        if upstream.pointer("/tls/verify") == Some(&Value::Bool(false)) {
            let label = "warning";
            output.line(&format!(
                "{label:<16}{name}: the certificates of its peers are not verified"
            ))?;
        }
        let away = upstream.get("not_home").and_then(Value::as_array);
        for peer in away.into_iter().flatten() {
            output.line(&format!("{:<16}{name} {}", "peer", peer_status(peer)))?;
        }
    }
    output.flush()
}

/// When the first one expires, and a line for each that is ordered, or needs its operator.
fn print_certificates(certificates: &Value, output: &mut Output) -> CommandResult {
    let ordered_ones = certificates.get("ordered").and_then(Value::as_array);
    for one in ordered_ones.into_iter().flatten() {
        output.line(&format!("{:<16}{}", "ordered", certificate_status(one)))?;
    }
    let count = certificates.get("count").and_then(Value::as_u64);
    let Some(count @ 1..) = count else {
        return Ok(());
    };
    let label = "certificates";
    let first = display_value(certificates.get("first_expiry"));
    output.line(&format!("{label:<16}{count}, valid until {first}"))?;
    let concerns = certificates.get("concerns").and_then(Value::as_array);
    for concern in concerns.into_iter().flatten() {
        let part = |field: &str| display_value(concern.get(field));
        let (file, text, help) = (part("file"), part("concern"), part("help"));
        output.line(&format!("{:<16}{file}: {text}; {help}", "warning"))?;
    }
    Ok(())
}

/// How a certificate is that is ordered.
fn certificate_status(certificate: &Value) -> String {
    let part = |path: &str| display_value(certificate.pointer(path));
    let is = |field: &str| certificate.get(field) == Some(&Value::Bool(true));
    let mut line = match certificate.get("valid_until") {
        None | Some(Value::Null) => format!("{}: none yet", part("/name")),
        Some(until) => format!(
            "{}: by {}, valid until {}, renewed on {}",
            part("/name"),
            part("/issuer"),
            display_value(Some(until)),
            part("/next_order")
        ),
    };
    if is("ordered_elsewhere") {
        line += ", by another process";
    }
    if certificate
        .get("error")
        .is_some_and(|error| !error.is_null())
    {
        let (at, text) = (part("/error/at"), part("/error/text"));
        let _ = write!(line, "; failed on {at}: {text}");
    }
    line
}

/// Why a peer does not have all of its keys, and for how long.
fn peer_status(peer: &Value) -> String {
    let part = |path: &str| peer.pointer(path).filter(|value| !value.is_null());
    let number = |path: &str| part(path).and_then(Value::as_f64);
    let is_drained = part("/drained") == Some(&Value::Bool(true));
    let state = if is_drained {
        "drained".to_owned()
    } else {
        display_value(part("/state"))
    };
    let mut line = format!("{}: {state}", display_value(part("/label")));
    for cause in ["ejected", "suppressed"] {
        let Some(left) = number(&format!("/{cause}_for_seconds")) else {
            continue;
        };
        let cause = if state == cause { "" } else { cause };
        let comma = if cause.is_empty() { "" } else { ", " };
        let _ = write!(line, "{comma}{cause} for {left:.0} s");
    }
    if let (Some(share), Some(left)) = (
        number("/slow_start/share"),
        number("/slow_start/seconds_left"),
    ) {
        let _ = write!(
            line,
            ", {:.0} % of its keys are home, {left:.0} s left",
            share * 100.0
        );
    }
    let keys = part("/drain/keys").filter(|_| !is_drained);
    let keys = keys.and_then(Value::as_u64);
    if let (Some(keys), Some(left)) = (keys, number("/drain/seconds_left")) {
        let noun = if keys == 1 { "key" } else { "keys" };
        let _ = write!(line, ", keeps {keys} {noun}, {left:.0} s left");
    }
    line
}

pub(super) fn set_peer(peer: &PeerArgs, action: &str, output: &mut Output) -> CommandResult {
    let path = format!(
        "/v1/upstreams/{}/peers/{}/{action}",
        percent_encode(&peer.upstream),
        percent_encode(&peer.label)
    );
    let answer = peer.instance.request("POST", &path)?;
    if peer.json {
        output.line(&answer.to_string())?;
    } else {
        let state = display_value(answer.get("state"));
        let in_flight = display_value(answer.get("in_flight"));
        output.line(&format!(
            "{} {}: {state}, {in_flight} requests in flight",
            peer.upstream, peer.label
        ))?;
    }
    output.flush()
}

pub(super) fn reload(reload: &ReloadArgs, output: &mut Output) -> CommandResult {
    let asked = [("dry_run", reload.dry_run), ("force", reload.force)];
    let asked: Vec<_> = asked
        .iter()
        .filter(|(_, asked)| *asked)
        .map(|(word, _)| *word)
        .collect();
    let answer = reload
        .instance
        .request("POST", &format!("/v1/reload?{}", asked.join("&")))?;
    if reload.json {
        output.line(&answer.to_string())?;
        return output.flush();
    }
    print_plan(answer.get("plan").unwrap_or(&Value::Null), output)?;
    if reload.dry_run {
        output.line("nothing was changed")?;
    } else {
        output.line(&format!(
            "generation {} is in force",
            display_value(answer.get("generation"))
        ))?;
    }
    output.flush()
}

pub(super) fn upgrade(upgrade: &UpgradeArgs, output: &mut Output) -> CommandResult {
    let force = if upgrade.force { "?force" } else { "" };
    let answer = upgrade
        .instance
        .request("POST", &format!("/v1/upgrade{force}"))?;
    if upgrade.json {
        output.line(&answer.to_string())?;
    } else {
        output.line(&format!(
            "process {} serves; the old one drains",
            display_value(answer.get("pid"))
        ))?;
    }
    output.flush()
}

pub(super) fn certificate(wish: &CertificateCommand, output: &mut Output) -> CommandResult {
    let (wanted, action) = match wish {
        CertificateCommand::Renew(wanted) => (wanted, "renew"),
        CertificateCommand::Revoke(wanted) => (wanted, "revoke"),
    };
    let path = format!("/v1/certificates/{}/{action}", percent_encode(&wanted.name));
    let answer = wanted.instance.request("POST", &path)?;
    if wanted.json {
        output.line(&answer.to_string())?;
    } else {
        output.line(&certificate_status(&answer))?;
    }
    output.flush()
}

/// What a reload changes, a line each.
fn print_plan(plan: &Value, output: &mut Output) -> CommandResult {
    for what in ["listeners", "routes"] {
        print_changes(what.trim_end_matches('s'), plan.get(what), output)?;
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
    let later = plan
        .get("needs_upgrade")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    for key in later {
        output.line(&format!(
            "{} takes effect with the next upgrade",
            display_value(Some(key))
        ))?;
    }
    Ok(())
}

fn print_changes(what: &str, changes: Option<&Value>, output: &mut Output) -> CommandResult {
    for (kind, names) in changes.and_then(Value::as_object).into_iter().flatten() {
        for name in names.as_array().into_iter().flatten() {
            output.line(&format!("{what} {}: {kind}", display_value(Some(name))))?;
        }
    }
    Ok(())
}

fn exchange(socket: &Path, method: &str, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    let limit = if method == "POST" {
        COMMAND_TIMEOUT
    } else {
        QUERY_TIMEOUT
    };
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(QUERY_TIMEOUT))?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// The status and the body; the instance always sends its answers whole.
fn parse_response(answer: &[u8]) -> Option<(u16, &[u8])> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(header) = response.parse(answer).ok()? else {
        return None;
    };
    Some((response.code?, answer.get(header..)?))
}

fn display_value(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// As one segment of a path (RFC 3986, 2.3).
fn percent_encode(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte| {
        if is_plain(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(encode).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn status_line_of_a_peer_shows_remaining_time_per_cause() {
        for (peer, expected) in [
            (
                json!({"label": "a", "state": "ejected", "ejected_for_seconds": 8.2, "suppressed_for_seconds": 792}),
                "a: ejected for 8 s, suppressed for 792 s",
            ),
            (
                json!({"label": "a", "state": "draining", "drain": {"keys": 1, "seconds_left": 60}}),
                "a: draining, keeps 1 key, 60 s left",
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
