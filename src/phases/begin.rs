//! Phase 2, first step: links a request to its connection, and starts the deadlines.

use std::sync::Arc;

use super::context::Context;
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
    if let (Some(exchange), Some(_)) = (&ctx.exchange, &ctx.request.grpc_content_type) {
        // Both directions of a gRPC call may be silent for long.
        exchange.lift_min_body_rate();
    }
}
