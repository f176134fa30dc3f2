//! Requests without a complete, valid header.

use std::fmt;
use std::sync::Arc;

use super::exchange::Exchange;
use super::local_reply::LocalReply;
use crate::fault::Fault;

/// Answers requests without a complete, valid header. Most phases of a request need one, so they do not see these.
pub(crate) trait PartialRequestResponder: fmt::Debug + Send + Sync {
    /// Counts and logs the request, and makes the response to it.
    fn respond(&self, exchange: &Arc<Exchange>, fault: Fault) -> Option<LocalReply>;
}

/// The response of `responder`; without one, a plain page.
pub(super) fn reply_to_partial_request(
    responder: Option<&dyn PartialRequestResponder>,
    exchange: &Arc<Exchange>,
    fault: Fault,
) -> Option<LocalReply> {
    match responder {
        Some(responder) => responder.respond(exchange, fault),
        None => Some(LocalReply::page(fault)),
    }
}
