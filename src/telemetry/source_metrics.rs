//! Metrics of the sources of peers.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::metric_group::{Bounded, Each, Labels, Series, bounded, help, metrics};

metrics! {
    /// Metrics of one source of peers of an upstream.
    pub struct SourceMetrics from SourceFamilies {
        /// Lists of peers that the source has sent, and failed reads of it, by result.
        updates: Each<SourceUpdateResult> = "clockwise_discovery_updates",
        /// Peers of the source that are in force.
        peers: Gauge = "clockwise_discovery_peers",
        /// Peers of the source that are left out: another peer has the same label or id, or there is no name to verify.
        left_out: Gauge = "clockwise_discovery_left_out_peers",
        /// 1 while a list of the source is held until an operator accepts it.
        held: Gauge = "clockwise_discovery_held",
        /// 1 while the source cannot be read.
        failing: Gauge = "clockwise_discovery_failing",
        /// When the source was read last, in seconds since 1970.
        read_at: Gauge = "clockwise_discovery_last_read_time_seconds",
    }
}

bounded! {
    /// What became of a list of peers that a source has sent.
    pub enum SourceUpdateResult as "result" {
        /// It is in force.
        Applied = "applied",
        /// It is the list in force, or one that waits already.
        Unchanged = "unchanged",
        /// It is held: it is empty, or lost more peers than `max_lost` allows.
        Distrusted = "distrusted",
        /// It is held: it would move more keys than `max_moved` allows.
        Held = "held",
        /// The source could not be read, or the list could not be put in force.
        Failed = "failed",
    }
}

impl SourceFamilies {
    /// The handles of one source.
    pub(super) fn of(&self, upstream: &str, source: &str) -> SourceMetrics {
        self.resolve(&source_labels(upstream, source))
    }

    /// Registers the families.
    pub(super) fn add_to(registry: &mut Registry) -> Self {
        Self::register(registry)
    }

    /// Removes the series of one source.
    pub(super) fn remove_source(&self, upstream: &str, source: &str) {
        self.remove(&source_labels(upstream, source));
    }
}

fn source_labels(upstream: &str, source: &str) -> Labels {
    vec![
        ("upstream", upstream.to_owned()),
        ("source", source.to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_update_result_index_matches_its_position() {
        let indexes = SourceUpdateResult::ALL.iter().map(|result| result.index());
        let expected: Vec<_> = (0..SourceUpdateResult::ALL.len()).collect();
        assert_eq!(indexes.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn alerts_name_metrics_that_exist() {
        let alerts = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/conf/alerts.yaml"));
        let metrics = super::super::Metrics::new("1", jiff::Timestamp::UNIX_EPOCH);
        metrics.source("app", "file:a");
        let text = metrics.render();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words = alerts.split(|c| !is_part(c));
        let named: Vec<_> = words
            .filter(|word| word.starts_with("clockwise_"))
            .collect();
        assert!(named.len() >= 4, "{named:?}");
        for name in named {
            assert!(text.contains(&format!("\n{name}{{")), "{name}");
        }
    }
}
