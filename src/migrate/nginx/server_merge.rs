//! Servers, locations and upstreams become routes, listeners and upstreams.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::proxy_settings::ProxySettings;
use super::server::{LocationBlock, ServerBlock};
use super::upstream;
use crate::config;
use crate::migrate::draft::{ConfigDraft, PeerDraft, RouteDraft, UpstreamDraft};
use crate::migrate::notes::Notes;
use crate::route::{HostPattern, PathPrefix};

/// Merges servers and locations into routes, listeners and upstreams.
pub(super) struct ServerMerger<'a, 'n> {
    draft: &'a mut ConfigDraft,
    notes: &'a Notes<'n>,
    /// Names of the `upstream` blocks.
    upstream_blocks: HashSet<String>,
    /// Settings and scheme of an upstream, by the first location that uses it.
    first_users: HashMap<String, (ProxySettings, PassScheme)>,
}

impl<'a, 'n> ServerMerger<'a, 'n> {
    /// `draft` has the upstreams of all `upstream` blocks.
    pub(super) fn new(draft: &'a mut ConfigDraft, notes: &'a Notes<'n>) -> Self {
        let blocks = draft.upstreams.iter().map(|block| block.name.clone());
        Self {
            upstream_blocks: blocks.collect(),
            draft,
            notes,
            first_users: HashMap::new(),
        }
    }

    pub(super) fn merge(mut self, servers: Vec<ServerBlock>) {
        let defaults = default_servers(&servers);
        self.warn_wider_exposure(&servers);
        let mut names = servers.iter().flat_map(|server| &server.server_names);
        let has_wildcards = names.any(|name| matches!(name, HostPattern::Suffix(_)));
        let mut catch_all = defaults.iter().filter_map(|index| servers.get(*index));
        let catch_all = catch_all.any(|server| !server.locations.is_empty());
        for (index, mut server) in servers.into_iter().enumerate() {
            let mut hosts = std::mem::take(&mut server.server_names);
            if defaults.contains(&index) {
                // Names are needed only if another server's wildcard would match them.
                hosts.retain(|_| has_wildcards);
                hosts.insert(0, HostPattern::Any);
            } else if catch_all {
                self.remark_fall_through(&server);
            }
            let routes = !server.locations.is_empty();
            for location in server.locations {
                self.location(&hosts, location, server.client_cert);
            }
            let listeners = server.listens.into_iter().map(|listen| listen.listener);
            if routes || server.https_redirect.is_some() {
                self.draft.listeners.extend(listeners);
            }
        }
    }

    /// Warns about a server that was reachable at some addresses only: its routes are reachable at all of them.
    fn warn_wider_exposure(&mut self, servers: &[ServerBlock]) {
        let addresses = |server: &ServerBlock| -> BTreeSet<String> {
            let listeners = server.listens.iter().map(|listen| &listen.listener);
            listeners.map(|listener| listener.address.clone()).collect()
        };
        let serving = servers.iter().filter(|server| !server.locations.is_empty());
        let serving: Vec<_> = serving.map(|server| (server, addresses(server))).collect();
        let all: BTreeSet<_> = serving.iter().flat_map(|(_, own)| own).collect();
        for (server, own) in &serving {
            let others: Vec<_> = all
                .iter()
                .filter(|address| !own.contains(**address))
                .collect();
            if let Some(first) = others.first() {
                let what = format!(
                    "its routes can now be reached at `{first}` too, since routes are not bound to a listener"
                );
                let comment = self.notes.wider_access(server.span, "server", &what);
                self.draft.comments.push(comment);
            }
        }
    }

    /// Notes that the default server's routes take the paths without a location.
    fn remark_fall_through(&mut self, server: &ServerBlock) {
        let root = server
            .locations
            .iter()
            .any(|location| location.path == PathPrefix::ROOT);
        if !root && !server.locations.is_empty() {
            let what = "paths without a location go to the routes of the default server";
            self.draft
                .comments
                .push(self.notes.remark(server.span, "server", what));
        }
    }

    fn location(&mut self, hosts: &[HostPattern], location: LocationBlock, client_cert: bool) {
        let Some(name) = self.upstream(&location) else {
            self.draft.comments.extend(location.comments);
            return;
        };
        let limit = Some(location.settings.max_body_size())
            .filter(|limit| Some(*limit) != self.draft.downstream.max_body_size);
        let mut comments = location.comments;
        for host in hosts {
            self.draft.routes.push(RouteDraft {
                host: host.clone(),
                path: location.path.clone(),
                upstream: name.clone(),
                max_body_size: limit,
                client_cert,
                upgrade: location.settings.upgrade(),
                comments: std::mem::take(&mut comments),
                span: location.span,
            });
        }
    }

    /// The name of a location's upstream, which is created if it has no block.
    fn upstream(&mut self, location: &LocationBlock) -> Option<String> {
        let Some((scheme, authority)) = parse_pass_target(&location.proxy_pass.text) else {
            self.note_unsupported_pass(
                location,
                "an upstream is a fixed name or address, without variables",
            );
            return None;
        };
        let name = self.upstream_name(authority, scheme);
        if !self.draft.upstreams.iter().any(|one| one.name == name) {
            let Some(upstream) = self.new_upstream(&name, authority, scheme) else {
                self.note_unsupported_pass(
                    location,
                    "a peer is a host name or an IP address with a port",
                );
                return None;
            };
            self.draft.upstreams.push(upstream);
        }
        self.apply_location_settings(&name, (scheme, authority), location);
        Some(name)
    }

