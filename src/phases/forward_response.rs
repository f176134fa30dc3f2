//! Phase 6, back: the response's fields, the framing of its body, and what it means for the exchange's
//! deadlines. Unlike a request's, a response's hop-by-hop fields are not removed by Pingora.

use bytes::Bytes;
use http::header::{CONNECTION, STRICT_TRANSPORT_SECURITY, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, StatusCode, Version};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::context::Context;
use super::{connect, sticky_cookie, stream_limits};
use crate::clock;
use crate::downstream::{Connection, Phase};

/// The fields that are hop-by-hop without being named in `Connection` (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 3] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
];

/// Options of `Connection` that are not a field's name, or one that is dealt with elsewhere.
const HANDLED_ELSEWHERE: [&str; 5] = [
    "close",
    "content-length",
    "keep-alive",
    "transfer-encoding",
    "upgrade",
];

/// The response's header came, and Pingora has settled how its body is framed.
pub(crate) fn prepare_response(
    session: &mut Session,
    response: &mut ResponseHeader,
    ctx: &mut Context,
) -> Result<()> {
    let status = response.status.as_u16();
    if status != 101 {
        remove_hop_by_hop(response);
        if response.status.is_informational() {
            response.remove_header(&CONNECTION);
            connect::on_progress(ctx);
            return Ok(());
        }
        if must_end_at_close(ctx.request.version, response) {
            response.remove_header(&TRANSFER_ENCODING);
            session.set_keepalive(None);
            ctx.response_ends_at_close = true;
        }
    }
    sticky_cookie::set_cookie(session.req_header(), response, ctx)?;
    begin_response(session, response, ctx);
    ctx.peer_status = status;
    ctx.first_byte = Some(clock::since_start());
    set_hsts(response, ctx.connection())
}

/// Tells browsers to use HTTPS only, on a TLS listener with `hsts` (RFC 6797, 7.1).
pub(crate) fn set_hsts(
    response: &mut ResponseHeader,
    connection: Option<&Connection>,
) -> Result<()> {
    let secured = connection.and_then(|connection| connection.tls.as_ref());
    match secured.and_then(|secured| secured.hsts.clone()) {
        Some(hsts) => response.insert_header(STRICT_TRANSPORT_SECURITY, hsts),
        None => Ok(()),
    }
}

/// A piece of the response's body passed.
pub(crate) fn on_response_body(piece: Option<&Bytes>, ctx: &mut Context) {
    let Some(piece) = piece else { return };
    ctx.response_body_bytes += piece.len() as u64;
    if let Some(exchange) = &ctx.exchange {
        exchange.restart_phase_timer();
    }
}

/// The final response passes; or the protocol changes, and a tunnel begins.
fn begin_response(session: &mut Session, response: &ResponseHeader, ctx: &Context) {
    let (Some(exchange), Some(upstream)) = (&ctx.exchange, ctx.upstream()) else {
        return;
    };
    let timeouts = &upstream.config.timeouts;
    exchange.begin_response();
    if response.status == 101 {
        session.set_read_timeout(None);
        let tunnel = timeouts.tunnel;
        return exchange.begin_tunnel(tunnel.idle, tunnel.total, timeouts.write);
    }
    let is_call = ctx.request.grpc_content_type.is_some();
    if is_call {
        // Both directions of a call may be silent; the phase's limit holds for the two together.
        session.set_read_timeout(None);
    }
    let is_stream = is_call || stream_limits::is_event_stream(&response.headers);
    let limit = if is_stream {
        timeouts.stream
    } else {
        timeouts.read
    };
    exchange.enter(Phase::Response, Some(limit));
    // Pingora looks at its shutdown flag only when it reads a request.
    if exchange.connection.is_draining() {
        session.set_keepalive(None);
    }
}

/// Whether the end of the connection must end the body: HTTP/1.0 knows no chunks (RFC 9112, 6.1).
fn must_end_at_close(client: Version, response: &ResponseHeader) -> bool {
    client < Version::HTTP_11 && response.headers.contains_key(TRANSFER_ENCODING)
}

/// Removes the peer's hop-by-hop fields (RFC 9110, 7.6.1): those that `Connection` names, and [`HOP_BY_HOP`].
/// `Transfer-Encoding` stays, as Pingora translates it, and so does the `Upgrade` of a 426, which requires one
/// (RFC 9110, 15.5.22).
fn remove_hop_by_hop(response: &mut ResponseHeader) {
    let lines: Vec<_> = response
        .headers
        .get_all(CONNECTION)
        .iter()
        .cloned()
        .collect();
    for line in &lines {
        let named = line.to_str().unwrap_or("").split(',').map(str::trim);
        for name in named.filter(|name| !is_handled_elsewhere(name)) {
            response.remove_header(name);
        }
    }
    for name in &HOP_BY_HOP {
        response.remove_header(name);
    }
    if response.status != StatusCode::UPGRADE_REQUIRED {
        response.remove_header(&UPGRADE);
    }
}

fn is_handled_elsewhere(option: &str) -> bool {
    HANDLED_ELSEWHERE
        .iter()
        .any(|known| option.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, fields: &[(&'static str, &'static str)]) -> ResponseHeader {
        let mut response = ResponseHeader::build(status, None).unwrap();
        for (name, value) in fields {
            response.append_header(*name, *value).unwrap();
        }
        response
    }

    fn names(response: &ResponseHeader) -> Vec<&str> {
        let mut names: Vec<_> = response.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn response_loses_what_connection_names_and_what_is_always_hop_by_hop() {
        let mut response = response(
            200,
            &[
                ("connection", "close, X-One"),
                ("connection", "x-two,Keep-Alive"),
                ("x-one", "1"),
                ("x-two", "2"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("te", "trailers"),
                ("upgrade", "h2c"),
                ("x-three", "3"),
            ],
        );
        remove_hop_by_hop(&mut response);
        assert_eq!(names(&response), ["connection", "x-three"]);
    }

    #[test]
    fn response_keeps_framing_even_if_connection_names_it() {
        let mut response = response(
            200,
            &[
                ("connection", "Content-Length, transfer-encoding"),
                ("content-length", "3"),
                ("transfer-encoding", "chunked"),
            ],
        );
        remove_hop_by_hop(&mut response);
        assert_eq!(
            names(&response),
            ["connection", "content-length", "transfer-encoding"]
        );
    }

    #[test]
    fn upgrade_stays_in_426_only() {
        for (status, stays) in [(426, true), (200, false), (400, false)] {
            let mut response = response(status, &[("connection", "upgrade"), ("upgrade", "h2c")]);
            remove_hop_by_hop(&mut response);
            assert_eq!(response.headers.contains_key(UPGRADE), stays, "{status}");
        }
    }

    #[test]
    fn chunked_body_ends_at_close_for_http10_only() {
        let chunked = response(200, &[("transfer-encoding", "chunked")]);
        let sized = response(200, &[("content-length", "3")]);
        assert!(must_end_at_close(Version::HTTP_10, &chunked));
        assert!(!must_end_at_close(Version::HTTP_10, &sized));
        assert!(!must_end_at_close(Version::HTTP_11, &chunked));
    }
}
