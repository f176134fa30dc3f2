//! Where in the history of etcd an answer stands.

/// A cluster and a revision of its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StorePosition {
    /// The id of the cluster.
    pub(super) cluster: u64,
    /// The revision of the store; each change adds one.
    pub(super) revision: i64,
}

/// Two answers do not belong to one history: events between them cannot be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HistoryBreak {
    #[error("the answers are from another cluster now (id {now:x}, before {before:x})")]
    OtherCluster { before: u64, now: u64 },
    #[error("the revision went back from {before} to {now}, as after a restore from a backup")]
    WentBack { before: i64, now: i64 },
}

impl StorePosition {
    /// The position after a later answer.
    ///
    /// # Errors
    /// The answer does not continue this history.
    pub(super) fn follow(self, answer: Self) -> Result<Self, HistoryBreak> {
        if answer.cluster != self.cluster {
            return Err(HistoryBreak::OtherCluster {
                before: self.cluster,
                now: answer.cluster,
            });
        }
        if answer.revision < self.revision {
            return Err(HistoryBreak::WentBack {
                before: self.revision,
                now: answer.revision,
            });
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_of_etcd_breaks_with_another_cluster_or_a_lower_revision() {
        let at = |cluster, revision| StorePosition { cluster, revision };
        assert_eq!(at(1, 5).follow(at(1, 5)), Ok(at(1, 5)));
        assert_eq!(at(1, 5).follow(at(1, 9)), Ok(at(1, 9)));
        let back = at(1, 5).follow(at(1, 4)).unwrap_err();
        assert!(back.to_string().contains("from 5 to 4"), "{back}");
        let other = at(0xa, 5).follow(at(0xb, 9)).unwrap_err();
        assert!(other.to_string().contains("id b, before a"), "{other}");
    }
}
