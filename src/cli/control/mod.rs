//! Commands to the running instance: `status`, `reload`, `upgrade`, `drain`, `enable`, `certificate`.

mod client;
mod peer_process;
mod reload;
mod status;

use clap::{Args, Subcommand};

pub(super) use self::client::{InstanceArgs, status_at};
use self::client::{display_value, percent_encode};
pub(super) use self::reload::{ReloadArgs, reload};
use self::status::certificate_status;
pub(super) use self::status::status;
use super::error::CommandResult;
use super::output::Output;

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

/// Drains or enables a peer; `action` is `drain` or `enable`, the last segment of the path in the admin API.
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

pub(super) fn upgrade(upgrade: &UpgradeArgs, output: &mut Output) -> CommandResult {
    let force = if upgrade.force { "?force" } else { "" };
    let answer = upgrade
        .instance
        .request("POST", &format!("/v1/upgrade{force}"))?;
    if upgrade.json {
        output.line(&answer.to_string())?;
    } else {
        output.line(&format!(
            "process {} serves; the old process drains its connections",
            display_value(answer.get("pid"))
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
