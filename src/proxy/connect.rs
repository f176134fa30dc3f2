//! Phase 6, outward: how a peer is talked to, and how long it may take.
//!
//! Pingora times the connect and each write of the request. What the peer takes to answer is timed by
//! the connection's phases: Pingora has one timeout for a response's header and for the gaps in its
//! body, and none that could tell a peer that is slow from one that waits for the client.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::header::EXPECT;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::context::Context;
use super::{introduction, tunnel};
use crate::clock;
use crate::connection::{Connection, Phase};
use crate::dial;

/// The peer of this attempt, as Pingora wants it: every timeout set, the address already looked up.
pub(super) fn peer(session: &mut Session, ctx: &Context) -> Result<Box<HttpPeer>> {
    let (Some(attempt), Some(peer)) = (&ctx.attempt, ctx.peer()) else {
        return Err(Error::new_in(ErrorType::InternalError));
    };
    let timeouts = &attempt.upstream.config.timeouts;
    let mut http = HttpPeer::new(peer.address, false, String::new());
    let options = &mut http.options;
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect);
    options.read_timeout = None;
    options.write_timeout = Some(timeouts.write);
    options.idle_timeout = Some(timeouts.idle);
    let tunnel = tunnel::is_asked_for(session);
    let header = introduction::header(ctx);
    if let Some(header) = &header {
        // With whatever else tells connections to this peer apart.
        http.group_key ^= introduction::pool(header);
    }
    options.custom_l4 = if tunnel {
        Some(tunnel::connector(header))
    } else {
        header.map(dial::introducing)
    };
    if attempt.fresh || tunnel {
        options.idle_timeout = Some(Duration::ZERO);
        http.group_key = own_pool();
    }
    Ok(Box::new(http))
}

/// The connection stands; from here the peer's answer is awaited.
pub(super) fn connected(session: &Session, ctx: &mut Context, reused: bool) {
    // Of a pooled connection there is nothing to learn.
    let now = (!reused).then(clock::since_start);
    if let Some(attempt) = &mut ctx.attempt {
        let took = now.map(|now| now.saturating_sub(attempt.began));
        attempt.connect = Some(took.unwrap_or_default());
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
pub(super) fn progress(ctx: &Context) {
    let (Some(exchange), Some(attempt)) = (&ctx.exchange, &ctx.attempt) else {
        return;
    };
    if exchange.phase() != Phase::AwaitResponse {
        return exchange.restart();
    }
    let timeouts = &attempt.upstream.config.timeouts;
    let limit = if ctx.body_done {
        timeouts.first_byte
    } else {
        upload(&exchange.connection, timeouts.write) + timeouts.first_byte
    };
    exchange.enter(Phase::AwaitResponse, Some(limit));
}

/// The longest time between two pieces of a request's body: Pingora ends it when the client pauses
/// for longer, or the peer takes nothing for longer. But after a failed write it still waits for a
/// response, without a limit, so this phase has one.
fn upload(connection: &Connection, write: Duration) -> Duration {
    connection.limits.read_timeout.max(write)
}

/// The key of a pool that nothing was ever put into, so that the connection is a new one.
fn own_pool() -> u64 {
    /// Pooled connections have group key 0.
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}
