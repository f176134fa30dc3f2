//! Phase 7: counts a request that has ended, and writes its line to the access log.

use std::time::Duration;

use http::Version as HttpVersion;
use jiff::SignedDuration;

use super::context::Context;
use super::{attempt_events, local_reply};
use crate::clock;
use crate::downstream::{Connection, Exchange, LocalReply};
use crate::fault::Fault;
use crate::proxy_protocol::{ProxyAddresses, ProxyHeaderVersion, TlsTlv};
use crate::telemetry::metrics::{BadRequest, StatusClass};
use crate::telemetry::{self, AccessLogRecord};
use crate::upstream::HashTarget;

/// The result of a request, as the client saw it.
struct RequestOutcome {
    status: u16,
    body_bytes_sent: u64,
    duration: Duration,
}

/// Records a request that its carrier has ended. `written`: the status of the last response that was sent to the client;
/// 0: none.
pub(crate) fn finish(ctx: &mut Context, written: u16, body_bytes_sent: u64) {
    let written = match written {
        100 | 102..=199 => 0,
        status => status,
    };
    let outcome = RequestOutcome {
        status: logged_status(written, ctx.fault),
        body_bytes_sent,
        duration: clock::since_start().saturating_sub(ctx.started),
    };
    record(ctx, &outcome);
}

/// The status for the log. As in nginx and Caddy it is 499 if the client left before the end of the response.
fn logged_status(written: u16, fault: Option<Fault>) -> u16 {
    match fault {
        Some(fault) if fault.is_client_abort() => fault.status(),
        _ => written,
    }
}

impl Drop for Context {
    /// Records a request that a deadline or a panic aborted: its carrier is dropped before it can end the request.
    fn drop(&mut self) {
        if !self.is_recorded && self.exchange.is_some() {
            finish_aborted(self);
        }
    }
}

/// Records a request that was aborted: its deadline passed, its task panicked, or the process ended. If the
/// client has no response yet, leaves one in the exchange. If it has the whole response, there is no failure.
fn finish_aborted(ctx: &mut Context) {
    let fault = abort_fault(ctx);
    if ctx.response_complete() && fault != Fault::Panic {
        let outcome = RequestOutcome {
            status: begun_status(ctx),
            body_bytes_sent: ctx.response_body_bytes,
            duration: clock::since_start().saturating_sub(ctx.started),
        };
        return record(ctx, &outcome);
    }
    // Without the whole body, the client may be the one that waits.
    if ctx.request_body_complete {
        attempt_events::fail(ctx, fault, false);
    }
    let replied = ctx
        .exchange
        .as_deref()
        .and_then(|exchange| local_reply::leave_reply(ctx, exchange, fault));
    let (status, body_bytes_sent) =
        replied.unwrap_or_else(|| (aborted_status(ctx, fault), ctx.response_body_bytes));
    ctx.fault = Some(fault);
    ctx.reset_if_close_ends_body();
    let outcome = RequestOutcome {
        status,
        body_bytes_sent,
        duration: clock::since_start().saturating_sub(ctx.started),
    };
    record(ctx, &outcome);
}

/// Records a request without a complete, valid header: only its client and the fault are known. The counters of the
/// listener count the reason for the close instead.
pub(crate) fn finish_partial(ctx: &mut Context, reply: &LocalReply) {
    ctx.is_recorded = true;
    if let Some(fault) = ctx.fault {
        ctx.telemetry.metrics.fault(fault.name());
    }
    let outcome = RequestOutcome {
        status: reply.status.as_u16(),
        body_bytes_sent: reply.body.len() as u64,
        duration: Duration::ZERO,
    };
    ctx.telemetry.log(&AccessLogRecord {
        protocol: "",
        method: "",
        path: b"",
        ..access_log_record(ctx, &outcome)
    });
}

fn abort_fault(ctx: &Context) -> Fault {
    if std::thread::panicking() {
        return Fault::Panic;
    }
    let exchange = ctx.exchange.as_deref();
    exchange
        .and_then(|exchange| Exchange::abort_fault(exchange, ctx.request_body_complete))
        .unwrap_or(Fault::Aborted)
}

/// The status of an aborted request without a reply.
fn aborted_status(ctx: &Context, fault: Fault) -> u16 {
    if fault.is_client_abort() {
        fault.status()
    } else {
        begun_status(ctx)
    }
}

/// The status of the response, or of the page, that has begun; 0: none has begun.
fn begun_status(ctx: &Context) -> u16 {
    let page = ctx.fault.filter(|_| ctx.response_begun());
    match ctx.peer_status {
        0 => page.map_or(0, Fault::status),
        status => status,
    }
}

