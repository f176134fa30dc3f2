//! The facts of a request that the last record needs: the carrier's own request may be dropped before that.

use std::net::{IpAddr, Ipv4Addr};

use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Version};

use crate::client_addr;
use crate::config::NormalizePath;
use crate::downstream::Connection;
use crate::grpc;
use crate::header::HeaderRead;
use crate::request_target::{self, RequestTarget};
use crate::snapshot::Snapshot;
use crate::telemetry::hex_digits;

/// The longest request id that is taken from a client; bytes.
const MAX_REQUEST_ID: usize = 128;

/// The address of a client that has none, as on a Unix socket.
const UNKNOWN_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The first line of a request (RFC 9112 §3).
#[derive(Debug)]
pub(crate) struct ParsedRequestLine {
    pub(crate) method: Method,
    pub(crate) target: RequestTarget,
    pub(crate) version: Version,
}

/// The properties of a request and of its client.
#[derive(Debug)]
pub(crate) struct RequestInfo {
    pub(crate) method: Method,
    /// The target, as the key sees it and a peer gets it.
    pub(crate) target: RequestTarget,
    /// The normal form of the path if `target` has another one; `None` with `normalize_path: off`.
    pub(crate) normal_path: Option<String>,
    pub(crate) version: Version,
    pub(crate) host: Option<HeaderValue>,
    /// The client's address; the one that trusted proxies report, if the client is behind them.
    pub(crate) client_ip: IpAddr,
    /// Whether the other end of the connection is a trusted proxy.
    pub(crate) from_trusted: bool,
    /// The id for peers, clients and the log; `None`: `request_id` is off.
    pub(crate) id: Option<HeaderValue>,
    pub(crate) user_agent: Option<HeaderValue>,
    /// The content type of a request of gRPC or gRPC-Web; `None`: it is neither.
    pub(crate) grpc_content_type: Option<HeaderValue>,
}

impl Default for RequestInfo {
    fn default() -> Self {
        Self {
            method: Method::GET,
            target: RequestTarget::default(),
            normal_path: None,
            version: Version::HTTP_11,
            host: None,
            client_ip: UNKNOWN_CLIENT,
            from_trusted: false,
            id: None,
            user_agent: None,
            grpc_content_type: None,
        }
    }
}

impl RequestInfo {
    /// Reads the properties from a complete header.
    pub(crate) fn new(
        line: ParsedRequestLine,
        headers: &impl HeaderRead,
        connection: Option<&Connection>,
        snapshot: &Snapshot,
    ) -> Self {
        let remote = connection
            .and_then(|connection| connection.client_addr)
            .map(|client| client.ip());
        let trusted = &snapshot.trusted_proxies;
        let (target, normal_path) = normalize(line.target, snapshot.config.normalize_path);
        Self {
            method: line.method,
            target,
            normal_path,
            version: line.version,
            host: headers.value(&HOST),
            client_ip: remote.map_or(UNKNOWN_CLIENT, |remote| {
                client_addr::resolve(remote, headers, trusted)
            }),
            from_trusted: remote.is_some_and(|remote| trusted.contains(remote)),
            id: snapshot
                .forwarding
                .request_id
                .as_ref()
                .and_then(|name| request_id(headers, name)),
            user_agent: headers.value(&USER_AGENT),
            grpc_content_type: grpc::is_grpc_request(headers)
                .then(|| headers.value(&CONTENT_TYPE))
                .flatten(),
        }
    }

    /// The facts of a request with an incomplete header.
    pub(crate) fn partial(connection: &Connection, snapshot: &Snapshot) -> Self {
        let client = connection.client_addr.map(|client| client.ip());
        let wants_id = snapshot.forwarding.request_id.is_some();
        Self {
            client_ip: client.unwrap_or(UNKNOWN_CLIENT),
            id: wants_id.then(new_request_id).flatten(),
            ..Self::default()
        }
    }

    /// The requested host: the target's if it has one (RFC 9112 §3.2.2), else `Host`.
    pub(crate) fn host_text(&self) -> &str {
        let header = || self.host.as_ref().and_then(|host| host.to_str().ok());
        self.target.authority().or_else(header).unwrap_or("")
    }

    /// The requested host as it came; `None`: the request has none.
    pub(crate) fn host_bytes(&self) -> Option<&[u8]> {
        let header = || self.host.as_ref().map(HeaderValue::as_bytes);
        self.target.authority().map(str::as_bytes).or_else(header)
    }

    /// The requested host as a field's value; `None`: it is missing, empty, or not ASCII.
    pub(crate) fn host_value(&self) -> Option<HeaderValue> {
        if self.target.authority().is_some() {
            return HeaderValue::from_str(self.host_text()).ok();
        }
        let host = self.host.as_ref();
        host.filter(|host| !host.is_empty() && host.to_str().is_ok())
            .cloned()
    }

    /// The path for routes and access rules; `OPTIONS *`, which is about the whole server, counts as `/`.
    pub(crate) fn path(&self) -> &str {
        match self.normal_path.as_deref().unwrap_or(self.target.path()) {
            "" | "*" => "/",
            path => path,
        }
    }
}

