//! Listeners and their HTTP connection managers.

use std::collections::BTreeSet;

use super::address::{host_and_port, socket_address};
use super::filter_chain::{self, FilterChain};
use super::message_fields::{FieldValue, MessageFields};
use super::routes::RouteTranslator;
use super::{redirect, tls_termination};
use crate::migrate::draft::{ConfigDraft, DownstreamDraft, ListenerDraft, UpstreamDraft};
use crate::migrate::notes::Notes;
use crate::migrate::unsupported::NO_REWRITE;

const ESCAPED_SLASHES: &str =
    "Clockwise never decodes `%2F`; a path for which another route may be meant is 400";
const GRPC_WEB: &str = "write `grpc_web: true` and `protocol: h2c`, or `tls` and `protocol: h2`, for the upstreams that speak gRPC";
const REDIRECT_308: &str =
    "the listener answers every request with 308, whatever its host; the default of Envoy is 301";

/// Translates listeners, with the state that they share.
#[derive(Default)]
pub(super) struct ListenerTranslator {
    /// An earlier listener has routes.
    has_routes: bool,
    routes: RouteTranslator,
}

impl ListenerTranslator {
    /// Adds a listener and its routes.
    pub(super) fn listener(
        &mut self,
        element: FieldValue<'_>,
        draft: &mut ConfigDraft,
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
        let Some((host, port)) = socket_address(&fields) else {
            let why = "a listener has an IP address and a port";
            draft
                .comments
                .push(notes.gap(element.span(), "listener", why));
            return;
        };
        let mut listener = ListenerDraft::new(host_and_port(host, port));
        if host.parse::<std::net::IpAddr>().is_err() {
            draft.comments.push(notes.gap(
                element.span(),
                &listener.address,
                "a listener has an IP address",
            ));
            return;
        }
        let before = draft.routes.len();
        for filter in fields.list("listener_filters") {
            read_proxy_protocol_filter(filter, &mut listener, notes);
        }
        let mut chains = fields.list("filter_chains");
        chains.extend(fields.get("default_filter_chain"));
        listener.https_redirect = redirect::https_redirect_of(&chains);
        for chain in &chains {
            self.add_filter_chain(*chain, &mut listener, draft, notes);
        }
        filter_chain::note_plain_chains(&chains, &mut listener, notes);
        fields.note_unread(&mut listener.comments, notes);
        if let Some((port, span)) = listener.https_redirect {
            let subject = format!("HTTPS, port {port}");
            listener
                .comments
                .push(notes.remark(span, &subject, REDIRECT_308));
        }
        self.has_routes |= draft.routes.len() > before;
        if draft.routes.len() > before || listener.https_redirect.is_some() {
            draft.listeners.push(listener);
        } else {
            draft.comments.append(&mut listener.comments);
        }
    }

    fn add_filter_chain(
        &mut self,
        element: FieldValue<'_>,
        listener: &mut ListenerDraft,
        draft: &mut ConfigDraft,
        notes: &Notes<'_>,
    ) {
        let fields = MessageFields::of(element);
        let socket = fields.get("transport_socket");
        let span = socket.map_or_else(|| element.span(), FieldValue::span);
        let mut chain = FilterChain {
            server_names: filter_chain::server_names(&fields, &mut listener.comments, notes),
            tls: tls_termination::read_transport_socket(socket, &mut listener.comments, notes),
            upgrades: Vec::new(),
            is_https_redirect: listener.https_redirect.is_some(),
        };
        for filter in fields.list("filters") {
            let filter_fields = MessageFields::of(filter);
            let manager = filter_fields
                .extension_type()
                .contains("httpconnectionmanager");
            if let Some(config) = filter_fields.message("typed_config").filter(|_| manager) {
                self.add_connection_manager(&config, &mut chain, draft, notes);
            } else {
                let name = filter_fields.text("name").unwrap_or_default();
                let why = "Clockwise proxies HTTP only";
                draft.comments.push(notes.gap(filter.span(), name, why));
            }
        }
        fields.note_unread(&mut listener.comments, notes);
        if let Some(tls) = chain.tls.termination {
            let before = chain.server_names.is_empty() && !listener.is_default;
            listener.is_default |= chain.server_names.is_empty();
            let comments = &mut listener.comments;
            tls_termination::merge(&mut listener.tls, tls, before, span, comments, notes);
        }
    }

