//! Listeners, and the routes of their HTTP connection managers.

use std::collections::{BTreeSet, HashMap};

use super::chain::{self, Chain};
use super::cluster;
use super::ending;
use super::fields::{Element, Fields};
use super::hash_policy;
use super::redirect;
use crate::migrate::model::{Downstream, Listener, Retry, Route, Setup, Source, Upstream};
use crate::migrate::notes::Notes;
use crate::migrate::order;
use crate::migrate::reasons;
use crate::migrate::source::Place;
use crate::route::{HostPattern, PathPrefix};

const SEGMENTS: &str = "paths end at a `/` here: with `/a` also `/a/b`, but not `/ab`";
pub(super) const PASSED: &str =
    "requests and responses are passed on as they are; let the servers do it";
const GRPC_WEB: &str = "write `grpc_web: true` and `protocol: h2c`, or `tls` and `protocol: h2`, below the upstreams that speak gRPC";
const MOVED: &str = "every request is answered with 308 there, whatever its host; Envoy's code is 301 unless another is said";
const EXACT: &str = "paths are prefixes here: what is below it goes there too";

/// Listeners and routes so far.
#[derive(Default)]
pub(super) struct Routing {
    /// Another listener has routes.
    shared: bool,
    /// The key and tries of a cluster, as its first route says.
    users: HashMap<String, (Vec<Source>, Retry)>,
}

/// Routes of one virtual host, and what they share.
struct Virtual {
    hosts: Vec<HostPattern>,
    routes: Vec<Route>,
}

impl Routing {
    /// Adds a listener with all that is behind it.
    pub(super) fn listener(&mut self, element: Element<'_>, setup: &mut Setup, notes: &Notes<'_>) {
        let fields = Fields::of(element);
        fields.leave(&[
            "per_connection_buffer_limit_bytes",
            "traffic_direction",
            "access_log",
        ]);
        fields.leave(&[
            "socket_options",
            "stat_prefix",
            "enable_reuse_port",
            "ignore_global_conn_limit",
        ]);
        let Some((host, port)) = cluster::address(&fields) else {
            let why = "listeners have an IP address and a port";
            setup
                .comments
                .push(notes.gap(element.place(), "listener", why));
            return;
        };
        let mut listener = Listener::new(cluster::joined(host, port));
        if host.parse::<std::net::IpAddr>().is_err() {
            setup.comments.push(notes.gap(
                element.place(),
                &listener.address,
                "listeners have an IP address",
            ));
            return;
        }
        let before = setup.routes.len();
        for filter in fields.list("listener_filters") {
            introduced(filter, &mut listener, notes);
        }
        let mut chains = fields.list("filter_chains");
        chains.extend(fields.get("default_filter_chain"));
        listener.redirect = redirect::of(&chains);
        for chain in &chains {
            self.chain(*chain, &mut listener, setup, notes);
        }
        chain::tell_plain(&chains, &mut listener, notes);
        fields.tell_rest(&mut listener.comments, notes);
        if let Some((port, place)) = listener.redirect {
            let shown = format!("HTTPS, port {port}");
            listener.comments.push(notes.remark(place, &shown, MOVED));
        }
        self.shared |= setup.routes.len() > before;
        if setup.routes.len() > before || listener.redirect.is_some() {
            setup.listeners.push(listener);
        } else {
            setup.comments.append(&mut listener.comments);
        }
    }

    fn chain(
        &mut self,
        element: Element<'_>,
        listener: &mut Listener,
        setup: &mut Setup,
        notes: &Notes<'_>,
    ) {
        let fields = Fields::of(element);
        let socket = fields.get("transport_socket");
        let place = socket.map_or_else(|| element.place(), Element::place);
        let mut chain = Chain {
            names: chain::names(&fields, &mut listener.comments, notes),
            terms: ending::terms(socket, &mut listener.comments, notes),
            redirects: listener.redirect.is_some(),
        };
        for filter in fields.list("filters") {
            let filter_fields = Fields::of(filter);
            let manager = filter_fields.kind().contains("httpconnectionmanager");
            if let Some(config) = filter_fields.map("typed_config").filter(|_| manager) {
                self.manager(&config, &mut chain, setup, notes);
            } else {
                let name = filter_fields.text("name").unwrap_or_default();
                let why = "only HTTP is passed on";
                setup.comments.push(notes.gap(filter.place(), name, why));
            }
        }
        fields.tell_rest(&mut listener.comments, notes);
        if let Some(tls) = chain.terms.tls {
            let before = chain.names.is_empty() && !listener.default;
            listener.default |= chain.names.is_empty();
            let comments = &mut listener.comments;
            ending::join(&mut listener.tls, tls, before, place, comments, notes);
        }
    }