fn record(ctx: &mut Context, outcome: &RequestOutcome) {
    ctx.is_recorded = true;
    attempt_events::end(ctx);
    if let Some(exchange) = &ctx.exchange {
        exchange.affinity_task.finish(clock::since_start);
    }
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
        let owner = match &ctx.hash_target {
            Some(HashTarget::Key(key)) => route.upstream.ring().owner(key),
            _ => None,
        };
        if ctx.peer_status != 0 && owner.is_some_and(|owner| owner != attempt.member) {
            metrics.off_owner.inc();
        }
    }
}

fn count_fault(ctx: &Context, fault: Fault) {
    let refuse = |reason| {
        if let Some(connection) = ctx.connection() {
            connection.metrics.bad_requests.inc(reason);
        }
    };
    let process = &ctx.telemetry.metrics.process;
    match fault {
        _ if fault.is_client_abort() => {
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
        Fault::BadRequest if ctx.is_malformed() => refuse(BadRequest::Malformed),
        Fault::BadRequest | Fault::CodingUnsupported => refuse(BadRequest::Framing),
        Fault::VersionUnsupported => refuse(BadRequest::Malformed),
        Fault::AmbiguousPath => refuse(BadRequest::Path),
        Fault::BadHost => refuse(BadRequest::Host),
        Fault::BodyTooLarge => refuse(BadRequest::BodyTooLarge),
        Fault::HeaderTooLarge => refuse(BadRequest::HeaderTooLarge),
        Fault::UriTooLong => refuse(BadRequest::UriTooLong),
        _ => {}
    }
}

fn access_log_record<'a>(ctx: &'a Context, outcome: &RequestOutcome) -> AccessLogRecord<'a> {
    let request = &ctx.request;
    let since = SignedDuration::try_from(outcome.duration).unwrap_or_default();
    AccessLogRecord {
        time: clock::wall()
            .checked_sub(since)
            .unwrap_or_else(|_| clock::wall()),
        client: request.client_ip,
        listener: ctx
            .connection()
            .map_or("", |connection| &connection.listener_address),
        protocol: protocol_name(request.version),
        proxy_protocol: ctx.connection().and_then(proxy_header_record),
        tls: ctx.connection().and_then(tls_record),
        method: request.method.as_str(),
        host: request.host_bytes(),
        path: request.target.path().as_bytes(),
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
        key_hash: match &ctx.hash_target {
            Some(HashTarget::Key(key)) => Some(key.hash().0),
            Some(HashTarget::RoundRobin(_)) | None => None,
        },
        attempts: ctx.attempts,
        request_id: request.id.as_ref().map(http::HeaderValue::as_bytes),
        user_agent: request.user_agent.as_ref().map(http::HeaderValue::as_bytes),
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
    let tls = connection.tls.as_ref()?;
    Some(telemetry::LoggedTls {
        version: tls.version,
        cipher: tls.cipher,
        sni: tls.sni.as_deref(),
        resumed: tls.resumed,
        client: connection
            .client_certificate()
            .and_then(|certificate| certificate.subject_name.as_deref()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_that_left_is_logged_as_499_whatever_was_written() {
        assert_eq!(logged_status(200, None), 200);
        assert_eq!(logged_status(504, Some(Fault::FirstByteTimeout)), 504);
        assert_eq!(logged_status(200, Some(Fault::ClientGone)), 499);
        assert_eq!(logged_status(0, Some(Fault::ClientStalled)), 499);
    }

    #[test]
    fn aborted_request_is_logged_with_the_status_that_had_passed() {
        let mut ctx = Context::for_test(
            "routes: [{upstream: app}]\nupstreams: {app: {peers: [\"127.0.0.1:2\"]}}",
        );
        assert_eq!(aborted_status(&ctx, Fault::Aborted), 0);
        ctx.peer_status = 200;
        assert_eq!(aborted_status(&ctx, Fault::ResponseStalled), 200);
        assert_eq!(aborted_status(&ctx, Fault::ClientGone), 499);
    }

    #[test]
    fn protocol_name_follows_version() {
        for (version, name) in [
            (HttpVersion::HTTP_10, "HTTP/1.0"),
            (HttpVersion::HTTP_11, "HTTP/1.1"),
            (HttpVersion::HTTP_2, "HTTP/2"),
        ] {
            assert_eq!(protocol_name(version), name);
        }
    }
}
