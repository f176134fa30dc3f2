//! The deadlines of one exchange: which limit runs out next, and the abort reason for it.
//!
//! Reads no clock: `now` is an argument, the time of [`clock::since_start`](crate::clock::since_start). The unit
//! tests below cover the tables in `phase.rs`.
//!
//! Each phase has its own limit, which restarts with every relayed chunk. In addition there is the total limit of
//! the request (or tunnel), while a write is blocked, the write limit of the client or the peer, and `min_body_rate`.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use super::body_rates::BodyRates;
use super::phase::{AbortReason, Phase};
use super::time_cell::{NEVER, TimeCell, nanos};
use crate::policy::min_rate::MinRate;

/// The phase of an exchange and the limits that apply to it; times in nanoseconds.
#[derive(Debug)]
pub(super) struct Deadlines {
    phase: AtomicU8,
    /// The phase's own limit; [`NEVER`]: unlimited.
    phase_limit: TimeCell,
    phase_deadline: TimeCell,
    /// The deadline of the whole request, or of the tunnel.
    total_deadline: TimeCell,
    client_write_limit: u64,
    /// When writes to the client became blocked; [`NEVER`]: they are not.
    client_blocked_since: TimeCell,
    peer_write_limit: TimeCell,
    /// When writes to the peer of a tunnel became blocked; [`NEVER`]: they are not.
    peer_blocked_since: TimeCell,
    pub(super) rates: BodyRates,
}

impl Deadlines {
    /// [`Phase::Idle`] without a limit.
    pub(super) fn new(client_write_limit: Duration, min_body_rate: Option<MinRate>) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Idle as u8),
            phase_limit: TimeCell::never(),
            phase_deadline: TimeCell::never(),
            total_deadline: TimeCell::never(),
            client_write_limit: nanos(client_write_limit),
            client_blocked_since: TimeCell::never(),
            peer_write_limit: TimeCell::never(),
            peer_blocked_since: TimeCell::never(),
            rates: BodyRates::new(min_body_rate),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        Phase::from_u8(self.phase.load(Relaxed))
    }

    /// Enters a phase that must be over within `limit`.
    pub(super) fn enter(&self, phase: Phase, limit: Duration, now: Duration) {
        self.set_phase(phase);
        self.phase_limit.set(nanos(limit));
        self.phase_deadline.set(nanos(now.saturating_add(limit)));
    }

    /// Enters a phase without a limit.
    pub(super) fn enter_unlimited(&self, phase: Phase) {
        self.set_phase(phase);
        self.phase_limit.set(NEVER);
        self.phase_deadline.set(NEVER);
    }

    /// Enters a phase and keeps the deadline of the previous phase.
    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// Restarts the phase's limit.
    pub(super) fn restart_phase(&self, now: Duration) {
        let limit = self.phase_limit.get();
        if limit != NEVER {
            self.phase_deadline.set(nanos(now).saturating_add(limit));
        }
    }

    /// Shortens the phase's limit to `limit`, counted from its last restart; never lengthens it.
    pub(super) fn cap_phase(&self, limit: Duration) {
        let excess = self.phase_limit.get().saturating_sub(nanos(limit));
        if self.phase_deadline.get() != NEVER {
            self.phase_limit.set(self.phase_limit.get() - excess);
            self.phase_deadline.set(self.phase_deadline.get() - excess);
        }
    }

    /// Sets the total limit of the request, or of the tunnel.
    pub(super) fn set_total(&self, limit: Duration, now: Duration) {
        self.total_deadline.set(nanos(now.saturating_add(limit)));
    }

    /// Removes the total limit.
    pub(super) fn clear_total(&self) {
        self.total_deadline.set(NEVER);
    }

    /// Shortens the total limit to `limit` from now; never lengthens it.
    pub(super) fn cap_total(&self, limit: Duration, now: Duration) {
        let capped = nanos(now.saturating_add(limit));
        self.total_deadline
            .set(self.total_deadline.get().min(capped));
    }

    /// Extends the total limit by `grace`.
    pub(super) fn extend_total(&self, grace: Duration) {
        let deadline = self.total_deadline.get();
        self.total_deadline
            .set(deadline.saturating_add(nanos(grace)));
    }

    /// The time left of the total limit; `None`: unlimited. Calls `now` only if there is a limit.
    pub(super) fn total_left(&self, now: impl FnOnce() -> Duration) -> Option<Duration> {
        match self.total_deadline.get() {
            NEVER => None,
            deadline => Some(Duration::from_nanos(deadline.saturating_sub(nanos(now())))),
        }
    }

    pub(super) fn is_client_blocked(&self) -> bool {
        self.client_blocked_since.get() != NEVER
    }

    /// Starts the client's write limit, unless it runs already.
    pub(super) fn block_client(&self, now: Duration) {
        if !self.is_client_blocked() {
            self.client_blocked_since.set(nanos(now));
            self.rates.begin_response_wait(now);
            // While a write is blocked, the body may not be read either.
            self.rates.request.end_wait(now);
        }
    }

    /// Stops the client's write limit. Restarts the limit of a relaying phase: no bytes could be relayed while the
    /// client did not read.
    pub(super) fn unblock_client(&self, now: Duration) {
        if self.is_client_blocked() {
            self.client_blocked_since.set(NEVER);
            self.rates.response.end_wait(now);
            if matches!(
                self.phase(),
                Phase::AwaitResponse | Phase::Response | Phase::Tunnel
            ) {
                self.restart_phase(now);
            }
        }
    }

    /// Sets the limit of a blocked write to the peer of a tunnel.
    pub(super) fn set_peer_write_limit(&self, limit: Duration) {
        self.peer_write_limit.set(nanos(limit));
    }

    /// Records a write to the peer of a tunnel: `is_blocked` if unsent bytes remain, `progress` if the peer has
    /// just accepted some. Progress restarts the peer's write limit and the phase's limit.
    pub(super) fn on_peer_write(&self, is_blocked: bool, progress: bool, now: Duration) {
        if progress {
            self.restart_phase(now);
        }
        if !is_blocked {
            self.peer_blocked_since.set(NEVER);
        } else if progress || self.peer_blocked_since.get() == NEVER {
            self.peer_blocked_since.set(nanos(now));
        }
    }

    /// The next deadline, in nanoseconds, and the abort reason when it is reached.
    pub(super) fn next(&self) -> (u64, AbortReason) {
        let phase = self.phase();
        // While the client does not read, a gap in the response, or between interim responses, is not the peer's fault.
        let is_suspended =
            matches!(phase, Phase::AwaitResponse | Phase::Response) && self.is_client_blocked();
        let own = if is_suspended {
            NEVER
        } else {
            self.phase_deadline.get()
        };
        let total = self.total_deadline.get();
        let client = self.client_blocked_since.get();
        let client = client.saturating_add(self.client_write_limit);
        let peer = self.peer_blocked_since.get();
        let peer = peer.saturating_add(self.peer_write_limit.get());
        let next = earlier(
            (own, phase.phase_timeout_reason()),
            (total, phase.total_timeout_reason()),
        );
        let (request, response) = self.rates.deadlines();
        let client = client.min(response);
        let next = earlier(next, (client, AbortReason::ClientWriteTimeout));
        let next = earlier(next, (request, AbortReason::BodyTooSlow));
        earlier(next, (peer, AbortReason::PeerWriteTimeout))
    }

    /// The abort reason of the next deadline, if it is reached.
    pub(super) fn expired(&self, now: Duration) -> Option<AbortReason> {
        let (deadline, reason) = self.next();
        (deadline <= nanos(now)).then_some(reason)
    }
}

