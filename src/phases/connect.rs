//! Phase 6, to the peer: the deadlines that a connection to a peer starts, and the properties that it must have.
//!
//! The carrier times the connect and each write of the request. The wait for the response is timed by the exchange's
//! phases, which distinguish a slow peer from one that waits for the client.

use std::time::Duration;

use super::context::Context;
use crate::clock;
use crate::downstream::{Connection, Phase};
use crate::route::host_name;

/// The requested host in the form that certificates use: without a port or brackets.
pub(crate) fn requested_name(ctx: &Context) -> &str {
    host_name(ctx.request.host_text()).trim_matches(['[', ']'])
}

/// The connection is established; the wait for the response begins. `reused`: it was pooled. `awaits_continue`: the
/// client sends its body after `100 Continue` (RFC 9110 §10.1.1).
pub(crate) fn on_connected(ctx: &mut Context, reused: bool, awaits_continue: bool) {
    // Only a new connection has a connect time.
    let now = (!reused).then(clock::since_start);
    if let Some(attempt) = &mut ctx.attempt {
        let elapsed = now.map(|now| now.saturating_sub(attempt.started));
        attempt.connect_time = Some(elapsed.unwrap_or_default());
    }
    if let (Some(exchange), Some(attempt)) = (&ctx.exchange, &ctx.attempt) {
        // None of the body was read yet. A client that expects `100 Continue` waits for the peer; any other
        // has its own read timeout until the body's first piece or end.
        let limit = awaits_continue.then_some(attempt.upstream.config.timeouts.first_byte);
        exchange.enter(Phase::AwaitResponse, limit);
        if awaits_continue {
            exchange.hold_body_wait();
        }
    }
}

/// Restarts the peer's timer, because a piece of the body passed or the peer asked for the body (`100 Continue`).
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

/// The longest time between two pieces of a request's body. The carrier ends the request earlier if the client sends
/// nothing, or the peer accepts nothing, for too long. But after a failed write Pingora 0.9.1 waits for a response
/// without a limit, so the phase has this one.
fn upload_timeout(connection: &Connection, write: Duration) -> Duration {
    connection.limits.read_timeout.max(write)
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
