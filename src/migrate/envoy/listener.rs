//! Listeners, and the routes of their HTTP connection managers.

use std::collections::{BTreeSet, HashMap};

use super::cluster;
use super::filter_chain::{self, FilterChain};
use super::hash_policy;
use super::message_fields::{FieldValue, MessageFields};
use super::redirect;
use super::tls_termination;
use crate::migrate::draft::{
    ConfigDraft, DownstreamDraft, KeySourceDraft, ListenerDraft, RetryDraft, RouteDraft,
    UpstreamDraft,
};
use crate::migrate::notes::Notes;
use crate::migrate::route_order;
use crate::migrate::source::SourceSpan;
use crate::migrate::unsupported;
use crate::route::{HostPattern, PathPrefix};

const PATHS_END_AT_SLASH: &str = "paths end at a `/` here: with `/a` also `/a/b`, but not `/ab`";
pub(super) const PASSED_UNCHANGED: &str =
    "requests and responses are passed on as they are; let the servers do it";
const GRPC_WEB: &str = "write `grpc_web: true` and `protocol: h2c`, or `tls` and `protocol: h2`, below the upstreams that speak gRPC";
const REDIRECT_308: &str = "every request is answered with 308 there, whatever its host; Envoy's code is 301 unless another is said";
const PATHS_ARE_PREFIXES: &str = "paths are prefixes here: what is below it goes there too";

/// Listeners and routes so far.
#[derive(Default)]
pub(super) struct ListenerTranslator {
    /// Another listener has routes.
    has_routes: bool,
    /// The key and tries of a cluster, as its first route says.
    first_users: HashMap<String, (Vec<KeySourceDraft>, RetryDraft)>,
}

/// Routes of one virtual host, and what they share.
struct VirtualHostRoutes {
    hosts: Vec<HostPattern>,
    routes: Vec<RouteDraft>,
}

impl ListenerTranslator {
    /// Adds a listener with all that is behind it.
    pub(super) fn listener(
        &mut self,
        element: FieldValue<'_>,
        setup: &mut ConfigDraft,
        notes: &Notes<'_>,
    ) {
        let fields = MessageFields::of(element);
        fields.ignore(&[
            "per_connection_buffer_limit_bytes",
            "traffic_direction",
            "access_log",
        ]);
        fields.ignore(&[
            "socket_options",
            "stat_prefix",
            "enable_reuse_port",
            "ignore_global_conn_limit",
        ]);
        let Some((host, port)) = cluster::socket_address(&fields) else {
            let why = "listeners have an IP address and a port";
            setup
                .comments
                .push(notes.gap(element.span(), "listener", why));
            return;
        };
        let mut listener = ListenerDraft::new(cluster::host_and_port(host, port));
        if host.parse::<std::net::IpAddr>().is_err() {
            setup.comments.push(notes.gap(
                element.span(),
                &listener.address,
                "listeners have an IP address",
            ));
            return;
        }
        let before = setup.routes.len();
        for filter in fields.list("listener_filters") {
            read_proxy_protocol_filter(filter, &mut listener, notes);
        }
        let mut chains = fields.list("filter_chains");
        chains.extend(fields.get("default_filter_chain"));
        listener.https_redirect = redirect::https_redirect_of(&chains);
        for chain in &chains {
            self.add_filter_chain(*chain, &mut listener, setup, notes);
        }
        filter_chain::note_plain_chains(&chains, &mut listener, notes);
        fields.note_unread(&mut listener.comments, notes);
        if let Some((port, place)) = listener.https_redirect {
            let shown = format!("HTTPS, port {port}");
            listener
                .comments
                .push(notes.remark(place, &shown, REDIRECT_308));
        }
        self.has_routes |= setup.routes.len() > before;
        if setup.routes.len() > before || listener.https_redirect.is_some() {
            setup.listeners.push(listener);
        } else {
            setup.comments.append(&mut listener.comments);
        }
    }

