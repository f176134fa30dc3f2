//! Phase 6, outward: the fields that a peer gets from us, and those of a client that it must not get. A request's
//! hop-by-hop fields are removed by Pingora.

use std::net::IpAddr;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST, TE};
use http::{HeaderName, HeaderValue, Version};
use pingora::http::RequestHeader;
use pingora::{ErrorType, OrErr, Result};

use super::context::Context;
use super::request_info::RequestInfo;
use crate::config::HostHeader;
use crate::downstream::{Connection, Exchange};
use crate::grpc;

// Static text: Pingora's header map takes it without a copy, and parses a `HeaderName` again.
const FORWARDED: &str = "forwarded";
const X_FORWARDED_FOR: &str = "x-forwarded-for";
pub(crate) const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
const X_FORWARDED_HOST: &str = "x-forwarded-host";
const CLIENT_CERT: &str = "client-cert";

/// The fields that describe the way of a request so far; those of an untrusted client are removed.
const FORWARDING_FIELDS: [&str; 9] = [
    FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
    "x-forwarded-port",
    "x-forwarded-server",
    "x-real-ip",
    CLIENT_CERT,
    "client-cert-chain",
];

/// Writes the fields that a peer gets from us into the request for it.
pub(crate) fn set_request_headers(request: &mut RequestHeader, ctx: &Context) -> Result<()> {
    let forwarding = &ctx.snapshot.forwarding;
    collapse_content_length(request)?;
    remove_forwarding_fields(request, ctx.request.from_trusted);
    if let Some(connection) = ctx.connection()
        && let (Some(client), Some(text)) = (connection.client_addr, &connection.client_ip_value)
    {
        if forwarding.x_forwarded {
            set_x_forwarded(request, &ctx.request, text, scheme(connection))?;
        }
        if forwarding.forwarded {
            let element = forwarded_element(&ctx.request, client.ip(), scheme(connection));
            append_to_list(
                request,
                FORWARDED,
                element.try_into().or_err(ErrorType::InternalError, "for")?,
            )?;
        }
    }
    if let Some(connection) = ctx.connection() {
        set_client_cert(request, connection, forwarding.client_cert)?;
    }
    if let (Some(name), Some(id)) = (&forwarding.request_id, &ctx.request.id) {
        request.insert_header(name.clone(), id.clone())?;
    }
    let time_left = ctx
        .exchange
        .as_deref()
        .and_then(Exchange::request_time_left);
    set_grpc_timeout(request, time_left)?;
    if let (Some(upstream), Some(peer)) = (ctx.upstream(), ctx.peer()) {
        set_host(request, &upstream.config.host_header, &peer.host)?;
    }
    Ok(())
}

/// Replaces the client's deadline of gRPC by the time that is left of it.
fn set_grpc_timeout(request: &mut RequestHeader, time_left: Option<Duration>) -> Result<()> {
    match time_left.filter(|_| grpc::parse_timeout(&request.headers).is_some()) {
        Some(left) => request.insert_header(grpc::TIMEOUT, grpc::format_timeout(left)),
        None => Ok(()),
    }
}

/// Restores the client's `TE: trailers`, which Pingora removes, where HTTP/2 on both sides lets trailers pass
/// (RFC 9113, 8.2.2). Servers of gRPC require it.
pub(crate) fn set_te_trailers(client: &RequestHeader, request: &mut RequestHeader) -> Result<()> {
    let is_h2 = client.version == Version::HTTP_2 && request.version == Version::HTTP_2;
    let takes_trailers = client.headers.get(TE).is_some_and(|te| te == "trailers");
    if is_h2 && takes_trailers {
        return request.insert_header(TE, "trailers");
    }
    Ok(())
}

/// Sets `Client-Cert` (RFC 9440) where `forwarded`. On a listener that asks for client certificates, a
/// client's own field never passes.
fn set_client_cert(
    request: &mut RequestHeader,
    connection: &Connection,
    forwarded: bool,
) -> Result<()> {
    if connection.requests_client_cert() {
        request.remove_header(CLIENT_CERT);
    }
    let certificate = connection.client_certificate().filter(|_| forwarded);
    match certificate.and_then(|certificate| certificate.header_value.clone()) {
        Some(field) => request.insert_header(CLIENT_CERT, field),
        None => Ok(()),
    }
}

/// Replaces repeated lengths, which Pingora lets pass where all are equal, by one (RFC 9112, 6.3): a peer might
/// read them differently.
fn collapse_content_length(request: &mut RequestHeader) -> Result<()> {
    let mut lengths = request.headers.get_all(CONTENT_LENGTH).iter();
    let (Some(first), more) = (lengths.next(), lengths.next().is_some()) else {
        return Ok(());
    };
    if !more && !first.as_bytes().contains(&b',') {
        return Ok(());
    }
    let list = first.to_str().unwrap_or_default();
    let once = list.split(',').next().unwrap_or_default().trim().to_owned();
    request.insert_header(CONTENT_LENGTH, once)
}

