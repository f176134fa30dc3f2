//! Writes heads. Clockwise always sends HTTP/1.1, whatever version it received (RFC 9110 §2.5).

use http::{Method, StatusCode};

use super::edit::FieldEditor;

/// Writes the head of a request. A target comes from [`RequestHead::peer_target`](super::RequestHead::peer_target).
///
/// A request without `Host` gets an empty one: HTTP/1.1 requires the field (RFC 9112 §3.2).
pub fn write_request(
    method: &Method,
    target: impl AsRef<[u8]>,
    fields: &FieldEditor<'_>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_ref());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if !fields.contains(http::header::HOST) {
        out.extend_from_slice(b"Host: \r\n");
    }
    fields.write(out);
    out.extend_from_slice(b"\r\n");
}

/// Writes the head of a response. `reason`: the peer's, or `None` for the usual one of the status.
pub fn write_response(
    status: StatusCode,
    reason: Option<&[u8]>,
    fields: &FieldEditor<'_>,
    out: &mut Vec<u8>,
) {
    let reason = reason.unwrap_or_else(|| {
        let reason = status.canonical_reason();
        reason.unwrap_or_default().as_bytes()
    });
    write_status_line(status, reason, out);
    fields.write(out);
    out.extend_from_slice(b"\r\n");
}

/// Writes the first line of a response.
pub(crate) fn write_status_line(status: StatusCode, reason: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}
