//! Phase 6, to the client: edits the response's fields, decides the framing of its body, and sets the exchange's deadlines.
//! The hop-by-hop fields of a response are removed here; the carrier removes those of a request.

use std::time::Duration;

use http::header::{CONNECTION, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, StatusCode, Version};

use super::context::Context;
use super::{connect, outlier_detection, response_fields, sticky_cookie, stream_limits, upgrade};
use crate::clock;
use crate::downstream::Phase;
use crate::fault::Fault;
use crate::header::{HeaderEdit, HeaderRead};
use crate::http1::{self, MessageKind};

/// The fields that are hop-by-hop without being named in `Connection` (RFC 9110 §7.6.1).
static HOP_BY_HOP: [HeaderName; 3] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
];

/// Most interim responses to one request; a peer that sends more answers 502. One needs a few at most: `100 Continue`, and early
/// hints (RFC 8297 §2).
const MAX_INTERIM_RESPONSES: u32 = 32;

/// The effects of a response on the client's connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ResponseEffects {
    /// The connection is closed after the response.
    pub(crate) closes_connection: bool,
    /// The read timeout of the request's body ends: from now on the limit of the phase holds for both directions.
    pub(crate) ends_read_timeout: bool,
}

/// Applies the framing rules of our codec to the header of a response, interim or final, that another parser has read.
/// `version`: that of the peer.
///
/// # Errors
/// [`Fault::BadResponse`] if the end of the body is uncertain.
pub(crate) fn normalize_framing(
    status: StatusCode,
    version: Version,
    response: &mut impl HeaderEdit,
    ctx: &Context,
) -> Result<(), Fault> {
    let normalized = http1::normalize_response(response, version, status, &ctx.request.method);
    normalized.map_err(|refusal| refusal.fault(MessageKind::Response))
}

/// Prepares a response's header for the client: of an interim response, a final response or a tunnel (101).
///
/// # Errors
/// [`Fault::BadResponse`] if the peer switches to a protocol that was not asked for; [`Fault::Internal`] if a text is not
/// a valid field value; that of [`on_interim`].
pub(crate) fn prepare_response(
    request: &impl HeaderRead,
    status: StatusCode,
    response: &mut impl HeaderEdit,
    ctx: &mut Context,
) -> Result<ResponseEffects, Fault> {
    let mut effects = ResponseEffects::default();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        check_switch(response, ctx)?;
    } else {
        remove_hop_by_hop(status, response);
        if status.is_informational() {
            response.remove(&CONNECTION);
            return on_interim(status, ctx).map(|()| effects);
        }
        if must_end_at_close(ctx.request.version, response) {
            response.remove(&TRANSFER_ENCODING);
            effects.closes_connection = true;
            ctx.response_ends_at_close = true;
        }
    }
    sticky_cookie::set_cookie(request, response, ctx)?;
    // From here on the response is final: a fault that is to lead to another attempt must be returned before.
    let now = clock::since_start();
    begin_response(status, response, ctx, now, &mut effects);
    outlier_detection::record_response(ctx, status, now);
    ctx.peer_status = status.as_u16();
    ctx.first_byte = Some(now);
    response_fields::set_on_every(response, ctx);
    Ok(effects)
}

/// Accepts 101 only if the peer has the whole request, and switches to a protocol that it was offered (RFC 9110 §7.8): a
/// tunnel has none of the limits on requests.
fn check_switch(response: &impl HeaderRead, ctx: &Context) -> Result<(), Fault> {
    let offered = ctx.upgrade.as_ref().filter(|_| ctx.request_body_complete);
    if offered.is_some_and(|offered| upgrade::is_among(offered, response)) {
        Ok(())
    } else {
        Err(Fault::BadResponse)
    }
}

/// Counts an interim response. It does not restart the time for the final one: otherwise a peer could keep a request open
/// with them. `100 Continue` ends the client's wait to send its body.
///
/// # Errors
/// [`Fault::BadResponse`] after [`MAX_INTERIM_RESPONSES`].
pub(crate) fn on_interim(status: StatusCode, ctx: &mut Context) -> Result<(), Fault> {
    ctx.interim_responses += 1;
    if ctx.interim_responses > MAX_INTERIM_RESPONSES {
        return Err(Fault::BadResponse);
    }
    if status == StatusCode::CONTINUE && !ctx.request_body_complete {
        if let Some(exchange) = &ctx.exchange {
            exchange.release_body_wait();
        }
        connect::on_progress(ctx);
    }
    Ok(())
}

/// Counts a piece of the response's body, and restarts the timer of the phase. `length`: bytes.
pub(crate) fn on_piece(length: usize, ctx: &mut Context) {
    ctx.response_body_bytes += length as u64;
    if let Some(exchange) = &ctx.exchange {
        exchange.restart_phase_timer();
    }
}

