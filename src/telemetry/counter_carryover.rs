//! Counter values of the previous process, so that a hot restart does not reset counters.
//!
//! They stay in the text form in which the previous process exported them, and are added when this
//! process renders its own: two series are the same if name and labels are. A series that this process
//! does not have is dropped. Gauges are not added: a gauge is the present state, and this process knows
//! that itself.

use std::collections::HashMap;

/// The previous value of each series.
#[derive(Debug, Default)]
pub(super) struct CounterCarryover(HashMap<String, f64>);

impl CounterCarryover {
    /// Reads the counters of a metrics text.
    pub(super) fn parse(text: &str) -> Self {
        let counts = text.lines().filter_map(parse_counter);
        Self(
            counts
                .filter_map(|(series, value)| Some((series.to_owned(), value.parse().ok()?)))
                .collect(),
        )
    }

    /// Adds the previous values to the counters of a metrics text.
    pub(super) fn add_previous(&self, text: String) -> String {
        if self.0.is_empty() {
            return text;
        }
        let mut sums = String::with_capacity(text.len() + text.len() / 8);
        for line in text.lines() {
            match parse_counter(line).and_then(|(series, value)| self.sum(series, value)) {
                Some(sum) => sums.push_str(&sum),
                None => sums.push_str(line),
            }
            sums.push('\n');
        }
        sums
    }

    fn sum(&self, series: &str, value: &str) -> Option<String> {
        let previous = self.0.get(series).filter(|previous| **previous != 0.0)?;
        // `f64` is exact for whole numbers up to 2^53, and prints them without a fraction.
        Some(format!(
            "{series} {}",
            previous + value.parse::<f64>().ok()?
        ))
    }
}

/// The counters of a metrics text that are not zero, one per line.
pub(super) fn counter_lines(text: &str) -> String {
    let lines = text
        .lines()
        .filter(|line| parse_counter(line).is_some_and(|(_, value)| value != "0"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Series and value of a line with a counter, or with a part of a histogram.
fn parse_counter(line: &str) -> Option<(&str, &str)> {
    const COUNTS: [&str; 4] = ["_total", "_bucket", "_count", "_sum"];
    let (series, value) = line.rsplit_once(' ')?;
    let name = series.split('{').next()?;
    (!line.starts_with('#') && COUNTS.iter().any(|suffix| name.ends_with(suffix)))
        .then_some((series, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# TYPE a counter\na_total{peer=\"x y\"} 7\ngauge 3\nh_sum 0.5\nh_bucket{le=\"+Inf\"} 2\n# EOF\n";

    #[test]
    fn carried_over_counters_are_added_and_gauges_are_not() {
        let carryover = CounterCarryover::parse(&counter_lines(BEFORE));
        let now = "# TYPE a counter\na_total{peer=\"x y\"} 1\na_total{peer=\"z\"} 1\ngauge 4\nh_sum 0.25\nh_bucket{le=\"+Inf\"} 1\n# EOF\n";
        let sum = "# TYPE a counter\na_total{peer=\"x y\"} 8\na_total{peer=\"z\"} 1\ngauge 4\nh_sum 0.75\nh_bucket{le=\"+Inf\"} 3\n# EOF\n";
        assert_eq!(carryover.add_previous(now.to_owned()), sum);
    }

    #[test]
    fn carry_over_without_a_predecessor_changes_nothing() {
        assert_eq!(
            CounterCarryover::default().add_previous(BEFORE.to_owned()),
            BEFORE
        );
    }
}
