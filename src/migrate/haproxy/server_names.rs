//! The names that servers must prove in TLS, and the `Host` of their probes.

use std::net::IpAddr;

use super::backend_draft::{BackendDraft, BackendServer, SniSource};
use crate::config;
use crate::migrate::draft::{HealthDraft, UpstreamDraft};
use crate::migrate::notes::Notes;
use crate::migrate::source::SourceSpan;
use crate::migrate::tls::{TlsOriginationDraft, is_verifiable_name};

const NAME_VERIFIED_HERE: &str = "HAProxy looks at who issued a certificate and at no name in it; here a server must prove one, that in its address unless `server_name` says another";
const NO_NAME_TO_VERIFY: &str = "HAProxy looks at who issued a certificate and at no name in it; here a server must prove one: its address is written, give the name that its certificate is for";
const PROBE_WITHOUT_NAME: &str = "with `server_name: host` a probe has no name that a server could prove; they are only connected to: give `health` a path and a `host`";
const PROBE_HOST: &str = "a probe asks for this name, and says it as `Host`";

/// Says the names that the servers must prove: once where it is one.
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
    let mut told = None;
    for server in servers.iter_mut().filter(|server| server.used) {
        let (host, ip) = split_host(&server.peer.address);
        if server.sni == SniSource::Address && tls.verify {
            // One of many is enough; it is worse where there is no name at all.
            told = told.filter(|(other, _)| *other || !ip).or_else(|| {
                let (place, shown) = (server.peer.span, &server.peer.address);
                Some((ip, (place, shown.clone())))
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
    upstream.comments.extend(told.map(|(ip, (place, shown))| {
        if ip {
            notes.gap(place, &shown, NO_NAME_TO_VERIFY)
        } else {
            notes.remark(place, &shown, NAME_VERIFIED_HERE)
        }
    }));
}

/// The host of an address, and whether it is an IP address.
fn split_host(address: &str) -> (String, bool) {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (host.to_owned(), host.parse::<IpAddr>().is_ok())
}

/// A probe that speaks TLS has a name to ask for.
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
