//! What is written of TLS must be something that our configuration takes: files that can be files, and a name for
//! each peer that is verified.

use rustls_pki_types::ServerName;

use super::model::{Listener, Peer, Setup, Upstream};
use super::notes::Notes;
use super::tls::{Beginning, Certificate, Clients};
use crate::config;

const NO_FILE: &str = "this is not the path of a file";

impl Setup {
    /// Takes out what our configuration would refuse.
    pub(super) fn check_tls(&mut self, notes: &Notes<'_>) {
        for listener in &mut self.listeners {
            check_listener(listener, notes);
        }
        for upstream in &mut self.upstreams {
            check_upstream(upstream, notes);
        }
    }
}

fn check_listener(listener: &mut Listener, notes: &Notes<'_>) {
    let Some(tls) = &mut listener.tls else {
        return;
    };
    // What is said here by TLS needs no other way.
    listener.redirect = None;
    let place = listener.place;
    let mut lost = Vec::new();
    tls.certificates.retain(|one| {
        let good = is_certificate(one);
        if !good {
            lost.push(notes.gap(place, &format!("{}, {}", one.cert, one.key), NO_FILE));
        }
        good
    });
    for one in &mut tls.certificates {
        one.ocsp = one.ocsp.take().filter(|path| config::is_file_path(path));
    }
    if let Some(clients) = tls.clients.take_if(|clients| !is_asked(clients)) {
        let what =
            "clients are not asked for certificates: whose to believe is not the path of a file";
        lost.push(notes.widened(place, &clients.ca, what));
    }
    listener.comments.append(&mut lost);
}

fn is_certificate(one: &Certificate) -> bool {
    config::is_file_path(&one.cert) && config::is_file_path(&one.key)
}

fn is_asked(clients: &Clients) -> bool {
    config::is_file_path(&clients.ca) && clients.crl.as_deref().is_none_or(config::is_file_path)
}

fn check_upstream(upstream: &mut Upstream, notes: &Notes<'_>) {
    let place = upstream.peers.first().map(|peer| peer.place);
    let place = place.unwrap_or_default();
    let Some(tls) = &mut upstream.tls else {
        upstream.protocol = upstream.protocol.map(|_| "h2c");
        return;
    };
    upstream.protocol = upstream
        .protocol
        .map(|said| if said == "h2c" { "h2" } else { said });
    let bad = |path: &String| !config::is_file_path(path);
    let shown = |shown: &(String, String)| {
        !config::is_file_path(&shown.0) || !config::is_file_path(&shown.1)
    };
    let lost = [
        tls.ca.take_if(|path| bad(path)),
        tls.shown
            .take_if(|files| shown(files))
            .map(|(cert, _)| cert),
    ];
    for path in lost.into_iter().flatten() {
        upstream.comments.push(notes.gap(place, &path, NO_FILE));
    }
    for peer in &mut upstream.peers {
        name(peer, tls, notes);
    }
}

/// A peer that is verified is verified by name: where the old system asks for none, by its address.
fn name(peer: &mut Peer, tls: &Beginning, notes: &Notes<'_>) {
    const BY_ADDRESS: &str = "by which name it is verified is not said, so here it is by its address; write `server_name`";
    if peer.server_name.is_some() || tls.server_name.is_some() || !tls.verify {
        return;
    }
    let host = peer.address.rsplit_once(':').map_or("", |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let named = match ServerName::try_from(host) {
        Ok(ServerName::DnsName(_)) => return,
        Ok(_) => host,
        Err(_) => "localhost",
    };
    peer.server_name = Some(named.to_owned());
    let subject = format!("TLS to {}", peer.address);
    peer.comments
        .push(notes.gap(peer.place, &subject, BY_ADDRESS));
}
