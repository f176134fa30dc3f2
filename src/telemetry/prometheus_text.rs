//! The metrics in the text format of Prometheus, version 0.0.4, from those in the format of OpenMetrics.
//!
//! `prometheus-client` writes OpenMetrics only. The samples of both formats are the same for the types in use (counter,
//! gauge, histogram, info); the lines about a metric are not: version 0.0.4 names the sample (`x_total`, `x_info`)
//! where OpenMetrics names the family (`x`), has no type `info`, no `# UNIT`, and no `# EOF`
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::Write as _;

/// Rewrites a text that `prometheus-client` has encoded.
pub(super) fn from_openmetrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 16);
    // `# HELP` comes before `# TYPE`, on which the name in both depends.
    let mut help = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = strip_type(line) {
            let help = help.take().filter(|(family, _)| *family == name);
            write_metadata(&mut out, name, kind, help.map(|(_, help)| help));
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

fn strip_type(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("# TYPE ")?.split_once(' ')
}

fn write_metadata(out: &mut String, name: &str, kind: &str, help: Option<&str>) {
    let (suffix, kind) = match kind {
        "counter" => ("_total", "counter"),
        "info" => ("_info", "gauge"),
        "unknown" => ("", "untyped"),
        kind => ("", kind),
    };
    // Writing to a `String` never fails.
    if let Some(help) = help {
        let _ = writeln!(out, "# HELP {name}{suffix} {help}");
    }
    let _ = writeln!(out, "# TYPE {name}{suffix} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_rewritten_as_text_0_0_4() {
        let openmetrics = "# HELP build The version.\n# TYPE build info\nbuild_info{version=\"1\"} 1\n\
            # HELP faults Failed: # of requests.\n# TYPE faults counter\n# UNIT faults requests\n\
            faults_total{fault=\"a # b\"} 2\n\
            # TYPE up gauge\nup 1\n\
            # HELP wait_seconds Waits.\n# TYPE wait_seconds histogram\n# UNIT wait_seconds seconds\n\
            wait_seconds_sum 0.5\nwait_seconds_count 1\nwait_seconds_bucket{le=\"+Inf\"} 1\n# EOF\n";
        let text = "# HELP build_info The version.\n# TYPE build_info gauge\nbuild_info{version=\"1\"} 1\n\
            # HELP faults_total Failed: # of requests.\n# TYPE faults_total counter\n\
            faults_total{fault=\"a # b\"} 2\n\
            # TYPE up gauge\nup 1\n\
            # HELP wait_seconds Waits.\n# TYPE wait_seconds histogram\n\
            wait_seconds_sum 0.5\nwait_seconds_count 1\nwait_seconds_bucket{le=\"+Inf\"} 1\n";
        assert_eq!(from_openmetrics(openmetrics), text);
    }
}
