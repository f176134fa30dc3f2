//! Texts, durations and sizes as YAML.

use std::time::Duration;

use crate::migrate::draft::SizeLimit;

/// `key: value` pairs of one flow map; `None` is left out.
pub(super) type YamlPairs = Vec<(&'static str, Option<String>)>;

pub(super) fn flow_map(pairs: YamlPairs) -> Option<String> {
    let pairs = pairs
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}: {}", value?)));
    let pairs: Vec<_> = pairs.collect();
    (!pairs.is_empty()).then(|| format!("{{{}}}", pairs.join(", ")))
}

/// At most a year, in the largest unit without a fraction.
pub(super) fn clamped_duration(value: Duration) -> String {
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    duration_text(value.min(YEAR))
}

/// In the largest unit without a fraction, at least 1 ms.
pub(super) fn duration_text(value: Duration) -> String {
    const UNITS: [(u128, &str); 3] = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let millis = value.as_millis().max(1);
    let unit = UNITS
        .iter()
        .find(|(factor, _)| millis.is_multiple_of(*factor));
    unit.map_or_else(
        || format!("{millis}ms"),
        |(factor, unit)| format!("{}{unit}", millis / factor),
    )
}

pub(super) fn clamped_count(number: u64) -> String {
    const MOST: u64 = 1_000_000_000;
    number.min(MOST).to_string()
}

pub(super) fn clamped_size(value: SizeLimit) -> String {
    const MOST: u64 = 1 << 50;
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let SizeLimit::Bytes(bytes) = value else {
        return "off".to_owned();
    };
    let bytes = bytes.min(MOST);
    let unit = UNITS
        .iter()
        .find(|(factor, _)| bytes > 0 && bytes.is_multiple_of(*factor));
    unit.map_or_else(
        || bytes.to_string(),
        |(factor, unit)| format!("{}{unit}", bytes / factor),
    )
}

/// A text as a YAML value, quoted only if necessary.
pub(super) fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:-".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || "_/".contains(c));
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "null" | "on" | "off" | "yes" | "no" | "y" | "n"
    );
    if begins && !word && !text.ends_with(':') && text.chars().all(plain) {
        return text.to_owned();
    }
    // Every JSON string is a YAML string.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_scalar_is_quoted_if_it_would_change_type() {
        for (text, written) in [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[::1]:80", "\"[::1]:80\""),
            ("*.example.com", "\"*.example.com\""),
            ("off", "\"off\""),
            ("a: b", "\"a: b\""),
            ("a\n- b", "\"a\\n- b\""),
            ("", "\"\""),
        ] {
            assert_eq!(scalar(text), written);
        }
    }

    #[test]
    fn yaml_durations_and_sizes_use_the_largest_exact_unit() {
        let written = |millis| clamped_duration(Duration::from_millis(millis));
        assert_eq!(
            [written(0), written(1500), written(90_000)],
            ["1ms", "1500ms", "90s"]
        );
        assert_eq!([written(60_000), written(7_200_000)], ["1m", "2h"]);
        let written = |bytes| clamped_size(SizeLimit::Bytes(bytes));
        assert_eq!(
            [written(0), written(1000), written(10 << 20)],
            ["0", "1000", "10MiB"]
        );
    }
}
