//! Phase 6, outward: the connection to a peer, and its timeouts.
//!
//! Pingora times the connect and each write of the request. The wait for the response is timed by the
//! exchange's phases: Pingora 0.9.1 has one timeout for a response's header and for the gaps in its body, and
//! none that could tell a slow peer from one that waits for the client.

use std::sync::Arc;
use std::time::Duration;

use http::Version;
use http::header::{EXPECT, UPGRADE};
use pingora::connectors::TransportConnector;
use pingora::http::RequestHeader;
use pingora::protocols::Digest;
use pingora::proxy::Session;
use pingora::upstreams::peer::{HttpPeer, PeerOptions};
use pingora::{Error, ErrorType, Result};

use super::context::Context;
use super::proxy_header;
use crate::clock;
use crate::config::{TimeoutsConfig, UpstreamProtocol};
use crate::downstream::{Connection, Phase};
use crate::fault::Fault;
use crate::pingora_compat::{
    fresh_connection, proxy_header as proxy_header_connector, tunnel, upstream_h2,
};
use crate::route::host_name;

/// The peer of this attempt in Pingora's form: every timeout set, the address already resolved.
pub(crate) fn http_peer(
    session: &mut Session,
    ctx: &mut Context,
    tunnels: &Arc<TransportConnector>,
) -> Result<Box<HttpPeer>> {
    let (Some(attempt), Some(peer)) = (&ctx.attempt, ctx.peer()) else {
        return Err(Error::new_in(ErrorType::InternalError));
    };
    let upstream = &attempt.upstream;
    let Some(mut http) = upstream.http_peer(peer, requested_name(ctx)) else {
        // Only a name that the client chose can be unfit for TLS.
        return Err(ctx.fail_with(Fault::BadHost));
    };
    set_timeouts(&mut http.options, &upstream.config.timeouts);
    if attempt.force_http1 {
        http.options.set_http_version(1, 1);
    }
    let http2 = http.options.alpn.get_max_http_version() == 2;
    if let Some(exchange) = ctx
        .exchange
        .as_deref()
        .filter(|exchange| exchange.is_http2_stream())
    {
        exchange.body_queue.reset();
        if http2 {
            upstream_h2::enable(&mut http);
        }
    }
    if let Some(header) = proxy_header::encode(ctx) {
        // On top of what else keeps connections to this peer apart.
        http.group_key ^= proxy_header::pool_key(&header);
        http.options.custom_l4 = Some(proxy_header_connector::connector(header));
    }
    let is_tunnel = is_tunnel_requested(session);
    if attempt.needs_fresh_connection || is_tunnel {
        fresh_connection::require(&mut http);
    }
    if let (true, Some(exchange)) = (is_tunnel, &ctx.exchange) {
        http = tunnel::wrap_peer(http, upstream.tls.as_ref(), tunnels, exchange);
    }
    Ok(Box::new(http))
}

/// Whether the request asks for a WebSocket and has no body.
fn is_tunnel_requested(session: &mut Session) -> bool {
    let upgrade = session.req_header().headers.get(UPGRADE);
    upgrade.is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && session.as_mut().is_body_empty()
}

/// The requested host in the form of certificates: without a port or brackets.
fn requested_name(ctx: &Context) -> &str {
    host_name(ctx.request.host_text()).trim_matches(['[', ']'])
}

fn set_timeouts(options: &mut PeerOptions, timeouts: &TimeoutsConfig) {
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect);
    options.read_timeout = None;
    options.write_timeout = Some(timeouts.write);
    options.idle_timeout = Some(timeouts.idle);
}

/// Refuses a version of TLS below `min_version`, before anything is sent. Pingora 0.9.1 has no option for it.
///
/// # Errors
/// The peer negotiated an older version.
pub(crate) fn check_tls_version(digest: Option<&Digest>, ctx: &Context) -> Result<()> {
    let tls = ctx
        .attempt
        .as_ref()
        .and_then(|attempt| attempt.upstream.tls.as_ref());
    let negotiated = digest.and_then(|digest| digest.ssl_digest.as_ref());
    match (tls, negotiated) {
        (Some(tls), Some(negotiated)) if !tls.accepts_version(&negotiated.version) => {
            Err(Error::new_up(ErrorType::TLSHandshakeFailure))
        }
        _ => Ok(()),
    }
}