    /// An upstream has one scheme; a second scheme makes a second upstream.
    fn upstream_name(&self, authority: &str, scheme: PassScheme) -> String {
        match self.first_users.get(authority) {
            Some((_, first)) if *first != scheme => format!("{authority}-{}", scheme.name()),
            _ => authority.to_owned(),
        }
    }

    /// An upstream with the servers of the block `authority`, or with the one server of that address.
    fn new_upstream(
        &self,
        name: &str,
        authority: &str,
        scheme: PassScheme,
    ) -> Option<UpstreamDraft> {
        let mut written = self.draft.upstreams.iter();
        let block =
            written.find(|one| one.name == authority && self.upstream_blocks.contains(authority));
        if let Some(block) = block {
            return Some(UpstreamDraft {
                name: name.to_owned(),
                comments: Vec::new(),
                tls: None,
                protocol: None,
                ..block.clone()
            });
        }
        Some(UpstreamDraft {
            name: name.to_owned(),
            peers: vec![PeerDraft::new(upstream::address(
                authority,
                scheme.default_port(),
            )?)],
            ..UpstreamDraft::default()
        })
    }

    fn note_unsupported_pass(&mut self, location: &LocationBlock, why: &str) {
        let comment = self
            .notes
            .gap(location.proxy_pass.span, &location.pass_directive(), why);
        self.draft.comments.push(comment);
    }

    /// The first location sets the upstream's settings; a location that differs is noted.
    fn apply_location_settings(
        &mut self,
        name: &str,
        (scheme, authority): (PassScheme, &str),
        location: &LocationBlock,
    ) {
        let upstream = self
            .draft
            .upstreams
            .iter_mut()
            .find(|upstream| upstream.name == name);
        let Some(upstream) = upstream else { return };
        match self.first_users.get(name) {
            None => {
                location.settings.write_to(upstream, authority);
                scheme.write_to(authority, upstream, location, self.notes);
                if let Some(host) = upstream.host_header.take_if(|host| !config::is_host(host)) {
                    let why = "this is not a valid host; servers get the client's `Host`";
                    let subject = format!("Host {host}");
                    let comment = self.notes.gap(location.span, &subject, why);
                    upstream.comments.push(comment);
                }
                self.first_users
                    .insert(name.to_owned(), (location.settings.clone(), scheme));
            }
            Some((first, _)) if first.is_same_for_upstream(&location.settings) => {}
            Some((first, _)) if first.proxy_ssl != location.settings.proxy_ssl => {
                let what = format!(
                    "its TLS differs from that of the first location of `{name}`, which is written"
                );
                let comment = self.notes.wider_access(location.span, "location", &what);
                upstream.comments.push(comment);
            }
            Some(_) => {
                let what = format!(
                    "its timeouts, retries or `Host` differ from those of the first location of `{name}`, which are written"
                );
                upstream
                    .comments
                    .push(self.notes.remark(location.span, "location", &what));
            }
        }
    }
}

/// Indices of the default servers: of each address the one with `default_server`, or the first.
fn default_servers(servers: &[ServerBlock]) -> HashSet<usize> {
    let mut by_address: HashMap<&str, (usize, bool)> = HashMap::new();
    for (index, server) in servers.iter().enumerate() {
        for listen in &server.listens {
            let entry = by_address
                .entry(&listen.listener.address)
                .or_insert((index, listen.listener.is_default));
            if listen.listener.is_default && !entry.1 {
                *entry = (index, true);
            }
        }
    }
    by_address.into_values().map(|(index, _)| index).collect()
}

/// The scheme of `proxy_pass` or `grpc_pass`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PassScheme {
    Http,
    Https,
    Grpc,
    Grpcs,
}

impl PassScheme {
    const ALL: [Self; 4] = [Self::Http, Self::Https, Self::Grpc, Self::Grpcs];

    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Grpc => "grpc",
            Self::Grpcs => "grpcs",
        }
    }

    /// The port if none is given.
    const fn default_port(self) -> u16 {
        match self {
            Self::Http | Self::Grpc => 80,
            Self::Https | Self::Grpcs => 443,
        }
    }

    /// Sets protocol and TLS of an upstream; `authority` is that of the `proxy_pass`.
    fn write_to(
        self,
        authority: &str,
        upstream: &mut UpstreamDraft,
        location: &LocationBlock,
        notes: &Notes<'_>,
    ) {
        upstream.protocol = match self {
            Self::Http | Self::Https => None,
            Self::Grpc => Some("h2c"),
            Self::Grpcs => Some("h2"),
        };
        if matches!(self, Self::Https | Self::Grpcs) {
            let span = location.proxy_pass.span;
            let ssl = &location.settings.proxy_ssl;
            let tls = ssl.tls_origination(authority, span, &mut upstream.comments, notes);
            upstream.tls = Some(tls);
        }
    }
}

/// Scheme and authority of `http://app/path`, if they are fixed.
fn parse_pass_target(pass: &str) -> Option<(PassScheme, &str)> {
    let (name, rest) = pass.split_once("://")?;
    let mut known = PassScheme::ALL.into_iter();
    let scheme = known.find(|scheme| scheme.name() == name)?;
    let end = rest.find('/').unwrap_or(rest.len());
    let name = rest.get(..end)?;
    let fixed = !name.is_empty() && !name.contains('$') && !name.starts_with("unix:");
    fixed.then_some((scheme, name))
}
