//! Extracts the key: the bytes of a request that are hashed to select its peer.
//!
//! Bytes are used as they were sent: nothing is decoded, and case matters (except in the host, and in a path that is
//! normalized on request). A key
//! only has to be the same each time, decoding costs time and can fail, and `clockwise ring owner`
//! can name the peer from the text in a log alone.
//!
//! An empty value counts as missing, and the first one that is not empty is taken; otherwise all clients without a
//! value would share one peer. [`EmptyValue::Value`] is for rings of other systems, which hash an empty value. What a
//! missing key means is decided by the caller.
//!
//! Invariant: extracting a single source does not allocate for up to [`KeyBuffer::INLINE`] rendered
//! bytes, except several joined header lines and a path that is not normal; most sources are borrowed from the request.

mod buffer;

use std::fmt::Write;
use std::net::IpAddr;

use http::{HeaderName, header};
use ipnet::IpNet;

use crate::cookie::{self, StickyCookie};
use crate::header::HeaderRead;
use crate::request_target::{self, RequestTarget};
use crate::route::host_name;

pub(crate) use self::buffer::KeyBuffer;

static COOKIE: HeaderName = header::COOKIE;

/// Where a key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The client's address, or, with a shorter prefix, its network: `10.1.2.0/24`. An IPv4-mapped IPv6
    /// address counts as IPv4.
    ClientIp {
        /// The prefix length for IPv4, 0 ..= 32; more is 32.
        v4: u8,
        /// The prefix length for IPv6, 0 ..= 128; more is 128.
        v6: u8,
        /// Text or binary.
        form: AddressForm,
    },
    /// The lines of a header field.
    Header {
        /// The field.
        name: HeaderName,
        /// The lines that count.
        values: HeaderValues,
        /// The meaning of an empty line.
        empty: EmptyValue,
    },
    /// The first or last element of a list field (RFC 9110 §5.6.1), as `X-Forwarded-For`.
    ListElement {
        /// The field.
        name: HeaderName,
        /// Which element.
        end: ListEnd,
        /// The meaning of an empty element.
        empty: EmptyValue,
    },
    /// The first cookie of this name in any `Cookie` field, without quotes around its value. HTTP/2 may send several
    /// fields (RFC 9113 §8.2.3).
    Cookie {
        /// The name; case-sensitive.
        name: String,
        /// The meaning of an empty cookie.
        empty: EmptyValue,
    },
    /// The first well-formed value of this cookie. A client without it is given one
    /// ([`cookie_to_issue`]), if this is the last source of the list.
    StickyCookie(StickyCookie),
    /// The first query parameter of this name; name and value as sent: `%41` is not `A`.
    Query {
        /// The name.
        name: String,
        /// The meaning of an empty parameter.
        empty: EmptyValue,
    },
    /// The path, without the query.
    Path,
    /// The normal form of the path, without the query.
    NormalizedPath,
    /// The path with the query.
    PathAndQuery,
    /// One segment of the path, counted from 1: in `/a/b/c`, 2 is `b`. 0 is always missing.
    PathSegment(u16),
    /// The host in lower case, without the port and a trailing dot.
    Host,
    /// The subject of the client's certificate.
    ClientCert,
    /// All of these joined; missing if one of them is missing.
    All(CompositeKey),
    /// Those of these that are present, joined; missing if all are missing.
    Any(CompositeKey),
}

/// The meaning of an empty value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmptyValue {
    /// It is not there: the next value of the same name counts.
    Missing,
    /// It is a value.
    Value,
}

/// The lines of a header field that make a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderValues {
    /// The first one.
    First,
    /// All in their order, joined with a comma and a space (RFC 9110 §5.3).
    Joined,
    /// All in the order of their bytes, joined with [`SORTED_LINE_SEPARATOR`].
    Sorted,
}

/// Between two joined lines of a header field in a key.
const LINE_SEPARATOR: &[u8] = b", ";

