//! Phase 6, to the peer: adds Clockwise's own fields to a request, and removes the client's fields that a peer must
//! not get. The carrier of the request removes the hop-by-hop fields.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, UPGRADE};
use http::{HeaderName, HeaderValue, Version};

use super::context::Context;
use super::request_info::RequestInfo;
use crate::config::HostHeader;
use crate::downstream::{Connection, Exchange};
use crate::fault::Fault;
use crate::grpc;
use crate::header::{HeaderEdit, HeaderRead};

static FORWARDED: HeaderName = HeaderName::from_static("forwarded");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");

/// The fields that describe the proxies before us and the client; removed if an untrusted client sent them.
const FORWARDING_FIELDS: [&str; 9] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-real-ip",
    "client-cert",
    "client-cert-chain",
];

/// Adds our fields to the request for a peer.
///
/// # Errors
/// [`Fault::Internal`] if a text is not a valid field value.
pub(crate) fn set_request_headers(
    request: &mut impl HeaderEdit,
    ctx: &Context,
) -> Result<(), Fault> {
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
            append_to_list(request, &FORWARDED, to_value(element)?)?;
        }
    }
    if let Some(connection) = ctx.connection() {
        set_client_cert(request, connection, forwarding.client_cert);
    }
    if let (Some(name), Some(id)) = (&forwarding.request_id, &ctx.request.id) {
        request.set_ref(name, id);
    }
    let time_left = ctx
        .exchange
        .as_deref()
        .and_then(Exchange::request_time_left);
    set_grpc_timeout(request, time_left);
    if let (Some(upstream), Some(peer)) = (ctx.upstream(), ctx.peer()) {
        set_host(request, &upstream.config.host_header, &peer.host)?;
    }
    Ok(())
}

/// Replaces the gRPC deadline of the client by the time that is left.
fn set_grpc_timeout(request: &mut impl HeaderEdit, time_left: Option<Duration>) {
    if let Some(left) = time_left
        && grpc::parse_timeout(request).is_some()
    {
        request.set(&grpc::TIMEOUT, grpc::format_timeout(left));
    }
}

/// Restores the client's `TE: trailers`, which is hop-by-hop, if both sides speak HTTP/2, so that trailers
/// pass (RFC 9113 §8.2.2). Servers of gRPC require it.
pub(crate) fn set_te_trailers(
    (client, client_version): (&impl HeaderRead, Version),
    (request, version): (&mut impl HeaderEdit, Version),
) {
    let is_h2 = client_version >= Version::HTTP_2 && version == Version::HTTP_2;
    if is_h2 && client.get(&TE) == Some(b"trailers") {
        request.set(&TE, HeaderValue::from_static("trailers"));
    }
}

/// Tells the peer of HTTP/1.1 that the client accepts trailers (RFC 9110 §10.1.4). `TE` is hop-by-hop, so that of the client
/// was removed.
pub(crate) fn accept_trailers(request: &mut impl HeaderEdit) {
    request.set(&CONNECTION, HeaderValue::from_static("TE"));
    request.set(&TE, HeaderValue::from_static("trailers"));
}

/// Offers the peer other protocols (RFC 9110 §7.8). `Upgrade` is hop-by-hop, so that of the client was removed.
pub(crate) fn offer_upgrade(request: &mut impl HeaderEdit, protocols: HeaderValue) {
    request.set(&CONNECTION, HeaderValue::from_static("Upgrade"));
    request.set(&UPGRADE, protocols);
}

/// Sets `Client-Cert` (RFC 9440) if `forwarded`. On a listener that asks for client certificates, the field that a
/// client sent is always removed.
fn set_client_cert(request: &mut impl HeaderEdit, connection: &Connection, forwarded: bool) {
    if connection.requests_client_cert() {
        request.remove(&CLIENT_CERT);
    }
    let certificate = connection.client_certificate().filter(|_| forwarded);
    if let Some(field) = certificate.and_then(|certificate| certificate.header_value.clone()) {
        request.set_static(&CLIENT_CERT, field);
    }
}

