//! The protocols to which the clients of a route may switch (RFC 9110 §7.8).

/// Names of protocols as in `Upgrade`: `websocket`, or `name/version`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeProtocols(Vec<Box<str>>);

/// Names of protocols that carry requests of HTTP.
const HTTP_NAMES: [&str; 3] = ["h2c", "h2", "http"];

/// Why a text cannot be in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvalidProtocol {
    /// Not a token, or a token, `/` and a token.
    Malformed,
    /// Requests within the tunnel would pass no route and no limit.
    CarriesHttp,
}

impl Default for UpgradeProtocols {
    fn default() -> Self {
        Self(vec!["websocket".into()])
    }
}

impl UpgradeProtocols {
    /// No protocol.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// Adds a protocol; false: it is in the list already.
    ///
    /// # Errors
    /// The text is not the name of a protocol to which a tunnel may switch.
    pub(crate) fn add(&mut self, protocol: &str) -> Result<bool, InvalidProtocol> {
        let (name, version) = protocol.split_once('/').unwrap_or((protocol, "1"));
        if ![name, version].into_iter().all(is_token) {
            return Err(InvalidProtocol::Malformed);
        }
        if HTTP_NAMES
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name))
        {
            return Err(InvalidProtocol::CarriesHttp);
        }
        let is_new = !self.0.iter().any(|it| it.eq_ignore_ascii_case(protocol));
        if is_new {
            self.0.push(protocol.to_ascii_lowercase().into());
        }
        Ok(is_new)
    }

    /// Whether a client may switch to `protocol`, an element of `Upgrade`, in any case of letters. A listed name without a
    /// version stands for all versions.
    pub(crate) fn allows(&self, protocol: &[u8]) -> bool {
        let name = protocol.split(|&byte| byte == b'/').next();
        let is_listed = |text: &[u8]| {
            let mut listed = self.0.iter();
            listed.any(|it| it.as_bytes().eq_ignore_ascii_case(text))
        };
        is_listed(protocol) || name.is_some_and(is_listed)
    }
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_tchar)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocols(names: &[&str]) -> UpgradeProtocols {
        let mut protocols = UpgradeProtocols::none();
        for name in names {
            assert_eq!(protocols.add(name), Ok(true), "{name}");
        }
        protocols
    }

    #[test]
    fn protocol_is_allowed_by_its_name_in_any_case_and_by_its_version() {
        let listed = protocols(&["WebSocket", "foo/2"]);
        for (protocol, allowed) in [
            ("websocket", true),
            ("WEBSOCKET", true),
            ("websocket/13", true),
            ("websockets", false),
            ("Foo/2", true),
            ("foo", false),
            ("foo/1", false),
            ("", false),
        ] {
            assert_eq!(listed.allows(protocol.as_bytes()), allowed, "{protocol}");
        }
        assert!(UpgradeProtocols::default().allows(b"websocket"));
        assert!(!UpgradeProtocols::none().allows(b"websocket"));
    }

    #[test]
    fn list_takes_tokens_that_carry_no_http() {
        let mut listed = protocols(&["websocket"]);
        assert_eq!(listed.add("WebSocket"), Ok(false));
        for (text, error) in [
            ("", InvalidProtocol::Malformed),
            ("a b", InvalidProtocol::Malformed),
            ("a/", InvalidProtocol::Malformed),
            ("a/b/c", InvalidProtocol::Malformed),
            ("h2c", InvalidProtocol::CarriesHttp),
            ("HTTP/2.0", InvalidProtocol::CarriesHttp),
        ] {
            assert_eq!(listed.add(text), Err(error), "{text}");
        }
    }
}