/// The target that the peer gets, and the normal form of its path if that differs.
fn normalize(target: RequestTarget, rule: NormalizePath) -> (RequestTarget, Option<String>) {
    let normal = match rule {
        NormalizePath::Off => None,
        _ => request_target::normalize(target.path()),
    };
    match normal {
        Some(path) if rule == NormalizePath::Rewrite => (target.with_path(&path), None),
        normal => (target, normal),
    }
}

/// The client's id if it sent a valid one, otherwise a new one.
fn request_id(headers: &impl HeaderRead, name: &HeaderName) -> Option<HeaderValue> {
    let is_valid = headers.get(name).is_some_and(is_valid_request_id);
    let sent = is_valid.then(|| headers.value(name)).flatten();
    sent.or_else(new_request_id)
}

fn new_request_id() -> Option<HeaderValue> {
    HeaderValue::from_bytes(&format_request_id(rand::random())).ok()
}

/// Formats as `{:032x}` does.
#[expect(clippy::cast_possible_truncation, reason = "a quarter at a time")]
fn format_request_id(id: u128) -> [u8; 32] {
    let mut text = [0; 32];
    let (places, _) = text.as_chunks_mut();
    for (index, place) in places.iter_mut().rev().enumerate() {
        *place = hex_digits((id >> (32 * index)) as u32);
    }
    text
}

fn is_valid_request_id(id: &[u8]) -> bool {
    (1..=MAX_REQUEST_ID).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    const ID: HeaderName = HeaderName::from_static("x-request-id");

    fn id_from(sent: &str) -> HeaderValue {
        let sent = HeaderValue::from_str(sent).unwrap();
        request_id(&HeaderMap::from_iter([(ID, sent)]), &ID).unwrap()
    }

    fn info(host: Option<&'static str>, target: &'static str) -> RequestInfo {
        info_with_authority(host, None, target)
    }

    fn info_with_authority(
        host: Option<&'static str>,
        authority: Option<&'static str>,
        target: &'static str,
    ) -> RequestInfo {
        RequestInfo {
            host: host.map(HeaderValue::from_static),
            target: RequestTarget::new(target, authority),
            ..RequestInfo::default()
        }
    }

    #[test]
    fn request_id_of_a_client_is_kept_only_if_it_is_short_and_visible() {
        let longest = "a".repeat(MAX_REQUEST_ID);
        for valid in ["1", "a-B_c.9~", &longest] {
            assert_eq!(id_from(valid), valid);
        }
        let too_long = "a".repeat(MAX_REQUEST_ID + 1);
        for invalid in ["", "a b", "a\tb", &too_long] {
            let made = id_from(invalid);
            assert_eq!(made.len(), 32, "{invalid}");
            assert!(made.as_bytes().iter().all(u8::is_ascii_hexdigit));
        }
    }

    #[test]
    fn request_id_is_formatted_as_32_lower_case_digits() {
        for id in [
            0,
            1,
            0xabc,
            u128::MAX,
            0x0123_4567_89ab_cdef_0123_4567_89ab_cdef,
        ] {
            assert_eq!(format_request_id(id), *format!("{id:032x}").as_bytes());
        }
    }

    #[test]
    fn host_of_an_absolute_target_wins_over_the_field() {
        let both = info_with_authority(Some("field.test"), Some("target.test:81"), "/x");
        assert_eq!(both.host_text(), "target.test:81");
        assert_eq!(both.host_value().unwrap(), "target.test:81");
        assert_eq!(both.host_bytes().unwrap(), b"target.test:81");
        let field = info(Some("field.test"), "/x");
        assert_eq!(field.host_text(), "field.test");
        assert_eq!(field.host_value().unwrap(), "field.test");
    }

    #[test]
    fn missing_or_empty_host_is_no_value() {
        for host in [None, Some("")] {
            let info = info(host, "/");
            assert_eq!(info.host_text(), "");
            assert_eq!(info.host_value(), None);
        }
    }

    #[test]
    fn path_is_normalized_as_its_rule_says() {
        for (rule, route_path, target) in [
            (NormalizePath::Match, "/b", "/a/../b?c/.."),
            (NormalizePath::Reject, "/b", "/a/../b?c/.."),
            (NormalizePath::Rewrite, "/b", "/b?c/.."),
            (NormalizePath::Off, "/a/../b", "/a/../b?c/.."),
        ] {
            let sent = RequestTarget::parse(b"/a/../b?c/..").unwrap();
            let (target_sent, normal_path) = normalize(sent, rule);
            let info = RequestInfo {
                target: target_sent,
                normal_path,
                ..RequestInfo::default()
            };
            assert_eq!(info.path(), route_path, "{rule:?}");
            assert_eq!(info.target.origin_form(), target, "{rule:?}");
        }
    }

    #[test]
    fn path_of_a_target_without_one_is_the_root() {
        assert_eq!(info(None, "*").path(), "/");
        assert_eq!(info(None, "/a?b").path(), "/a");
        assert_eq!(info(None, "").path(), "/", "CONNECT");
    }
}