    fn add_connection_manager(
        &mut self,
        fields: &MessageFields<'_>,
        chain: &mut FilterChain,
        draft: &mut ConfigDraft,
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
        ]);
        fields.ignore(&["tracing", "skip_xff_append", "preserve_external_request_id"]);
        normalize_path(fields, draft, notes);
        if chain.is_https_redirect {
            fields.ignore(&["route_config", "http_filters", "upgrade_configs"]);
            fields.ignore(&["common_http_protocol_options", "request_headers_timeout"]);
            fields.note_unread(&mut draft.comments, notes);
            return;
        }
        if self.has_routes {
            draft
                .comments
                .push(notes.shared_listeners(fields.span(), "http_connection_manager"));
        }
        downstream(fields, &mut draft.downstream);
        chain.upgrades = filter_chain::upgrades(fields, &[]);
        let grpc_web_filter = http_filters(fields, &mut draft.comments, notes);
        let before = draft.routes.len();
        if let Some(config) = fields.message("route_config") {
            self.routes.add_routes(&config, chain, draft, notes);
        }
        if let Some(filter) = grpc_web_filter {
            grpc_web(filter, before, draft, notes);
        }
        fields.note_unread(&mut draft.comments, notes);
    }
}

/// Envoy rewrites a path before it chooses the route, or not at all.
fn normalize_path(manager: &MessageFields<'_>, draft: &mut ConfigDraft, notes: &Notes<'_>) {
    let rewrites = ["normalize_path", "merge_slashes"].map(|name| manager.flag(name));
    if rewrites.contains(&true) {
        draft.normalize_path = Some("rewrite");
    } else {
        draft.normalize_path.get_or_insert("off");
    }
    let action = "path_with_escaped_slashes_action";
    if let Some(value) = manager
        .get(action)
        .filter(|it| it.text().starts_with("UNESCAPE"))
    {
        draft
            .comments
            .push(notes.gap(value.span(), action, ESCAPED_SLASHES));
    }
}

/// Sets the timeouts of clients.
fn downstream(manager: &MessageFields<'_>, downstream: &mut DownstreamDraft) {
    let common = manager.message("common_http_protocol_options");
    let idle = common.and_then(|common| common.get("idle_timeout"));
    downstream.keepalive = idle.and_then(FieldValue::duration).or(downstream.keepalive);
    let header = manager.get("request_headers_timeout");
    let header = header.and_then(FieldValue::duration);
    downstream.header_timeout = header.or(downstream.header_timeout);
}

/// Notes the HTTP filters; returns that of gRPC-Web, which needs the routes first.
fn http_filters<'a>(
    manager: &MessageFields<'a>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Option<FieldValue<'a>> {
    let mut grpc_web_filter = None;
    for filter in manager.list("http_filters") {
        let name = MessageFields::of(filter).text("name").unwrap_or_default();
        if name.contains("grpc_web") {
            grpc_web_filter = Some(filter);
        } else if !name.contains("router") {
            comments.push(notes.gap(filter.span(), name, NO_REWRITE));
        }
    }
    grpc_web_filter
}

/// Sets `grpc_web` if every upstream of the routes from `before` on has HTTP/2.
fn grpc_web(filter: FieldValue<'_>, before: usize, draft: &mut ConfigDraft, notes: &Notes<'_>) {
    let routes = draft.routes.iter().skip(before);
    let names: BTreeSet<_> = routes.map(|route| route.upstream.as_str()).collect();
    let reached = |upstream: &&mut UpstreamDraft| names.contains(upstream.name.as_str());
    let upstreams: Vec<_> = draft.upstreams.iter_mut().filter(reached).collect();
    let http2 = upstreams.iter().all(|upstream| upstream.protocol.is_some());
    if http2 && !upstreams.is_empty() {
        for upstream in upstreams {
            upstream.grpc_web = true;
        }
    } else {
        let name = MessageFields::of(filter).text("name").unwrap_or_default();
        draft
            .comments
            .push(notes.gap(filter.span(), name, GRPC_WEB));
    }
}

/// Reads the PROXY protocol filter, which trusts every source; other listener filters only inspect.
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
        let why = "Clockwise does not guess whether a PROXY header is present; write `proxy_protocol: {from: [...], untrusted: accept}`, so that the source address decides";
        listener.comments.push(notes.gap(filter.span(), name, why));
        return;
    }
    let all_networks = ["0.0.0.0/0", "::/0"].map(str::to_owned);
    listener.accept_proxy_from = Some(all_networks.to_vec());
    let what =
        "every source is trusted, as before; list the networks of the load balancers in `from`";
    listener
        .comments
        .push(notes.remark(filter.span(), name, what));
}
