//! `http`: what holds for all, and how its servers and upstreams come together.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::proxy_settings::ProxySettings;
use super::server::{self, LocationBlock, ServerBlock};
use super::syntax::Directive;
use super::tls::ServerSsl;
use super::{note_unknown, units, upstream};
use crate::config;
use crate::migrate::draft::{
    ConfigDraft, DownstreamDraft, PeerDraft, RouteDraft, SizeLimit, UpstreamDraft,
};
use crate::migrate::notes::Notes;
use crate::route::{HostPattern, PathPrefix};

/// nginx's `client_max_body_size` where none is given.
const DEFAULT_MAX_BODY_SIZE: SizeLimit = SizeLimit::Bytes(1 << 20);
/// Our `pool_size` where none is given.
const DEFAULT_POOL_SIZE: u64 = 512;

/// Translates the directives of all `http` blocks together.
pub(super) fn translate(all: &[&Directive], setup: &mut ConfigDraft, notes: &Notes<'_>) {
    let named = |name: &'static str| {
        all.iter()
            .copied()
            .filter(move |found| found.name.text == name)
    };
    let maps: Vec<_> = named("map").collect();
    for block in named("upstream") {
        setup
            .upstreams
            .push(upstream::upstream(block, &maps, notes));
    }
    let owned: Vec<Directive> = named("proxy_set_header").cloned().collect();
    let mut settings = (
        ProxySettings::default().for_block(&owned),
        ServerSsl::default(),
    );
    for directive in all {
        http_directive(directive, &mut settings, all, setup, notes);
    }
    let (settings, ssl) = settings;
    let blocks = named("server").filter(|found| found.block.is_some());
    let servers: Vec<_> = blocks
        .map(|block| server::server(block, (&settings, &ssl), setup, notes))
        .collect();
    note_real_ip_differences(all, setup, notes);
    set_pool_size(all, setup);
    set_max_body_size(&settings, &servers, setup);
    let blocks = setup.upstreams.iter().map(|block| block.name.clone());
    ServerMerger {
        upstream_blocks: blocks.collect(),
        setup,
        notes,
        first_users: HashMap::new(),
    }
    .merge(servers);
    set_accept_proxy(setup, notes);
}

/// Whom nginx believes about the client's address: here that is said of each listener.
fn set_accept_proxy(setup: &mut ConfigDraft, notes: &Notes<'_>) {
    let mut trusted = Vec::new();
    if setup.client_from_proxy_header {
        std::mem::swap(&mut trusted, &mut setup.trusted_proxies);
    }
    for listener in &mut setup.listeners {
        let Some(from) = &mut listener.accept_proxy_from else {
            continue;
        };
        let shown = format!("listen {} proxy_protocol", listener.address);
        let comment = if trusted.is_empty() {
            listener.accept_proxy_from = None;
            let why = "whom to believe is not said (`set_real_ip_from` with `real_ip_header proxy_protocol`); write `proxy_protocol: {from: [...]}`";
            notes.gap(listener.accept_proxy_span, &shown, why)
        } else {
            from.clone_from(&trusted);
            let what = "who connects from elsewhere is refused; nginx reads a header of them, too, and does not believe it";
            notes.remark(listener.accept_proxy_span, &shown, what)
        };
        listener.comments.push(comment);
    }
}

/// Limits of clients, which we have for all listeners together; `false` if it is none.
pub(super) fn downstream(
    directive: &Directive,
    setup: &mut ConfigDraft,
    notes: &Notes<'_>,
) -> bool {
    let argument = directive.argument(0);
    let time = units::duration(argument).filter(|time| !time.is_zero());
    let before = setup.downstream.clone();
    let down = &mut setup.downstream;
    match directive.name.text.as_str() {
        "client_header_timeout" => down.header_timeout = time,
        "client_body_timeout" => down.read_timeout = time,
        "send_timeout" => down.write_timeout = time,
        "keepalive_timeout" => down.keepalive = time,
        "keepalive_requests" => down.keepalive_requests = argument.parse().ok().filter(|n| *n > 0),
        "large_client_header_buffers" => {
            let size = units::bytes(directive.argument(1));
            let total = size.zip(argument.parse::<u64>().ok());
            down.max_uri_length = size.map(|size| size.clamp(256, 1 << 20));
            down.max_header_size =
                total.map(|(size, count)| size.saturating_mul(count.max(1)).clamp(1024, 1 << 20));
        }
        "access_log" => access_log(directive, setup, notes),
        "error_log" => error_log(directive, setup, notes),
        "set_real_ip_from" => add_trusted_proxy(directive, setup, notes),
        "real_ip_header" if argument.eq_ignore_ascii_case("x-forwarded-for") => {}
        "real_ip_header" if argument == "proxy_protocol" => setup.client_from_proxy_header = true,
        _ => return false,
    }
    if overrides_earlier(&before, &setup.downstream) {
        let what = "this holds for all listeners and servers; the last one is written";
        setup
            .comments
            .push(notes.remark(directive.span(), &directive.text(), what));
    }
    true
}