/// Removes [`FORWARDING_FIELDS`] of an untrusted client. Many servers take `_` in a field's name for `-`, and
/// no proxy before us removes that spelling, so it is removed for trusted senders, too.
fn remove_forwarding_fields(request: &mut RequestHeader, from_trusted: bool) {
    let is_forged = |name: &&HeaderName| {
        let name = name.as_str();
        (!from_trusted || name.contains('_'))
            && FORWARDING_FIELDS
                .iter()
                .any(|field| matches_folded(name, field))
    };
    // An empty `Vec` allocates nothing, and most requests have no such field.
    let found: Vec<_> = request.headers.keys().filter(is_forged).cloned().collect();
    for name in &found {
        request.remove_header(name);
    }
}

/// Whether `name` is `field`, with `_` for any `-`.
fn matches_folded(name: &str, field: &str) -> bool {
    let folded = |byte| if byte == b'_' { b'-' } else { byte };
    name.len() == field.len() && name.bytes().map(folded).eq(field.bytes())
}

fn set_host(request: &mut RequestHeader, rule: &HostHeader, peer: &str) -> Result<()> {
    match rule {
        // HTTP/1.0 has no `Host`, and HTTP/2 cannot be without one (RFC 9113, 8.3.1).
        HostHeader::Keep
            if request.version == Version::HTTP_2 && !request.headers.contains_key(HOST) =>
        {
            request.insert_header(HOST, peer)
        }
        HostHeader::Keep => Ok(()),
        HostHeader::Peer => request.insert_header(HOST, peer),
        HostHeader::Set(host) => request.insert_header(HOST, host.clone()),
    }
}

fn set_x_forwarded(
    request: &mut RequestHeader,
    info: &RequestInfo,
    client: &HeaderValue,
    scheme: &'static str,
) -> Result<()> {
    append_to_list(request, X_FORWARDED_FOR, client.clone())?;
    // A trusted proxy is nearer to the client, so its fields stay.
    let is_set = |name| info.from_trusted && request.headers.contains_key(name);
    let (proto_is_set, host_is_set) = (is_set(X_FORWARDED_PROTO), is_set(X_FORWARDED_HOST));
    if !proto_is_set {
        request.insert_header(X_FORWARDED_PROTO, HeaderValue::from_static(scheme))?;
    }
    match info.host_value() {
        Some(host) if !host_is_set => request.insert_header(X_FORWARDED_HOST, host),
        _ => Ok(()),
    }
}

/// The scheme of the client's connection.
fn scheme(connection: &Connection) -> &'static str {
    if connection.is_encrypted() {
        "https"
    } else {
        "http"
    }
}

/// One element of `Forwarded` (RFC 7239, 4): an IPv6 address is bracketed, and so quoted.
fn forwarded_element(info: &RequestInfo, remote: IpAddr, scheme: &str) -> String {
    let client = match remote {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("\"[{v6}]\""),
    };
    match info.host_text() {
        "" => format!("for={client};proto={scheme}"),
        host => format!("for={client};host=\"{host}\";proto={scheme}"),
    }
}

