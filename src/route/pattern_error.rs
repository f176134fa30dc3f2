//! Errors of host patterns and path prefixes.

/// Why a host or a path of a route is invalid; the text tells the operator what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The host is empty.
    #[error("the host is empty; leave `host` out to match any host")]
    EmptyHost,
    /// A `*` that is not the whole first label, or that no name follows.
    #[error("`*` is only allowed as the first label, as in `*.example.com`")]
    HostWildcard,
    /// The host has a port.
    #[error("hosts are matched without the port; remove `:{0}`")]
    HostPort(String),
    /// A label is empty, longer than 63 bytes, or has a character that host names do not have.
    #[error(
        "`{0}` is not a label of a host name: write 1 to 63 letters, digits, `-` or `_`, \
         and an international name in its `xn--` form"
    )]
    HostLabel(String),
    /// The name has this many bytes; DNS allows 253.
    #[error("the host is {0} bytes long; at most 253 are allowed")]
    HostLength(usize),
    /// The text in brackets is not an IPv6 address.
    #[error("`{0}` is not an IPv6 address in brackets")]
    HostIpv6(String),
    /// The path does not begin with a slash.
    #[error("the path must begin with `/`")]
    PathStart,
    /// The path has a character that cannot be in a request's path.
    #[error("`{0}` cannot be in the path of a request; percent-encode it as clients do")]
    PathCharacter(char),
    /// The path has an empty segment, `.` or `..`.
    #[error("the path has {}; remove it", segment_name(.0))]
    PathSegment(String),
    /// A segment of the path is `*`.
    #[error("every path is a prefix already; remove the `*`")]
    PathWildcard,
}

fn segment_name(segment: &str) -> String {
    match segment {
        "" => "an empty segment".to_owned(),
        _ => format!("the segment `{segment}`"),
    }
}
