//! A complete response that Clockwise makes itself, for a client after its Pingora session has ended.

use bytes::{BufMut, Bytes};
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::protocols::http::date::get_cached_date;

use crate::fault::Fault;
use crate::http1::write_status_line;

/// A complete response, in memory.
#[derive(Clone, Debug)]
pub(crate) struct LocalReply {
    /// The status.
    pub status: StatusCode,
    /// The fields.
    pub headers: HeaderMap,
    /// The body; empty if the response has none, for example to HEAD.
    pub body: Bytes,
}

impl LocalReply {
    /// A response with this body and its `Content-Length`; a few more fields fit without an allocation.
    pub(crate) fn new(status: StatusCode, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(CONTENT_LENGTH, body.len().into());
        Self {
            status,
            headers,
            body,
        }
    }

    /// The plain-text error page for a fault.
    pub(crate) fn page(fault: Fault) -> Self {
        let status = StatusCode::from_u16(fault.status());
        let mut page = Self::new(
            status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            format!("{} {}\n", fault.status(), fault.name()),
        );
        let fields = [(CONTENT_TYPE, "text/plain"), (CACHE_CONTROL, "no-store")];
        page.headers
            .extend(fields.map(|(name, value)| (name, HeaderValue::from_static(value))));
        page
    }

    /// The header as Pingora's type, and the body.
    pub(crate) fn into_parts(self) -> (ResponseHeader, Bytes) {
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.status = self.status;
        parts.headers = self.headers;
        (parts.into(), self.body)
    }

    /// The bytes of HTTP/1.1; `connection`: the option of `Connection`, if there is one.
    ///
    /// # Errors
    /// Only if Pingora refuses a date or an option as a value.
    pub(crate) fn into_http1_bytes(self, connection: Option<&'static str>) -> Result<Vec<u8>> {
        let (mut header, body) = self.into_parts();
        header.insert_header(DATE, get_cached_date())?;
        if let Some(option) = connection {
            header.insert_header(CONNECTION, option)?;
        }
        let reason = header.status.canonical_reason().unwrap_or_default();
        let mut wire = Vec::with_capacity(512);
        write_status_line(header.status, reason.as_bytes(), &mut wire);
        header.header_to_h1_wire(&mut wire);
        wire.put_slice(b"\r\n");
        wire.put_slice(&body);
        Ok(wire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_on_http1_has_status_name_length_and_close() {
        let page = LocalReply::page(Fault::HeaderTimeout);
        let wire = String::from_utf8(page.into_http1_bytes(Some("close")).unwrap()).unwrap();
        let (header, body) = wire.split_once("\r\n\r\n").unwrap();
        let header = header.to_ascii_lowercase();
        let mut lines = header.lines();
        assert_eq!(lines.next(), Some("http/1.1 408 request timeout"));
        assert_eq!(body, "408 header_timeout\n");
        let fields: Vec<_> = lines.collect();
        assert!(fields.contains(&"content-length: 19"), "{header}");
        assert!(fields.contains(&"content-type: text/plain"), "{header}");
        assert!(fields.contains(&"cache-control: no-store"), "{header}");
        assert!(fields.contains(&"connection: close"), "{header}");
        assert!(!header.contains("server:"), "{header}");
    }
}