    fn add_filter_chain(
        &mut self,
        element: FieldValue<'_>,
        listener: &mut ListenerDraft,
        setup: &mut ConfigDraft,
        notes: &Notes<'_>,
    ) {
        let fields = MessageFields::of(element);
        let socket = fields.get("transport_socket");
        let place = socket.map_or_else(|| element.span(), FieldValue::span);
        let mut chain = FilterChain {
            server_names: filter_chain::server_names(&fields, &mut listener.comments, notes),
            tls: tls_termination::read_transport_socket(socket, &mut listener.comments, notes),
            is_https_redirect: listener.https_redirect.is_some(),
        };
        for filter in fields.list("filters") {
            let filter_fields = MessageFields::of(filter);
            let manager = filter_fields
                .extension_type()
                .contains("httpconnectionmanager");
            if let Some(config) = filter_fields.message("typed_config").filter(|_| manager) {
                self.add_connection_manager(&config, &mut chain, setup, notes);
            } else {
                let name = filter_fields.text("name").unwrap_or_default();
                let why = "only HTTP is passed on";
                setup.comments.push(notes.gap(filter.span(), name, why));
            }
        }
        fields.note_unread(&mut listener.comments, notes);
        if let Some(tls) = chain.tls.termination {
            let before = chain.server_names.is_empty() && !listener.is_default;
            listener.is_default |= chain.server_names.is_empty();
            let comments = &mut listener.comments;
            tls_termination::merge(&mut listener.tls, tls, before, place, comments, notes);
        }
    }

    fn add_connection_manager(
        &mut self,
        fields: &MessageFields<'_>,
        chain: &mut FilterChain,
        setup: &mut ConfigDraft,
        notes: &Notes<'_>,
    ) {
        fields.ignore(&[
            "stat_prefix",
            "codec_type",
            "use_remote_address",
            "access_log",
            "generate_request_id",
        ]);
        fields.ignore(&[
            "server_name",
            "http_protocol_options",
            "http2_protocol_options",
            "normalize_path",
        ]);
        fields.ignore(&[
            "tracing",
            "skip_xff_append",
            "upgrade_configs",
            "merge_slashes",
            "preserve_external_request_id",
        ]);
        if chain.is_https_redirect {
            fields.ignore(&["route_config", "http_filters"]);
            fields.ignore(&["common_http_protocol_options", "request_headers_timeout"]);
            fields.note_unread(&mut setup.comments, notes);
            return;
        }
        if self.has_routes {
            setup
                .comments
                .push(notes.shared_listeners(fields.span(), "http_connection_manager"));
        }
        downstream(fields, &mut setup.downstream);
        let web = http_filters(fields, &mut setup.comments, notes);
        let before = setup.routes.len();
        if let Some(config) = fields.message("route_config") {
            self.add_routes(&config, chain, setup, notes);
        }
        if let Some(filter) = web {
            grpc_web(filter, before, setup, notes);
        }
        fields.note_unread(&mut setup.comments, notes);
    }

