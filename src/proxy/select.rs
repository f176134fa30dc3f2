//! Phases 3 to 5: the route's key, its place on the ring, the peer.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};
use tokio::time::timeout;

use super::context::{Attempt, Context, RequestInfo};
use super::fault::Fault;
use crate::clock;
use crate::config::MissingKey;
use crate::cookie;
use crate::downstream::{Connection, Phase};
use crate::key::{self, KeyBuffer, KeySource};
use crate::ring::MemberId;
use crate::upstream::in_flight::UpstreamPermit;
use crate::upstream::{Admission, AdmitOutcome, HashTarget, QueuedRequest, Tried, Upstream};

/// Finds the request's place on the ring.
pub(super) fn compute_key(session: &Session, ctx: &mut Context) -> Result<(), Fault> {
    let upstream = Arc::clone(ctx.upstream().ok_or(Fault::NoRoute)?);
    ctx.target = Some(hash_target(session, ctx, &upstream)?);
    Ok(())
}

/// Chooses the peer that is asked first. Where that is full, it may take a little while.
pub(super) async fn select_initial(ctx: &mut Context) -> Result<(), Fault> {
    let (Some(upstream), Some(target)) = (ctx.upstream().map(Arc::clone), ctx.target.clone())
    else {
        return Err(Fault::NoRoute);
    };
    let mut now = clock::since_start();
    let admitted =
        match upstream.admit_or_enqueue(&target, &ctx.tried, now, upstream.begin_request()) {
            Ok(AdmitOutcome::Admitted(admitted)) => Ok(admitted),
            Ok(AdmitOutcome::Queued(wait)) => {
                let admitted = wait_in_queue(wait).await;
                now = clock::since_start();
                admitted
            }
            Err(ticket) => Err(ticket),
        };
    if let Ok(admitted) = admitted {
        ctx.attempt = Some(new_attempt(&upstream, &target, &ctx.tried, admitted, now));
        return Ok(());
    }
    upstream.metrics.no_available_peer.inc();
    Err(Fault::NoAvailablePeer)
}

