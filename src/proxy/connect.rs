//! Phase 6, outward: how a peer is talked to, and how long it may take.

use std::time::Duration;

use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::context::Context;
use crate::clock;
use crate::config::Timeouts;
use crate::connection::{Connection, Phase};

/// The peer of this attempt, as Pingora wants it: every timeout set, the address already looked up.
pub(super) fn peer(_session: &Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
    let attempt = ctx.attempt.as_ref();
    let (Some(attempt), Some(peer)) = (attempt, ctx.peer()) else {
        return Err(Error::new_in(ErrorType::InternalError));
    };
    let timeouts = &attempt.upstream.config.timeouts;
    let left = ctx
        .connection
        .as_ref()
        .and_then(|connection| connection.time_left());
    let connect = left.map_or(timeouts.connect, |left| left.min(timeouts.connect));
    let mut http = HttpPeer::new(peer.address, false, String::new());
    let options = &mut http.options;
    options.connection_timeout = Some(connect);
    options.total_connection_timeout = Some(connect);
    options.read_timeout = read_timeout(timeouts, ctx.ask.upgrade);
    options.write_timeout = Some(timeouts.write);
    options.idle_timeout = Some(timeouts.idle);
    if attempt.fresh {
        // A pool of its own, which nothing is ever put into.
        http.group_key = u64::MAX;
        http.options.idle_timeout = Some(Duration::ZERO);
    }
    ctx.gap = gap(timeouts, ctx.ask.upgrade);
    Ok(Box::new(http))
}

/// The connection stands; from here the peer's answer is awaited.
pub(super) fn connected(ctx: &mut Context, reused: bool) {
    // Of a pooled connection there is nothing to learn.
    let now = (!reused).then(clock::since_start);
    if let Some(attempt) = &mut ctx.attempt {
        let took = now.map(|now| now.saturating_sub(attempt.began));
        attempt.connect = Some(took.unwrap_or_default());
    }
    if let (Some(now), Some(peer)) = (now, ctx.peer()) {
        peer.state.on_connect_success(now);
    }
    await_response(ctx);
}

/// A piece of the request went to the peer: its time to answer starts anew.
pub(super) fn progress(ctx: &Context) {
    match ctx.connection.as_deref().map(Connection::phase) {
        Some(Phase::AwaitResponse) => await_response(ctx),
        Some(Phase::Tunnel) => super::forward::tunnel_progress(ctx),
        _ => {}
    }
}

fn await_response(ctx: &Context) {
    let (Some(connection), Some(attempt)) = (&ctx.connection, &ctx.attempt) else {
        return;
    };
    let timeouts = &attempt.upstream.config.timeouts;
    let pingora_watches = read_timeout(timeouts, ctx.ask.upgrade) == Some(timeouts.first_byte);
    connection.enter(
        Phase::AwaitResponse,
        (!pingora_watches).then_some(timeouts.first_byte),
    );
}

/// Pingora has one timeout for the response's header and for each gap in its body; it gets the
/// longer of the two, and the connection's [`Phase`] deadline watches the other. A request that may
/// become a tunnel has none: a tunnel's idle time counts both directions.
fn read_timeout(timeouts: &Timeouts, upgrade: bool) -> Option<Duration> {
    (!upgrade).then(|| timeouts.first_byte.max(timeouts.read))
}

fn gap(timeouts: &Timeouts, upgrade: bool) -> Option<Duration> {
    (upgrade || timeouts.read < timeouts.first_byte).then_some(timeouts.read)
}
