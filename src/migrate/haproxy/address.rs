//! Addresses of `bind` and `server`.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::config;

/// `:80`, `*:80`, `10.0.0.1:80`, `[::]:80`, `:::80` as an address to bind.
pub(super) fn listen_address(text: &str) -> Option<String> {
    let text = text
        .strip_prefix("ipv4@")
        .or(text.strip_prefix("ipv6@"))
        .unwrap_or(text);
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse::<u16>().ok()?;
    if matches!(host, "" | "*") {
        return Some(format!("0.0.0.0:{port}"));
    }
    if host.parse::<Ipv4Addr>().is_ok() {
        return Some(format!("{host}:{port}"));
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let ip = bare.parse::<Ipv6Addr>().ok()?;
    Some(format!("[{ip}]:{port}"))
}

/// `10.0.0.1:80`, `name:80`, `::1:80`, `unix@/run/app.sock`, `/run/app.sock`; `None` without a port.
pub(super) fn peer_address(text: &str) -> Option<String> {
    let path = text.strip_prefix("unix@").unwrap_or(text);
    if path.starts_with('/') {
        return Some(format!("unix:{path}")).filter(|address| config::is_address(address));
    }
    let text = text
        .strip_prefix("ipv4@")
        .or(text.strip_prefix("ipv6@"))
        .unwrap_or(text);
    let address = match text.matches(':').count() {
        0 | 1 => text.to_owned(),
        _ => listen_address(text)?,
    };
    Some(address).filter(|address| config::is_address(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn haproxy_bind_address_is_parsed_in_every_form() {
        for (text, read) in [
            (":80", Some("0.0.0.0:80")),
            ("*:80", Some("0.0.0.0:80")),
            ("ipv4@10.0.0.1:80", Some("10.0.0.1:80")),
            ("[::1]:80", Some("[::1]:80")),
            (":::80", Some("[::]:80")),
            ("80", None),
            (":80-90", None),
            ("/run/a", None),
            ("unix@/run/a", None),
            ("", None),
        ] {
            assert_eq!(listen_address(text).as_deref(), read, "{text}");
        }
    }

    #[test]
    fn haproxy_server_address_is_parsed_in_every_form() {
        for (text, read) in [
            ("10.0.0.1:80", Some("10.0.0.1:80")),
            ("ipv4@a.example:80", Some("a.example:80")),
            ("::1:80", Some("[::1]:80")),
            ("/run/a.sock", Some("unix:/run/a.sock")),
            ("unix@/run/a:b", Some("unix:/run/a:b")),
            ("unix@run/a.sock", None),
            ("abns@a", None),
            ("/", None),
            ("10.0.0.1", None),
            ("", None),
        ] {
            assert_eq!(peer_address(text).as_deref(), read, "{text}");
        }
    }
}
