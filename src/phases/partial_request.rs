//! Answers, counts and logs requests without a complete, valid header: too slow, too large, or malformed. Such a
//! request never reaches the other phases.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::context::Context;
use super::request_info::RequestInfo;
use super::{finish, local_reply};
use crate::downstream::{Exchange, LocalReply, PartialRequestResponder};
use crate::fault::Fault;
use crate::snapshot::Snapshot;
use crate::telemetry::Telemetry;

/// Answers partial requests by the configuration in force.
pub(crate) struct PartialRequests {
    snapshot: Arc<ArcSwap<Snapshot>>,
    telemetry: Arc<Telemetry>,
}

impl PartialRequests {
    /// Answers with the fields that the configuration in `snapshot` adds; counts and logs in `telemetry`.
    pub(crate) fn new(snapshot: Arc<ArcSwap<Snapshot>>, telemetry: Arc<Telemetry>) -> Self {
        Self {
            snapshot,
            telemetry,
        }
    }
}

impl PartialRequestResponder for PartialRequests {
    fn respond(&self, exchange: &Arc<Exchange>, fault: Fault) -> Option<LocalReply> {
        let mut ctx = Context::new(self.snapshot.load_full(), Arc::clone(&self.telemetry));
        ctx.request = RequestInfo::partial(&exchange.connection, &ctx.snapshot);
        ctx.exchange = Some(Arc::clone(exchange));
        ctx.fault = Some(fault);
        let reply = local_reply::complete(&ctx, local_reply::fault_reply(&ctx, fault));
        finish::finish_partial(&mut ctx, &reply);
        Some(reply)
    }
}

impl fmt::Debug for PartialRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartialRequests").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DownstreamConfig;
    use crate::downstream::ConnectionLimit;

    #[tokio::test]
    async fn partial_request_gets_the_page_with_a_new_request_id() {
        let ctx = Context::for_test(
            "routes: [{upstream: app}]\nupstreams: {app: {peers: [\"127.0.0.1:2\"]}}",
        );
        let snapshot = Arc::new(ArcSwap::new(Arc::clone(&ctx.snapshot)));
        let responder = PartialRequests::new(snapshot, Arc::clone(&ctx.telemetry));
        let limit = ConnectionLimit::new(None);
        let (exchange, _client) = Exchange::for_test(DownstreamConfig::DEFAULT, &limit);
        let reply = responder.respond(&exchange, Fault::HeaderTimeout).unwrap();
        assert_eq!(reply.status, 408);
        assert_eq!(reply.body, "408 header_timeout\n");
        assert_eq!(reply.headers["x-request-id"].len(), 32);
    }
}