/// Refuses a peer of HTTP/1.1 where the upstream requires HTTP/2: Pingora 0.9.1 would fall back. Tunnels are
/// exempt, as they begin in HTTP/1.1.
///
/// # Errors
/// The peer negotiated HTTP/1.1.
pub(crate) fn check_http_version(
    session: &mut Session,
    request: &RequestHeader,
    ctx: &Context,
) -> Result<()> {
    let protocol = ctx
        .upstream()
        .map(|upstream| upstream.config.transport.protocol);
    let only_h2 = protocol.is_some_and(UpstreamProtocol::is_always_h2);
    if only_h2 && request.version != Version::HTTP_2 && !is_tunnel_requested(session) {
        return Error::e_explain(ErrorType::TLSHandshakeFailure, "no HTTP/2")
            .map_err(|error: Box<Error>| error.into_up());
    }
    Ok(())
}

/// The connection is established; the wait for the response begins.
pub(crate) fn on_connected(session: &Session, ctx: &mut Context, reused: bool) {
    // A pooled connection says nothing about connects.
    let now = (!reused).then(clock::since_start);
    if let Some(attempt) = &mut ctx.attempt {
        let elapsed = now.map(|now| now.saturating_sub(attempt.started));
        attempt.connect_time = Some(elapsed.unwrap_or_default());
    }
    if let (Some(now), Some(peer)) = (now, ctx.peer()) {
        peer.on_connect_success(now);
    }
    if let (Some(exchange), Some(attempt)) = (&ctx.exchange, &ctx.attempt) {
        // None of the body was read yet. A client that expects `100 Continue` waits for the peer; any other
        // has its own read timeout until the body's first piece or end.
        let awaits_continue = session.req_header().headers.contains_key(EXPECT);
        let limit = awaits_continue.then_some(attempt.upstream.config.timeouts.first_byte);
        exchange.enter(Phase::AwaitResponse, limit);
    }
}

/// Some of the body passed, or an interim response came: the peer's time starts anew.
pub(crate) fn on_progress(ctx: &Context) {
    let (Some(exchange), Some(attempt)) = (&ctx.exchange, &ctx.attempt) else {
        return;
    };
    if exchange.phase() != Phase::AwaitResponse {
        return exchange.restart_phase_timer();
    }
    let timeouts = &attempt.upstream.config.timeouts;
    let limit = if ctx.request_body_complete {
        timeouts.first_byte
    } else {
        upload_timeout(&exchange.connection, timeouts.write) + timeouts.first_byte
    };
    exchange.enter(Phase::AwaitResponse, Some(limit));
}

/// The longest time between two pieces of a request's body. Pingora ends the request when the client pauses
/// for longer, or the peer takes nothing for longer; but after a failed write Pingora 0.9.1 waits for a
/// response without a limit, so this phase has one.
fn upload_timeout(connection: &Connection, write: Duration) -> Duration {
    connection.limits.read_timeout.max(write)
}

/// Gives a request that goes to an HTTP/2 peer the source of its body.
pub(crate) fn attach_body(session: &Session, request: &mut RequestHeader, ctx: &Context) {
    if let Some(exchange) = ctx.exchange.clone() {
        upstream_h2::attach_body(session.req_header(), request, exchange);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn requested_name_is_the_host_without_port_and_brackets() {
        let mut ctx = Context::for_test(
            "routes: [{upstream: app}]\nupstreams: {app: {peers: [\"127.0.0.1:2\"]}}",
        );
        for (host, name) in [("a.test:80", "a.test"), ("[::1]:80", "::1"), ("", "")] {
            ctx.request.host = Some(HeaderValue::from_static(host));
            assert_eq!(requested_name(&ctx), name);
        }
    }
}