    fn manager(
        &mut self,
        fields: &Fields<'_>,
        chain: &mut Chain,
        setup: &mut Setup,
        notes: &Notes<'_>,
    ) {
        fields.leave(&[
            "stat_prefix",
            "codec_type",
            "use_remote_address",
            "access_log",
            "generate_request_id",
        ]);
        fields.leave(&[
            "server_name",
            "http_protocol_options",
            "http2_protocol_options",
            "normalize_path",
        ]);
        fields.leave(&[
            "tracing",
            "skip_xff_append",
            "upgrade_configs",
            "merge_slashes",
            "preserve_external_request_id",
        ]);
        if chain.redirects {
            fields.leave(&["route_config", "http_filters"]);
            fields.leave(&["common_http_protocol_options", "request_headers_timeout"]);
            fields.tell_rest(&mut setup.comments, notes);
            return;
        }
        if self.shared {
            setup
                .comments
                .push(notes.shared(fields.place(), "http_connection_manager"));
        }
        downstream(fields, &mut setup.downstream);
        let web = filters(fields, &mut setup.comments, notes);
        let before = setup.routes.len();
        if let Some(config) = fields.map("route_config") {
            self.routes(&config, chain, setup, notes);
        }
        if let Some(filter) = web {
            grpc_web(filter, before, setup, notes);
        }
        fields.tell_rest(&mut setup.comments, notes);
    }

    fn routes(
        &mut self,
        config: &Fields<'_>,
        chain: &mut Chain,
        setup: &mut Setup,
        notes: &Notes<'_>,
    ) {
        config.leave(&["validate_clusters"]);
        let tls = chain.terms.tls.as_mut();
        ending::response_headers(config, true, tls, &mut setup.comments, notes);
        let hosts = config.list("virtual_hosts");
        let any = chain::narrow(&hosts, &chain.names);
        let virtuals: Vec<_> = hosts
            .into_iter()
            .map(|host| {
                let place = host.place();
                (place, self.virtual_host(host, &any, chain, setup, notes))
            })
            .collect();
        let any = virtuals
            .iter()
            .any(|(_, host)| host.hosts.contains(&HostPattern::Any));
        for (place, host) in virtuals {
            let whole = host
                .routes
                .iter()
                .any(|route| route.path == PathPrefix::ROOT);
            if any && !whole && !host.hosts.contains(&HostPattern::Any) {
                let what = "paths that it has no route for take the routes of the domain `*`";
                setup
                    .comments
                    .push(notes.remark(place, "virtual_host", what));
            }
            setup.routes.extend(order::by_specificity(
                host.routes,
                notes,
                &mut setup.comments,
            ));
        }
        config.tell_rest(&mut setup.comments, notes);
    }

    fn virtual_host(
        &mut self,
        element: Element<'_>,
        any: &[HostPattern],
        chain: &mut Chain,
        setup: &mut Setup,
        notes: &Notes<'_>,
    ) -> Virtual {
        let fields = Fields::of(element);
        fields.leave(&["include_request_attempt_count"]);
        let tls = chain.terms.tls.as_mut();
        ending::response_headers(&fields, false, tls, &mut setup.comments, notes);
        if chain.terms.tls.is_none() {
            tell_required(&fields, &mut setup.comments, notes);
        } else {
            fields.leave(&["require_tls"]);
        }
        let mut hosts = Vec::new();
        for domain in fields.list("domains") {
            match host(domain.text()) {
                Some(HostPattern::Any) => hosts.extend_from_slice(any),
                Some(host) if hosts.contains(&host) => {}
                Some(host) => hosts.push(host),
                None => {
                    let why = "hosts are names or `*.name`; list the names";
                    setup
                        .comments
                        .push(notes.gap(domain.place(), domain.text(), why));
                }
            }
        }
        let mut routes = Vec::new();
        for item in fields.list("routes") {
            let Some(route) = self.route(item, chain, setup, notes) else {
                continue;
            };
            let mut comments = route.comments.clone();
            routes.extend(hosts.iter().map(|host| Route {
                host: host.clone(),
                comments: std::mem::take(&mut comments),
                ..route.clone()
            }));
        }
        fields.tell_rest(&mut setup.comments, notes);
        Virtual { hosts, routes }
    }

