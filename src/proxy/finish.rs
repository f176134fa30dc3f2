//! Phase 7: the request is over. Counts it and writes its one line.

use std::time::Duration;

use http::Version as HttpVersion;
use jiff::SignedDuration;
use pingora::proxy::Session;

use super::affinity_refresh;
use super::context::Context;
use super::fault::{self, Fault};
use crate::clock;
use crate::downstream::{AbortReason, Connection, Exchange};
use crate::proxy_protocol::{ProxyAddresses, ProxyHeaderVersion, TlsTlv};
use crate::telemetry::metrics::{BadRequest, StatusClass};
use crate::telemetry::{self, AccessLogRecord};
use crate::upstream::HashTarget;

/// What came of a request, seen from the client.
struct RequestOutcome {
    status: u16,
    body_bytes_sent: u64,
    duration: Duration,
}

/// A request that came to its end in Pingora's hands.
pub(super) fn finish(session: &Session, ctx: &mut Context) {
    let written = session
        .response_written()
        .map(|response| response.status.as_u16())
        .filter(|status| !matches!(status, 100 | 102..=199))
        .unwrap_or(0);
    let status = match ctx.fault {
        // What nginx and Caddy log for a client that left: it saw no status, or not all of it.
        Some(fault @ (Fault::ClientGone | Fault::ClientStalled)) => fault.status(),
        _ => written,
    };
    let sent = session.body_bytes_sent() as u64;
    let duration = clock::since_start().saturating_sub(ctx.started);
    record(
        ctx,
        &RequestOutcome {
            status,
            body_bytes_sent: sent,
            duration,
        },
    );
}

/// A request that was cut: its deadline passed, its task panicked, or the process ended.
pub(super) fn finish_aborted(ctx: &mut Context) {
    let duration = clock::since_start().saturating_sub(ctx.started);
    let fault = abort_fault(ctx);
    let status = aborted_status(ctx, fault);
    ctx.fault = Some(fault);
    ctx.abort_response();
    record(
        ctx,
        &RequestOutcome {
            status,
            body_bytes_sent: ctx.response_body_bytes,
            duration,
        },
    );
}

fn abort_fault(ctx: &Context) -> Fault {
    let exchange = ctx.exchange.as_deref();
    match exchange.and_then(Exchange::abort_reason) {
        _ if std::thread::panicking() => Fault::Panic,
        Some(AbortReason::RequestTimeout)
            if status_sent(ctx) == Some(Fault::BodyTimeout.status()) =>
        {
            Fault::BodyTimeout
        }
        Some(cause) => fault::classify_abort(cause, ctx.request_body_complete),
        None => Fault::Aborted,
    }
}

fn status_sent(ctx: &Context) -> Option<u16> {
    ctx.exchange.as_deref().and_then(Exchange::abort_status)
}

/// What the client saw of a cut request: the header that was on its way; else what it is told now.
fn aborted_status(ctx: &Context, fault: Fault) -> u16 {
    let page = ctx.fault.filter(|_| ctx.response_begun());
    match (fault, ctx.status) {
        (Fault::ClientGone | Fault::ClientStalled, _) => fault.status(),
        (_, 0) => status_sent(ctx).or(page.map(Fault::status)).unwrap_or(0),
        (_, status) => status,
    }
}

fn record(ctx: &mut Context, outcome: &RequestOutcome) {
    ctx.recorded = true;
    if let Some(attempt) = &mut ctx.attempt {
        attempt.permit = None;
    }
    affinity_refresh::finish(ctx);
    count(ctx, outcome);
    ctx.telemetry.log(&access_log_record(ctx, outcome));
}

fn count(ctx: &Context, outcome: &RequestOutcome) {
    if let Some(fault) = ctx.fault {
        ctx.telemetry.metrics.fault(fault.name());
        count_fault(ctx, fault);
    }
    let Some(route) = &ctx.route else {
        return;
    };
    route.metrics.record(
        outcome.status,
        outcome.duration,
        ctx.request_body_bytes,
        outcome.body_bytes_sent,
    );
    let metrics = &route.upstream.metrics;
    metrics.requests.inc(StatusClass::of(outcome.status));
    if let Some(attempt) = &ctx.attempt {
        if let Some(connect) = attempt.connect_time.filter(|connect| !connect.is_zero()) {
            metrics.connect.observe(connect);
        }
        if let Some(first_byte) = ctx.first_byte {
            metrics
                .first_byte
                .observe(first_byte.saturating_sub(attempt.started));
        }
        let owner = match &ctx.target {
            Some(HashTarget::Key(key)) => route.upstream.ring().owner(key),
            _ => None,
        };
        if ctx.status != 0 && owner.is_some_and(|owner| owner != attempt.member) {
            metrics.off_owner.inc();
        }
    }
}

