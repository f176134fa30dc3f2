//! Completes a draft: one with at least one listener and one route, valid names, and no duplicates.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};

use super::{ConfigDraft, ListenerDraft, PeerDraft, RouteDraft, UpstreamDraft};
use crate::migrate::notes::Notes;
use crate::migrate::source::SourceSpan;
use crate::ring::Weight;

impl ConfigDraft {
    /// Makes a configuration that can run: at least one listener and one route, valid names, no duplicates.
    /// `None` if no upstream has a peer.
    pub(in crate::migrate) fn complete(mut self, notes: &Notes<'_>) -> Option<Self> {
        self.upstreams
            .iter_mut()
            .for_each(|upstream| upstream.label_duplicate_peers(notes));
        self.drop_empty_upstreams(notes);
        self.drop_duplicate_routes(notes);
        self.rename_upstreams();
        let first = self.upstreams.first()?.name.clone();
        if self.routes.is_empty() {
            let mut route = RouteDraft::catch_all(&first, SourceSpan::default());
            route
                .comments
                .push("no route was found; add routes".to_owned());
            self.routes.push(route);
        }
        self.validate_tls(notes);
        self.merge_listeners(notes);
        Some(self)
    }

    fn drop_empty_upstreams(&mut self, notes: &Notes<'_>) {
        self.upstreams.retain(|upstream| !upstream.peers.is_empty());
        let names: BTreeSet<_> = self
            .upstreams
            .iter()
            .map(|upstream| upstream.name.clone())
            .collect();
        let (routes, lost): (Vec<_>, Vec<_>) = std::mem::take(&mut self.routes)
            .into_iter()
            .partition(|route| names.contains(&route.upstream));
        self.routes = routes;
        for route in lost {
            let why = "none of its servers could be translated";
            self.comments
                .push(notes.gap(route.span, &route.upstream, why));
        }
    }

    /// Keeps the first of two routes for the same requests; it requires a client certificate if one of them
    /// does.
    fn drop_duplicate_routes(&mut self, notes: &Notes<'_>) {
        const STRICT: &str =
            "some of these requests required a client certificate; all of them do now";
        let mut seen: HashMap<(String, String), usize> = HashMap::new();
        for route in std::mem::take(&mut self.routes) {
            let requests = (route.host.to_string(), route.path.to_string());
            let index = *seen.entry(requests).or_insert(self.routes.len());
            let Some(first) = self.routes.get_mut(index) else {
                self.routes.push(route);
                continue;
            };
            if first.upstream != route.upstream {
                self.comments.push(conflicting_route_comment(&route, notes));
            }
            if first.client_cert != route.client_cert {
                let what = format!("host {}, path {}", route.host, route.path);
                let comment = notes.gap(route.span, &what, STRICT);
                first.comments.push(comment);
                first.client_cert = true;
            }
        }
    }

    /// Makes the names valid and unique: they appear in URLs and metrics.
    fn rename_upstreams(&mut self) {
        let mut taken = HashSet::new();
        for upstream in &mut self.upstreams {
            let new = unused_name(&sanitize_name(&upstream.name), &taken);
            taken.insert(new.clone());
            for route in self
                .routes
                .iter_mut()
                .filter(|route| route.upstream == upstream.name)
            {
                route.upstream.clone_from(&new);
            }
            upstream.name = new;
        }
    }

    /// Merges the listeners of each address, and drops those with TLS but no certificate. If no listener is
    /// left, one on loopback is added.
    fn merge_listeners(&mut self, notes: &Notes<'_>) {
        let mut indices: HashMap<String, usize> = HashMap::new();
        for listener in std::mem::take(&mut self.listeners) {
            match indices.entry(listener.address.clone()) {
                Entry::Vacant(slot) => {
                    slot.insert(self.listeners.len());
                    self.listeners.push(listener);
                }
                Entry::Occupied(slot) => {
                    if let Some(first) = self.listeners.get_mut(*slot.get()) {
                        first.merge(listener, notes);
                    }
                }
            }
        }
        let bare = |listener: &ListenerDraft| {
            let tls = listener.tls.as_ref();
            tls.is_some_and(|tls| tls.certificates.is_empty())
        };
        let (bare, complete): (Vec<_>, Vec<_>) = std::mem::take(&mut self.listeners)
            .into_iter()
            .partition(bare);
        self.comments
            .extend(bare.into_iter().flat_map(|listener| listener.comments));
        self.listeners = complete;
        self.split_dual_stack_ports();
        if self.listeners.is_empty() {
            let mut listener = ListenerDraft::new("127.0.0.1:8080");
            listener.comments.push(
                "no listener could be translated; write the address that clients connect to"
                    .to_owned(),
            );
            self.listeners.push(listener);
        }
    }

    /// A `[::]` listener is IPv6 only if an IPv4 listener has the same port.
    fn split_dual_stack_ports(&mut self) {
        let port = |address: &str| address.rsplit_once(':').map(|(_, port)| port.to_owned());
        let v4 = self
            .listeners
            .iter()
            .filter(|one| !one.address.starts_with('['));
        let ports: HashSet<_> = v4.filter_map(|one| port(&one.address)).collect();
        for listener in &mut self.listeners {
            let both = listener.address.starts_with("[::]:");
            let shared = port(&listener.address).is_some_and(|port| ports.contains(&port));
            listener.ipv6_only |= both && shared;
        }
    }
}

