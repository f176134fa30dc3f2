//! Filter chains: for whom they are, and what those of one listener cannot all have here.

use super::ending::Terms;
use super::fields::{Element, Fields};
use super::listener::host;
use super::tls::Socket;
use crate::migrate::model::Listener;
use crate::migrate::notes::Notes;
use crate::route::HostPattern;

const ASKED: &str =
    "a certificate is chosen by the names that it is for, and a route by the host of the request";
const PLAIN: &str = "a listener speaks TLS with all its clients or with none; give what is plain an address of its own";

/// What holds for the routes of one filter chain.
#[derive(Default)]
pub(super) struct Chain {
    /// Whom clients ask for; none: anybody.
    pub(super) names: Vec<HostPattern>,
    pub(super) terms: Terms,
    /// All that its listener does is to send requests to HTTPS.
    pub(super) redirects: bool,
}

/// The names that clients of a filter chain ask for.
pub(super) fn names(
    fields: &Fields<'_>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Vec<HostPattern> {
    let Some(matched) = fields.map("filter_chain_match") else {
        return Vec::new();
    };
    matched.leave(&["transport_protocol", "application_protocols"]);
    let mut names = Vec::new();
    for name in matched.list("server_names") {
        match HostPattern::parse(name.text()) {
            Ok(pattern) if names.contains(&pattern) => {}
            Ok(pattern) => names.push(pattern),
            Err(_) => {
                let why = "hosts are names or `*.name`; list the names";
                comments.push(notes.gap(name.place(), name.text(), why));
            }
        }
    }
    if let Some(said) = matched.get("server_names") {
        comments.push(notes.remark(said.place(), "server_names", ASKED));
    }
    matched.tell_rest(comments, notes);
    names
}

/// Which hosts the domain `*` is: those that clients ask for and no other virtual host has, if any.
pub(super) fn narrow(hosts: &[Element<'_>], names: &[HostPattern]) -> Vec<HostPattern> {
    let domains = hosts
        .iter()
        .flat_map(|host| Fields::of(*host).list("domains"));
    let taken: Vec<_> = domains.filter_map(|domain| host(domain.text())).collect();
    let left = names.iter().filter(|name| !taken.contains(name));
    let left: Vec<_> = left.cloned().collect();
    if left.is_empty() {
        vec![HostPattern::Any]
    } else {
        left
    }
}

/// Tells of the filter chains without TLS of a listener that has some with it.
pub(super) fn tell_plain(chains: &[Element<'_>], listener: &mut Listener, notes: &Notes<'_>) {
    let plain = chains.iter().filter(|chain| {
        let socket = Fields::of(**chain).map("transport_socket").map(Socket::of);
        matches!(socket, None | Some(Socket::Plain))
    });
    for chain in plain.filter(|_| listener.tls.is_some()) {
        let comment = notes.gap(chain.place(), "filter_chains", PLAIN);
        listener.comments.push(comment);
    }
}
