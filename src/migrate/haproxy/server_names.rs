//! The names that the certificates of servers must match, and the `Host` of their probes.

use std::net::IpAddr;

use super::backend_draft::{BackendDraft, BackendServer, SniSource};
use crate::config;
use crate::migrate::draft::{HealthDraft, UpstreamDraft};
use crate::migrate::notes::Notes;
use crate::migrate::source::SourceSpan;
use crate::migrate::tls::{TlsOriginationDraft, is_verifiable_name};

const NAME_VERIFIED_HERE: &str = "HAProxy does not check the name in a certificate; Clockwise checks the host of the server's address, or `server_name`";
const NO_NAME_TO_VERIFY: &str = "HAProxy does not check the name in a certificate; Clockwise does, and the server's address is written as `server_name`; replace it with the certificate's name";
const PROBE_WITHOUT_NAME: &str = "with `server_name: host`, an HTTP probe has no name to verify; a TCP probe is written, give `health` a path and a `host`";
const PROBE_HOST: &str = "a probe sends this name as SNI and as `Host`";

/// Sets the SNI names: that of the upstream if all servers have one name, else those of the peers.
pub(super) fn set_server_names(
    upstream: &mut UpstreamDraft,
    servers: &mut [BackendServer],
    notes: &Notes<'_>,
) {
    let Some(tls) = &mut upstream.tls else { return };
    let mut used = servers.iter().filter(|server| server.used);
    let first = used.next().map(|server| server.sni.clone());
    if let Some(SniSource::Fixed(name)) = first.as_ref()
        && used.all(|server| Some(&server.sni) == first.as_ref())
    {
        tls.server_name = Some(name.clone());
        return;
    }
    let client = servers
        .iter()
        .any(|server| server.used && server.sni == SniSource::ClientHost);
    tls.server_name = client.then(|| "host".to_owned());
    let mut note = None;
    for server in servers.iter_mut().filter(|server| server.used) {
        let (host, ip) = split_host(&server.peer.address);
        if server.sni == SniSource::Address && tls.verify {
            // One note is enough; a server with an IP address has no name at all and comes first.
            note = note.filter(|(other, _)| *other || !ip).or_else(|| {
                let (span, subject) = (server.peer.span, &server.peer.address);
                Some((ip, (span, subject.clone())))
            });
        }
        server.peer.server_name = match &server.sni {
            SniSource::Fixed(name) => Some(name.clone()),
            SniSource::Address if (client || (tls.verify && ip)) && is_verifiable_name(&host) => {
                Some(host)
            }
            SniSource::ClientHost | SniSource::Address => None,
        };
    }
    upstream.comments.extend(note.map(|(ip, (span, subject))| {
        if ip {
            notes.gap(span, &subject, NO_NAME_TO_VERIFY)
        } else {
            notes.remark(span, &subject, NAME_VERIFIED_HERE)
        }
    }));
}

/// The host of an address, and whether it is an IP address. A Unix socket has none.
fn split_host(address: &str) -> (String, bool) {
    if address.starts_with("unix:") {
        return (String::new(), false);
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (host.to_owned(), host.parse::<IpAddr>().is_ok())
}

/// Gives an HTTP probe over TLS the name of `check-sni` if the SNI name is the client's `Host`.
pub(super) fn set_probe_host(
    health: &mut HealthDraft,
    span: SourceSpan,
    backend: &mut BackendDraft,
    notes: &Notes<'_>,
) {
    let name = backend.check_sni.take();
    let upstream = &mut backend.upstream;
    let client = |tls: &TlsOriginationDraft| tls.server_name.as_deref() == Some("host");
    let HealthDraft::On(probe) = health else {
        return;
    };
    if probe.http.is_none() || probe.host.is_some() || !upstream.tls.as_ref().is_some_and(client) {
        return;
    }
    let text = "option httpchk";
    probe.host = name.filter(|name| config::is_host(name));
    let comment = if probe.host.is_some() {
        notes.remark(span, text, PROBE_HOST)
    } else {
        probe.http = None;
        notes.gap(span, text, PROBE_WITHOUT_NAME)
    };
    upstream.comments.push(comment);
}
