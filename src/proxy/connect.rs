//! Phase 6, outward: how a peer is talked to, and how long it may take.
//!
//! Pingora times the connect and each write of the request. What the peer takes to answer is timed by
//! the connection's phases: Pingora has one timeout for a response's header and for the gaps in its
//! body, and none that could tell a peer that is slow from one that waits for the client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::Version;
use http::header::EXPECT;
use pingora::connectors::TransportConnector;
use pingora::http::RequestHeader;
use pingora::protocols::Digest;
use pingora::proxy::Session;
use pingora::upstreams::peer::{HttpPeer, PeerOptions};
use pingora::{Error, ErrorType, Result};

use super::context::Context;
use super::fault::Fault;
use super::{proxy_header, tunnel, upstream_h2};
use crate::clock;
use crate::config::{TimeoutsConfig, UpstreamProtocol};
use crate::downstream::{Connection, Phase};
use crate::pingora_compat::proxy_header as proxy_header_connector;
use crate::route::host_name;

/// The peer of this attempt, as Pingora wants it: every timeout set, the address already looked up.
pub(super) fn http_peer(
    session: &mut Session,
    ctx: &mut Context,
    tunnels: &Arc<TransportConnector>,
) -> Result<Box<HttpPeer>> {
    let (Some(attempt), Some(peer)) = (&ctx.attempt, ctx.peer()) else {
        return Err(Error::new_in(ErrorType::InternalError));
    };
    let upstream = &attempt.upstream;
    let Some(mut http) = upstream.http_peer(peer, requested_name(ctx)) else {
        // Only a name that the client chose can be none.
        ctx.fault = Some(Fault::BadHost);
        return Err(Error::new_down(ErrorType::HTTPStatus(400)));
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
        // With whatever else tells connections to this peer apart.
        http.group_key ^= proxy_header::pool_key(&header);
        http.options.custom_l4 = Some(proxy_header_connector::connector(header));
    }
    let tunnel = tunnel::is_requested(session);
    if attempt.fresh_connection || tunnel {
        http.options.idle_timeout = Some(Duration::ZERO);
        http.group_key = unique_pool_key();
    }
    if let (true, Some(exchange)) = (tunnel, &ctx.exchange) {
        http = tunnel::wrap_peer(http, upstream.tls.as_ref(), tunnels, exchange);
    }
    Ok(Box::new(http))
}

/// The name that the client asked for, as certificates have it.
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

/// The connection stands: what Pingora could not be told to demand of it is demanded now, before
/// anything is said.
///
/// # Errors
/// The peer speaks an older version of TLS than it may.
pub(super) fn check_tls_version(digest: Option<&Digest>, ctx: &Context) -> Result<()> {
    let tls = ctx
        .attempt
        .as_ref()
        .and_then(|attempt| attempt.upstream.tls.as_ref());
    let secured = digest.and_then(|digest| digest.ssl_digest.as_ref());
    match (tls, secured) {
        (Some(tls), Some(secured)) if !tls.accepts_version(&secured.version) => {
            Err(Error::new_up(ErrorType::TLSHandshakeFailure))
        }
        _ => Ok(()),
    }
}

/// Where nothing but HTTP/2 will do, Pingora goes on in HTTP/1.1 with a peer that does not speak it.
/// Tunnels begin as that.
///
/// # Errors
/// It is that peer.
pub(super) fn check_http_version(
    session: &mut Session,
    request: &RequestHeader,
    ctx: &Context,
) -> Result<()> {
    let protocol = ctx
        .upstream()
        .map(|upstream| upstream.config.transport.protocol);
    let only_h2 = protocol.is_some_and(UpstreamProtocol::is_always_h2);
    if only_h2 && request.version != Version::HTTP_2 && !tunnel::is_requested(session) {
        return Error::e_explain(ErrorType::TLSHandshakeFailure, "no HTTP/2")
            .map_err(|error: Box<Error>| error.into_up());
    }
    Ok(())
}

/// The connection stands; from here the peer's answer is awaited.
pub(super) fn on_connected(session: &Session, ctx: &mut Context, reused: bool) {
    // Of a pooled connection there is nothing to learn.
    let now = (!reused).then(clock::since_start);
    if let Some(attempt) = &mut ctx.attempt {
        let took = now.map(|now| now.saturating_sub(attempt.started));
        attempt.connect_time = Some(took.unwrap_or_default());
    }
    if let (Some(now), Some(peer)) = (now, ctx.peer()) {
        peer.on_connect_success(now);
    }
    if let (Some(exchange), Some(attempt)) = (&ctx.exchange, &ctx.attempt) {
        // Nothing was read of the body yet. Whoever asked for `100 Continue` waits for the peer; for
        // the others, the client's own read timeout holds until the first piece or the end is there.
        let waits = session.req_header().headers.contains_key(EXPECT);
        let limit = waits.then_some(attempt.upstream.config.timeouts.first_byte);
        exchange.enter(Phase::AwaitResponse, limit);
    }
}

/// Something passed on its way to the peer, or an interim response from it: its time starts anew.
pub(super) fn on_progress(ctx: &Context) {
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

/// The longest time between two pieces of a request's body: Pingora ends it when the client pauses
/// for longer, or the peer takes nothing for longer. But after a failed write it still waits for a
/// response, without a limit, so this phase has one.
fn upload_timeout(connection: &Connection, write: Duration) -> Duration {
    connection.limits.read_timeout.max(write)
}

/// The key of a pool that nothing was ever put into, so that the connection is a new one.
fn unique_pool_key() -> u64 {
    /// Pooled connections have group key 0, or a large one.
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}
