//! The target of a request (RFC 9112 §3.2), and the host that it is for.

use std::net::Ipv6Addr;
use std::ops::Range;

use bytes::Bytes;
use http::Method;

use super::byte_class::{HOST, TARGET};
use super::refusal::Refusal;

/// The form of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetForm {
    /// A path with an optional query.
    #[default]
    Origin,
    /// A whole URI, as clients send it to proxies.
    Absolute,
    /// Host and port, of `CONNECT`.
    Authority,
    /// `*`, of `OPTIONS`: the server as a whole.
    Asterisk,
}

/// The parts of a target.
#[derive(Clone, Debug, Default)]
pub(super) struct TargetParts {
    pub(super) form: TargetForm,
    /// The range of the target's own host in the head; `None`: the target has none.
    pub(super) authority: Option<Range<usize>>,
    /// The target to send to a peer, if it differs from the received one.
    pub(super) rewritten: Option<Bytes>,
}

/// Reads the target at `range` of the head. The scanner has checked its bytes.
pub(super) fn parse_target(
    head: &[u8],
    range: Range<usize>,
    method: &Method,
) -> Result<TargetParts, Refusal> {
    let target = head.get(range.clone()).unwrap_or_default();
    if !is_utf8(target) {
        return Err(Refusal::InvalidTarget);
    }
    if method == Method::CONNECT {
        return authority_form(target, range);
    }
    match target {
        [b'/', ..] => Ok(TargetParts::default()),
        b"*" if method == Method::OPTIONS => Ok(TargetParts {
            form: TargetForm::Asterisk,
            ..TargetParts::default()
        }),
        _ => absolute_form(target, range.start, method),
    }
}

/// RFC 9112 §3.2.3: host and port.
fn authority_form(target: &[u8], range: Range<usize>) -> Result<TargetParts, Refusal> {
    let port = target
        .rsplit(|byte| *byte == b':')
        .next()
        .unwrap_or_default();
    let has_port = !port.is_empty() && port.iter().all(u8::is_ascii_digit);
    if !has_port || port.len() == target.len() || !is_valid_host(target) {
        return Err(Refusal::InvalidTarget);
    }
    Ok(TargetParts {
        form: TargetForm::Authority,
        authority: Some(range),
        rewritten: None,
    })
}

/// RFC 9112 §3.2.2: `http://host/path`; the peer gets the path.
fn absolute_form(target: &[u8], start: usize, method: &Method) -> Result<TargetParts, Refusal> {
    let scheme_length = scheme_length(target)?;
    let rest = target.get(scheme_length..).unwrap_or_default();
    let authority_length = rest
        .iter()
        .take_while(|byte| !matches!(byte, b'/' | b'?'))
        .count();
    let (authority, path) = rest.split_at(authority_length);
    // RFC 9110 §4.2.1: an empty host is invalid; §4.2.4: so is userinfo: `is_valid_host` refuses its `@`.
    if authority.is_empty() || !is_valid_host(authority) {
        return Err(Refusal::InvalidHost);
    }
    let rewritten = match path {
        // RFC 9112 §3.2.4: OPTIONS without a path is for the server as a whole.
        [] if method == Method::OPTIONS => Bytes::from_static(b"*"),
        // RFC 9112 §3.2.1: an empty path is sent as `/`.
        [] => Bytes::from_static(b"/"),
        [b'?', ..] => [b"/", path].concat().into(),
        path => Bytes::copy_from_slice(path),
    };
    let authority_start = start + scheme_length;
    Ok(TargetParts {
        form: TargetForm::Absolute,
        authority: Some(authority_start..authority_start + authority_length),
        rewritten: Some(rewritten),
    })
}

/// The length of `http://` or `https://`, in any case of letters.
fn scheme_length(target: &[u8]) -> Result<usize, Refusal> {
    let is_prefix = |scheme: &&str| {
        let prefix = target.get(..scheme.len());
        prefix.is_some_and(|it| it.eq_ignore_ascii_case(scheme.as_bytes()))
    };
    if let Some(scheme) = ["http://", "https://"].iter().find(|it| is_prefix(it)) {
        return Ok(scheme.len());
    }
    // RFC 9110 §7.4: this server is not authoritative for another scheme; RFC 3986 §3.1: the bytes of a scheme.
    let name = target
        .split(|byte| *byte == b':')
        .next()
        .unwrap_or_default();
    let is_scheme = name.len() < target.len()
        && name.first().is_some_and(u8::is_ascii_alphabetic)
        && name
            .iter()
            .all(|it| it.is_ascii_alphanumeric() || b"+-.".contains(it));
    Err(if is_scheme {
        Refusal::ForeignScheme
    } else {
        Refusal::InvalidTarget
    })
}

/// Whether a target may have these bytes: the visible ones but `#`, and UTF-8.
pub fn is_valid_target(text: &[u8]) -> bool {
    TARGET.contains_all(text) && is_utf8(text)
}

/// UTF-8 is the only encoding of a path that logs, keys and routes support.
fn is_utf8(text: &[u8]) -> bool {
    text.is_ascii() || str::from_utf8(text).is_ok()
}

/// Whether the text is `uri-host [":" port]` (RFC 9110 §7.2), or empty. No percent-encoding, and no `IPvFuture`
/// (RFC 3986 §3.2.2): no real host needs them.
pub fn is_valid_host(text: &[u8]) -> bool {
    if text.is_empty() {
        return true;
    }
    let host_length = match text {
        [b'[', ..] => match text.iter().position(|byte| *byte == b']') {
            Some(at) if is_ipv6(text.get(1..at)) => at + 1,
            _ => return false,
        },
        _ => HOST.run_end(text, 0),
    };
    host_length > 0 && is_valid_port(text.get(host_length..).unwrap_or_default())
}

fn is_ipv6(text: Option<&[u8]>) -> bool {
    let text = text.and_then(|text| str::from_utf8(text).ok());
    text.is_some_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// Whether the text is empty, or a colon and a number of 16 bits, which may be missing (RFC 3986 §3.2.3).
fn is_valid_port(text: &[u8]) -> bool {
    match text {
        [] => true,
        [b':', digits @ ..] => {
            let number = digits.iter().try_fold(0_u16, |number, digit| {
                let digit = char::from(*digit).to_digit(10)?;
                number
                    .checked_mul(10)?
                    .checked_add(u16::try_from(digit).ok()?)
            });
            number.is_some()
        }
        _ => false,
    }
}