/// Enters the phase of the final response, or of the tunnel if the protocol changes.
fn begin_response(
    status: StatusCode,
    response: &impl HeaderRead,
    ctx: &Context,
    now: Duration,
    effects: &mut ResponseEffects,
) {
    let (Some(exchange), Some(upstream)) = (&ctx.exchange, ctx.upstream()) else {
        return;
    };
    let timeouts = &upstream.config.timeouts;
    exchange.begin_response();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        effects.ends_read_timeout = true;
        let tunnel = timeouts.tunnel;
        return exchange.begin_tunnel(tunnel.idle, tunnel.total, timeouts.write);
    }
    // Both directions of a gRPC call may be silent for long.
    effects.ends_read_timeout = ctx.request.grpc_content_type.is_some();
    let is_stream = effects.ends_read_timeout || stream_limits::is_event_stream(response);
    let limit = if is_stream {
        exchange.lift_min_body_rate();
        timeouts.stream
    } else {
        timeouts.read
    };
    exchange.enter_at(Phase::Response, limit, now);
    effects.closes_connection |= exchange.connection.is_draining();
}

/// Whether only the close of the connection can end the body: HTTP/1.0 has no chunks (RFC 9112 §6.1).
fn must_end_at_close(client: Version, response: &impl HeaderRead) -> bool {
    client < Version::HTTP_11 && response.contains(&TRANSFER_ENCODING)
}

/// Removes the peer's hop-by-hop fields (RFC 9110 §7.6.1): those that `Connection` lists and that may be dropped, and
/// [`HOP_BY_HOP`].
/// `Transfer-Encoding` stays, as the carrier translates it, and so does the `Upgrade` of a 426, which requires one
/// (RFC 9110 §15.5.22).
fn remove_hop_by_hop(status: StatusCode, response: &mut impl HeaderEdit) {
    let named = http1::listed_fields(&*response);
    for name in named.iter().chain(&HOP_BY_HOP) {
        response.remove(name);
    }
    if status != StatusCode::UPGRADE_REQUIRED {
        response.remove(&UPGRADE);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::header::header_map;

    fn names(response: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = response.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn response_loses_what_connection_names_and_what_is_always_hop_by_hop() {
        let mut response = header_map(&[
            ("connection", "close, X-One"),
            ("connection", "x-two,Keep-Alive"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("x-three", "3"),
        ]);
        remove_hop_by_hop(StatusCode::OK, &mut response);
        assert_eq!(names(&response), ["connection", "x-three"]);
    }

    #[test]
    fn interim_responses_of_a_request_are_limited() {
        let mut ctx = Context::for_test(
            "routes: [{upstream: app}]\nupstreams: {app: {peers: [\"127.0.0.1:2\"]}}",
        );
        let request = HeaderMap::new();
        let mut interim = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            let prepared = prepare_response(&request, status, &mut HeaderMap::new(), &mut ctx);
            prepared.map(|_| ())
        };
        for count in 0..MAX_INTERIM_RESPONSES {
            let status = if count % 2 == 0 { 100 } else { 103 };
            assert_eq!(interim(status), Ok(()), "{count}");
        }
        assert_eq!(interim(103), Err(Fault::BadResponse));
    }

    #[test]
    fn response_keeps_framing_and_fields_for_the_client_even_if_connection_names_them() {
        let mut response = header_map(&[
            (
                "connection",
                "Content-Length, transfer-encoding, Set-Cookie",
            ),
            ("content-length", "3"),
            ("set-cookie", "a=b"),
            ("transfer-encoding", "chunked"),
        ]);
        remove_hop_by_hop(StatusCode::OK, &mut response);
        let kept = [
            "connection",
            "content-length",
            "set-cookie",
            "transfer-encoding",
        ];
        assert_eq!(names(&response), kept);
    }

    #[test]
    fn upgrade_stays_in_426_only() {
        for (status, stays) in [(426, true), (200, false), (400, false)] {
            let mut response = header_map(&[("connection", "upgrade"), ("upgrade", "h2c")]);
            remove_hop_by_hop(StatusCode::from_u16(status).unwrap(), &mut response);
            assert_eq!(response.contains_key(UPGRADE), stays, "{status}");
        }
    }

    #[test]
    fn switch_is_accepted_only_to_what_was_offered_after_the_whole_request() {
        let response = header_map(&[("connection", "upgrade"), ("upgrade", "websocket")]);
        for (offered, body_complete, accepted) in [
            (Some("websocket"), true, true),
            (Some("foo, websocket"), true, true),
            (Some("websocket"), false, false),
            (Some("foo"), true, false),
            (None, true, false),
        ] {
            let mut ctx = Context::for_test(
                "routes: [{upstream: app}]\nupstreams: {app: {peers: [\"127.0.0.1:2\"]}}",
            );
            ctx.request_body_complete = body_complete;
            ctx.upgrade = offered.map(HeaderValue::from_static);
            let checked = check_switch(&response, &ctx);
            assert_eq!(checked.is_ok(), accepted, "{offered:?} {body_complete}");
        }
    }

    #[test]
    fn chunked_body_ends_at_close_for_http10_only() {
        let chunked = header_map(&[("transfer-encoding", "chunked")]);
        let sized = header_map(&[("content-length", "3")]);
        assert!(must_end_at_close(Version::HTTP_10, &chunked));
        assert!(!must_end_at_close(Version::HTTP_10, &sized));
        assert!(!must_end_at_close(Version::HTTP_11, &chunked));
    }
}
