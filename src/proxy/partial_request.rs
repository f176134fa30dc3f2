//! Requests whose header was too slow or too large: no hook of Pingora's sees them, so they are answered,
//! counted and logged here.

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

/// Answers partial requests as the configuration in force has it.
pub struct PartialRequests {
    snapshot: Arc<ArcSwap<Snapshot>>,
    telemetry: Arc<Telemetry>,
}

impl PartialRequests {
    /// Answers with the fields that `snapshot` asks for; counts and logs in `telemetry`.
    pub fn new(snapshot: Arc<ArcSwap<Snapshot>>, telemetry: Arc<Telemetry>) -> Self {
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
        let reply = local_reply::fault_reply(&ctx, fault)
            .and_then(|page| local_reply::complete(&ctx, page))
            .ok();
        finish::finish_partial(&mut ctx, reply.as_ref());
        reply
    }
}

impl fmt::Debug for PartialRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartialRequests").finish_non_exhaustive()
    }
}
