//! One attempt to get the response of one peer. A retry is a new attempt.

use std::sync::Arc;
use std::time::Duration;

use http::Version;

use crate::clock;
use crate::ring::MemberId;
use crate::upstream::in_flight::PeerPermit;
use crate::upstream::{Admission, HashTarget, Peer, PeerEpoch, Tried, Upstream};

/// One attempt at one peer.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) member: MemberId,
    /// Whether a peer other than the key's owner was selected, because the owner is full or the key is hot.
    /// Determined only if the upstream closes moved streams; `false` otherwise.
    pub(crate) bypasses_owner: bool,
    /// The epoch of the peer when the key was recorded there; `None`: not recorded, so a drain of the peer
    /// moves the key at once.
    pub(crate) epoch: Option<PeerEpoch>,
    /// Counts the request as in flight at the peer.
    pub(crate) permit: Option<PeerPermit>,
    /// When the latest connect of the attempt began, on the clock of [`since_start`](crate::clock::since_start). A stale pooled
    /// connection is replaced within the same attempt.
    pub(crate) started: Duration,
    /// The duration of the connect; `None`: not connected yet; zero: a pooled connection.
    pub(crate) connect_time: Option<Duration>,
    /// Whether the connection must not come from the pool.
    pub(crate) needs_fresh_connection: bool,
    /// Whether the peer requires HTTP/1.1 for this request (RFC 9113 §7: `HTTP_1_1_REQUIRED`).
    pub(crate) force_http1: bool,
    /// The version of the connection, if the request reaches it through the exchange's body queue.
    pub(crate) queued_version: Option<Version>,
}

/// How far an attempt had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultStage {
    /// No connection to the peer was established.
    Connecting,
    /// The connection was established, and no response had begun.
    AwaitingResponse,
    /// The response's header had passed.
    Responding,
}

impl Attempt {
    /// An attempt on the peer that admitted the request.
    pub(crate) fn new(
        upstream: &Arc<Upstream>,
        target: &HashTarget,
        tried: &Tried,
        admitted: Admission,
        started: Duration,
    ) -> Self {
        Self {
            bypasses_owner: bypasses_owner(upstream, target, tried, admitted.member),
            upstream: Arc::clone(upstream),
            member: admitted.member,
            epoch: admitted.epoch,
            permit: Some(admitted.permit),
            started,
            connect_time: None,
            needs_fresh_connection: false,
            force_http1: false,
            queued_version: None,
        }
    }

    pub(crate) fn peer(&self) -> Option<&Peer> {
        self.upstream.peer(self.member)
    }
}

/// Whether the request goes to a peer other than the one that its key selects. Determined only if the upstream
/// closes moved streams: it must not close the streams of such requests.
fn bypasses_owner(
    upstream: &Upstream,
    target: &HashTarget,
    tried: &Tried,
    member: MemberId,
) -> bool {
    let selected = || upstream.select(target, tried, clock::since_start());
    upstream.config.close_moved_streams.is_some()
        && selected().is_some_and(|selected| selected.member != member)
}
