//! Phases 2 and 6: protocol upgrades (RFC 9110 §7.8). Phase 2 selects the protocols that a peer is offered; phase 6 accepts
//! a 101 response only if it names these.

use http::header::UPGRADE;
use http::{HeaderValue, Version};

use crate::header::HeaderRead;
use crate::http1::{self, WEBSOCKET};
use crate::route::UpgradeProtocols;

/// Builds the `Upgrade` field for peers: the protocols that the client asks for and the route allows, in the client's order.
/// `None`: the request is forwarded without the field.
pub(super) fn offered(
    headers: &impl HeaderRead,
    version: Version,
    allowed: &UpgradeProtocols,
) -> Option<HeaderValue> {
    if !http1::asks_for_upgrade(headers, version) {
        return None;
    }
    let protocols = protocols(headers).filter(|protocol| allowed.allows(protocol));
    let protocols: Vec<&[u8]> = protocols.collect();
    match *protocols {
        [] => None,
        [only] if only.eq_ignore_ascii_case(WEBSOCKET) => {
            Some(HeaderValue::from_static("websocket"))
        }
        _ => HeaderValue::from_bytes(&protocols.join(&b", "[..])).ok(),
    }
}

/// Whether the response's `Upgrade` names at least one protocol, and only protocols that were offered.
pub(super) fn is_among(offered: &HeaderValue, response: &impl HeaderRead) -> bool {
    let is_offered = |protocol: &[u8]| {
        let mut offered = elements(offered.as_bytes());
        offered.any(|it| it.eq_ignore_ascii_case(protocol))
    };
    protocols(response).next().is_some() && protocols(response).all(is_offered)
}

/// The protocols in all lines of `Upgrade`.
fn protocols(headers: &impl HeaderRead) -> impl Iterator<Item = &[u8]> {
    headers.get_all(&UPGRADE).flat_map(elements)
}

/// Splits a list at its commas; empty elements are skipped (RFC 9110 §5.6.1.2).
fn elements(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let elements = list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    elements.filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::header_map;

    fn allowed(names: &[&str]) -> UpgradeProtocols {
        let mut allowed = UpgradeProtocols::none();
        for name in names {
            allowed.add(name).unwrap();
        }
        allowed
    }

    fn offer(fields: &[(&'static str, &'static str)], names: &[&str]) -> Option<String> {
        let offered = offered(&header_map(fields), Version::HTTP_11, &allowed(names))?;
        Some(offered.to_str().unwrap().to_owned())
    }

    #[test]
    fn peer_is_offered_what_the_client_asks_for_and_the_route_lists() {
        for (lines, names, expected) in [
            (&["foo"][..], &["foo"][..], Some("foo")),
            (&["Foo/2"], &["websocket", "foo"], Some("Foo/2")),
            (
                &["foo, bar", "websocket"],
                &["websocket", "foo"],
                Some("foo, websocket"),
            ),
            (&["foo, websocket"], &["websocket"], Some("websocket")),
            (&["bar"], &["websocket", "foo"], None),
            (&[" , "], &["foo"], None),
            (&["websocket"], &[], None),
        ] {
            let mut fields = vec![("connection", "upgrade")];
            fields.extend(lines.iter().map(|line| ("upgrade", *line)));
            let found = offer(&fields, names);
            assert_eq!(found.as_deref(), expected, "{lines:?} {names:?}");
        }
    }

    #[test]
    fn upgrade_is_accepted_only_to_offered_protocols() {
        for (offered, response, accepted) in [
            ("websocket", &["WebSocket"][..], true),
            ("foo, bar", &["bar"], true),
            ("foo, bar", &["foo, bar"], true),
            ("foo/1", &["foo/2"], false),
            ("websocket", &["foo"], false),
            ("websocket", &["websocket, foo"], false),
            ("websocket", &["websocket", "foo"], false),
            ("websocket", &[""], false),
            ("websocket", &[], false),
        ] {
            let fields: Vec<_> = response.iter().map(|line| ("upgrade", *line)).collect();
            let found = is_among(&HeaderValue::from_static(offered), &header_map(&fields));
            assert_eq!(found, accepted, "{offered} {response:?}");
        }
    }
}
