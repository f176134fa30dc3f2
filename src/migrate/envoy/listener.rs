//! Listeners, and the routes of their HTTP connection managers.

use std::collections::BTreeSet;

use super::address::{host_and_port, socket_address};
use super::filter_chain::{self, FilterChain};
use super::message_fields::{FieldValue, MessageFields};
use super::routes::RouteTranslator;
use super::{redirect, tls_termination};
use crate::migrate::draft::{ConfigDraft, DownstreamDraft, ListenerDraft, UpstreamDraft};
use crate::migrate::notes::Notes;
use crate::migrate::unsupported::NO_REWRITE;

const GRPC_WEB: &str = "write `grpc_web: true` and `protocol: h2c`, or `tls` and `protocol: h2`, below the upstreams that speak gRPC";
const REDIRECT_308: &str = "every request is answered with 308 there, whatever its host; Envoy's code is 301 unless another is said";

/// Listeners and routes so far.
#[derive(Default)]
pub(super) struct ListenerTranslator {
    /// Another listener has routes.
    has_routes: bool,
    routes: RouteTranslator,
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
        let Some((host, port)) = socket_address(&fields) else {
            let why = "listeners have an IP address and a port";
            setup
                .comments
                .push(notes.gap(element.span(), "listener", why));
            return;
        };
        let mut listener = ListenerDraft::new(host_and_port(host, port));
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
            self.routes.add_routes(&config, chain, setup, notes);
        }
        if let Some(filter) = web {
            grpc_web(filter, before, setup, notes);
        }
        fields.note_unread(&mut setup.comments, notes);
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
            comments.push(notes.gap(filter.span(), name, NO_REWRITE));
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
