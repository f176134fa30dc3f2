//! The lists of one source: in force, pending, held.

use std::collections::BTreeSet;

use crate::admin::{HeldStatus, SourceStatus};
use crate::clock;
use crate::config::PeerConfig;
use crate::discovery::SourceId;
use crate::policy::peer_list::{DueList, HoldReason, PeerListGate, PeersByLabel};
use crate::predict::percent;

/// What an instance knows of one source.
#[derive(Clone, Debug)]
pub(super) struct SourceState {
    /// Which of its lists is in force.
    pub(super) gate: PeerListGate<PeerConfig>,
    /// Why it could not be read the last time, or not completely; `None`: it could.
    pub(super) error: Option<String>,
    /// Whether it could be read, but not completely.
    is_incomplete: bool,
    /// Why its last list could not be put in force.
    pub(super) apply_error: Option<String>,
    /// The labels of its peers that cannot be members of the upstream.
    pub(super) left_out: BTreeSet<String>,
    /// When it was read last, in seconds since 1970.
    pub(super) read_at: Option<i64>,
}

impl SourceState {
    pub(super) fn new(gate: PeerListGate<PeerConfig>) -> Self {
        Self {
            gate,
            error: None,
            is_incomplete: false,
            apply_error: None,
            left_out: BTreeSet::new(),
            read_at: None,
        }
    }

    /// Records that the source was read; whether it could not be read before.
    pub(super) fn note_success(&mut self) -> bool {
        self.read_at = Some(clock::wall().as_second());
        self.is_incomplete = false;
        self.error.take().is_some()
    }

    /// Records that the source was read, but not completely; whether this is a change.
    pub(super) fn note_incomplete(&mut self, problem: String) -> bool {
        self.read_at = Some(clock::wall().as_second());
        let was_incomplete = std::mem::replace(&mut self.is_incomplete, true);
        self.error.replace(problem).is_none() || !was_incomplete
    }

    /// Records that the source could not be read; whether this is a change.
    pub(super) fn note_failure(&mut self, error: String) -> bool {
        let was_incomplete = std::mem::take(&mut self.is_incomplete);
        self.error.replace(error).is_none() || was_incomplete
    }

    /// Judges a list that the source has at a start or a reload, which do not wait for further changes; `None`: it is in
    /// force, or held, already.
    pub(super) fn judge_now(
        &mut self,
        peers: PeersByLabel<PeerConfig>,
    ) -> Option<DueList<PeerConfig>> {
        self.note_success();
        let now = clock::since_start();
        self.gate.offer(peers, now);
        self.gate.take_pending(now)
    }

    /// The list in force.
    pub(super) fn known_peers(&self) -> Vec<PeerConfig> {
        let in_force = self.gate.in_force().into_iter();
        in_force.flat_map(PeersByLabel::values).cloned().collect()
    }

    pub(super) fn in_force_count(&self) -> usize {
        self.gate.in_force().map_or(0, PeersByLabel::len)
    }

    /// Puts a list in force.
    pub(super) fn confirm(&mut self, peers: PeersByLabel<PeerConfig>) {
        self.apply_error = None;
        self.gate.confirm(peers, clock::since_start());
    }

    /// The state for the admin API; `leaving`: the labels of peers that it no longer has, and that still drain.
    pub(super) fn status(&self, id: &SourceId, leaving: Vec<String>) -> SourceStatus {
        let held = self.gate.held().map(|held| HeldStatus {
            peers: held.peers.len(),
            reason: describe_hold(held.reason),
        });
        SourceStatus {
            upstream: id.upstream.clone(),
            name: id.source.to_string(),
            peers: self.in_force_count(),
            leaving,
            left_out: self.left_out.iter().cloned().collect(),
            error: self.error.clone().or_else(|| self.apply_error.clone()),
            held,
            read_at: self.read_at,
        }
    }
}

/// Why a list is held, for an operator.
pub(super) fn describe_hold(reason: HoldReason) -> String {
    match reason {
        HoldReason::Lost { had, has: 0, .. } => {
            format!("it is empty, and {had} peers are in force")
        }
        HoldReason::Lost { had, has, lost } => format!(
            "it has {has} peers and lost {lost} of the {had} in force, more than `max_lost` allows"
        ),
        HoldReason::Shrunk { had, has } => format!(
            "it has {has} peers, and {had} were in force within the last minute: that is a loss of more than `max_lost` allows"
        ),
        HoldReason::Moved { moved, allowed } => format!(
            "it would move {} % of the keys, and `max_moved` allows {} %",
            percent(moved),
            (allowed * 1e11).round() / 1e9
        ),
    }
}
