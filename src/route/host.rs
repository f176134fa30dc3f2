//! Host patterns, and a map from patterns to values.
//!
//! Names are compared without case (RFC 4343), without the port, and without the trailing dot of a
//! fully qualified name. They are not resolved. International names must be in the `xn--` form that
//! clients send. IPv6 addresses are compared as text, in the form of RFC 5952.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::iter;
use std::net::Ipv6Addr;

/// The longest host name as text, without a trailing dot; bytes. RFC 1035 §2.3.4 allows 255 on the
/// wire, of which the first length byte and the root label take two.
const MAX_NAME: usize = 253;

/// The hosts that a route is for. Names are in lower case, without a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostPattern {
    /// Every host, and requests without one.
    Any,
    /// This host.
    Exact(String),
    /// Every name below this one, but not this name itself: `*.example.com` is
    /// `Suffix("example.com")`.
    Suffix(String),
}

/// Why a host of a route is invalid; the text tells the operator what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostPatternError {
    /// The host is empty.
    #[error("the host is empty; leave `host` out to match any host")]
    Empty,
    /// A `*` that is not the whole first label, or that no name follows.
    #[error("`*` is only allowed as the first label, as in `*.example.com`")]
    Wildcard,
    /// The host has a port.
    #[error("hosts are matched without the port; remove `:{0}`")]
    Port(String),
    /// A label is empty, longer than 63 bytes, or has a character that host names do not have.
    #[error(
        "`{0}` is not a label of a host name: write 1 to 63 letters, digits, `-` or `_`, \
         and an international name in its `xn--` form"
    )]
    Label(String),
    /// The name has this many bytes; DNS allows 253.
    #[error("the host is {0} bytes long; at most 253 are allowed")]
    Length(usize),
    /// The text in brackets is not an IPv6 address.
    #[error("`{0}` is not an IPv6 address in brackets")]
    Ipv6(String),
}

impl HostPattern {
    /// Parses `any` or `*`, `example.com`, `*.example.com`, `192.0.2.1` or `[2001:db8::1]`.
    pub fn parse(text: &str) -> Result<Self, HostPatternError> {
        match text.strip_prefix("*.") {
            _ if text == "*" || text == "any" => Ok(Self::Any),
            Some(parent) => parse_name(parent).map(Self::Suffix),
            None if text.starts_with('[') => parse_ipv6(text).map(Self::Exact),
            None => parse_name(text).map(Self::Exact),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Exact(name) => f.write_str(name),
            Self::Suffix(name) => write!(f, "*.{name}"),
        }
    }
}

/// The host without the port and a trailing dot: `example.com` for `example.com.:8080`, `[::1]` for
/// `[::1]:80`. The case is kept.
pub(crate) fn host_name(host: &str) -> &str {
    let end = if host.starts_with('[') {
        host.find(']').map(|bracket| bracket + 1)
    } else {
        host.find(':')
    };
    let name = end.and_then(|end| host.get(..end)).unwrap_or(host);
    name.strip_suffix('.').unwrap_or(name)
}

fn parse_name(text: &str) -> Result<String, HostPatternError> {
    if text.is_empty() {
        return Err(HostPatternError::Empty);
    }
    if text.contains('*') {
        return Err(HostPatternError::Wildcard);
    }
    if let Some((_, port)) = text.split_once(':') {
        return Err(HostPatternError::Port(port.to_owned()));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() > MAX_NAME {
        return Err(HostPatternError::Length(name.len()));
    }
    match name.split('.').find(|label| !is_label(label)) {
        Some(label) => Err(HostPatternError::Label(label.to_owned())),
        None => Ok(name.to_ascii_lowercase()),
    }
}

fn is_label(label: &str) -> bool {
    // RFC 952 has no `_`, but many names in use do.
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=63).contains(&label.len()) && label.bytes().all(allowed)
}

fn parse_ipv6(text: &str) -> Result<String, HostPatternError> {
    if let Some((_, port)) = text.split_once("]:") {
        return Err(HostPatternError::Port(port.to_owned()));
    }
    let inner = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = inner.and_then(|inner| inner.parse::<Ipv6Addr>().ok());
    match address {
        Some(address) => Ok(format!("[{address}]")),
        None => Err(HostPatternError::Ipv6(text.to_owned())),
    }
}

/// The name of a request's host in lower case, without an allocation.
pub(super) struct LowercaseHost {
    bytes: [u8; MAX_NAME],
    length: usize,
}

impl LowercaseHost {
    /// Copies the name. One that is too long becomes empty, which only [`HostPattern::Any`] matches.
    pub(super) fn new(host: &str) -> Self {
        let name = host_name(host).as_bytes();
        let mut bytes = [0; MAX_NAME];
        let length = match bytes.get_mut(..name.len()) {
            Some(copy) => {
                copy.copy_from_slice(name);
                copy.make_ascii_lowercase();
                name.len()
            }
            None => 0,
        };
        Self { bytes, length }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// A map from host patterns to values.
#[derive(Debug)]
pub(super) struct HostMap<V> {
    exact: NameMap<V>,
    suffix: NameMap<V>,
    any: Option<V>,
}

/// Hashed without a random seed: the names come from the operator, so an attacker cannot make them
/// collide.
type NameMap<V> = HashMap<Box<[u8]>, V, BuildHasherDefault<DefaultHasher>>;

impl<V> HostMap<V> {
    /// Builds the map. If a pattern occurs twice, the later value wins.
    pub(super) fn new(entries: impl IntoIterator<Item = (HostPattern, V)>) -> Self {
        let mut map = Self {
            exact: NameMap::default(),
            suffix: NameMap::default(),
            any: None,
        };
        for (pattern, value) in entries {
            match pattern {
                HostPattern::Any => map.any = Some(value),
                HostPattern::Exact(name) => drop(map.exact.insert(into_boxed_bytes(name), value)),
                HostPattern::Suffix(name) => drop(map.suffix.insert(into_boxed_bytes(name), value)),
            }
        }
        map
    }

    /// The values of the matching patterns, the most specific first.
    pub(super) fn matches<'map>(&'map self, name: &LowercaseHost) -> impl Iterator<Item = &'map V> {
        let name = name.as_bytes();
        let exact = self.exact.get(name);
        let suffixes = parent_names(name).filter_map(|parent| self.suffix.get(parent));
        exact.into_iter().chain(suffixes).chain(&self.any)
    }
}