/// Between two sorted lines of a header field in a key: ASCII record separator, which cannot occur in a header field
/// (RFC 9110 §5.5). Dialect `envoy` hashes the lines between them one after the other.
const SORTED_LINE_SEPARATOR: &[u8] = b"\x1e";

/// An end of a list field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListEnd {
    /// The first element.
    First,
    /// The last element.
    Last,
}

/// The form of an address in a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressForm {
    /// Text; a network with its prefix length.
    Text,
    /// The 4 or 16 octets; a network without its prefix length. As `$binary_remote_addr` of nginx and
    /// `hash src` of HAProxy.
    Binary,
}

/// Several sources, joined to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompositeKey {
    /// The sources, in the order of their values.
    pub sources: Vec<KeySource>,
    /// The text between two values.
    pub separator: String,
}

impl CompositeKey {
    /// The default separator of [`KeySource::All`]: easy to type and rare in values. If a value contains
    /// it, different values may give the same key; that is harmless, they share a peer.
    pub const SEPARATOR: &str = "|";
}

impl KeySource {
    /// The client's whole address as text.
    pub const CLIENT_IP: Self = Self::ClientIp {
        v4: 32,
        v6: 128,
        form: AddressForm::Text,
    };

    /// The first value of a header field.
    pub const fn header(name: HeaderName) -> Self {
        Self::Header {
            name,
            values: HeaderValues::First,
            empty: EmptyValue::Missing,
        }
    }

    /// The first cookie of this name.
    pub const fn cookie(name: String) -> Self {
        Self::Cookie {
            name,
            empty: EmptyValue::Missing,
        }
    }

    /// The first query parameter of this name.
    pub const fn query(name: String) -> Self {
        Self::Query {
            name,
            empty: EmptyValue::Missing,
        }
    }

    /// The kind of source, as in the configuration. One of a fixed set, so it can be a metric label.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ClientIp { .. } => "client_ip",
            Self::Header { .. } | Self::ListElement { .. } => "header",
            Self::Cookie { .. } | Self::StickyCookie(_) => "cookie",
            Self::Query { .. } => "query",
            Self::Path | Self::NormalizedPath => "path",
            Self::PathAndQuery => "path_and_query",
            Self::PathSegment(_) => "path_segment",
            Self::Host => "host",
            Self::ClientCert => "client_cert",
            Self::All(_) => "all",
            Self::Any(_) => "any",
        }
    }
}

/// The parts of a request from which a key can be extracted.
#[derive(Debug)]
pub(crate) struct KeyRequest<'a, H> {
    /// The target, as the peer gets it.
    pub target: &'a RequestTarget,
    /// The header fields, as the client sent them.
    pub headers: &'a H,
    /// The host that the client asked for, with or without its port.
    pub host: &'a str,
    /// The client's address, from [`crate::client_addr::resolve`].
    pub client_ip: IpAddr,
    /// The subject of the client's certificate; `None` without a certificate.
    pub client_cert_subject: Option<&'a str>,
}

/// Extracts the key of a request: the index of the first source that is present, and its bytes, which
/// are empty only with [`EmptyValue::Value`]. `None` if no source is present.
pub(crate) fn extract<'a>(
    sources: &[KeySource],
    request: &KeyRequest<'a, impl HeaderRead>,
    buffer: &'a mut KeyBuffer,
) -> Option<(usize, &'a [u8])> {
    let (index, value) = sources.iter().enumerate().find_map(|(index, source)| {
        buffer.clear();
        Some((index, source_value(source, request, buffer)?))
    })?;
    match value {
        KeyBytes::Borrowed(bytes) => Some((index, bytes)),
        KeyBytes::Rendered => Some((index, buffer.as_bytes())),
    }
}

/// The sticky cookie to give to a client when all sources are missing, and the index of its source. The
/// new value is already the key of this request.
pub(crate) fn cookie_to_issue(sources: &[KeySource]) -> Option<(usize, &StickyCookie)> {
    match sources.split_last()? {
        (KeySource::StickyCookie(sticky), before) => Some((before.len(), sticky)),
        _ => None,
    }
}

