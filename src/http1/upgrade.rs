//! Which requests ask for another protocol, in the fields of any carrier.

use http::Version;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};

use super::connection::connection_options;
use crate::header::HeaderRead;

/// The protocol of RFC 6455.
pub(crate) const WEBSOCKET: &[u8] = b"websocket";

/// Whether the request asks for another protocol (RFC 9110 §7.8). Only an `Upgrade` that `Connection` lists, in HTTP/1.1, is
/// valid. A request with a body asks for none: a peer that switches before it has the body would be refused, and blamed.
pub(crate) fn asks_for_upgrade(headers: &impl HeaderRead, version: Version) -> bool {
    let is_zero = |length: &[u8]| length.iter().all(|&digit| digit == b'0');
    let has_body = headers.get(&TRANSFER_ENCODING).is_some()
        || headers
            .get(&CONTENT_LENGTH)
            .is_some_and(|length| !is_zero(length));
    headers.get(&UPGRADE).is_some()
        && !has_body
        && version == Version::HTTP_11
        && connection_options(headers).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

/// Whether the message's `Upgrade` is `websocket`.
pub(crate) fn names_websocket(headers: &impl HeaderRead) -> bool {
    let upgrade = headers.get(&UPGRADE);
    upgrade.is_some_and(|to| to.eq_ignore_ascii_case(WEBSOCKET))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::header_map;

    #[test]
    fn upgrade_is_asked_for_if_connection_lists_it_in_http11_without_a_body() {
        for (version, connection, upgrade, asks) in [
            (Version::HTTP_11, "keep-alive, Upgrade", "WebSocket", true),
            (Version::HTTP_11, "keep-alive", "websocket", false),
            (Version::HTTP_11, "upgrade", "h2c", true),
            (Version::HTTP_10, "upgrade", "websocket", false),
            (Version::HTTP_2, "upgrade", "websocket", false),
        ] {
            let headers = header_map(&[("connection", connection), ("upgrade", upgrade)]);
            assert_eq!(
                asks_for_upgrade(&headers, version),
                asks,
                "{version:?} {connection} {upgrade}"
            );
        }
        for (name, value, asks) in [
            ("content-length", "0", true),
            ("content-length", "5", false),
            ("transfer-encoding", "chunked", false),
        ] {
            let websocket = [("connection", "upgrade"), ("upgrade", "websocket")];
            let headers = header_map(&[websocket[0], websocket[1], (name, value)]);
            let found = asks_for_upgrade(&headers, Version::HTTP_11);
            assert_eq!(found, asks, "{name}: {value}");
        }
    }
}
