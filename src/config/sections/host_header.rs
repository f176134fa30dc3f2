//! `host_header` of an upstream, and other values that are sent as `Host`.

use http::HeaderValue;
use http::uri::Authority;

use crate::config::fields::{is_switch, text};
use crate::config::raw::YamlNode;
use crate::config::report::quote;
use crate::config::values::{InvalidValue, describe_node};

/// The `Host` header sent to peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// The client's.
    Keep,
    /// The peer's address as written in the configuration.
    Peer,
    /// A fixed value.
    Set(HeaderValue),
}

pub(super) fn read(node: &YamlNode) -> Result<HostHeader, InvalidValue> {
    match text(node, "`keep`, `peer` or a host")? {
        "keep" => Ok(HostHeader::Keep),
        "peer" => Ok(HostHeader::Peer),
        word if is_switch(word) => Err((
            format!("`host_header` cannot be {}", describe_node(node)),
            "write `keep`, `peer` or a host name".to_owned(),
        )),
        host => host_value(host).map(HostHeader::Set),
    }
}

/// Whether `text` can be a fixed `Host`: a valid one, other than the words that [`read`] does not take as a host.
pub(crate) fn is_host(text: &str) -> bool {
    !matches!(text, "keep" | "peer") && !is_switch(text) && host_value(text).is_ok()
}

/// A fixed `Host`, with or without a port.
pub(super) fn host_value(host: &str) -> Result<HeaderValue, InvalidValue> {
    let valid = host
        .parse::<Authority>()
        .is_ok_and(|authority| !authority.as_str().contains('@'));
    let value = HeaderValue::from_str(host).ok().filter(|_| valid);
    value.ok_or_else(|| {
        let help = "use a host name, optionally with a port, as in `app.example.com:8080`";
        (
            format!("{} cannot be sent as `Host`", quote(host)),
            help.to_owned(),
        )
    })
}
