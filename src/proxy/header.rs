//! The fields of Pingora's headers, as the phases read and edit them.
//!
//! Edits go through Pingora, which also keeps each name as it was written.

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;

use crate::downstream::ReceivedTarget;
use crate::header::{HeaderEdit, HeaderRead, matching_names};
use crate::phases::validate::RawHeader;

macro_rules! header_of_pingora {
    ($header:ty) => {
        impl HeaderRead for $header {
            fn get(&self, name: &HeaderName) -> Option<&[u8]> {
                HeaderRead::get(&self.headers, name)
            }

            fn get_all<'a>(
                &'a self,
                name: &HeaderName,
            ) -> impl DoubleEndedIterator<Item = &'a [u8]> {
                HeaderRead::get_all(&self.headers, name)
            }

            fn value(&self, name: &HeaderName) -> Option<HeaderValue> {
                self.headers.value(name)
            }

            fn contains(&self, name: &HeaderName) -> bool {
                self.headers.contains_key(name)
            }
        }

        impl HeaderEdit for $header {
            fn set(&mut self, name: &HeaderName, value: HeaderValue) {
                // Fails only for text that is not a field name.
                let _ = self.insert_header(name, value);
            }

            fn set_static(&mut self, name: &'static HeaderName, value: HeaderValue) {
                // Pingora takes static text without a copy, and a `HeaderName` with one.
                let _ = self.insert_header(name.as_str(), value);
            }

            fn append(&mut self, name: &HeaderName, value: HeaderValue) {
                // Fails beyond 32,768 fields; no message has so many.
                let _ = self.append_header(name, value);
            }

            fn remove(&mut self, name: &HeaderName) {
                self.remove_header(name);
            }

            fn remove_where(&mut self, is_removed: impl Fn(&[u8]) -> bool) {
                for name in &matching_names(&self.headers, is_removed) {
                    self.remove_header(name);
                }
            }
        }
    };
}

header_of_pingora!(RequestHeader);
header_of_pingora!(ResponseHeader);

/// The request's header as text of HTTP/1. That of a client of HTTP/1 was measured when it was read.
pub(super) fn raw_header(session: &Session) -> RawHeader<'_> {
    let request = session.req_header();
    let target = ReceivedTarget::of(request);
    RawHeader {
        target,
        size: header_size(target, &request.headers),
    }
}

/// The size of a header as text of HTTP/1; bytes.
fn header_size(target: &[u8], headers: &HeaderMap) -> usize {
    const REQUEST_LINE_OVERHEAD: usize = "GET  HTTP/1.1\r\n\r\n".len();
    const FIELD_OVERHEAD: usize = ": \r\n".len();
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD)
        .fold(REQUEST_LINE_OVERHEAD + target.len(), usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use http::header::HOST;

    use super::*;
    use crate::header::header_map;

    static X_ONE: HeaderName = HeaderName::from_static("x-one");

    fn wire(request: &RequestHeader) -> String {
        let mut wire = Vec::new();
        request.header_to_h1_wire(&mut wire);
        String::from_utf8(wire).unwrap()
    }

    #[test]
    fn edits_keep_the_names_as_they_were_written() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.append_header("X-Two", "2").unwrap();
        request.append_header("X-Gone", "3").unwrap();
        request.set_static(&X_ONE, HeaderValue::from_static("1"));
        request.set(&HOST, HeaderValue::from_static("a.test"));
        request.append(&X_ONE, HeaderValue::from_static("4"));
        request.remove_where(|name| name == b"x-gone");
        let expected = "X-Two: 2\r\nHost: a.test\r\nx-one: 1\r\nx-one: 4\r\n";
        assert_eq!(wire(&request), expected);
        request.remove(&X_ONE);
        assert_eq!(wire(&request), "X-Two: 2\r\nHost: a.test\r\n");
    }

    #[test]
    fn http2_header_is_measured_as_text_of_http1() {
        let text = "GET /abc HTTP/1.1\r\nx-a: b\r\n\r\n";
        let size = header_size(b"/abc", &header_map(&[("x-a", "b")]));
        assert_eq!(size, text.len());
    }
}
