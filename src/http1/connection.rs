//! `Connection`, and the fields that are only for one connection (RFC 9110 §7.6.1).

use http::Version;
use http::header::{CONNECTION, HeaderName};

use super::lines::{FieldLines, KnownField, list_elements};
use crate::header::HeaderRead;

/// The options of `Connection` that HTTP/1 itself defines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// The connection ends after this message.
    pub close: bool,
    /// The connection persists in HTTP/1.0, too.
    pub keep_alive: bool,
    /// The field `Upgrade` is valid (RFC 9110 §7.8).
    pub upgrade: bool,
}

impl ConnectionOptions {
    /// Reads the options of a message.
    pub fn of(fields: &FieldLines) -> Self {
        let mut options = Self::default();
        for option in fields.known(KnownField::Connection) {
            for option in list_elements(option) {
                options.close |= option.eq_ignore_ascii_case(b"close");
                options.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                options.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
            }
        }
        options
    }

    /// Whether the sender keeps the connection for further messages (RFC 9112 §9.3).
    pub fn persists(self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep_alive)
    }
}

/// The options of `Connection` in a header that another parser has read; also empty ones.
pub(super) fn connection_options(headers: &impl HeaderRead) -> impl Iterator<Item = &[u8]> {
    headers.get_all(&CONNECTION).flat_map(list_elements)
}

/// The fields that `Connection` lists and that may be dropped, in a header that another parser has read.
pub(crate) fn listed_fields(headers: &impl HeaderRead) -> Vec<HeaderName> {
    let names = connection_options(headers).filter_map(removable_field);
    names.filter_map(|name| name.parse().ok()).collect()
}

/// Whether the field is for one connection only, whether or not `Connection` lists it (RFC 9110 §7.6.1).
/// `Transfer-Encoding` is one, too; it belongs to the framing.
pub(super) fn is_hop_by_hop(field: KnownField) -> bool {
    matches!(
        field,
        KnownField::Connection
            | KnownField::KeepAlive
            | KnownField::ProxyConnection
            | KnownField::Te
            | KnownField::Upgrade
    )
}

/// The name of a field that an option of `Connection` lists, if it may be dropped.
pub(super) fn removable_field(option: &[u8]) -> Option<&str> {
    if is_known_option(option) || !is_removable(option) {
        return None;
    }
    str::from_utf8(option).ok()
}

fn is_known_option(option: &[u8]) -> bool {
    // Fields named `Keep-Alive` and `Upgrade` are always removed.
    let known: [&[u8]; 4] = [b"", b"close", b"keep-alive", b"upgrade"];
    known.iter().any(|known| option.eq_ignore_ascii_case(known))
}

/// Whether the field of a name that `Connection` lists may be dropped. Not if it is for the origin or for the client:
/// such fields must not be listed (RFC 9110 §7.6.1), and a sender could remove the fields that Clockwise adds.
fn is_removable(name: &[u8]) -> bool {
    const KEPT: [&str; 19] = [
        "accept",
        "authorization",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "location",
        "origin",
        "set-cookie",
        "trailer",
        "traceparent",
        "tracestate",
        "transfer-encoding",
        "via",
        "x-request-id",
    ];
    let is_kept = |kept: &&str| name.eq_ignore_ascii_case(kept.as_bytes());
    let has_prefix = |prefix: &str| {
        let start = name.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    // Addresses and certificates of clients, under the names that proxies give them.
    let is_of_proxy =
        has_prefix("x-forwarded-") || has_prefix("x-real-") || has_prefix("x-client-");
    !is_of_proxy && !KEPT.iter().any(is_kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::header_map;

    #[test]
    fn listed_fields_are_those_that_are_for_one_connection() {
        let headers = header_map(&[
            ("connection", "close, X-One,, keep-alive"),
            ("connection", "upgrade,x-two , TE"),
            (
                "connection",
                "Host, Set-Cookie, Content-Length, X-Forwarded-For",
            ),
        ]);
        assert_eq!(listed_fields(&headers), ["x-one", "x-two", "te"]);
    }
}
