//! `HAProxy`'s durations: `5000`, `5s`, `250us`; a bare number is milliseconds.

use std::time::Duration;

/// Parses a duration; `None` if it is not one, or 0, which means no limit.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number = digits.parse::<u64>().ok()?;
    let micros = match text.get(digits.len()..)? {
        "us" => 1,
        "" | "ms" => 1000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 24 * 3_600_000_000,
        _ => return None,
    };
    let time = Duration::from_micros(number.checked_mul(micros)?);
    Some(time).filter(|time| !time.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn haproxy_number_without_unit_is_milliseconds() {
        let millis = |text| duration(text).map(|time| time.as_millis());
        assert_eq!(
            [millis("5000"), millis("5s"), millis("2m")],
            [Some(5000), Some(5000), Some(120_000)]
        );
        assert_eq!(
            [
                millis("0"),
                millis(""),
                millis("s"),
                millis("1x"),
                millis("99999999999999999999")
            ],
            [None; 5]
        );
    }
}
