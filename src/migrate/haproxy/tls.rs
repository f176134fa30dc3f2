//! TLS settings of `global`, TLS versions, and paths of files.

use super::syntax::{HaproxyLine, HaproxyWord};
use crate::config;
use crate::migrate::notes::Notes;

const NO_OLD_TLS: &str = "Clockwise does not speak versions before TLS 1.2";
const ALWAYS_TLS13: &str = "Clockwise always offers TLS 1.3";
pub(super) const HAPROXY_ONLY: &str = "left out; it is internal to HAProxy";

/// Parameters of `bind` and of `server` that are internal to the TLS of `HAProxy`; each has more of its own.
const INTERNAL_PARAMS: &[&str] = &[
    "allow-0rtt",
    "ciphers",
    "ciphersuites",
    "client-sigalgs",
    "curves",
    "no-tls-tickets",
    "npn",
    "sigalgs",
    "tls-tickets",
];

/// TLS versions as numbers; all versions before 1.2 are 0.
const TLS_VERSIONS: &[(&str, u8)] = &[
    ("sslv3", 0),
    ("tlsv1.0", 0),
    ("tlsv10", 0),
    ("tlsv1.1", 0),
    ("tlsv11", 0),
    ("tlsv1.2", 2),
    ("tlsv12", 2),
    ("tlsv1.3", 3),
    ("tlsv13", 3),
];

/// Version parameters with a value.
const VERSION_LIMIT_PARAMS: [&str; 2] = ["ssl-min-ver", "ssl-max-ver"];

/// Whether `bind` and `server` both have this parameter, and it is internal to the TLS of `HAProxy`.
pub(super) fn is_internal_param(name: &str) -> bool {
    INTERNAL_PARAMS.contains(&name)
}

/// TLS settings of `global`.
#[derive(Clone, Debug, Default)]
pub(super) struct GlobalTls {
    ca_base: Option<String>,
    crt_base: Option<String>,
    /// Defaults of `bind`.
    pub(super) bind: TlsVersionRange,
    /// Defaults of `server`.
    pub(super) server: TlsVersionRange,
    /// `ssl-server-verify none`.
    pub(super) skip_server_verify: bool,
}

/// A range of TLS versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TlsVersionRange {
    min: Option<u8>,
    max: Option<u8>,
    no_tls12: bool,
    no_tls13: bool,
}

impl GlobalTls {
    /// Reads a line of `global`; `false` if it is another one.
    pub(super) fn read_line(&mut self, line: &HaproxyLine, notes: &Notes<'_>) -> bool {
        match line.keyword() {
            "ca-base" => self.ca_base = Some(line.word(1).to_owned()),
            "crt-base" => self.crt_base = Some(line.word(1).to_owned()),
            "ssl-server-verify" => self.skip_server_verify = line.word(1) == "none",
            "ssl-default-bind-options" => read_options(&mut self.bind, line, notes),
            "ssl-default-server-options" => read_options(&mut self.server, line, notes),
            _ => return false,
        }
        true
    }

    /// The path of a CA file; `None` if the name is not a file.
    pub(super) fn ca_path(&self, name: &str) -> Option<String> {
        file_path(self.ca_base.as_deref(), name)
    }

    /// The path of a certificate file; `None` if the name is not a file.
    pub(super) fn crt_path(&self, name: &str) -> Option<String> {
        file_path(self.crt_base.as_deref(), name)
    }
}

fn file_path(base: Option<&str>, name: &str) -> Option<String> {
    let path = match base {
        Some(base) if !name.starts_with('/') => format!("{}/{name}", base.trim_end_matches('/')),
        _ => name.to_owned(),
    };
    let named = !name.is_empty() && !name.starts_with('@') && config::is_file_path(&path);
    (named && !path.contains('$')).then_some(path)
}

fn read_options(versions: &mut TlsVersionRange, line: &HaproxyLine, notes: &Notes<'_>) {
    let mut own = TlsVersionRange::default();
    let mut rest = Vec::new();
    let mut words = line.tail(1).iter();
    while let Some(word) = words.next() {
        let value = TlsVersionRange::param_value(word, &mut words);
        if !own.read_param(&word.text, value) {
            rest.push(word.text.as_str());
        }
    }
    if !rest.is_empty() {
        let subject = format!("{} {}", line.keyword(), rest.join(" "));
        notes.remark(line.span, &subject, HAPROXY_ONLY);
    }
    for what in own.unsupported() {
        notes.remark(line.span, &line.text(), what);
    }
    *versions = own.with_defaults(*versions);
}

