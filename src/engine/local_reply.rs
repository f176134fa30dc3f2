//! A response of our own as bytes of HTTP/1.1.

use http::header::DATE;
use pingora::protocols::http::date::get_cached_date;

use crate::downstream::LocalReply;

/// Writes a response; `connection`: the option of `Connection`, if it has one.
pub(super) fn push_reply(reply: &LocalReply, connection: Option<&str>, out: &mut Vec<u8>) {
    let status = reply.status;
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in &reply.headers {
        push_field(name.as_str(), value.as_bytes(), out);
    }
    push_field(DATE.as_str(), get_cached_date().as_bytes(), out);
    if let Some(option) = connection {
        push_field("connection", option.as_bytes(), out);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&reply.body);
}

fn push_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