    fn route(
        &mut self,
        element: Element<'_>,
        chain: &mut Chain,
        setup: &mut Setup,
        notes: &Notes<'_>,
    ) -> Option<Route> {
        let fields = Fields::of(element);
        let mut comments = Vec::new();
        let tls = chain.terms.tls.as_mut();
        ending::response_headers(&fields, false, tls, &mut comments, notes);
        fields.leave(&["decorator", "metadata", "stat_prefix"]);
        let action = fields.map("route");
        let found = fields.map("match").filter(|_| action.is_some());
        let path = found.and_then(|found| path(&found, &mut comments, notes));
        let name = action.as_ref().and_then(|action| action.text("cluster"));
        let route = match (path, action, name) {
            (Some(path), Some(action), Some(name)) => {
                self.settle(&action, name, element.place(), setup, notes);
                action.tell_rest(&mut comments, notes);
                Some(Route {
                    path,
                    client_cert: chain.terms.required,
                    ..Route::all(name, element.place())
                })
            }
            (_, Some(action), _) => {
                action.leave(&["cluster"]);
                action.tell_rest(&mut comments, notes);
                None
            }
            _ => None,
        };
        fields.tell_rest(&mut comments, notes);
        if route.is_none() {
            setup.comments.append(&mut comments);
        }
        route.map(|route| Route { comments, ..route })
    }

    /// The first route of a cluster decides on its key and its tries.
    fn settle(
        &mut self,
        action: &Fields<'_>,
        name: &str,
        place: Place,
        setup: &mut Setup,
        notes: &Notes<'_>,
    ) {
        let Some(upstream) = setup
            .upstreams
            .iter_mut()
            .find(|upstream| upstream.name == name)
        else {
            return;
        };
        let policies = action.list("hash_policy");
        let key = hash_policy::key(&policies, &mut upstream.comments, notes);
        let retry = retry(action, &mut upstream.comments, notes);
        match self.users.get(name) {
            Some((first, _)) if key.is_empty() && !first.is_empty() => {}
            // Without a policy Envoy chooses at random: a later route with one decides.
            first if first.is_none_or(|(first, _)| first.is_empty()) => {
                (upstream.key, upstream.retry) = (key.clone(), retry);
                self.users.insert(name.to_owned(), (key, retry));
            }
            Some(first) if *first == (key, retry) => {}
            _ => {
                let why = "an upstream has one `key` and one `retry`, those of its first route; give this route an upstream of its own";
                upstream.comments.push(notes.gap(place, "hash_policy", why));
            }
        }
    }
}

/// What clients may do.
fn downstream(manager: &Fields<'_>, down: &mut Downstream) {
    let common = manager.map("common_http_protocol_options");
    let idle = common.and_then(|common| common.get("idle_timeout"));
    down.keepalive = idle.and_then(Element::duration).or(down.keepalive);
    let header = manager.get("request_headers_timeout");
    let header = header.and_then(Element::duration);
    down.header_timeout = header.or(down.header_timeout);
}

/// Tells of requests without TLS that are sent to HTTPS, where others of the listener are not.
fn tell_required(host: &Fields<'_>, comments: &mut Vec<String>, notes: &Notes<'_>) {
    if let Some(required) = host.get("require_tls").filter(|one| one.text() != "NONE") {
        let shown = format!("require_tls: {}", required.text());
        let why = reasons::envoy("require_tls");
        comments.push(notes.widened(required.place(), &shown, why));
    }
}

/// The HTTP filters; gives the one of gRPC-Web, which says nothing before the routes are known.
fn filters<'a>(
    manager: &Fields<'a>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Option<Element<'a>> {
    let mut web = None;
    for filter in manager.list("http_filters") {
        let name = Fields::of(filter).text("name").unwrap_or_default();
        if name.contains("grpc_web") {
            web = Some(filter);
        } else if !name.contains("router") {
            comments.push(notes.gap(filter.place(), name, PASSED));
        }
    }
    web
}

/// gRPC-Web needs HTTP/2 at every server that routes from `before` on lead to.
fn grpc_web(filter: Element<'_>, before: usize, setup: &mut Setup, notes: &Notes<'_>) {
    let routes = setup.routes.iter().skip(before);
    let names: BTreeSet<_> = routes.map(|route| route.upstream.as_str()).collect();
    let reached = |upstream: &&mut Upstream| names.contains(upstream.name.as_str());
    let upstreams: Vec<_> = setup.upstreams.iter_mut().filter(reached).collect();
    let http2 = upstreams.iter().all(|upstream| upstream.protocol.is_some());
    if http2 && !upstreams.is_empty() {
        for upstream in upstreams {
            upstream.grpc_web = true;
        }
    } else {
        let name = Fields::of(filter).text("name").unwrap_or_default();
        setup
            .comments
            .push(notes.gap(filter.place(), name, GRPC_WEB));
    }
}