impl TlsVersionRange {
    /// The value of a version parameter; empty for other words.
    fn param_value<'a>(
        word: &HaproxyWord,
        rest: &mut std::slice::Iter<'a, HaproxyWord>,
    ) -> &'a str {
        let valued = VERSION_LIMIT_PARAMS.contains(&word.text.as_str());
        let value = if valued { rest.next() } else { None };
        value.map_or("", |word| &word.text)
    }

    /// Reads a version parameter; `false` if it is another one.
    pub(super) fn read_param(&mut self, word: &str, value: &str) -> bool {
        match word {
            "ssl-min-ver" => self.min = parse_version(value),
            "ssl-max-ver" => self.max = parse_version(value),
            _ if word.starts_with("force-") => {
                let only = word.strip_prefix("force-").and_then(parse_version);
                (self.min, self.max) = (only, only);
                return only.is_some();
            }
            _ => match word.strip_prefix("no-").and_then(parse_version) {
                Some(3) => self.no_tls13 = true,
                Some(2) => self.no_tls12 = true,
                other => return other.is_some(),
            },
        }
        true
    }

    /// This range, with the limits of `general` if it has none.
    pub(super) fn with_defaults(self, general: Self) -> Self {
        Self {
            min: self.min.or(general.min),
            max: self.max.or(general.max),
            no_tls12: self.no_tls12 || general.no_tls12,
            no_tls13: self.no_tls13 || general.no_tls13,
        }
    }

    /// The oldest version, if it is limited.
    pub(super) fn min_version(self) -> Option<&'static str> {
        match self.min {
            Some(3) => Some("1.3"),
            _ if self.no_tls12 && self.allows_tls13() => Some("1.3"),
            Some(2) => Some("1.2"),
            _ => None,
        }
    }

    fn allows_tls13(self) -> bool {
        !self.no_tls13 && self.max.is_none_or(|most| most >= 3)
    }

    /// Limits that Clockwise does not have.
    pub(super) fn unsupported(self) -> impl Iterator<Item = &'static str> {
        let old = self.min == Some(0) || self.max == Some(0);
        let new = !self.allows_tls13();
        [(old, NO_OLD_TLS), (new, ALWAYS_TLS13)]
            .into_iter()
            .filter_map(|(differs, what)| differs.then_some(what))
    }
}

fn parse_version(name: &str) -> Option<u8> {
    let name = name.to_ascii_lowercase();
    let found = TLS_VERSIONS.iter().find(|(known, _)| *known == name);
    found.map(|(_, version)| *version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn least(words: &[(&str, &str)]) -> (Option<&'static str>, Vec<&'static str>) {
        let mut versions = TlsVersionRange::default();
        for (word, value) in words {
            assert!(versions.read_param(word, value), "{word}");
        }
        (versions.min_version(), versions.unsupported().collect())
    }

    #[test]
    fn haproxy_minimum_tls_version_is_found_in_every_form() {
        assert_eq!(least(&[]), (None, vec![]));
        assert_eq!(least(&[("ssl-min-ver", "TLSv1.2")]), (Some("1.2"), vec![]));
        assert_eq!(least(&[("ssl-min-ver", "TLSv1.3")]), (Some("1.3"), vec![]));
        assert_eq!(
            least(&[("ssl-min-ver", "TLSv1.0")]),
            (None, vec![NO_OLD_TLS])
        );
        assert_eq!(
            least(&[("no-sslv3", ""), ("no-tlsv10", "")]),
            (None, vec![])
        );
        assert_eq!(least(&[("no-tlsv12", "")]), (Some("1.3"), vec![]));
        assert_eq!(least(&[("force-tlsv13", "")]), (Some("1.3"), vec![]));
        assert_eq!(
            least(&[("force-tlsv12", "")]),
            (Some("1.2"), vec![ALWAYS_TLS13])
        );
        assert_eq!(
            least(&[("ssl-max-ver", "TLSv1.2")]),
            (None, vec![ALWAYS_TLS13])
        );
        assert!(!TlsVersionRange::default().read_param("no-tls-tickets", ""));
        assert!(!TlsVersionRange::default().read_param("ssl", ""));
    }

    #[test]
    fn haproxy_relative_path_is_resolved_against_its_base() {
        let global = GlobalTls {
            crt_base: Some("/etc/ssl/".to_owned()),
            ..GlobalTls::default()
        };
        assert_eq!(global.crt_path("a.pem").as_deref(), Some("/etc/ssl/a.pem"));
        assert_eq!(global.crt_path("/b.pem").as_deref(), Some("/b.pem"));
        assert_eq!(global.ca_path("a.pem").as_deref(), Some("a.pem"));
        for name in ["", "certs/", "@store/a", "${DIR}/a.pem"] {
            assert_eq!(global.crt_path(name), None, "{name}");
        }
    }
}