/// Waits for a place, as long as that may last; the request goes on without one then.
async fn wait_in_queue(mut wait: QueuedRequest<'_>) -> Result<Admission, UpstreamPermit<'_>> {
    let limit = wait.timeout();
    let place = poll_fn(|context| wait.poll(context.waker(), clock::since_start()));
    let _ = timeout(limit, place).await;
    wait.finish(clock::since_start())
}

/// The peer of this attempt is known; starts its clock, and whatever else an attempt counts.
pub(super) fn start_attempt(ctx: &mut Context) -> Result<()> {
    // What was read of the body is sent again, from its start.
    (ctx.request_body_bytes, ctx.request_body_complete) = (0, false);
    if let Some(exchange) = &ctx.exchange {
        exchange.enter(Phase::Request, None);
    }
    let attempt = ctx
        .attempt
        .as_mut()
        .ok_or_else(|| Error::new_in(ErrorType::InternalError))?;
    // A fresh connection after a dead one is the same attempt, begun anew.
    if attempt.fresh_connection {
        attempt.started = clock::since_start();
    } else {
        ctx.attempts += 1;
    }
    if let Some(peer) = ctx.peer() {
        peer.metrics.attempts.inc();
    }
    Ok(())
}

/// Leaves the peer that failed and chooses the next one of the same walk; false: there is none.
pub(super) fn advance(ctx: &mut Context) -> bool {
    let failed = ctx.attempt.as_ref().map(|attempt| attempt.member);
    if let Some(member) = failed {
        ctx.tried.insert(member);
    }
    let moved = select_next(ctx);
    let peer = ctx
        .upstream()
        .zip(failed)
        .and_then(|(upstream, member)| upstream.peer(member));
    if let (true, Some(peer)) = (moved, peer) {
        peer.metrics.retries.inc();
    }
    moved
}

/// Whether another peer could still be asked.
pub(super) fn has_untried_peer(ctx: &Context) -> bool {
    let (Some(target), Some(attempt)) = (&ctx.target, &ctx.attempt) else {
        return false;
    };
    let mut tried = ctx.tried;
    tried.insert(attempt.member);
    attempt
        .upstream
        .select(target, &tried, clock::since_start())
        .is_some()
}

fn hash_target(
    session: &Session,
    ctx: &mut Context,
    upstream: &Upstream,
) -> Result<HashTarget, Fault> {
    let connection = ctx
        .exchange
        .as_deref()
        .map(|exchange| &*exchange.connection);
    let request = key_request(session, &ctx.request, connection);
    let mut buffer = KeyBuffer::default();
    let sources = &upstream.config.key;
    if let Some((source, key)) = key::extract(sources, &request, &mut buffer) {
        let source = sources.get(source);
        ctx.key_source = source.map(KeySource::name);
        ctx.sticky_cookie = source.and_then(|source| cookie_to_refresh(source, key));
        return Ok(HashTarget::Key(upstream.key(key)));
    }
    if let Some((source, _)) = key::cookie_to_issue(sources) {
        let value = cookie::encode_value(rand::random());
        let target = HashTarget::Key(upstream.key(value.as_bytes()));
        ctx.key_source = sources.get(source).map(KeySource::name);
        ctx.sticky_cookie = Some(value);
        upstream.metrics.cookies_made.inc();
        return Ok(target);
    }
    upstream.metrics.missing_key.inc();
    match upstream.config.missing_key {
        MissingKey::RoundRobin => Ok(upstream.next_round_robin()),
        MissingKey::Reject => Err(Fault::MissingKey),
    }
}

/// The value of a cookie that the client has, and is given again.
fn cookie_to_refresh(source: &KeySource, key: &[u8]) -> Option<String> {
    match source {
        KeySource::StickyCookie(sticky) if sticky.refresh => String::from_utf8(key.to_vec()).ok(),
        _ => None,
    }
}

/// Only streams want to know.
fn is_overflow(upstream: &Upstream, target: &HashTarget, tried: &Tried, member: MemberId) -> bool {
    let home = || upstream.select(target, tried, clock::since_start());
    upstream.config.close_moved_streams.is_some()
        && home().is_some_and(|home| home.member != member)
}

/// The key of a request that has a place on the ring.
pub(super) fn key_bytes(session: &Session, ctx: &Context) -> Option<Box<[u8]>> {
    let Some(HashTarget::Key(_)) = ctx.target else {
        return None;
    };
    let request = key_request(session, &ctx.request, ctx.connection());
    let mut buffer = KeyBuffer::default();
    let found = key::extract(&ctx.upstream()?.config.key, &request, &mut buffer);
    let made = || ctx.sticky_cookie.as_deref().map(str::as_bytes);
    found.map(|(_, key)| key).or_else(made).map(Box::from)
}

fn key_request<'a>(
    session: &'a Session,
    ask: &'a RequestInfo,
    connection: Option<&'a Connection>,
) -> key::KeyRequest<'a> {
    let shown = connection.and_then(Connection::client_certificate);
    key::KeyRequest {
        parts: session.req_header(),
        host: ask.host_text(),
        client_ip: ask.client_ip(),
        client_cert_subject: shown.and_then(|shown| shown.subject_name.as_deref()),
    }
}

fn select_next(ctx: &mut Context) -> bool {
    let Some(upstream) = ctx.upstream().map(Arc::clone) else {
        return false;
    };
    let Some(target) = &ctx.target else {
        return false;
    };
    // The try before, if there was one, is over: the request leaves that peer and stays in flight.
    let ticket = ctx
        .attempt
        .as_mut()
        .and_then(|attempt| attempt.permit.take())
        .map_or_else(
            || upstream.begin_request(),
            |place| upstream.leave_peer(place),
        );
    let now = clock::since_start();
    let Ok(admitted) = upstream.admit(target, &ctx.tried, now, ticket) else {
        return false;
    };
    ctx.attempt = Some(new_attempt(&upstream, target, &ctx.tried, admitted, now));
    true
}

fn new_attempt(
    upstream: &Arc<Upstream>,
    target: &HashTarget,
    tried: &Tried,
    admitted: Admission,
    began: Duration,
) -> Attempt {
    Attempt {
        is_overflow: is_overflow(upstream, target, tried, admitted.member),
        upstream: Arc::clone(upstream),
        member: admitted.member,
        epoch: admitted.epoch,
        permit: Some(admitted.permit),
        started: began,
        connect_time: None,
        fresh_connection: false,
        force_http1: false,
    }
}