fn earlier(one: (u64, AbortReason), other: (u64, AbortReason)) -> (u64, AbortReason) {
    if other.0 < one.0 { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::AbortReason as Reason;
    use super::*;

    const START: Duration = Duration::from_secs(1_000);
    const WRITE_LIMIT: Duration = Duration::from_secs(20);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn at(offset: u64) -> Duration {
        START + seconds(offset)
    }

    /// The next deadline, in seconds after [`START`], and its abort reason.
    fn next(deadlines: &Deadlines) -> Option<(u64, AbortReason)> {
        let (deadline, reason) = deadlines.next();
        let offset = deadline.wrapping_sub(nanos(START)) / 1_000_000_000;
        (deadline != NEVER).then_some((offset, reason))
    }

    #[test]
    fn phase_limit_that_runs_out_has_the_reason_of_its_phase() {
        for (phase, reason) in [
            (Phase::Idle, AbortReason::IdleTimeout),
            (Phase::Header, AbortReason::HeaderTimeout),
            (Phase::Request, AbortReason::RequestTimeout),
            (Phase::AwaitResponse, AbortReason::FirstByteTimeout),
            (Phase::Response, AbortReason::PeerReadTimeout),
            (Phase::Tunnel, AbortReason::TunnelIdleTimeout),
        ] {
            let deadlines = Deadlines::new(WRITE_LIMIT, None);
            assert_eq!(next(&deadlines), None);
            deadlines.enter(phase, seconds(7), START);
            assert_eq!(deadlines.phase(), phase);
            assert_eq!(next(&deadlines), Some((7, reason)));
            assert_eq!(deadlines.expired(at(6)), None);
            assert_eq!(deadlines.expired(at(7)), Some(reason));
            deadlines.enter_unlimited(phase);
            assert_eq!(next(&deadlines), None);
        }
    }

    type Event = fn(&Deadlines);
    /// A phase and the events in it, each with the next deadline after it (in seconds) and the abort reason.
    type PhaseEvents = (Phase, &'static [(Event, u64, Reason)]);

    /// Events in a phase of 10 s, in order.
    const TABLE: &[PhaseEvents] = &[
        (
            Phase::Idle,
            &[
                (|d| d.cap_phase(seconds(1)), 1, Reason::IdleTimeout),
                (|d| d.cap_phase(seconds(5)), 1, Reason::IdleTimeout),
            ],
        ),
        (
            Phase::Header,
            &[
                (|d| d.set_phase(Phase::Header), 10, Reason::HeaderTimeout),
                (|d| d.block_client(at(1)), 10, Reason::HeaderTimeout),
                (|d| d.unblock_client(at(2)), 10, Reason::HeaderTimeout),
            ],
        ),
        (
            Phase::AwaitResponse,
            &[
                (
                    |d| d.set_total(seconds(8), START),
                    8,
                    Reason::RequestTimeout,
                ),
                (
                    |d| d.cap_total(seconds(9), at(1)),
                    8,
                    Reason::RequestTimeout,
                ),
                (
                    |d| d.cap_total(seconds(3), at(1)),
                    4,
                    Reason::RequestTimeout,
                ),
                (|d| d.clear_total(), 10, Reason::FirstByteTimeout),
                (|d| d.restart_phase(at(5)), 15, Reason::FirstByteTimeout),
                (|d| d.block_client(at(6)), 26, Reason::ClientWriteTimeout),
                (|d| d.unblock_client(at(20)), 30, Reason::FirstByteTimeout),
            ],
        ),
        (
            Phase::Response,
            &[
                (|d| d.restart_phase(at(1)), 11, Reason::PeerReadTimeout),
                (|d| d.block_client(at(2)), 22, Reason::ClientWriteTimeout),
                (|d| d.block_client(at(9)), 22, Reason::ClientWriteTimeout),
                (|d| d.unblock_client(at(15)), 25, Reason::PeerReadTimeout),
                (|d| d.unblock_client(at(16)), 25, Reason::PeerReadTimeout),
            ],
        ),
        (
            Phase::Tunnel,
            &[
                (
                    |d| d.set_total(seconds(9), START),
                    9,
                    Reason::TunnelTotalTimeout,
                ),
                (
                    |d| d.extend_total(seconds(9)),
                    10,
                    Reason::TunnelIdleTimeout,
                ),
                (
                    |d| d.set_peer_write_limit(seconds(5)),
                    10,
                    Reason::TunnelIdleTimeout,
                ),
                (
                    |d| d.on_peer_write(true, false, at(2)),
                    7,
                    Reason::PeerWriteTimeout,
                ),
                (
                    |d| d.on_peer_write(true, false, at(4)),
                    7,
                    Reason::PeerWriteTimeout,
                ),
                (
                    |d| d.on_peer_write(true, true, at(6)),
                    11,
                    Reason::PeerWriteTimeout,
                ),
                (
                    |d| d.on_peer_write(false, true, at(7)),
                    17,
                    Reason::TunnelIdleTimeout,
                ),
                (|d| d.block_client(at(8)), 17, Reason::TunnelIdleTimeout),
                (|d| d.unblock_client(at(9)), 18, Reason::TunnelTotalTimeout),
            ],
        ),
    ];

    #[test]
    fn deadlines_after_each_event_are_those_of_the_table() {
        for (phase, events) in TABLE {
            let deadlines = Deadlines::new(WRITE_LIMIT, None);
            deadlines.enter(*phase, seconds(10), START);
            for (index, (event, offset, reason)) in events.iter().enumerate() {
                event(&deadlines);
                let expected = Some((*offset, *reason));
                assert_eq!(next(&deadlines), expected, "{phase:?}, event {index}");
            }
        }
    }

    #[test]
    fn body_below_the_rate_has_an_abort_reason_for_each_direction() {
        let deadlines = Deadlines::new(WRITE_LIMIT, Some(MinRate::DEFAULT));
        deadlines.enter(Phase::AwaitResponse, seconds(30), START);
        deadlines.rates.start();
        deadlines.rates.begin_request_wait(at(1));
        assert_eq!(next(&deadlines), Some((6, Reason::BodyTooSlow)));
        deadlines.block_client(at(2));
        assert_eq!(next(&deadlines), Some((7, Reason::ClientWriteTimeout)));
        deadlines.unblock_client(at(3));
        deadlines.rates.begin_request_wait(at(10));
        assert_eq!(next(&deadlines), Some((14, Reason::BodyTooSlow)));
        deadlines.rates.stop();
        assert_eq!(next(&deadlines), Some((33, Reason::FirstByteTimeout)));
    }

    #[test]
    fn total_left_is_absent_without_a_limit() {
        let deadlines = Deadlines::new(WRITE_LIMIT, None);
        assert_eq!(deadlines.total_left(|| unreachable!()), None);
        deadlines.set_total(seconds(9), START);
        assert_eq!(deadlines.total_left(|| at(4)), Some(seconds(5)));
        assert_eq!(deadlines.total_left(|| at(10)), Some(Duration::ZERO));
    }
}
