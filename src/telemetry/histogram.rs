//! A histogram of durations that many threads update without a lock.
//!
//! `prometheus-client` guards its own histogram with a mutex, which every request of a busy route
//! would take. Here an observation is two atomic additions. The price: a scrape at the same time may
//! see an observation in its bucket but not yet in the sum.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Upper bounds in microseconds, inclusive: from a cache hit in the same network to a long poll. The
/// bucket above the last has no bound.
const BOUNDS: [u32; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Counts durations by size, in buckets from 0.5 ms to 60 s; shown in seconds. Clones share the
/// counts.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<BucketCounts>);

#[derive(Debug, Default)]
struct BucketCounts {
    bounded: [AtomicU64; BOUNDS.len()],
    unbounded: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // Relaxed: the counts are independent, and no other memory depends on them.
        self.0.bucket(nanoseconds).fetch_add(1, Ordering::Relaxed);
        self.0.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// The number of durations.
    pub fn count(&self) -> u64 {
        self.0.buckets().iter().map(|(_, count)| count).sum()
    }

    /// The sum of all durations.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.0.nanoseconds.load(Ordering::Relaxed))
    }
}

impl BucketCounts {
    fn bucket(&self, nanoseconds: u64) -> &AtomicU64 {
        let above = |&&bound: &&u32| u64::from(bound) * 1_000 < nanoseconds;
        let index = BOUNDS.iter().take_while(above).count();
        self.bounded.get(index).unwrap_or(&self.unbounded)
    }

    /// Upper bound in seconds and count of each bucket, not cumulative: the encoder adds them up.
    fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS.iter().map(|&bound| f64::from(bound) / 1e6);
        let counts = self.bounded.iter().chain([&self.unbounded]);
        bounds
            .chain([f64::INFINITY])
            .zip(counts.map(|count| count.load(Ordering::Relaxed)))
            .collect()
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let buckets = self.0.buckets();
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(self.sum().as_secs_f64(), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn histogram_bucket_bounds_are_ascending() {
        assert!(BOUNDS.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn histogram_value_on_a_bound_is_in_its_bucket() {
        let histogram = Histogram::default();
        for micros in [0, 500, 501, 60_000_000, 60_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let text = rendered(&histogram);
        for line in [
            "h_bucket{le=\"0.0005\"} 2",
            "h_bucket{le=\"0.001\"} 3",
            "h_bucket{le=\"60.0\"} 4",
            "h_bucket{le=\"+Inf\"} 5",
            "h_count 5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }

    #[test]
    fn histogram_counts_the_longest_duration() {
        let histogram = Histogram::default();
        histogram.observe(Duration::MAX);
        assert_eq!(histogram.count(), 1);
    }

    #[test]
    fn histogram_loses_no_value_across_threads() {
        let histogram = Histogram::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for milliseconds in 0..10_000 {
                        histogram.observe(Duration::from_millis(milliseconds));
                    }
                });
            }
        });
        assert_eq!(histogram.count(), 40_000);
        assert_eq!(histogram.sum(), Duration::from_mins(3_333));
    }

    fn rendered(histogram: &Histogram) -> String {
        let mut registry = Registry::default();
        registry.register("h", "help", histogram.clone());
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }
}