/// Whether a value that was said before is another one now.
fn overrides_earlier(before: &DownstreamDraft, after: &DownstreamDraft) -> bool {
    let other = |before: Option<_>, after| before.is_some() && before != after;
    other(before.header_timeout, after.header_timeout)
        || other(before.read_timeout, after.read_timeout)
        || other(before.write_timeout, after.write_timeout)
        || other(before.keepalive, after.keepalive)
}

/// The level of the log; where it goes is standard error.
pub(super) fn error_log(directive: &Directive, setup: &mut ConfigDraft, notes: &Notes<'_>) {
    setup.error_level = match directive.argument(1) {
        "debug" => Some("debug"),
        "info" | "notice" => Some("info"),
        "warn" => Some("warn"),
        "error" | "crit" | "alert" | "emerg" => Some("error"),
        _ => setup.error_level,
    };
    let what = "messages go to standard error; let the service manager keep them";
    notes.remark(directive.span(), &directive.text(), what);
}

fn http_directive(
    directive: &Directive,
    (settings, ssl): &mut (ProxySettings, ServerSsl),
    all: &[&Directive],
    setup: &mut ConfigDraft,
    notes: &Notes<'_>,
) {
    match directive.name.text.as_str() {
        "upstream" => {}
        "server" if directive.block.is_some() => {}
        "map" if is_map_used(directive, all) => {}
        _ if ssl.apply(directive, &mut setup.comments, notes) => {}
        _ if settings.apply(directive, &mut setup.comments, notes) => {}
        _ if downstream(directive, setup, notes) => {}
        _ => note_unknown(directive, &mut setup.comments, notes),
    }
}

/// Whether a `map` is translated with the `hash` that uses it, or only serves WebSocket.
fn is_map_used(map: &Directive, all: &[&Directive]) -> bool {
    let name = map.argument(1);
    let hashes = all
        .iter()
        .filter(|found| found.name.text == "upstream")
        .flat_map(|found| found.children());
    let mut keys = hashes
        .filter(|found| found.name.text == "hash")
        .map(|found| found.argument(0));
    map.argument(0) == "$http_upgrade" || keys.any(|key| key == name)
}

fn access_log(directive: &Directive, setup: &mut ConfigDraft, notes: &Notes<'_>) {
    let path = directive.argument(0);
    if path.is_empty() || path.ends_with('/') {
        let why = "this is no file";
        let comment = notes.gap(directive.span(), &directive.text(), why);
        setup.comments.push(comment);
        return;
    }
    let old = setup.access_log.replace(match path {
        "off" => "off".to_owned(),
        "/dev/stdout" => "stdout".to_owned(),
        path => path.to_owned(),
    });
    if path == "off" {
        return;
    }
    let what = match old {
        Some(old) if old != path => "one access log is kept for all; the last one is written",
        _ => "its lines are JSON here, whatever the format was",
    };
    setup
        .comments
        .push(notes.remark(directive.span(), &directive.text(), what));
}

fn add_trusted_proxy(directive: &Directive, setup: &mut ConfigDraft, notes: &Notes<'_>) {
    let text = directive.argument(0);
    let address = text
        .parse::<std::net::IpAddr>()
        .map(|ip| ipnet::IpNet::from(ip).to_string());
    match address.or_else(|_| {
        text.parse::<ipnet::IpNet>()
            .map(|net| net.trunc().to_string())
    }) {
        Ok(network) if !setup.trusted_proxies.contains(&network) => {
            setup.trusted_proxies.push(network);
        }
        Ok(_) => {}
        Err(_) => {
            let why = "trusted proxies are networks like `10.0.0.0/8`";
            setup
                .comments
                .push(notes.gap(directive.span(), &directive.text(), why));
        }
    }
}

