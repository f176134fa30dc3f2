//! Counts of the process before this one, so that counters go on where they were.
//!
//! Kept as the text they were shown in, and added when this process shows its own: a series is the
//! same if its name and labels are. What this process does not show, it does not know any more.
//! Gauges are not added: they say how things are, and things are as this process sees them.

use std::collections::HashMap;

/// What the counters were.
#[derive(Debug, Default)]
pub(super) struct CounterCarryover(HashMap<String, f64>);

impl CounterCarryover {
    /// Reads the counters out of what a process showed.
    pub(super) fn parse(shown: &str) -> Self {
        let counts = shown.lines().filter_map(parse_counter);
        Self(
            counts
                .filter_map(|(series, value)| Some((series.to_owned(), value.parse().ok()?)))
                .collect(),
        )
    }

    /// What is to be shown, with what was counted before.
    pub(super) fn add_previous(&self, shown: String) -> String {
        if self.0.is_empty() {
            return shown;
        }
        let mut sum = String::with_capacity(shown.len() + shown.len() / 8);
        for line in shown.lines() {
            match parse_counter(line).and_then(|(series, value)| self.sum(series, value)) {
                Some(added) => sum.push_str(&added),
                None => sum.push_str(line),
            }
            sum.push('\n');
        }
        sum
    }

    fn sum(&self, series: &str, value: &str) -> Option<String> {
        let before = self.0.get(series).filter(|before| **before != 0.0)?;
        // Whole numbers stay exact, and look like it, up to 2^53.
        Some(format!("{series} {}", before + value.parse::<f64>().ok()?))
    }
}

/// The lines of what is shown that count something.
pub(super) fn counter_lines(shown: &str) -> String {
    let lines = shown
        .lines()
        .filter(|line| parse_counter(line).is_some_and(|(_, value)| value != "0"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Series and value of a line that shows a counter, or a part of a histogram.
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
        let inherited = CounterCarryover::parse(&counter_lines(BEFORE));
        let now = "# TYPE a counter\na_total{peer=\"x y\"} 1\na_total{peer=\"z\"} 1\ngauge 4\nh_sum 0.25\nh_bucket{le=\"+Inf\"} 1\n# EOF\n";
        let sum = "# TYPE a counter\na_total{peer=\"x y\"} 8\na_total{peer=\"z\"} 1\ngauge 4\nh_sum 0.75\nh_bucket{le=\"+Inf\"} 3\n# EOF\n";
        assert_eq!(inherited.add_previous(now.to_owned()), sum);
    }

    #[test]
    fn carry_over_without_a_predecessor_changes_nothing() {
        assert_eq!(
            CounterCarryover::default().add_previous(BEFORE.to_owned()),
            BEFORE
        );
    }
}
