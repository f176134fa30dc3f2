//! The sticky cookie: a random key that a client is given and sends with every later request.
//!
//! Its value is hashed onto the ring like any other key; it does not name a peer. So it stays valid when
//! peers change, a client moves only if the ring moves its key, and the cookie does not reveal the
//! number or the addresses of the peers.
//!
//! Issued values are not stored, and a value that a client made up is accepted: choosing a value only
//! means choosing a point on the ring, as with any key that a client sends.

use std::fmt::Write;
use std::time::Duration;

/// The longest valid value; bytes. Browsers need not store longer cookies (RFC 6265 §6.1).
pub(crate) const MAX_VALUE_LEN: usize = 4096;

/// The name and the attributes of a sticky cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyCookie {
    /// The name, a token (RFC 6265 §4.1.1); case-sensitive.
    pub name: String,
    /// How long the client keeps the cookie, in whole seconds (`Max-Age`); `None`: until its session ends.
    pub ttl: Option<Duration>,
    /// Whether each response sets the cookie again, so that `ttl` counts from the client's last request.
    pub refresh: bool,
    /// The `SameSite` attribute.
    pub same_site: SameSite,
    /// The `Secure` attribute.
    pub secure: SecureAttribute,
    /// The `HttpOnly` attribute: hides the cookie from scripts.
    pub http_only: bool,
    /// The path below which the cookie is sent; begins with `/`.
    pub path: String,
    /// The domain to which the cookie is sent, and its subdomains; `None`: only the host that set it.
    pub domain: Option<String>,
}

/// The requests with which a browser sends a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Requests from the site itself.
    Strict,
    /// These, and navigation from other sites.
    Lax,
    /// All requests. Browsers accept this only for a `Secure` cookie.
    None,
}

/// Whether a cookie has the `Secure` attribute: browsers send it only over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecureAttribute {
    /// If the client used TLS.
    Auto,
    /// Always.
    Yes,
    /// Never.
    No,
}

/// Encodes 128 random bits as a cookie value: 22 characters of the URL-safe base64 alphabet
/// (RFC 4648 §5, no padding; the low bits first).
pub(crate) fn encode_value(random: u128) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let sextet = |index: u32| ALPHABET.get((random >> (6 * index)) as usize & 0x3f);
    (0..22)
        .filter_map(sextet)
        .map(|&byte| char::from(byte))
        .collect()
}

/// Whether these bytes are a cookie value (`cookie-octet`s, RFC 6265 §4.1.1) of 1 to
/// [`MAX_VALUE_LEN`] bytes.
pub(crate) fn is_valid_value(bytes: &[u8]) -> bool {
    let is_cookie_octet = |&byte: &u8| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte);
    (1..=MAX_VALUE_LEN).contains(&bytes.len()) && bytes.iter().all(is_cookie_octet)
}

impl StickyCookie {
    /// Formats the `Set-Cookie` field for this value; `over_tls` is whether the client used TLS.
    pub fn set_cookie_value(&self, value: &str, over_tls: bool) -> String {
        let secure = match self.secure {
            SecureAttribute::Auto => over_tls,
            SecureAttribute::Yes => true,
            SecureAttribute::No => false,
        };
        let mut line = format!("{}={value}; Path={}", self.name, self.path);
        // Writing to a `String` cannot fail.
        if let Some(domain) = &self.domain {
            let _ = write!(line, "; Domain={domain}");
        }
        if let Some(ttl) = self.ttl {
            let _ = write!(line, "; Max-Age={}", ttl.as_secs());
        }
        line.push_str(if self.http_only { "; HttpOnly" } else { "" });
        line.push_str(if secure { "; Secure" } else { "" });
        line.push_str(match self.same_site {
            SameSite::Strict => "; SameSite=Strict",
            SameSite::Lax => "; SameSite=Lax",
            // Browsers would reject the whole cookie.
            SameSite::None if !secure => "",
            SameSite::None => "; SameSite=None",
        });
        line
    }

    /// Whether a `Set-Cookie` field value sets a cookie of this name.
    pub fn is_set_by(&self, line: &[u8]) -> bool {
        let name = line.split(|&byte| byte == b'=').next();
        name.is_some_and(|name| name.trim_ascii() == self.name.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn plain() -> StickyCookie {
        StickyCookie {
            name: "cw".to_owned(),
            ttl: None,
            refresh: false,
            same_site: SameSite::Lax,
            secure: SecureAttribute::Auto,
            http_only: true,
            path: "/".to_owned(),
            domain: None,
        }
    }

    #[test]
    fn sticky_cookie_has_the_configured_attributes() {
        let line = "cw=v; Path=/; HttpOnly; SameSite=Lax";
        assert_eq!(plain().set_cookie_value("v", false), line);
        let all = StickyCookie {
            ttl: Some(Duration::from_secs(3600)),
            same_site: SameSite::None,
            secure: SecureAttribute::Yes,
            path: "/a".to_owned(),
            domain: Some("example.com".to_owned()),
            ..plain()
        };
        let line =
            "cw=v; Path=/a; Domain=example.com; Max-Age=3600; HttpOnly; Secure; SameSite=None";
        assert_eq!(all.set_cookie_value("v", false), line);
        let bare = StickyCookie {
            same_site: SameSite::Strict,
            secure: SecureAttribute::No,
            http_only: false,
            ..plain()
        };
        assert_eq!(
            bare.set_cookie_value("v", true),
            "cw=v; Path=/; SameSite=Strict"
        );
    }

    #[test]
    fn sticky_cookie_is_secure_when_the_client_used_tls() {
        let sticky = StickyCookie {
            same_site: SameSite::None,
            ..plain()
        };
        let secure = "cw=v; Path=/; HttpOnly; Secure; SameSite=None";
        assert_eq!(sticky.set_cookie_value("v", true), secure);
        assert_eq!(
            sticky.set_cookie_value("v", false),
            "cw=v; Path=/; HttpOnly"
        );
    }

    #[test]
    fn sticky_cookie_set_by_the_peer_is_recognised_by_name() {
        let lines: [&[u8]; 3] = [b"cw=1; Path=/x", b" cw =", b"cw"];
        assert!(lines.iter().all(|line| plain().is_set_by(line)));
        let others: [&[u8]; 4] = [b"cw2=1", b"CW=1", b"a=cw=1", b""];
        assert!(!others.iter().any(|line| plain().is_set_by(line)));
    }

    #[test]
    fn sticky_cookie_value_rejects_empty_long_and_malformed() {
        assert!(is_valid_value(b"a") && is_valid_value(&[b'a'; MAX_VALUE_LEN]));
        assert!(!is_valid_value(b"") && !is_valid_value(&[b'a'; MAX_VALUE_LEN + 1]));
        for byte in 0..=u8::MAX {
            let good = matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e);
            assert_eq!(is_valid_value(&[byte]), good, "{byte:#x}");
        }
    }

    proptest! {
        #[test]
        fn sticky_cookie_value_encodes_all_random_bits(random: u128, bit in 0..128_u32) {
            let value = encode_value(random);
            prop_assert!(is_valid_value(value.as_bytes()) && value.len() == 22);
            prop_assert_ne!(&value, &encode_value(random ^ (1 << bit)));
            let characters: HashSet<_> = value.chars().collect();
            prop_assert!(characters.iter().all(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)));
        }
    }
}