    fn add_routes(
        &mut self,
        config: &MessageFields<'_>,
        chain: &mut FilterChain,
        setup: &mut ConfigDraft,
        notes: &Notes<'_>,
    ) {
        config.ignore(&["validate_clusters"]);
        let tls = chain.tls.termination.as_mut();
        tls_termination::response_headers(config, true, tls, &mut setup.comments, notes);
        let hosts = config.list("virtual_hosts");
        let any = filter_chain::hosts_of_wildcard(&hosts, &chain.server_names);
        let virtuals: Vec<_> = hosts
            .into_iter()
            .map(|host| {
                let place = host.span();
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
            setup.routes.extend(route_order::by_specificity(
                host.routes,
                notes,
                &mut setup.comments,
            ));
        }
        config.note_unread(&mut setup.comments, notes);
    }

    fn virtual_host(
        &mut self,
        element: FieldValue<'_>,
        any: &[HostPattern],
        chain: &mut FilterChain,
        setup: &mut ConfigDraft,
        notes: &Notes<'_>,
    ) -> VirtualHostRoutes {
        let fields = MessageFields::of(element);
        fields.ignore(&["include_request_attempt_count"]);
        let tls = chain.tls.termination.as_mut();
        tls_termination::response_headers(&fields, false, tls, &mut setup.comments, notes);
        if chain.tls.termination.is_none() {
            note_require_tls(&fields, &mut setup.comments, notes);
        } else {
            fields.ignore(&["require_tls"]);
        }
        let mut hosts = Vec::new();
        for domain in fields.list("domains") {
            match domain_pattern(domain.text()) {
                Some(HostPattern::Any) => hosts.extend_from_slice(any),
                Some(host) if hosts.contains(&host) => {}
                Some(host) => hosts.push(host),
                None => {
                    let why = "hosts are names or `*.name`; list the names";
                    setup
                        .comments
                        .push(notes.gap(domain.span(), domain.text(), why));
                }
            }
        }
        let mut routes = Vec::new();
        for item in fields.list("routes") {
            let Some(route) = self.route(item, chain, setup, notes) else {
                continue;
            };
            let mut comments = route.comments.clone();
            routes.extend(hosts.iter().map(|host| RouteDraft {
                host: host.clone(),
                comments: std::mem::take(&mut comments),
                ..route.clone()
            }));
        }
        fields.note_unread(&mut setup.comments, notes);
        VirtualHostRoutes { hosts, routes }
    }

    fn route(
        &mut self,
        element: FieldValue<'_>,
        chain: &mut FilterChain,
        setup: &mut ConfigDraft,
        notes: &Notes<'_>,
    ) -> Option<RouteDraft> {
        let fields = MessageFields::of(element);
        let mut comments = Vec::new();
        let tls = chain.tls.termination.as_mut();
        tls_termination::response_headers(&fields, false, tls, &mut comments, notes);
        fields.ignore(&["decorator", "metadata", "stat_prefix"]);
        let action = fields.message("route");
        let found = fields.message("match").filter(|_| action.is_some());
        let path = found.and_then(|found| path_prefix(&found, &mut comments, notes));
        let name = action.as_ref().and_then(|action| action.text("cluster"));
        let route = match (path, action, name) {
            (Some(path), Some(action), Some(name)) => {
                self.set_key_and_retry(&action, name, element.span(), setup, notes);
                action.note_unread(&mut comments, notes);
                Some(RouteDraft {
                    path,
                    client_cert: chain.tls.requires_client_cert,
                    ..RouteDraft::catch_all(name, element.span())
                })
            }
            (_, Some(action), _) => {
                action.ignore(&["cluster"]);
                action.note_unread(&mut comments, notes);
                None
            }
            _ => None,
        };
        fields.note_unread(&mut comments, notes);
        if route.is_none() {
            setup.comments.append(&mut comments);
        }
        route.map(|route| RouteDraft { comments, ..route })
    }

    /// The first route of a cluster decides on its key and its tries.
    fn set_key_and_retry(
        &mut self,
        action: &MessageFields<'_>,
        name: &str,
        place: SourceSpan,
        setup: &mut ConfigDraft,
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
        match self.first_users.get(name) {
            Some((first, _)) if key.is_empty() && !first.is_empty() => {}
            // Without a policy Envoy chooses at random: a later route with one decides.
            first if first.is_none_or(|(first, _)| first.is_empty()) => {
                (upstream.key, upstream.retry) = (key.clone(), retry);
                self.first_users.insert(name.to_owned(), (key, retry));
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
fn downstream(manager: &MessageFields<'_>, down: &mut DownstreamDraft) {
    let common = manager.message("common_http_protocol_options");
    let idle = common.and_then(|common| common.get("idle_timeout"));
    down.keepalive = idle.and_then(FieldValue::duration).or(down.keepalive);
    let header = manager.get("request_headers_timeout");
    let header = header.and_then(FieldValue::duration);
    down.header_timeout = header.or(down.header_timeout);
}

/// Tells of requests without TLS that are sent to HTTPS, where others of the listener are not.
fn note_require_tls(host: &MessageFields<'_>, comments: &mut Vec<String>, notes: &Notes<'_>) {
    if let Some(required) = host.get("require_tls").filter(|one| one.text() != "NONE") {
        let shown = format!("require_tls: {}", required.text());
        let why = unsupported::envoy("require_tls");
        comments.push(notes.wider_access(required.span(), &shown, why));
    }
}

/// The HTTP filters; gives the one of gRPC-Web, which says nothing before the routes are known.
fn http_filters<'a>(
    manager: &MessageFields<'a>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Option<FieldValue<'a>> {
    let mut web = None;
    for filter in manager.list("http_filters") {
        let name = MessageFields::of(filter).text("name").unwrap_or_default();
        if name.contains("grpc_web") {
            web = Some(filter);
        } else if !name.contains("router") {
            comments.push(notes.gap(filter.span(), name, PASSED_UNCHANGED));
        }
    }
    web
}

/// gRPC-Web needs HTTP/2 at every server that routes from `before` on lead to.
fn grpc_web(filter: FieldValue<'_>, before: usize, setup: &mut ConfigDraft, notes: &Notes<'_>) {
    let routes = setup.routes.iter().skip(before);
    let names: BTreeSet<_> = routes.map(|route| route.upstream.as_str()).collect();
    let reached = |upstream: &&mut UpstreamDraft| names.contains(upstream.name.as_str());
    let upstreams: Vec<_> = setup.upstreams.iter_mut().filter(reached).collect();
    let http2 = upstreams.iter().all(|upstream| upstream.protocol.is_some());
    if http2 && !upstreams.is_empty() {
        for upstream in upstreams {
            upstream.grpc_web = true;
        }
    } else {
        let name = MessageFields::of(filter).text("name").unwrap_or_default();
        setup
            .comments
            .push(notes.gap(filter.span(), name, GRPC_WEB));
    }
}

/// Envoy's filter believes everybody; the others only look at what comes.
fn read_proxy_protocol_filter(
    filter: FieldValue<'_>,
    listener: &mut ListenerDraft,
    notes: &Notes<'_>,
) {
    let fields = MessageFields::of(filter);
    let config = fields.message("typed_config");
    let name = fields.text("name").unwrap_or_default();
    if !fields.extension_type().contains("proxyprotocol") {
        return;
    }
    let optional = config.and_then(|config| config.text("allow_requests_without_proxy_protocol"));
    if optional == Some("true") {
        let why = "whether a header is there is not guessed: with `proxy_protocol: {from: [...], untrusted: accept}` the client's address decides";
        listener.comments.push(notes.gap(filter.span(), name, why));
        return;
    }
    let everybody = ["0.0.0.0/0", "::/0"].map(str::to_owned);
    listener.accept_proxy_from = Some(everybody.to_vec());
    let what = "everybody is believed, as there; name the networks of those in front";
    listener
        .comments
        .push(notes.remark(filter.span(), name, what));
}

/// A ring without a key is one that Envoy enters at random.
pub(super) fn note_rings_without_key(
    upstreams: &mut [UpstreamDraft],
    resources: &MessageFields<'_>,
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
            .find(|found| MessageFields::of(*found).text("name") == Some(&upstream.name));
        let place = cluster.map_or_else(|| resources.span(), FieldValue::span);
        upstream
            .comments
            .push(notes.remark(place, &upstream.name, what));
    }
}

fn retry(action: &MessageFields<'_>, comments: &mut Vec<String>, notes: &Notes<'_>) -> RetryDraft {
    let Some(policy) = action.message("retry_policy") else {
        return RetryDraft::default();
    };
    policy.ignore(&[
        "retry_on",
        "retry_back_off",
        "host_selection_retry_max_attempts",
        "retry_host_predicate",
    ]);
    let retries = policy
        .get("num_retries")
        .and_then(FieldValue::number)
        .unwrap_or(1);
    policy.note_unread(comments, notes);
    RetryDraft {
        attempts: Some(retries.saturating_add(1).clamp(1, 16)),
        timeout: None,
    }
}

pub(super) fn domain_pattern(domain: &str) -> Option<HostPattern> {
    let port = domain
        .rsplit_once(':')
        .filter(|(_, port)| port.parse::<u16>().is_ok());
    HostPattern::parse(port.map_or(domain, |(name, _)| name)).ok()
}

fn path_prefix(
    fields: &MessageFields<'_>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Option<PathPrefix> {
    fields.ignore(&["runtime_fraction"]);
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
            comments.push(notes.gap(condition.span(), name, why));
            return None;
        }
    }
    let Some((path, element)) = parsed.clone().zip(element) else {
        let why = "a path is a prefix that begins with `/` and has no empty part";
        comments.push(notes.gap(fields.span(), "match", why));
        return None;
    };
    let text = element.text();
    if exact.is_some() {
        comments.push(notes.remark(element.span(), text, PATHS_ARE_PREFIXES));
    } else if segments.is_none() && path != PathPrefix::ROOT && !text.ends_with('/') {
        comments.push(notes.remark(element.span(), text, PATHS_END_AT_SLASH));
    }
    fields.note_unread(comments, notes);
    parsed
}
