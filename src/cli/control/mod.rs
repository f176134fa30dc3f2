//! Commands to the running instance: `status`, `reload`, `upgrade`, `drain`, `enable`, `accept`, `peers`, `certificate`.

mod client;
mod peer_process;
mod peers;
mod reload;
mod status;

use clap::{Args, Subcommand};
use serde_json::Value;

pub(super) use self::client::{InstanceArgs, status_at};
use self::client::{display_value, percent_encode};
pub(super) use self::peers::{PeersCommand, peers};
pub(super) use self::reload::{ReloadArgs, reload};
pub(super) use self::status::status;
use self::status::{certificate_status, source_status};
use super::error::CommandResult;
use super::output::Output;
use crate::predict::percent;

/// A peer of the running instance.
#[derive(Args, Debug)]
pub(super) struct PeerArgs {
    /// The name of the upstream
    upstream: String,
    /// The label of the peer
    label: String,
    #[command(flatten)]
    instance: InstanceArgs,
    /// Prints the response as JSON
    #[arg(long)]
    json: bool,
}

/// An upstream of the running instance, of which lists of peers are held.
#[derive(Args, Debug)]
pub(super) struct AcceptArgs {
    /// The name of the upstream
    upstream: String,
    #[command(flatten)]
    instance: InstanceArgs,
    /// Prints the response as JSON
    #[arg(long)]
    json: bool,
}

/// The options of a drain.
#[derive(Args, Debug)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    peer: PeerArgs,
    #[arg(
        long,
        help = "Drains the peer even if no other peer of the upstream takes keys: requests then get 503"
    )]
    force: bool,
}

/// The options of an upgrade of the running instance.
#[derive(Args, Debug)]
pub(super) struct UpgradeArgs {
    #[arg(long, help = "Upgrades even if more keys move than max_moved allows")]
    force: bool,
    #[command(flatten)]
    instance: InstanceArgs,
    /// Prints the response as JSON
    #[arg(long)]
    json: bool,
}

/// What to do with a certificate of the running instance.
#[derive(Debug, Subcommand)]
pub(super) enum CertificateCommand {
    /// Orders a new certificate now; the old one is used until the new one arrives
    Renew(CertificateArgs),
    /// Orders a new certificate, then revokes the old one
    Revoke(CertificateArgs),
}

/// A certificate that the running instance obtains by ACME.
#[derive(Args, Debug)]
pub(super) struct CertificateArgs {
    /// The first host name of the certificate
    name: String,
    #[command(flatten)]
    instance: InstanceArgs,
    /// Prints the response as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn drain(drain: &DrainArgs, output: &mut Output) -> CommandResult {
    let query = if drain.force { "?force" } else { "" };
    set_peer(&drain.peer, &format!("drain{query}"), output)
}

pub(super) fn enable(peer: &PeerArgs, output: &mut Output) -> CommandResult {
    set_peer(peer, "enable", output)
}

pub(super) fn accept(accept: &AcceptArgs, output: &mut Output) -> CommandResult {
    let path = format!("/v1/upstreams/{}/accept", percent_encode(&accept.upstream));
    let answer = accept.instance.request("POST", &path)?;
    if accept.json {
        output.line(&answer.to_string())?;
        return output.flush();
    }
    let sources = answer.get("sources").and_then(Value::as_array);
    for source in sources.into_iter().flatten() {
        output.line(&format!("{} {}", accept.upstream, source_status(source)))?;
    }
    output.flush()
}

/// `action`: the last segment of the path in the admin API, and its query.
fn set_peer(peer: &PeerArgs, action: &str, output: &mut Output) -> CommandResult {
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
        let moved = moved_keys(&answer)
            .map(|moved| format!("{moved}, "))
            .unwrap_or_default();
        output.line(&format!(
            "{} {}: {state}, {moved}{in_flight} requests in flight",
            peer.upstream, peer.label
        ))?;
    }
    output.flush()
}

/// The share of the keys that a drain has moved; `None`: the command was no drain.
fn moved_keys(answer: &Value) -> Option<String> {
    let moved = percent(answer.get("moved_hashes")?.as_u64()?);
    Some(match answer.get("available_peers")?.as_u64()? {
        0 => format!("{moved} % of the keys have no peer now"),
        _ => format!("{moved} % of the keys move"),
    })
}

pub(super) fn upgrade(upgrade: &UpgradeArgs, output: &mut Output) -> CommandResult {
    let options = [("force", upgrade.force)];
    let answer = upgrade
        .instance
        .request_with_config("/v1/upgrade", &options)?;
    if upgrade.json {
        output.line(&answer.to_string())?;
    } else {
        output.line(&format!(
            "process {} serves {}; the old process drains its connections",
            display_value(answer.get("pid")),
            display_value(answer.get("config"))
        ))?;
    }
    output.flush()
}

pub(super) fn certificate(command: &CertificateCommand, output: &mut Output) -> CommandResult {
    let (certificate, action) = match command {
        CertificateCommand::Renew(certificate) => (certificate, "renew"),
        CertificateCommand::Revoke(certificate) => (certificate, "revoke"),
    };
    let path = format!(
        "/v1/certificates/{}/{action}",
        percent_encode(&certificate.name)
    );
    let answer = certificate.instance.request("POST", &path)?;
    if certificate.json {
        output.line(&answer.to_string())?;
    } else {
        output.line(&certificate_status(&answer))?;
    }
    output.flush()
}