fn into_boxed_bytes(name: String) -> Box<[u8]> {
    name.into_bytes().into_boxed_slice()
}

/// The names above this one: `b.c` and `c` for `a.b.c`. Empty for a name that begins with a dot, because
/// a suffix pattern needs a label in front.
fn parent_names(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let first = if name.starts_with(b".") {
        None
    } else {
        parent_name(name)
    };
    iter::successors(first, |name| parent_name(name))
}

fn parent_name(name: &[u8]) -> Option<&[u8]> {
    let dot = name.iter().position(|byte| *byte == b'.')?;
    name.get(dot + 1..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching(patterns: &[&str], host: &str) -> Vec<usize> {
        let patterns = patterns
            .iter()
            .map(|text| HostPattern::parse(text).unwrap());
        let map = HostMap::new(patterns.zip(0..));
        map.matches(&LowercaseHost::new(host)).copied().collect()
    }

    #[test]
    fn host_pattern_is_parsed_in_every_form() {
        let exact = |name: &str| Ok(HostPattern::Exact(name.to_owned()));
        assert_eq!(HostPattern::parse("any"), Ok(HostPattern::Any));
        assert_eq!(HostPattern::parse("*"), Ok(HostPattern::Any));
        assert_eq!(
            HostPattern::parse("WWW.Example.com."),
            exact("www.example.com")
        );
        assert_eq!(HostPattern::parse("192.0.2.1"), exact("192.0.2.1"));
        assert_eq!(
            HostPattern::parse("[2001:DB8:0::1]"),
            exact("[2001:db8::1]")
        );
        assert_eq!(
            HostPattern::parse("*.Com"),
            Ok(HostPattern::Suffix("com".to_owned()))
        );
    }

    #[test]
    fn host_pattern_error_names_the_invalid_part() {
        let error = |text: &str| HostPattern::parse(text).unwrap_err();
        let label = |text: &str| HostPatternError::Label(text.to_owned());
        assert_eq!(error(""), HostPatternError::Empty);
        assert_eq!(error("*."), HostPatternError::Empty);
        assert_eq!(error("www.*.com"), HostPatternError::Wildcard);
        assert_eq!(error("*.*.com"), HostPatternError::Wildcard);
        assert_eq!(error("a.com:80"), HostPatternError::Port("80".to_owned()));
        assert_eq!(error("[::1]:80"), HostPatternError::Port("80".to_owned()));
        assert_eq!(error("[::1"), HostPatternError::Ipv6("[::1".to_owned()));
        assert_eq!(error("a..com"), label(""));
        assert_eq!(error("."), label(""));
        assert_eq!(error("bücher.example"), label("bücher"));
        assert_eq!(error("a b.com"), label("a b"));
        assert_eq!(error(&"a".repeat(64)), label(&"a".repeat(64)));
        assert_eq!(error(&"a.".repeat(128)), HostPatternError::Length(255));
    }

    #[test]
    fn host_name_has_no_port_and_no_trailing_dot() {
        for (host, name) in [
            ("a.com", "a.com"),
            ("a.com:80", "a.com"),
            ("a.com.:80", "a.com"),
            ("A.com.", "A.com"),
            ("[::1]", "[::1]"),
            ("[::1]:80", "[::1]"),
            ("[::1", "[::1"),
            (":80", ""),
            (".", ""),
            ("", ""),
        ] {
            assert_eq!(host_name(host), name, "{host}");
        }
    }

    #[test]
    fn host_map_yields_the_most_specific_pattern_first() {
        let patterns = ["any", "*.c", "*.b.c", "a.b.c", "b.c"];
        assert_eq!(matching(&patterns, "A.b.C.:1"), [3, 2, 1, 0]);
        assert_eq!(matching(&patterns, "b.c"), [4, 1, 0]);
        assert_eq!(matching(&patterns, "x.a.b.c"), [2, 1, 0]);
        assert_eq!(matching(&patterns, "c"), [0]);
        assert_eq!(matching(&["[::1]"], "[::1]:443"), [0]);
    }

    #[test]
    fn host_wildcard_requires_a_label_before_the_suffix() {
        assert!(matching(&["*.b.c"], ".b.c").is_empty());
        assert!(matching(&["*.b.c"], "xb.c").is_empty());
    }

    #[test]
    fn host_name_over_the_length_limit_matches_only_any() {
        let longest = format!("{}a.b", "a.".repeat(125));
        assert_eq!(longest.len(), MAX_NAME);
        assert_eq!(matching(&["any", "*.b"], &longest), [1, 0]);
        assert_eq!(matching(&["any", "*.b"], &format!("a{longest}")), [0]);
    }
}