/// Replaces repeated lengths, which are valid if all are equal, by one (RFC 9112 §6.3): a peer might read
/// them differently.
fn collapse_content_length(request: &mut impl HeaderEdit) -> Result<(), Fault> {
    let mut lengths = request.get_all(&CONTENT_LENGTH);
    let (Some(first), more) = (lengths.next(), lengths.next().is_some()) else {
        return Ok(());
    };
    if !more && !first.contains(&b',') {
        return Ok(());
    }
    let once = first.split(|&byte| byte == b',').next().unwrap_or_default();
    let once = HeaderValue::from_bytes(once.trim_ascii()).map_err(|_| Fault::Internal)?;
    drop(lengths);
    request.set(&CONTENT_LENGTH, once);
    Ok(())
}

/// Removes [`FORWARDING_FIELDS`] of an untrusted client. Many servers read `_` in a field's name as `-`. A trusted
/// proxy may pass that spelling on from its client, so it is removed from the requests of trusted proxies, too.
fn remove_forwarding_fields(request: &mut impl HeaderEdit, from_trusted: bool) {
    request.remove_where(|name| {
        // Most names have another first letter than all of these.
        matches!(name, [b'c' | b'C' | b'f' | b'F' | b'x' | b'X', ..])
            && (!from_trusted || name.contains(&b'_'))
            && FORWARDING_FIELDS
                .iter()
                .any(|field| matches_folded(name, field.as_bytes()))
    });
}

/// Whether `name` is `field`, in any case of letters, and with `_` for any `-`.
fn matches_folded(name: &[u8], field: &[u8]) -> bool {
    let folded = |byte: &u8| match byte {
        b'_' => b'-',
        byte => byte.to_ascii_lowercase(),
    };
    name.len() == field.len() && name.iter().map(folded).eq(field.iter().copied())
}

fn set_host(request: &mut impl HeaderEdit, rule: &HostHeader, peer: &str) -> Result<(), Fault> {
    let host = match rule {
        HostHeader::Keep if request.get(&HOST).is_some_and(|host| !host.is_empty()) => {
            return Ok(());
        }
        // The client may name no host (RFC 9112 §3.2); many peers refuse such a request, and HTTP/2 has none (RFC 9113
        // §8.3.1). As nginx does with `$proxy_host`.
        HostHeader::Keep | HostHeader::Peer => {
            HeaderValue::from_str(peer).map_err(|_| Fault::Internal)?
        }
        HostHeader::Set(host) => host.clone(),
    };
    request.set(&HOST, host);
    Ok(())
}

fn set_x_forwarded(
    request: &mut impl HeaderEdit,
    info: &RequestInfo,
    client: &HeaderValue,
    scheme: &'static str,
) -> Result<(), Fault> {
    append_to_list(request, &X_FORWARDED_FOR, client.clone())?;
    // A trusted proxy is nearer to the client, so its fields stay.
    let is_set = |name| info.from_trusted && request.contains(name);
    let (proto_is_set, host_is_set) = (is_set(&X_FORWARDED_PROTO), is_set(&X_FORWARDED_HOST));
    if !proto_is_set {
        request.set_static(&X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    if let Some(host) = info.host_value()
        && !host_is_set
    {
        request.set_static(&X_FORWARDED_HOST, host);
    }
    Ok(())
}

/// The scheme of the client's connection.
fn scheme(connection: &Connection) -> &'static str {
    if connection.is_encrypted() {
        "https"
    } else {
        "http"
    }
}

/// One element of `Forwarded` (RFC 7239 §4): an IPv6 address has brackets, so it must be quoted.
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
    request: &mut impl HeaderEdit,
    name: &'static HeaderName,
    element: HeaderValue,
) -> Result<(), Fault> {
    let mut list = Vec::new();
    for line in request.get_all(name) {
        list.extend_from_slice(line);
        list.extend_from_slice(b", ");
    }
    let value = if list.is_empty() {
        element
    } else {
        list.extend_from_slice(element.as_bytes());
        to_value(list)?
    };
    request.set_static(name, value);
    Ok(())
}

