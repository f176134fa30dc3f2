//! Phase 2, first step: links a request to its connection, and starts the deadlines.

use std::sync::Arc;

use http::header::TRANSFER_ENCODING;

use super::context::Context;
use super::request_body::declared_length;
use super::request_info::{ParsedRequestLine, RequestInfo};
use crate::downstream::Exchange;
use crate::grpc;
use crate::header::HeaderRead;

/// Called when the header is complete: starts the exchange's timers, and keeps the values that later phases need.
pub(crate) fn begin_request(
    exchange: Option<Arc<Exchange>>,
    line: ParsedRequestLine,
    headers: &impl HeaderRead,
    ctx: &mut Context,
) {
    ctx.exchange = exchange;
    if let Some(exchange) = &ctx.exchange {
        exchange.begin_request();
        if let Some(limit) = grpc::parse_timeout(headers) {
            exchange.cap_request_time(limit);
        }
    }
    ctx.request = RequestInfo::new(line, headers, ctx.connection(), &ctx.snapshot);
}

/// The length of a whole request of HTTP/1, header and body; bytes. `None`: the body is chunked, so its length is
/// known only at its end.
pub(crate) fn request_length(header_length: usize, headers: &impl HeaderRead) -> Option<u64> {
    if headers.contains(&TRANSFER_ENCODING) {
        return None;
    }
    let body = declared_length(headers).unwrap_or(0);
    (header_length as u64).checked_add(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::header_map;

    fn length(fields: &[(&'static str, &'static str)]) -> Option<u64> {
        request_length(100, &header_map(fields))
    }

    #[test]
    fn request_length_is_header_and_body_unless_chunked() {
        assert_eq!(length(&[]), Some(100));
        assert_eq!(length(&[("content-length", "7")]), Some(107));
        let chunked = ("transfer-encoding", "chunked");
        assert_eq!(length(&[chunked]), None);
        assert_eq!(length(&[("content-length", "7"), chunked]), None);
        assert_eq!(length(&[("content-length", "18446744073709551615")]), None);
    }
}