/// The value of one source; empty only with [`EmptyValue::Value`].
enum KeyBytes<'a> {
    /// A slice of the request.
    Borrowed(&'a [u8]),
    /// Appended to the buffer.
    Rendered,
}

fn source_value<'a>(
    source: &KeySource,
    request: &KeyRequest<'a, impl HeaderRead>,
    buffer: &mut KeyBuffer,
) -> Option<KeyBytes<'a>> {
    let (target, headers) = (request.target, request.headers);
    match source {
        KeySource::ClientIp { v4, v6, form } => {
            client_ip(request.client_ip, *v4, *v6, *form, buffer)
        }
        KeySource::Header {
            name,
            values,
            empty,
        } => header_lines(headers.get_all(name), *values, *empty, buffer),
        KeySource::ListElement { name, end, empty } => {
            list_element(headers, name, *end, *empty).map(KeyBytes::Borrowed)
        }
        KeySource::Cookie { name, empty } => {
            first_value(cookie_values(headers, name), *empty).map(KeyBytes::Borrowed)
        }
        KeySource::StickyCookie(sticky) => {
            // A client may send several, set for different paths. A malformed one must not hide a
            // well-formed one, or the client would get a new cookie in every response.
            let mut values = cookie_values(headers, &sticky.name);
            borrowed(values.find(|value| cookie::is_valid_value(value))?)
        }
        KeySource::Query { name, empty } => {
            first_value(query_values(target.query()?, name), *empty).map(KeyBytes::Borrowed)
        }
        KeySource::Path => borrowed(target.path().as_bytes()),
        KeySource::NormalizedPath => match request_target::normalize(target.path()) {
            Some(normal) => {
                buffer.push(normal.as_bytes());
                Some(KeyBytes::Rendered)
            }
            None => borrowed(target.path().as_bytes()),
        },
        KeySource::PathAndQuery => borrowed(target.origin_form().as_bytes()),
        KeySource::PathSegment(number) => {
            borrowed(path_segment(target.path(), *number)?.as_bytes())
        }
        KeySource::Host => normalized_host(request.host, buffer),
        KeySource::ClientCert => borrowed(request.client_cert_subject?.as_bytes()),
        KeySource::All(composite) => join_all(composite, request, buffer),
        KeySource::Any(composite) => join_present(composite, request, buffer),
    }
}

fn borrowed(bytes: &[u8]) -> Option<KeyBytes<'_>> {
    (!bytes.is_empty()).then_some(KeyBytes::Borrowed(bytes))
}

/// The first of the values that counts.
fn first_value<'a>(
    mut values: impl Iterator<Item = &'a [u8]>,
    empty: EmptyValue,
) -> Option<&'a [u8]> {
    values.find(|value| counts(value, empty))
}

fn counts(value: &[u8], empty: EmptyValue) -> bool {
    empty == EmptyValue::Value || !value.is_empty()
}

fn header_lines<'a>(
    lines: impl Iterator<Item = &'a [u8]>,
    values: HeaderValues,
    empty: EmptyValue,
    buffer: &mut KeyBuffer,
) -> Option<KeyBytes<'a>> {
    let mut lines = lines.filter(|line| counts(line, empty));
    let first = lines.next()?;
    if values == HeaderValues::First {
        return Some(KeyBytes::Borrowed(first));
    }
    let Some(second) = lines.next() else {
        return Some(KeyBytes::Borrowed(first));
    };
    let mut all: Vec<_> = [first, second].into_iter().chain(lines).collect();
    let mut separator = LINE_SEPARATOR;
    if values == HeaderValues::Sorted {
        all.sort_unstable();
        separator = SORTED_LINE_SEPARATOR;
    }
    for (index, line) in all.into_iter().enumerate() {
        if index > 0 {
            buffer.push(separator);
        }
        buffer.push(line);
    }
    Some(KeyBytes::Rendered)
}