/// Makes a field value of the text, without a copy.
fn to_value(text: impl Into<Bytes>) -> Result<HeaderValue, Fault> {
    HeaderValue::from_maybe_shared(text.into()).map_err(|_| Fault::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::header_map;

    fn info(from_trusted: bool) -> RequestInfo {
        RequestInfo {
            host: Some(HeaderValue::from_static("a.test:8080")),
            from_trusted,
            ..RequestInfo::default()
        }
    }

    #[test]
    fn forwarding_fields_of_an_untrusted_client_are_removed() {
        let mut request = header_map(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-real-ip", "1.1.1.1"),
            ("x_forwarded_proto", "https"),
            ("client-cert", ":AA==:"),
            ("x-forwarded-foo", "stays"),
        ]);
        remove_forwarding_fields(&mut request, false);
        let names: Vec<_> = request.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-forwarded-foo"]);
    }

    #[test]
    fn forwarding_fields_of_a_trusted_client_stay_unless_spelled_with_underscores() {
        let mut request = header_map(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-real_ip", "6.6.6.6"),
        ]);
        remove_forwarding_fields(&mut request, true);
        let names: Vec<_> = request.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-forwarded-for"]);
    }

    #[test]
    fn x_forwarded_for_is_one_list_with_the_client_last() {
        let mut request = header_map(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2, 3.3.3.3"),
        ]);
        let client = HeaderValue::from_static("4.4.4.4");
        set_x_forwarded(&mut request, &info(true), &client, "http").unwrap();
        let lines: Vec<_> = request.get_all(&X_FORWARDED_FOR).iter().collect();
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
            let mut request = header_map(&fields);
            set_x_forwarded(&mut request, &info(from_trusted), &client, "http").unwrap();
            assert_eq!(request[&X_FORWARDED_PROTO], proto);
            assert_eq!(request[&X_FORWARDED_HOST], host);
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
            let mut request = header_map(&fields);
            collapse_content_length(&mut request).unwrap();
            let lines: Vec<_> = request.get_all(CONTENT_LENGTH).iter().collect();
            assert_eq!(lines, ["7"], "{lengths:?}");
        }
    }

    #[test]
    fn te_trailers_passes_from_h2_to_h2_only() {
        let sent = |te, from, to| {
            let client = header_map(&[("te", te)]);
            let mut request = header_map(&[]);
            set_te_trailers((&client, from), (&mut request, to));
            request.contains_key(TE)
        };
        assert!(sent("trailers", Version::HTTP_2, Version::HTTP_2));
        assert!(!sent("trailers", Version::HTTP_11, Version::HTTP_2));
        assert!(!sent("trailers", Version::HTTP_2, Version::HTTP_11));
        assert!(!sent("gzip", Version::HTTP_2, Version::HTTP_2));
    }

    #[test]
    fn grpc_timeout_becomes_the_time_that_is_left() {
        let fields = [("content-type", "application/grpc"), ("grpc-timeout", "5S")];
        let mut call = header_map(&fields);
        set_grpc_timeout(&mut call, Some(Duration::from_millis(20)));
        assert_eq!(call[grpc::TIMEOUT], "20000000n");
        let mut without = header_map(&fields[..1]);
        set_grpc_timeout(&mut without, Some(Duration::from_millis(20)));
        assert!(!without.contains_key(grpc::TIMEOUT));
    }

    #[test]
    fn host_header_follows_its_rule_and_is_never_missing_or_empty() {
        let sent = |rule: &HostHeader, host: Option<&'static str>| {
            let fields: Vec<_> = host.map(|host| ("host", host)).into_iter().collect();
            let mut request = header_map(&fields);
            set_host(&mut request, rule, "10.0.0.1:80").unwrap();
            request[HOST].to_str().unwrap().to_owned()
        };
        let fixed = HostHeader::Set(HeaderValue::from_static("b.test"));
        for (rule, host, expected) in [
            (&HostHeader::Keep, Some("a.test"), "a.test"),
            (&HostHeader::Keep, None, "10.0.0.1:80"),
            (&HostHeader::Keep, Some(""), "10.0.0.1:80"),
            (&HostHeader::Peer, Some("a.test"), "10.0.0.1:80"),
            (&fixed, Some("a.test"), "b.test"),
            (&fixed, None, "b.test"),
        ] {
            assert_eq!(sent(rule, host), expected, "{rule:?}, {host:?}");
        }
    }
}
