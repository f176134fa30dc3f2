//! `listen`: address and parameters.

use std::net::{IpAddr, Ipv6Addr};

use super::syntax::Directive;
use crate::migrate::draft::ListenerDraft;
use crate::migrate::notes::Notes;
use crate::migrate::source::SourceSpan;
use crate::migrate::tls::TlsTerminationDraft;

/// One `listen`.
pub(super) struct ListenDirective {
    pub(super) listener: ListenerDraft,
    /// It has the parameter `http2`.
    pub(super) http2: bool,
}

impl ListenDirective {
    /// The listener of a server without `listen`.
    pub(super) fn default_http(span: SourceSpan) -> Self {
        let mut listener = ListenerDraft::new("0.0.0.0:80");
        listener.span = span;
        Self {
            listener,
            http2: false,
        }
    }
}

/// Reads a `listen`; `None` with a note if there is no such listener.
pub(super) fn listen(
    directive: &Directive,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Option<ListenDirective> {
    let text = directive.argument(0);
    let Some(address) = address(text) else {
        let why = "a listener has an IP address and a port";
        comments.push(notes.gap(directive.span(), &directive.text(), why));
        return None;
    };
    let mut listener = ListenerDraft::new(address);
    listener.span = directive.span();
    // The default of nginx; `ipv6only=off` changes it.
    listener.ipv6_only = listener.address.starts_with('[');
    let mut listen = ListenDirective {
        listener,
        http2: false,
    };
    if directive.arguments.iter().any(|word| word.text == "quic") {
        let why = "Clockwise does not speak HTTP/3; clients use HTTP/2";
        comments.push(notes.gap(directive.span(), &directive.text(), why));
        return None;
    }
    for word in directive.arguments.iter().skip(1) {
        read_option(&word.text, &mut listen);
    }
    Some(listen)
}

/// `80`, `*:80`, `10.0.0.1`, `[::]:80`, `localhost:80` as an address to bind.
pub(super) fn address(text: &str) -> Option<String> {
    if let Ok(port) = text.parse::<u16>() {
        return Some(format!("0.0.0.0:{port}"));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse::<u16>().ok()?),
        _ => (text, 80),
    };
    match host {
        "*" => return Some(format!("0.0.0.0:{port}")),
        "localhost" => return Some(format!("127.0.0.1:{port}")),
        _ => {}
    }
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let valid = match bare {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()),
    };
    valid.then(|| format!("{host}:{port}"))
}

fn read_option(word: &str, listen: &mut ListenDirective) {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    match name {
        "default_server" | "default" => listen.listener.is_default = true,
        "backlog" => {
            let number = value.parse::<u64>().ok();
            listen.listener.backlog = number.filter(|number| (1..=65_535).contains(number));
        }
        "ssl" => listen.listener.tls = Some(TlsTerminationDraft::default()),
        "http2" => listen.http2 = true,
        "proxy_protocol" => {
            listen.listener.accept_proxy_from = Some(Vec::new());
            listen.listener.accept_proxy_span = listen.listener.span;
        }
        "ipv6only" => listen.listener.ipv6_only &= value != "off",
        // Socket options, which are internal to nginx.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nginx_listen_address_is_parsed_in_every_form() {
        for (text, read) in [
            ("80", Some("0.0.0.0:80")),
            ("*:8080", Some("0.0.0.0:8080")),
            ("10.0.0.1", Some("10.0.0.1:80")),
            ("localhost:81", Some("127.0.0.1:81")),
            ("[::]:80", Some("[::]:80")),
            ("[::1]", Some("[::1]:80")),
            ("unix:/run/a", None),
            ("example.com:80", None),
            ("", None),
            (":", None),
        ] {
            assert_eq!(address(text).as_deref(), read, "{text}");
        }
    }
}