fn client_ip<'a>(
    client: IpAddr,
    v4: u8,
    v6: u8,
    form: AddressForm,
    buffer: &mut KeyBuffer,
) -> Option<KeyBytes<'a>> {
    let client = client.to_canonical();
    let bits = if client.is_ipv4() { v4 } else { v6 };
    let network = IpNet::new(client, bits).map(|network| network.trunc());
    match (form, network) {
        (AddressForm::Binary, network) => {
            buffer.push_octets(network.map_or(client, |network| network.addr()));
        }
        (AddressForm::Text, Ok(network)) if bits < network.max_prefix_len() => {
            write!(buffer, "{network}").ok()?;
        }
        (AddressForm::Text, _) => write!(buffer, "{client}").ok()?,
    }
    Some(KeyBytes::Rendered)
}

fn list_element<'a>(
    headers: &'a impl HeaderRead,
    name: &HeaderName,
    end: ListEnd,
    empty: EmptyValue,
) -> Option<&'a [u8]> {
    let mut lines = headers.get_all(name);
    match end {
        ListEnd::First => lines.find_map(|line| first_value(list_elements(line), empty)),
        ListEnd::Last => lines.rev().find_map(|line| {
            let elements = list_elements(line);
            elements.filter(|element| counts(element, empty)).last()
        }),
    }
}

/// Splits a list at its commas, except those inside quoted strings.
fn list_elements(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    let is_separator = move |byte: &u8| {
        let is_separator = *byte == b',' && !quoted;
        quoted ^= *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && quoted && !escaped;
        is_separator
    };
    line.split(is_separator).map(<[u8]>::trim_ascii)
}

/// The values of all cookies of this name.
fn cookie_values<'a>(headers: &'a impl HeaderRead, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(&COOKIE);
    let pairs = lines.flat_map(|line| line.split(|byte| *byte == b';'));
    let values = pairs.filter_map(move |pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=').map(<[u8]>::trim_ascii);
        (parts.next()? == name.as_bytes()).then_some(parts.next()?)
    });
    values.map(strip_quotes)
}

fn strip_quotes(value: &[u8]) -> &[u8] {
    let inner = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    inner.unwrap_or(value)
}

/// The values of all parameters of this name.
fn query_values<'a>(query: &'a str, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter_map(move |(found, value)| (found == name).then_some(value.as_bytes()))
}

fn path_segment(path: &str, number: u16) -> Option<&str> {
    let index = usize::from(number).checked_sub(1)?;
    path.strip_prefix('/')?.split('/').nth(index)
}

fn normalized_host<'a>(host: &'a str, buffer: &mut KeyBuffer) -> Option<KeyBytes<'a>> {
    let name = host_name(host).as_bytes();
    if !name.iter().any(u8::is_ascii_uppercase) {
        return borrowed(name);
    }
    for byte in name {
        buffer.push(&[byte.to_ascii_lowercase()]);
    }
    Some(KeyBytes::Rendered)
}

fn join_all<'a>(
    composite: &CompositeKey,
    request: &KeyRequest<'a, impl HeaderRead>,
    buffer: &mut KeyBuffer,
) -> Option<KeyBytes<'a>> {
    for (index, source) in composite.sources.iter().enumerate() {
        if index > 0 {
            buffer.push(composite.separator.as_bytes());
        }
        push_value(source, request, buffer)?;
    }
    (!composite.sources.is_empty()).then_some(KeyBytes::Rendered)
}

fn join_present<'a>(
    composite: &CompositeKey,
    request: &KeyRequest<'a, impl HeaderRead>,
    buffer: &mut KeyBuffer,
) -> Option<KeyBytes<'a>> {
    let mut any_present = false;
    for source in &composite.sources {
        let length = buffer.as_bytes().len();
        if any_present {
            buffer.push(composite.separator.as_bytes());
        }
        match push_value(source, request, buffer) {
            Some(()) => any_present = true,
            None => buffer.truncate(length), // without the separator and a partial value
        }
    }
    any_present.then_some(KeyBytes::Rendered)
}

