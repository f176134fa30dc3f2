//! The sticky cookie: a random key that a client is given, and brings with every later request.
//!
//! Its value is a key like any other, hashed onto the ring; it names no peer. So it stays good for
//! whatever becomes of the peers, a client moves only if the ring moves its key, and it tells nobody
//! how many peers there are, or which.
//!
//! Nothing is remembered here of the values that were made, and nobody else's is refused: whoever
//! chooses a value chooses a place on the ring, as with any key that a client sends.

use std::fmt::Write;
use std::time::Duration;

/// The longest value that counts; bytes. What browsers keep of a cookie in all (RFC 6265 §6.1).
pub const MAX_VALUE_LEN: usize = 4096;

/// A cookie that clients without it are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyCookie {
    /// Its name, a token (RFC 6265 §4.1.1); case counts.
    pub name: String,
    /// How long the client keeps it, to the second; `None`: until its session ends.
    pub ttl: Option<Duration>,
    /// Whether a client that has it is given it again with each response, so that `ttl` counts from
    /// its last request.
    pub refresh: bool,
    /// With whose requests it is sent.
    pub same_site: SameSite,
    /// Whether it is sent over TLS only.
    pub secure: SecureAttribute,
    /// Hidden from scripts.
    pub http_only: bool,
    /// Below which path it is sent; begins with `/`.
    pub path: String,
    /// The host that it is sent to, with all names below; `None`: the one it came from alone.
    pub domain: Option<String>,
}

/// With whose requests a cookie is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Those of the site itself.
    Strict,
    /// And links from elsewhere.
    Lax,
    /// All. Browsers want such a cookie to be `Secure`.
    None,
}

/// Whether a cookie is sent over TLS only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecureAttribute {
    /// Where the client came over TLS.
    Auto,
    /// Always.
    Yes,
    /// Never.
    No,
}

/// 128 random bits as the value of a cookie: 22 characters that also stand unchanged in a URL
/// (RFC 4648 §5, without padding).
pub fn encode_value(random: u128) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let sextet = |place: u32| ALPHABET.get((random >> (6 * place)) as usize & 0x3f);
    (0..22)
        .filter_map(sextet)
        .map(|&byte| char::from(byte))
        .collect()
}

/// Whether these bytes are a cookie's value (`cookie-octet`s, RFC 6265 §4.1.1) of a length that
/// counts.
pub fn is_valid_value(bytes: &[u8]) -> bool {
    let octet = |&byte: &u8| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte);
    (1..=MAX_VALUE_LEN).contains(&bytes.len()) && bytes.iter().all(octet)
}

impl StickyCookie {
    /// The value of `Set-Cookie` that gives a client this value; `over_tls`: it came that way.
    pub fn set_cookie_value(&self, value: &str, over_tls: bool) -> String {
        let secure = match self.secure {
            SecureAttribute::Auto => over_tls,
            SecureAttribute::Yes => true,
            SecureAttribute::No => false,
        };
        let mut line = format!("{}={value}; Path={}", self.name, self.path);
        // A `String` takes whatever is written to it.
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
            // Browsers would drop the whole cookie.
            SameSite::None if !secure => "",
            SameSite::None => "; SameSite=None",
        });
        line
    }

    /// Whether a value of `Set-Cookie` sets a cookie of this name, whatever its other attributes.
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
        let every = StickyCookie {
            ttl: Some(Duration::from_secs(3600)),
            same_site: SameSite::None,
            secure: SecureAttribute::Yes,
            path: "/a".to_owned(),
            domain: Some("example.com".to_owned()),
            ..plain()
        };
        let line =
            "cw=v; Path=/a; Domain=example.com; Max-Age=3600; HttpOnly; Secure; SameSite=None";
        assert_eq!(every.set_cookie_value("v", false), line);
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
            let made = encode_value(random);
            prop_assert!(is_valid_value(made.as_bytes()) && made.len() == 22);
            prop_assert_ne!(&made, &encode_value(random ^ (1 << bit)));
            let characters: HashSet<_> = made.chars().collect();
            prop_assert!(characters.iter().all(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)));
        }
    }
}
