//! `upstream_peer` and the hooks of a connection: the peer of an attempt in Pingora's form.
//!
//! Pingora times the connect and each write of the request. It has no timeout for the wait for a response: 0.9.1 has
//! one for a response's header and for the gaps in its body, and none that could distinguish a slow peer from one that
//! waits for the client. That wait is timed by the phases of the exchange.

use std::sync::Arc;

use http::Version;
use http::header::EXPECT;
use pingora::connectors::TransportConnector;
use pingora::http::RequestHeader;
use pingora::protocols::Digest;
use pingora::proxy::Session;
use pingora::upstreams::peer::{HttpPeer, PeerOptions};
use pingora::{Error, ErrorType, Result};

use crate::config::TimeoutsConfig;
use crate::fault::Fault;
use crate::http1::accepts_trailers;
use crate::phases::{Context, connect, forward_request, proxy_header};
use crate::pingora_compat::{
    fresh_connection, proxy_header as proxy_header_connector, tunnel, upstream_h2,
};
use crate::upstream_http1;

/// The peer of this attempt: every timeout set, the address already resolved, with the PROXY header that it gets.
///
/// # Errors
/// [`Fault::BadHost`] if the client chose a name that no certificate can have; [`Fault::Internal`] without an
/// attempt.
pub(crate) fn http_peer(ctx: &Context) -> Result<HttpPeer, Fault> {
    let (Some(attempt), Some(peer)) = (&ctx.attempt, ctx.peer()) else {
        return Err(Fault::Internal);
    };
    if peer.is_unresolved() {
        return Err(Fault::Internal); // no request selects it
    }
    let upstream = &attempt.upstream;
    // Only a name that the client chose can be invalid in TLS.
    let mut http = upstream
        .http_peer(peer, connect::requested_name(ctx))
        .ok_or(Fault::BadHost)?;
    set_timeouts(&mut http.options, &upstream.config.timeouts);
    if attempt.force_http1 {
        http.options.set_http_version(1, 1);
    }
    if let Some(header) = proxy_header::encode(ctx) {
        // Added to the other values that separate the connections to this peer.
        http.group_key ^= proxy_header::pool_key(&header);
        http.options.custom_l4 = Some(proxy_header_connector::connector(header));
    }
    Ok(http)
}

/// The peer of this attempt, for the request of this session.
///
/// # Errors
/// Those of [`http_peer`]; [`Fault::Internal`] without an exchange.
pub(super) fn peer_for_session(
    session: &mut Session,
    ctx: &Context,
    tunnels: &Arc<TransportConnector>,
) -> Result<HttpPeer, Fault> {
    let mut http = http_peer(ctx)?;
    let (Some(attempt), Some(exchange)) = (&ctx.attempt, &ctx.exchange) else {
        return Err(Fault::Internal);
    };
    exchange.body_queue.reset();
    if is_tunnel_requested(session, ctx) {
        fresh_connection::require(&mut http);
        let tls = attempt.upstream.tls.as_ref();
        return Ok(tunnel::wrap_peer(http, tls, tunnels, exchange));
    }
    // From here on Pingora's own clients, which fall back from HTTP/2 to HTTP/1.1 unasked, are not used.
    upstream_http1::enable(&mut http);
    if attempt.needs_fresh_connection {
        fresh_connection::require(&mut http);
    }
    Ok(http)
}

/// Whether the peer is offered another protocol, and the request has no body.
fn is_tunnel_requested(session: &mut Session, ctx: &Context) -> bool {
    ctx.upgrade.is_some() && session.as_mut().is_body_empty()
}

/// Offers the peer the protocols that the route allows. Pingora 0.9.1 offers `websocket` alone.
pub(super) fn offer_upgrade(request: &mut RequestHeader, ctx: &Context) {
    if let Some(protocols) = ctx.upgrade.clone() {
        forward_request::offer_upgrade(request, protocols);
    }
}

/// The connection is established; the wait for the response begins.
pub(super) fn on_connected(
    session: &Session,
    digest: Option<&Digest>,
    ctx: &mut Context,
    reused: bool,
) {
    if let Some(attempt) = &mut ctx.attempt {
        attempt.queued_version = upstream_http1::connected_version(digest);
    }
    let awaits_continue = session.req_header().headers.contains_key(EXPECT);
    connect::on_connected(ctx, reused, awaits_continue);
}

fn set_timeouts(options: &mut PeerOptions, timeouts: &TimeoutsConfig) {
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect);
    options.read_timeout = None;
    options.write_timeout = Some(timeouts.write);
    options.idle_timeout = Some(timeouts.idle);
}

/// Refuses a version of TLS below `min_version`, before anything is sent.
///
/// # Errors
/// The peer negotiated an older version.
pub(super) fn check_tls_version(digest: Option<&Digest>, ctx: &Context) -> Result<()> {
    let attempt = ctx.attempt.as_ref();
    let tls = attempt.and_then(|attempt| attempt.upstream.tls.as_ref());
    let session = digest.and_then(|digest| digest.ssl_digest.as_deref());
    match tls {
        Some(tls) if !tls.accepts_version(session) => {
            Err(Error::new_up(ErrorType::TLSHandshakeFailure))
        }
        _ => Ok(()),
    }
}

/// Sets the target for the peer where the header has another one: `normalize_path: rewrite` has made it, or `http::Uri`
/// cannot hold it.
///
/// # Errors
/// [`Fault::BadRequest`] if only `upstream_http1` could send the target: `h2`, and Pingora for a tunnel, take it from
/// `http::Uri`.
pub(super) fn set_target(request: &mut RequestHeader, ctx: &Context) -> Result<(), Fault> {
    let target = ctx.request.target.origin_form();
    let is_set = request.raw_path() == target.as_bytes();
    if is_set || request.set_raw_path(target.as_bytes()).is_ok() {
        return Ok(());
    }
    let attempt = ctx.attempt.as_ref();
    if attempt.and_then(|it| it.queued_version) != Some(Version::HTTP_11) {
        return Err(Fault::BadRequest);
    }
    upstream_http1::set_target(request, target);
    Ok(())
}

/// Converts a request that goes over a connection of [`upstream_http1`] to the version of that connection, and gives it
/// the source of its body.
pub(super) fn attach_body(session: &Session, request: &mut RequestHeader, ctx: &Context) {
    let version = ctx.attempt.as_ref().and_then(|it| it.queued_version);
    let (Some(version), Some(exchange)) = (version, ctx.exchange.clone()) else {
        return;
    };
    if version == Version::HTTP_11 {
        upstream_http1::convert_request(request);
        let client = session.req_header();
        if accepts_trailers(client, client.version) {
            forward_request::accept_trailers(request);
        }
    } else if request.version != Version::HTTP_2 {
        upstream_h2::upgrade_request(request);
    }
    upstream_h2::attach_body(request, exchange);
}