/// Appends the value of a source; `None` if it is missing, and the buffer may then hold a part of it.
fn push_value(
    source: &KeySource,
    request: &KeyRequest<'_, impl HeaderRead>,
    buffer: &mut KeyBuffer,
) -> Option<()> {
    if let KeyBytes::Borrowed(bytes) = source_value(source, request, buffer)? {
        buffer.push(bytes);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A request for `target` with some header lines, from `client`.
    struct Sample {
        target: RequestTarget,
        headers: http::HeaderMap,
        client: IpAddr,
    }

    impl Sample {
        fn new(target: &str, lines: &[(&str, &str)]) -> Self {
            let line = |(name, value): &(&str, &str)| {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                (name, http::HeaderValue::from_str(value).unwrap())
            };
            Self {
                target: RequestTarget::parse(target.as_bytes()).unwrap(),
                headers: lines.iter().map(line).collect(),
                client: IpAddr::from([192, 0, 2, 1]),
            }
        }

        fn from(client: &str) -> Self {
            Self {
                client: client.parse().unwrap(),
                ..Self::new("/", &[])
            }
        }

        fn key(&self, sources: &[KeySource]) -> Option<(usize, String)> {
            let request = KeyRequest {
                target: &self.target,
                headers: &self.headers,
                host: "Example.COM.:80",
                client_ip: self.client,
                client_cert_subject: None,
            };
            let mut buffer = KeyBuffer::default();
            let (index, bytes) = extract(sources, &request, &mut buffer)?;
            Some((index, String::from_utf8(bytes.to_vec()).unwrap()))
        }

        fn one(&self, source: KeySource) -> Option<String> {
            self.key(&[source]).map(|(_, key)| key)
        }
    }

    fn header(name: &'static str) -> KeySource {
        KeySource::header(HeaderName::from_static(name))
    }

    fn list_element_of(end: ListEnd, empty: EmptyValue) -> KeySource {
        let name = HeaderName::from_static("x-k");
        KeySource::ListElement { name, end, empty }
    }

    fn named_cookie(name: &str) -> KeySource {
        KeySource::cookie(name.to_owned())
    }

    fn query(name: &str) -> KeySource {
        KeySource::query(name.to_owned())
    }

    #[test]
    fn key_comes_from_the_first_source_present() {
        let sample = Sample::new("/p?q=1", &[("x-user", ""), ("cookie", "sid=abc")]);
        let chain = [
            header("x-none"),
            header("x-user"),
            named_cookie("sid"),
            KeySource::Path,
        ];
        assert_eq!(sample.key(&chain), Some((2, "abc".to_owned())));
        assert_eq!(sample.key(&chain[..2]), None);
        assert_eq!(sample.key(&[]), None);
    }

    #[test]
    fn sticky_key_is_the_first_well_formed_cookie() {
        let sticky = || KeySource::StickyCookie(sample_cookie());
        let long = format!("cw={}; cw=good", "x".repeat(cookie::MAX_VALUE_LEN + 1));
        for (sent, key) in [
            ("cw=one; cw=two", Some("one")),
            ("cw=\"quoted\"", Some("quoted")),
            ("cw=; cw=a b; cw=c,d; cw=good", Some("good")),
            (&long, Some("good")),
            ("CW=one; other=two", None),
        ] {
            let sample = Sample::new("/", &[("cookie", sent)]);
            assert_eq!(sample.one(sticky()).as_deref(), key, "{sent}");
        }
    }

    #[test]
    fn sticky_cookie_is_generated_only_for_the_last_source() {
        let sticky = KeySource::StickyCookie(sample_cookie());
        let sources = [KeySource::Path, sticky.clone()];
        assert_eq!(cookie_to_issue(&sources), Some((1, &sample_cookie())));
        assert_eq!(cookie_to_issue(&[sticky, KeySource::Path]), None);
        assert_eq!(cookie_to_issue(&[]), None);
    }

    fn sample_cookie() -> StickyCookie {
        StickyCookie {
            name: "cw".to_owned(),
            ttl: None,
            refresh: false,
            same_site: cookie::SameSite::Lax,
            secure: cookie::SecureAttribute::Auto,
            http_only: true,
            path: "/".to_owned(),
            domain: None,
        }
    }

    #[test]
    fn header_key_is_the_first_value_that_is_not_empty() {
        let sample = Sample::new(
            "/",
            &[("x-user", "a"), ("x-user", "b"), ("x-e", ""), ("x-e", "c")],
        );
        assert_eq!(sample.one(header("x-user")).as_deref(), Some("a"));
        assert_eq!(sample.one(header("x-e")).as_deref(), Some("c"));
        let empty = Sample::new("/", &[("x-e", ""), ("x-e", "")]);
        assert_eq!(empty.one(header("x-e")).as_deref(), None);
    }

    #[test]
    fn cookie_key_is_found_in_every_field_and_quoting() {
        let lines = [
            ("cookie", "a=1; b = 2 ;c=\"3\"; d=\"4; e"),
            ("cookie", "b=9; f=x=y; g=; g=\"\"; g=7; e=5; h="),
        ];
        let sample = Sample::new("/", &lines);
        for (name, value) in [
            ("a", Some("1")),
            ("b", Some("2")),
            ("c", Some("3")),
            ("d", Some("\"4")),
            ("e", Some("5")),
            ("f", Some("x=y")),
            ("g", Some("7")),
            ("h", None),
            ("A", None),
        ] {
            assert_eq!(sample.one(named_cookie(name)).as_deref(), value, "{name}");
        }
    }

    #[test]
    fn query_key_is_the_raw_parameter_value() {
        let sample = Sample::new("/?a=%41&b=x+y&b=2&c&d=&c=3&%64=4&f=&f=5", &[]);
        for (name, value) in [
            ("a", Some("%41")),
            ("b", Some("x+y")),
            ("c", Some("3")),
            ("d", None),
            ("%64", Some("4")),
            ("e", None),
            ("f", Some("5")),
        ] {
            assert_eq!(sample.one(query(name)).as_deref(), value, "{name}");
        }
        assert_eq!(Sample::new("/", &[]).one(query("a")).as_deref(), None);
    }

    #[test]
    fn header_list_key_takes_first_or_last_element() {
        for (lines, first, last) in [
            (&["a"][..], Some("a"), Some("a")),
            (&[" a ,\tb"], Some("a"), Some("b")),
            (&["a, b", "c , d "], Some("a"), Some("d")),
            (&["a; b"], Some("a; b"), Some("a; b")),
            (&[r#""a, \", b", c"#], Some(r#""a, \", b""#), Some("c")),
            (&[r#"\"a, b", c"#], Some(r#"\"a, b""#), Some("c")),
            (&[", a,"], Some("a"), Some("a")),
            (&["", " , a", "b, ", ","], Some("a"), Some("b")),
            (&[",", ""], None, None),
            (&[], None, None),
        ] {
            let headers: Vec<_> = lines.iter().map(|line| ("x-k", *line)).collect();
            let sample = Sample::new("/", &headers);
            let found = [ListEnd::First, ListEnd::Last]
                .map(|end| sample.one(list_element_of(end, EmptyValue::Missing)));
            let found = found.each_ref().map(Option::as_deref);
            assert_eq!(found, [first, last], "{lines:?}");
        }
    }

    #[test]
    fn empty_value_counts_with_that_option() {
        let lines = [
            ("x-k", ", a"),
            ("x-k", "b,"),
            ("x-e", ""),
            ("x-e", "c"),
            ("cookie", "s=; s=d"),
        ];
        let sample = Sample::new("/?q=&q=e", &lines);
        let (name, empty) = (HeaderName::from_static("x-e"), EmptyValue::Value);
        for source in [
            list_element_of(ListEnd::First, empty),
            list_element_of(ListEnd::Last, empty),
            KeySource::Header {
                name,
                values: HeaderValues::First,
                empty,
            },
            KeySource::Cookie {
                name: "s".to_owned(),
                empty,
            },
            KeySource::Query {
                name: "q".to_owned(),
                empty,
            },
        ] {
            let missing = Sample::new("/?r=", &[("cookie", "r=")]);
            assert_eq!(missing.one(source.clone()), None, "{source:?}");
            assert_eq!(
                sample.one(source.clone()).as_deref(),
                Some(""),
                "{source:?}"
            );
        }
    }

    #[test]
    fn header_lines_are_joined_or_sorted() {
        use EmptyValue::{Missing, Value};
        use HeaderValues::{Joined, Sorted};
        for (lines, values, empty, key) in [
            (&["b", "a"][..], Joined, Missing, Some("b, a")),
            (&["b", "a", "a"], Sorted, Missing, Some("a\x1ea\x1eb")),
            (&["b"], Sorted, Missing, Some("b")),
            (&["", "b", "", "a"], Joined, Missing, Some("b, a")),
            (&["", "b"], Joined, Value, Some(", b")),
            (&["b", ""], Sorted, Value, Some("\x1eb")),
            (&[""], Joined, Missing, None),
            (&[""], Joined, Value, Some("")),
            (&[], Sorted, Value, None),
        ] {
            let headers: Vec<_> = lines.iter().map(|line| ("x-k", *line)).collect();
            let sample = Sample::new("/", &headers);
            let source = KeySource::Header {
                name: HeaderName::from_static("x-k"),
                values,
                empty,
            };
            assert_eq!(
                sample.one(source).as_deref(),
                key,
                "{lines:?} {values:?} {empty:?}"
            );
        }
    }

    #[test]
    fn path_keys_are_raw() {
        let sample = Sample::new("/a/%62//d?q=1", &[]);
        assert_eq!(sample.one(KeySource::Path).as_deref(), Some("/a/%62//d"));
        assert_eq!(
            sample.one(KeySource::PathAndQuery).as_deref(),
            Some("/a/%62//d?q=1")
        );
        let segments = [0, 1, 2, 3, 4, 5].map(|n| sample.one(KeySource::PathSegment(n)));
        assert_eq!(
            segments.each_ref().map(Option::as_deref),
            [None, Some("a"), Some("%62"), None, Some("d"), None]
        );
    }

    #[test]
    fn normalized_path_key_is_equal_for_equal_paths() {
        for path in ["/a/d?q=1", "/a//d", "/a/./b/../%64", "/%61/d"] {
            let sample = Sample::new(path, &[]);
            assert_eq!(
                sample.one(KeySource::NormalizedPath).as_deref(),
                Some("/a/d"),
                "{path}"
            );
        }
    }

    #[test]
    fn host_key_is_lower_case_without_port_and_trailing_dot() {
        assert_eq!(
            Sample::new("/", &[]).one(KeySource::Host).as_deref(),
            Some("example.com")
        );
    }

    #[test]
    fn client_ip_key_is_the_address_or_its_network() {
        let net = |v4, v6| KeySource::ClientIp {
            v4,
            v6,
            form: AddressForm::Text,
        };
        for (client, source, key) in [
            ("10.1.2.3", KeySource::CLIENT_IP, "10.1.2.3"),
            ("::ffff:10.1.2.3", KeySource::CLIENT_IP, "10.1.2.3"),
            ("2001:DB8::1", KeySource::CLIENT_IP, "2001:db8::1"),
            ("10.1.2.3", net(24, 64), "10.1.2.0/24"),
            ("::ffff:10.1.2.3", net(31, 64), "10.1.2.2/31"),
            ("2001:db8:1:2:3::1", net(24, 64), "2001:db8:1:2::/64"),
            ("10.1.2.3", net(0, 0), "0.0.0.0/0"),
            ("::1", net(0, 0), "::/0"),
            ("10.1.2.3", net(200, 64), "10.1.2.3"),
        ] {
            assert_eq!(
                Sample::from(client).one(source).as_deref(),
                Some(key),
                "{client}"
            );
        }
    }

    #[test]
    fn client_ip_key_may_be_binary() {
        let octets = |v4, v6| KeySource::ClientIp {
            v4,
            v6,
            form: AddressForm::Binary,
        };
        for (client, source, key) in [
            ("::ffff:10.1.2.3", octets(32, 128), "\u{a}\u{1}\u{2}\u{3}"),
            ("10.1.2.3", octets(24, 64), "\u{a}\u{1}\u{2}\0"),
            (
                "1::2",
                octets(32, 128),
                "\0\u{1}\0\0\0\0\0\0\0\0\0\0\0\0\0\u{2}",
            ),
        ] {
            assert_eq!(
                Sample::from(client).one(source).as_deref(),
                Some(key),
                "{client}"
            );
        }
    }

    #[test]
    fn any_key_joins_the_sources_that_are_present() {
        let sample = Sample::new("/a?u=1", &[("x-user", "bob")]);
        let any = |sources, separator: &str| {
            sample.one(KeySource::Any(CompositeKey {
                sources,
                separator: separator.to_owned(),
            }))
        };
        let sources = || {
            vec![
                query("v"),
                header("x-user"),
                query("w"),
                query("u"),
                query("x"),
            ]
        };
        assert_eq!(any(sources(), "-").as_deref(), Some("bob-1"));
        assert_eq!(any(sources(), "").as_deref(), Some("bob1"));
        assert_eq!(any(vec![query("v")], "-"), None);
        assert_eq!(any(vec![], "-"), None);
    }

    fn all_of(sources: Vec<KeySource>) -> KeySource {
        KeySource::All(CompositeKey {
            sources,
            separator: CompositeKey::SEPARATOR.to_owned(),
        })
    }

    #[test]
    fn all_key_requires_every_source() {
        let sample = Sample::new("/a?u=1", &[("x-user", "bob")]);
        let sources = vec![
            KeySource::Host,
            header("x-user"),
            KeySource::CLIENT_IP,
            query("u"),
        ];
        assert_eq!(
            sample.one(all_of(sources)).as_deref(),
            Some("example.com|bob|192.0.2.1|1")
        );
        let missing = all_of(vec![KeySource::CLIENT_IP, query("v")]);
        assert_eq!(
            sample.key(&[missing, KeySource::Host]),
            Some((1, "example.com".to_owned()))
        );
        assert_eq!(sample.one(all_of(vec![])).as_deref(), None);
    }

    #[test]
    fn composite_key_longer_than_the_inline_buffer_is_complete() {
        let long = "x".repeat(KeyBuffer::INLINE);
        let sample = Sample::new("/", &[("x-long", &long), ("x-short", "s")]);
        let sources = vec![header("x-short"), header("x-long"), header("x-short")];
        assert_eq!(
            sample.one(all_of(sources)).as_deref(),
            Some(format!("s|{long}|s").as_str())
        );
    }

    #[test]
    fn key_source_names_are_distinct() {
        assert_eq!(KeySource::CLIENT_IP.name(), "client_ip");
        assert_eq!(all_of(vec![KeySource::Path]).name(), "all");
    }

    proptest! {
        #[test]
        fn key_sources_with_random_bytes_do_not_panic(value in prop::collection::vec(32u8..=126, 0..60)) {
            let value = String::from_utf8(value).unwrap();
            let sample = Sample::new("/", &[("cookie", &value)]);
            prop_assert!(sample.one(named_cookie("a")).is_none_or(|key| !key.is_empty()));
        }
    }
}
