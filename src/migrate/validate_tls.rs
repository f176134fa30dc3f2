//! Makes the TLS of a draft valid: file paths, and a name for each verified peer.

use rustls_pki_types::ServerName;

use super::draft::{ConfigDraft, ListenerDraft, PeerDraft, UpstreamDraft};
use super::notes::Notes;
use super::tls::{CertificateDraft, ClientAuthDraft, TlsOriginationDraft};
use crate::config;

const NOT_A_FILE: &str = "this is not a valid file path";

impl ConfigDraft {
    /// Removes values that `check` would refuse.
    pub(super) fn validate_tls(&mut self, notes: &Notes<'_>) {
        for listener in &mut self.listeners {
            validate_listener(listener, notes);
        }
        for upstream in &mut self.upstreams {
            validate_upstream(upstream, notes);
        }
    }
}

fn validate_listener(listener: &mut ListenerDraft, notes: &Notes<'_>) {
    let Some(tls) = &mut listener.tls else {
        return;
    };
    // A listener with TLS does not redirect.
    listener.https_redirect = None;
    let span = listener.span;
    let mut lost = Vec::new();
    tls.certificates.retain(|one| {
        let good = is_valid_certificate(one);
        if !good {
            lost.push(notes.gap(span, &format!("{}, {}", one.cert, one.key), NOT_A_FILE));
        }
        good
    });
    for one in &mut tls.certificates {
        one.ocsp = one.ocsp.take().filter(|path| config::is_file_path(path));
    }
    if let Some(clients) = tls
        .client_auth
        .take_if(|clients| !is_valid_client_auth(clients))
    {
        let what =
            "clients are not asked for certificates, since the CA or CRL is not a valid file path";
        lost.push(notes.wider_access(span, &clients.ca, what));
    }
    listener.comments.append(&mut lost);
}

fn is_valid_certificate(one: &CertificateDraft) -> bool {
    config::is_file_path(&one.cert) && config::is_file_path(&one.key)
}

fn is_valid_client_auth(clients: &ClientAuthDraft) -> bool {
    config::is_file_path(&clients.ca) && clients.crl.as_deref().is_none_or(config::is_file_path)
}

fn validate_upstream(upstream: &mut UpstreamDraft, notes: &Notes<'_>) {
    let span = upstream.peers.first().map(|peer| peer.span);
    let span = span.unwrap_or_default();
    let Some(tls) = &mut upstream.tls else {
        upstream.protocol = upstream.protocol.map(|_| "h2c");
        return;
    };
    upstream.protocol = upstream
        .protocol
        .map(|protocol| if protocol == "h2c" { "h2" } else { protocol });
    let lost = [
        tls.ca.take_if(|path| !config::is_file_path(path)),
        tls.client_certificate
            .take_if(|(cert, key)| !config::is_file_path(cert) || !config::is_file_path(key))
            .map(|(cert, _)| cert),
    ];
    for path in lost.into_iter().flatten() {
        upstream.comments.push(notes.gap(span, &path, NOT_A_FILE));
    }
    for peer in &mut upstream.peers {
        set_server_name(peer, tls, notes);
    }
}

/// Gives a verified peer a name: its address if the old system verifies none.
fn set_server_name(peer: &mut PeerDraft, tls: &TlsOriginationDraft, notes: &Notes<'_>) {
    const BY_ADDRESS: &str = "no name to verify is given; the peer's address is written as `server_name`; replace it with the certificate's name";
    const LOCALHOST: &str = "no name to verify is given; `localhost` is written as `server_name`; replace it with the certificate's name";
    if peer.server_name.is_some() || tls.server_name.is_some() || !tls.verify {
        return;
    }
    let address = peer.address.rsplit_once(':');
    let host = address.map_or("", |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let (named, why) = match ServerName::try_from(host) {
        _ if peer.address.starts_with("unix:") => ("localhost", LOCALHOST),
        Ok(ServerName::DnsName(_)) => return,
        Ok(_) => (host, BY_ADDRESS),
        Err(_) => ("localhost", BY_ADDRESS),
    };
    peer.server_name = Some(named.to_owned());
    let subject = format!("TLS to {}", peer.address);
    peer.comments.push(notes.gap(peer.span, &subject, why));
}