fn count_fault(ctx: &Context, fault: Fault) {
    let refused = |reason| {
        if let Some(connection) = ctx.connection() {
            connection.metrics.bad_requests.inc(reason);
        }
    };
    let process = &ctx.telemetry.metrics.process;
    match fault {
        Fault::ClientGone | Fault::ClientStalled => {
            process.client_aborts.inc();
        }
        Fault::NoRoute | Fault::MethodNotAllowed => {
            process.no_route.inc();
        }
        Fault::KeyMoved => {
            if let Some(upstream) = ctx.upstream() {
                upstream.metrics.moved_streams.inc();
            }
        }
        Fault::BadRequest => refused(BadRequest::Framing),
        Fault::BadHost => refused(BadRequest::Host),
        Fault::BodyTooLarge => refused(BadRequest::BodyTooLarge),
        Fault::HeaderTooLarge => refused(BadRequest::HeaderTooLarge),
        Fault::UriTooLong => refused(BadRequest::UriTooLong),
        _ => {}
    }
}

fn access_log_record<'a>(ctx: &'a Context, outcome: &RequestOutcome) -> AccessLogRecord<'a> {
    let ask = &ctx.request;
    let since = SignedDuration::try_from(outcome.duration).unwrap_or_default();
    AccessLogRecord {
        time: clock::wall()
            .checked_sub(since)
            .unwrap_or_else(|_| clock::wall()),
        client: ask.client_ip,
        listener: ctx
            .connection()
            .map_or("", |connection| &connection.listener_address),
        protocol: protocol_name(ask.version),
        proxy_protocol: ctx.connection().and_then(proxy_header_record),
        tls: ctx.connection().and_then(tls_record),
        method: ask.method.as_str(),
        host: ask.host.as_ref().map(http::HeaderValue::as_bytes),
        path: ask.uri.path().as_bytes(),
        status: outcome.status,
        received: ctx.request_body_bytes,
        sent: outcome.body_bytes_sent,
        duration: outcome.duration,
        connect: ctx
            .attempt
            .as_ref()
            .and_then(|attempt| attempt.connect_time)
            .filter(|connect| !connect.is_zero()),
        first_byte: ctx.first_byte.map(|at| at.saturating_sub(ctx.started)),
        upstream: ctx.upstream().map(|upstream| &*upstream.name),
        peer: ctx.peer().map(|peer| &*peer.label),
        key_source: ctx.key_source,
        key_hash: match &ctx.target {
            Some(HashTarget::Key(key)) => Some(key.hash().0),
            Some(HashTarget::RoundRobin(_)) | None => None,
        },
        attempts: ctx.attempts,
        request_id: ask.id.as_ref().map(http::HeaderValue::as_bytes),
        user_agent: ask.user_agent.as_ref().map(http::HeaderValue::as_bytes),
        fault: ctx.fault.map(Fault::name),
    }
}

fn proxy_header_record(connection: &Connection) -> Option<telemetry::LoggedProxyHeader<'_>> {
    let header = connection.info.proxy_header.as_ref()?;
    Some(telemetry::LoggedProxyHeader {
        from: connection.info.remote_addr,
        version: match header.version {
            ProxyHeaderVersion::V1 => 1,
            ProxyHeaderVersion::V2 => 2,
        },
        origin: match header.addresses {
            ProxyAddresses::Inet { .. } | ProxyAddresses::Unix { .. } => "client",
            ProxyAddresses::Local => "local",
            ProxyAddresses::Unknown => "unknown",
        },
        authority: header.authority(),
        unique_id: header.unique_id(),
        tls: header.tls().and_then(|tls| tls.sub_tlv(TlsTlv::VERSION)),
    })
}

fn tls_record(connection: &Connection) -> Option<telemetry::LoggedTls<'_>> {
    let secured = connection.tls.as_ref()?;
    Some(telemetry::LoggedTls {
        version: secured.version,
        cipher: secured.cipher,
        sni: secured.sni.as_deref(),
        resumed: secured.resumed,
        client: connection
            .client_certificate()
            .and_then(|shown| shown.subject_name.as_deref()),
    })
}

fn protocol_name(version: HttpVersion) -> &'static str {
    match version {
        HttpVersion::HTTP_09 => "HTTP/0.9",
        HttpVersion::HTTP_10 => "HTTP/1.0",
        HttpVersion::HTTP_2 => "HTTP/2",
        HttpVersion::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}
