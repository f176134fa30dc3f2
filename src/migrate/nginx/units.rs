//! nginx's durations and sizes: `10`, `10s`, `1h 30m`, `500ms`; `8k`, `10m`, `1g`.

use std::time::Duration;

use crate::migrate::draft::SizeLimit;

/// Parses a duration; a bare number is seconds.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at_checked(digits)?;
        let end = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(end)?;
        let millis = number
            .parse::<u64>()
            .ok()?
            .checked_mul(unit_millis(unit.trim())?)?;
        total = total.checked_add(Duration::from_millis(millis))?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

fn unit_millis(unit: &str) -> Option<u64> {
    const DAY: u64 = 24 * 3_600_000;
    Some(match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => DAY,
        "w" => 7 * DAY,
        "M" => 30 * DAY,
        "y" => 365 * DAY,
        _ => return None,
    })
}

/// Parses a number of bytes.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text.get(digits.len()..)? {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// Parses a body limit; 0 means no limit.
pub(super) fn size_limit(text: &str) -> Option<SizeLimit> {
    bytes(text).map(|bytes| {
        if bytes == 0 {
            SizeLimit::Unlimited
        } else {
            SizeLimit::Bytes(bytes)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nginx_number_without_unit_is_seconds_and_units_add_up() {
        let millis = |text| duration(text).map(|value| value.as_millis());
        assert_eq!(millis("60"), Some(60_000));
        assert_eq!(millis("1h30m"), Some(5_400_000));
        assert_eq!(millis("500ms"), Some(500));
        assert_eq!(
            [
                millis(""),
                millis("s"),
                millis("5x"),
                millis("99999999999999999999")
            ],
            [None; 4]
        );
    }

    #[test]
    fn nginx_size_units_are_powers_of_1024() {
        assert_eq!(bytes("8k"), Some(8192));
        assert_eq!([bytes("k"), bytes("1t"), bytes(""), bytes("-1")], [None; 4]);
        assert_eq!(size_limit("0"), Some(SizeLimit::Unlimited));
    }
}