/// Where nginx finds another client behind a trusted proxy than we do.
fn note_real_ip_differences(all: &[&Directive], setup: &mut ConfigDraft, notes: &Notes<'_>) {
    let find = |name: &str| all.iter().copied().find(|found| found.name.text == name);
    let Some(trusted) = find("set_real_ip_from") else {
        return;
    };
    let mut tell = |what| {
        let comment = notes.remark(trusted.span(), &trusted.text(), what);
        setup.comments.push(comment);
    };
    let forwarded = |header: &Directive| header.argument(0).eq_ignore_ascii_case("x-forwarded-for");
    let is_on = |recursive: &Directive| recursive.argument(0) == "on";
    let header = find("real_ip_header");
    if header.is_none() {
        tell(
            "without `real_ip_header` nginx reads `X-Real-IP`, here `X-Forwarded-For` tells the client",
        );
    }
    if header.is_some_and(forwarded) && !find("real_ip_recursive").is_some_and(is_on) {
        tell(
            "where several trusted proxies stand one behind the other, nginx takes the last for the client, here it is who is in front of them, as with `real_ip_recursive on`",
        );
    }
}

/// nginx keeps idle connections per upstream, we keep them all together.
fn set_pool_size(all: &[&Directive], setup: &mut ConfigDraft) {
    let upstreams = all
        .iter()
        .filter(|found| found.name.text == "upstream")
        .flat_map(|found| found.children());
    let kept = upstreams.filter(|found| found.name.text == "keepalive");
    let sum = kept
        .filter_map(|found| found.argument(0).parse::<u64>().ok())
        .fold(0, u64::saturating_add);
    setup.pool_size = (sum > DEFAULT_POOL_SIZE).then(|| sum.min(65_536));
}

/// The limit of bodies for all; locations with another one say so in their routes.
fn set_max_body_size(settings: &ProxySettings, servers: &[ServerBlock], setup: &mut ConfigDraft) {
    if servers.iter().any(|server| !server.locations.is_empty()) {
        setup.downstream.max_body_size = settings.max_body_size.or(Some(DEFAULT_MAX_BODY_SIZE));
    }
}

/// Puts servers, locations and upstreams together.
struct ServerMerger<'a, 'n> {
    setup: &'a mut ConfigDraft,
    notes: &'a Notes<'n>,
    /// The names of the `upstream` blocks.
    upstream_blocks: HashSet<String>,
    /// Which settings an upstream has by the first location that uses it, and how it is spoken to.
    first_users: HashMap<String, (ProxySettings, PassScheme)>,
}

impl ServerMerger<'_, '_> {
    fn merge(mut self, servers: Vec<ServerBlock>) {
        let defaults = default_servers(&servers);
        self.warn_wider_exposure(&servers);
        let wildcards = servers.iter().flat_map(|server| &server.server_names);
        let wildcards = wildcards
            .filter(|name| matches!(name, HostPattern::Suffix(_)))
            .count()
            > 0;
        let mut catch_all = defaults.iter().filter_map(|index| servers.get(*index));
        let catch_all = catch_all.any(|server| !server.locations.is_empty());
        for (index, mut server) in servers.into_iter().enumerate() {
            let mut hosts = std::mem::take(&mut server.server_names);
            if defaults.contains(&index) {
                // Names are only needed where another server's wildcard would take them.
                hosts.retain(|_| wildcards);
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
                self.setup.listeners.extend(listeners);
            }
        }
    }

