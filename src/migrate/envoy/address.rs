//! Host and port of an endpoint or a listener.

use std::net::IpAddr;

use super::message_fields::MessageFields;

/// Host and port of a `socket_address`.
pub(super) fn socket_address<'a>(fields: &MessageFields<'a>) -> Option<(&'a str, u16)> {
    let socket = fields.message("address")?.message("socket_address")?;
    let host = socket.text("address").filter(|host| !host.is_empty())?;
    let port = socket.get("port_value")?.number()?;
    let tcp = socket
        .text("protocol")
        .is_none_or(|protocol| protocol == "TCP");
    u16::try_from(port)
        .ok()
        .filter(|port| tcp && *port != 0)
        .map(|port| (host, port))
}

/// The path of a `pipe`, a Unix socket.
pub(super) fn pipe_path<'a>(fields: &MessageFields<'a>) -> Option<&'a str> {
    let pipe = fields.message("address")?.message("pipe")?;
    pipe.text("path")
}

/// `host:port`, with brackets around an IPv6 address.
pub(super) fn host_and_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// The address as Envoy prints it: the ring places a server by that text, not by the text of the file.
pub(super) fn canonical_host(host: &str) -> String {
    let address = host.parse::<IpAddr>();
    address.map_or_else(|_| host.to_owned(), |address| address.to_string())
}