/// Envoy's filter believes everybody; the others only look at what comes.
fn introduced(filter: Element<'_>, listener: &mut Listener, notes: &Notes<'_>) {
    let fields = Fields::of(filter);
    let config = fields.map("typed_config");
    let name = fields.text("name").unwrap_or_default();
    if !fields.kind().contains("proxyprotocol") {
        return;
    }
    let optional = config.and_then(|config| config.text("allow_requests_without_proxy_protocol"));
    if optional == Some("true") {
        let why = "whether a header is there is not guessed: with `proxy_protocol: {from: [...], others: serve}` it is told by the address";
        listener.comments.push(notes.gap(filter.place(), name, why));
        return;
    }
    let everybody = ["0.0.0.0/0", "::/0"].map(str::to_owned);
    listener.introduced_by = Some(everybody.to_vec());
    let what = "everybody is believed, as there; name the networks of those in front";
    listener
        .comments
        .push(notes.remark(filter.place(), name, what));
}

/// A ring without a key is one that Envoy enters at random.
pub(super) fn remark_keyless(
    upstreams: &mut [Upstream],
    resources: &Fields<'_>,
    notes: &Notes<'_>,
) {
    for upstream in upstreams
        .iter_mut()
        .filter(|upstream| upstream.ring.is_some() && upstream.key.is_empty())
    {
        let what =
            "without `hash_policy` Envoy chooses at random; here the client's address is the key";
        let clusters = resources.list("clusters");
        let cluster = clusters
            .into_iter()
            .find(|found| Fields::of(*found).text("name") == Some(&upstream.name));
        let place = cluster.map_or_else(|| resources.place(), Element::place);
        upstream
            .comments
            .push(notes.remark(place, &upstream.name, what));
    }
}

fn retry(action: &Fields<'_>, comments: &mut Vec<String>, notes: &Notes<'_>) -> Retry {
    let Some(policy) = action.map("retry_policy") else {
        return Retry::default();
    };
    policy.leave(&[
        "retry_on",
        "retry_back_off",
        "host_selection_retry_max_attempts",
        "retry_host_predicate",
    ]);
    let retries = policy
        .get("num_retries")
        .and_then(Element::number)
        .unwrap_or(1);
    policy.tell_rest(comments, notes);
    Retry {
        attempts: Some(retries.saturating_add(1).clamp(1, 16)),
        timeout: None,
    }
}

pub(super) fn host(domain: &str) -> Option<HostPattern> {
    let port = domain
        .rsplit_once(':')
        .filter(|(_, port)| port.parse::<u16>().is_ok());
    HostPattern::parse(port.map_or(domain, |(name, _)| name)).ok()
}

fn path(fields: &Fields<'_>, comments: &mut Vec<String>, notes: &Notes<'_>) -> Option<PathPrefix> {
    fields.leave(&["runtime_fraction"]);
    let (prefix, exact, segments) = (
        fields.get("prefix"),
        fields.get("path"),
        fields.get("path_separated_prefix"),
    );
    let element = prefix.or(exact).or(segments);
    let parsed = element.and_then(|element| PathPrefix::parse(element.text()).ok());
    let parsed = parsed.filter(|path| exact.is_none() || *path != PathPrefix::ROOT);
    for name in [
        "headers",
        "query_parameters",
        "safe_regex",
        "grpc",
        "path_match_policy",
        "connect_matcher",
    ] {
        if let Some(condition) = fields.get(name) {
            let why = "routes look at host, path and method only; this one is left out";
            comments.push(notes.gap(condition.place(), name, why));
            return None;
        }
    }
    let Some((path, element)) = parsed.clone().zip(element) else {
        let why = "a path is a prefix that begins with `/` and has no empty part";
        comments.push(notes.gap(fields.place(), "match", why));
        return None;
    };
    let text = element.text();
    if exact.is_some() {
        comments.push(notes.remark(element.place(), text, EXACT));
    } else if segments.is_none() && path != PathPrefix::ROOT && !text.ends_with('/') {
        comments.push(notes.remark(element.place(), text, SEGMENTS));
    }
    fields.tell_rest(comments, notes);
    parsed
}