/// Appends to a list field, on one line: some servers read the first line only.
fn append_to_list(
    request: &mut RequestHeader,
    name: &'static str,
    element: HeaderValue,
) -> Result<()> {
    let mut list = Vec::new();
    for line in request.headers.get_all(name) {
        list.extend_from_slice(line.as_bytes());
        list.extend_from_slice(b", ");
    }
    if list.is_empty() {
        return request.insert_header(name, element);
    }
    list.extend_from_slice(element.as_bytes());
    request.insert_header(name, list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&'static str, &'static str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    fn info(from_trusted: bool) -> RequestInfo {
        RequestInfo {
            host: Some(HeaderValue::from_static("a.test:8080")),
            from_trusted,
            ..RequestInfo::default()
        }
    }

    #[test]
    fn forwarding_fields_of_an_untrusted_client_are_removed() {
        let mut request = request(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("X-Real-IP", "1.1.1.1"),
            ("x_forwarded_proto", "https"),
            ("client-cert", ":AA==:"),
            ("x-forwarded-foo", "stays"),
        ]);
        remove_forwarding_fields(&mut request, false);
        let names: Vec<_> = request.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-forwarded-foo"]);
    }

    #[test]
    fn forwarding_fields_of_a_trusted_client_stay_unless_spelled_with_underscores() {
        let mut request = request(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-real_ip", "6.6.6.6"),
        ]);
        remove_forwarding_fields(&mut request, true);
        let names: Vec<_> = request.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-forwarded-for"]);
    }

    #[test]
    fn x_forwarded_for_is_one_list_with_the_client_last() {
        let mut request = request(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2, 3.3.3.3"),
        ]);
        let client = HeaderValue::from_static("4.4.4.4");
        set_x_forwarded(&mut request, &info(true), &client, "http").unwrap();
        let lines: Vec<_> = request.headers.get_all(X_FORWARDED_FOR).iter().collect();
        assert_eq!(lines, ["1.1.1.1, 2.2.2.2, 3.3.3.3, 4.4.4.4"]);
    }

    #[test]
    fn x_forwarded_proto_and_host_of_a_trusted_proxy_stay() {
        let fields = [
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "b.test"),
        ];
        let client = HeaderValue::from_static("4.4.4.4");
        for (from_trusted, proto, host) in
            [(true, "https", "b.test"), (false, "http", "a.test:8080")]
        {
            let mut request = request(&fields);
            set_x_forwarded(&mut request, &info(from_trusted), &client, "http").unwrap();
            assert_eq!(request.headers[X_FORWARDED_PROTO], proto);
            assert_eq!(request.headers[X_FORWARDED_HOST], host);
        }
    }

    #[test]
    fn forwarded_element_brackets_ipv6_and_quotes_the_host() {
        let element =
            |remote: &str| forwarded_element(&info(false), remote.parse().unwrap(), "https");
        assert_eq!(
            element("192.0.2.1"),
            "for=192.0.2.1;host=\"a.test:8080\";proto=https"
        );
        assert_eq!(
            element("2001:db8::1"),
            "for=\"[2001:db8::1]\";host=\"a.test:8080\";proto=https"
        );
        let no_host = RequestInfo::default();
        let element = forwarded_element(&no_host, [192, 0, 2, 1].into(), "http");
        assert_eq!(element, "for=192.0.2.1;proto=http");
    }

    #[test]
    fn repeated_content_length_is_sent_once() {
        for lengths in [&["7"][..], &["7", "7"], &["7, 7"], &["7,7", "7"]] {
            let fields: Vec<_> = lengths.iter().map(|it| ("content-length", *it)).collect();
            let mut request = request(&fields);
            collapse_content_length(&mut request).unwrap();
            let lines: Vec<_> = request.headers.get_all(CONTENT_LENGTH).iter().collect();
            assert_eq!(lines, ["7"], "{lengths:?}");
        }
    }

    #[test]
    fn te_trailers_passes_from_h2_to_h2_only() {
        let sent = |te, from, to| {
            let mut client = request(&[("te", te)]);
            client.set_version(from);
            let mut request = request(&[]);
            request.set_version(to);
            set_te_trailers(&client, &mut request).unwrap();
            request.headers.contains_key(TE)
        };
        assert!(sent("trailers", Version::HTTP_2, Version::HTTP_2));
        assert!(!sent("trailers", Version::HTTP_11, Version::HTTP_2));
        assert!(!sent("trailers", Version::HTTP_2, Version::HTTP_11));
        assert!(!sent("gzip", Version::HTTP_2, Version::HTTP_2));
    }

    #[test]
    fn grpc_timeout_becomes_the_time_that_is_left() {
        let fields = [("content-type", "application/grpc"), ("grpc-timeout", "5S")];
        let mut call = request(&fields);
        set_grpc_timeout(&mut call, Some(Duration::from_millis(20))).unwrap();
        assert_eq!(call.headers[grpc::TIMEOUT], "20000000n");
        let mut without = request(&fields[..1]);
        set_grpc_timeout(&mut without, Some(Duration::from_millis(20))).unwrap();
        assert!(!without.headers.contains_key(grpc::TIMEOUT));
    }

    #[test]
    fn host_header_follows_its_rule() {
        let sent = |rule: &HostHeader, host: Option<&'static str>, version| {
            let fields: Vec<_> = host.map(|host| ("host", host)).into_iter().collect();
            let mut request = request(&fields);
            request.set_version(version);
            set_host(&mut request, rule, "10.0.0.1:80").unwrap();
            request.headers.get(HOST).cloned()
        };
        let a = Some("a.test");
        let fixed = HostHeader::Set(HeaderValue::from_static("b.test"));
        for (rule, host, version, expected) in [
            (&HostHeader::Keep, a, Version::HTTP_11, Some("a.test")),
            (&HostHeader::Keep, None, Version::HTTP_11, None),
            (
                &HostHeader::Keep,
                None,
                Version::HTTP_2,
                Some("10.0.0.1:80"),
            ),
            (&HostHeader::Peer, a, Version::HTTP_11, Some("10.0.0.1:80")),
            (&fixed, a, Version::HTTP_11, Some("b.test")),
        ] {
            let expected = expected.map(HeaderValue::from_static);
            assert_eq!(sent(rule, host, version), expected, "{rule:?}");
        }
    }
}
