//! A complete response of our own, for a client that has no session of Pingora any more.

use bytes::{BufMut, Bytes};
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, DATE};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::protocols::http::date::get_cached_date;

use crate::fault::Fault;

/// A complete response, in memory.
#[derive(Clone, Debug)]
pub(crate) struct LocalReply {
    /// The status and fields.
    pub header: ResponseHeader,
    /// The body; empty where the client gets none, as for HEAD.
    pub body: Bytes,
}

impl LocalReply {
    /// The page that tells a client of a failure.
    ///
    /// # Errors
    /// Only if a number of the fault table is no status.
    pub(crate) fn page(fault: Fault) -> Result<Self> {
        let body = format!("{} {}\n", fault.status(), fault.name());
        let mut header = ResponseHeader::build(fault.status(), Some(8))?;
        header.insert_header(CONTENT_TYPE, "text/plain")?;
        header.insert_header(CACHE_CONTROL, "no-store")?;
        header.set_content_length(body.len())?;
        Ok(Self {
            header,
            body: body.into(),
        })
    }

    /// The bytes of HTTP/1.1 for a connection that is closed behind them.
    pub(super) fn into_http1_bytes(mut self) -> Result<Vec<u8>> {
        self.header.insert_header(DATE, get_cached_date())?;
        self.header.insert_header(CONNECTION, "close")?;
        let status = self.header.status;
        let reason = status.canonical_reason().unwrap_or_default();
        let mut wire = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
        self.header.header_to_h1_wire(&mut wire);
        wire.put_slice(b"\r\n");
        wire.put_slice(&self.body);
        Ok(wire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_on_http1_has_status_name_length_and_close() {
        let page = LocalReply::page(Fault::HeaderTimeout).unwrap();
        let wire = String::from_utf8(page.into_http1_bytes().unwrap()).unwrap();
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