    /// What was served at some addresses only, for the machine itself perhaps, has no wall around it here.
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
                    "what it serves can be reached at `{first}` too, as routes hold for all listeners here"
                );
                let comment = self.notes.wider_access(server.span, "server", &what);
                self.setup.comments.push(comment);
            }
        }
    }

    /// Another server's route for any host takes what a server has no location for.
    fn remark_fall_through(&mut self, server: &ServerBlock) {
        let root = server
            .locations
            .iter()
            .any(|location| location.path == PathPrefix::ROOT);
        if !root && !server.locations.is_empty() {
            let what = "paths that it has no location for take the routes of the default server";
            self.setup
                .comments
                .push(self.notes.remark(server.span, "server", what));
        }
    }

    fn location(&mut self, hosts: &[HostPattern], location: LocationBlock, client_cert: bool) {
        let Some(name) = self.upstream(&location) else {
            self.setup.comments.extend(location.comments);
            return;
        };
        let limit = location
            .settings
            .max_body_size
            .or(Some(DEFAULT_MAX_BODY_SIZE));
        let other = limit != self.setup.downstream.max_body_size;
        let mut comments = location.comments;
        for host in hosts {
            self.setup.routes.push(RouteDraft {
                host: host.clone(),
                path: location.path.clone(),
                upstream: name.clone(),
                max_body_size: limit.filter(|_| other),
                client_cert,
                comments: std::mem::take(&mut comments),
                span: location.span,
            });
        }
    }

    /// The name of the upstream that a location passes to, which is made where it has no block.
    fn upstream(&mut self, location: &LocationBlock) -> Option<String> {
        let Some((scheme, authority)) = parse_pass_target(&location.proxy_pass.text) else {
            self.note_unsupported_pass(location, "an upstream is a fixed name or address");
            return None;
        };
        let name = self.upstream_name(authority, scheme);
        if !self.setup.upstreams.iter().any(|one| one.name == name) {
            let Some(upstream) = self.new_upstream(&name, authority, scheme) else {
                self.note_unsupported_pass(
                    location,
                    "a peer is a host or an IP address with a port",
                );
                return None;
            };
            self.setup.upstreams.push(upstream);
        }
        self.apply_location_settings(&name, (scheme, authority), location);
        Some(name)
    }

    /// An upstream is spoken to in one way: servers that are passed to in two have two.
    fn upstream_name(&self, authority: &str, scheme: PassScheme) -> String {
        match self.first_users.get(authority) {
            Some((_, first)) if *first != scheme => format!("{authority}-{}", scheme.name()),
            _ => authority.to_owned(),
        }
    }

    /// The servers of the block with that name, or else the one that is called so.
    fn new_upstream(
        &self,
        name: &str,
        authority: &str,
        scheme: PassScheme,
    ) -> Option<UpstreamDraft> {
        let mut written = self.setup.upstreams.iter();
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
        self.setup.comments.push(comment);
    }

    /// The first location decides what the upstream does, and others are told of.
    fn apply_location_settings(
        &mut self,
        name: &str,
        (scheme, named): (PassScheme, &str),
        location: &LocationBlock,
    ) {
        let upstream = self
            .setup
            .upstreams
            .iter_mut()
            .find(|upstream| upstream.name == name);
        let Some(upstream) = upstream else { return };
        match self.first_users.get(name) {
            None => {
                location.settings.write_to(upstream, named);
                scheme.write_to(named, upstream, location, self.notes);
                if let Some(host) = upstream.host_header.take_if(|host| !config::is_host(host)) {
                    let why = "this host cannot be sent; servers get the client's";
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
                    "its TLS is not that of the first location of `{name}`, which is written"
                );
                let comment = self.notes.wider_access(location.span, "location", &what);
                upstream.comments.push(comment);
            }
            Some(_) => {
                let what = format!(
                    "time-outs, tries or `Host` are not those of the first location of `{name}`, which are written"
                );
                upstream
                    .comments
                    .push(self.notes.remark(location.span, "location", &what));
            }
        }
    }
}

/// The servers that nginx takes for hosts that no server names: of each address the one that says
/// so, or the first.
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

/// How servers are spoken to.
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

    /// Where none is said.
    const fn default_port(self) -> u16 {
        match self {
            Self::Http | Self::Grpc => 80,
            Self::Https | Self::Grpcs => 443,
        }
    }

    /// Says it of an upstream that is called `named` where it is passed to.
    fn write_to(
        self,
        named: &str,
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
            let place = location.proxy_pass.span;
            let ssl = &location.settings.proxy_ssl;
            let tls = ssl.tls_origination(named, place, &mut upstream.comments, notes);
            upstream.tls = Some(tls);
        }
    }
}

/// `app` of `http://app/path`, if it is fixed.
fn parse_pass_target(pass: &str) -> Option<(PassScheme, &str)> {
    let (name, rest) = pass.split_once("://")?;
    let mut known = PassScheme::ALL.into_iter();
    let scheme = known.find(|scheme| scheme.name() == name)?;
    let end = rest.find('/').unwrap_or(rest.len());
    let name = rest.get(..end)?;
    let fixed = !name.is_empty() && !name.contains('$') && !name.starts_with("unix:");
    fixed.then_some((scheme, name))
}