impl UpstreamDraft {
    /// Labels a further peer with the same address if its id differs, and merges it into the first if not.
    fn label_duplicate_peers(&mut self, notes: &Notes<'_>) {
        let mut seen: HashMap<(String, Option<String>), usize> = HashMap::new();
        let mut counts: HashMap<String, usize> = HashMap::new();
        for mut peer in std::mem::take(&mut self.peers) {
            match seen.entry((peer.address.clone(), peer.id.clone())) {
                Entry::Occupied(first) => {
                    self.merge_duplicate_peer(*first.get(), &peer, notes);
                    continue;
                }
                Entry::Vacant(slot) => slot.insert(self.peers.len()),
            };
            let count = counts.entry(peer.address.clone()).or_default();
            *count += 1;
            if *count > 1 {
                peer.label = Some(format!("{}-{count}", peer.address));
                // The ring still places it by its address.
                let own = self.ring.as_ref().map(|_| peer.address.clone());
                peer.id = peer.id.or(own);
            }
            self.peers.push(peer);
        }
    }

    /// Two equal nginx servers share their points, so together they have those of the heavier one. Without a
    /// dialect all keys move anyway, and the weights add up.
    fn merge_duplicate_peer(&mut self, first: usize, duplicate: &PeerDraft, notes: &Notes<'_>) {
        const ONCE: &str = "this server is listed more than once; one peer is written";
        let Some(first) = self.peers.get_mut(first) else {
            return;
        };
        let span = duplicate.span;
        let dialect = self.ring.as_ref().map(|ring| ring.dialect);
        let comment = if matches!(dialect, None | Some("nginx")) {
            let (one, other) = (first.weight, duplicate.weight);
            let both = one.saturating_add(other).min(Weight::MAX.get().into());
            first.weight = dialect.map_or(both, |_| one.max(other));
            notes.remark(span, &duplicate.address, ONCE)
        } else {
            let why = format!("{ONCE}, and keys will move");
            notes.gap(span, &duplicate.address, &why)
        };
        self.comments.push(comment);
    }
}

impl ListenerDraft {
    /// Merges another listener on the same address.
    fn merge(&mut self, mut other: Self, notes: &Notes<'_>) {
        self.merge_socket_options(&mut other, notes);
        self.merge_tls_and_redirect(&mut other, notes);
        self.is_default |= other.is_default;
        for comment in other.comments {
            if !self.comments.contains(&comment) {
                self.comments.push(comment);
            }
        }
    }

    /// One socket serves both. Options that only one server gives are kept, as nginx applies them to the address.
    fn merge_socket_options(&mut self, other: &mut Self, notes: &Notes<'_>) {
        const BACKLOGS: &str = "an address has one `backlog`; the first is written";
        const SOURCES: &str =
            "an address has one list of PROXY sources; those of all its servers are written";
        match (self.backlog, other.backlog) {
            (Some(first), Some(second)) if first != second => {
                let what = format!("{} backlog {second}", self.address);
                self.comments.push(notes.gap(other.span, &what, BACKLOGS));
            }
            (first, second) => self.backlog = first.or(second),
        }
        // One server that serves IPv4 is enough for the socket to do so.
        self.ipv6_only &= other.ipv6_only;
        match (&mut self.accept_proxy_from, other.accept_proxy_from.take()) {
            (Some(sources), Some(others)) if *sources != others => {
                let what = format!("{} PROXY sources {}", self.address, others.join(", "));
                let span = other.accept_proxy_span;
                self.comments.push(notes.gap(span, &what, SOURCES));
                for source in others {
                    if !sources.contains(&source) {
                        sources.push(source);
                    }
                }
            }
            (sources @ None, others @ Some(_)) => {
                *sources = others;
                self.accept_proxy_span = other.accept_proxy_span;
            }
            (_, _) => {}
        }
    }

    fn merge_tls_and_redirect(&mut self, other: &mut Self, notes: &Notes<'_>) {
        const MIXED: &str = "a listener redirects all its requests to HTTPS or none, and this one also serves requests; let the servers redirect";
        match (&mut self.tls, other.tls.take()) {
            (Some(tls), Some(others)) => {
                for (what, why) in tls.merge(others, other.is_default && !self.is_default) {
                    let what = format!("{} at {}", what, self.address);
                    self.comments.push(notes.gap(other.span, &what, why));
                }
            }
            (tls @ None, others @ Some(_)) => *tls = others,
            (_, None) => {}
        }
        if self.https_redirect.map(|(port, _)| port) != other.https_redirect.map(|(port, _)| port) {
            for (port, span) in self
                .https_redirect
                .take()
                .into_iter()
                .chain(other.https_redirect.take())
            {
                let what = format!("{} to HTTPS, port {port}", self.address);
                self.comments.push(notes.gap(span, &what, MIXED));
            }
        }
    }
}

fn conflicting_route_comment(route: &RouteDraft, notes: &Notes<'_>) -> String {
    let what = format!("host {}, path {}", route.host, route.path);
    let why = format!(
        "an earlier route takes these requests; this one went to `{}`",
        route.upstream
    );
    notes.gap(route.span, &what, &why)
}

fn sanitize_name(name: &str) -> String {
    const MAX: usize = 56;
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let clean: String = name
        .chars()
        .take(MAX)
        .map(|c| if good(c) { c } else { '-' })
        .collect();
    let trimmed = clean.trim_matches('-');
    if trimmed.is_empty() {
        "app".to_owned()
    } else {
        trimmed.to_owned()
    }
}

fn unused_name(name: &str, taken: &HashSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    names.find(|name| !taken.contains(name)).unwrap_or_default()
}
