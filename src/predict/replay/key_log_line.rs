//! Parses a line of `--format keys`, which any proxy can log.
//!
//! ```text
//! START <tab> KEY [<tab> SECONDS [<tab> BYTES]]
//! ```
//!
//! `START`: when the request arrived, as seconds since 1970 with decimals or as a date (RFC 3339). `KEY`:
//! empty if the request had no key. `SECONDS`: the duration; `BYTES`: the length of the response's body;
//! both default to 0.

use std::str;

use jiff::Timestamp;

/// A request with its key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyLogLine<'a> {
    /// Microseconds since 1970.
    pub(super) start: u64,
    pub(super) key: &'a [u8],
    /// Microseconds.
    pub(super) duration: u64,
    pub(super) bytes: u64,
}

impl<'a> KeyLogLine<'a> {
    /// Parses one line.
    ///
    /// # Errors
    /// The message says what is wrong.
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, &'static str> {
        let mut columns = line.split(|byte| *byte == b'\t');
        let start = columns.next().and_then(|text| str::from_utf8(text).ok());
        let key = columns.next().ok_or("there is no tab followed by a key")?;
        let mut rest = columns.map(|text| str::from_utf8(text).unwrap_or("?"));
        let duration = rest.next().map_or(Some(0), parse_micros);
        let bytes = rest.next().map_or(Some(0), |text| text.parse().ok());
        Ok(Self {
            start: start
                .and_then(parse_time)
                .ok_or("the start is not a time")?,
            key,
            duration: duration.ok_or("the duration is not a number of seconds")?,
            bytes: bytes.ok_or("the number of bytes is invalid")?,
        })
    }
}

fn parse_time(text: &str) -> Option<u64> {
    parse_micros(text).or_else(|| {
        let time: Timestamp = text.parse().ok()?;
        u64::try_from(time.as_microsecond()).ok()
    })
}

/// Parses seconds, with or without decimals, to microseconds.
fn parse_micros(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) {
        return None;
    }
    let micros = format!("{decimals:0<6}");
    let whole: u64 = whole.parse().ok()?;
    whole
        .checked_mul(1_000_000)?
        .checked_add(micros.get(..6)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_log_line_is_parsed() {
        let timed = |start, key: &'static str, duration, bytes| {
            Ok(KeyLogLine {
                start,
                key: key.as_bytes(),
                duration,
                bytes,
            })
        };
        for (line, expected) in [
            ("1700000000.25\tk", timed(1_700_000_000_250_000, "k", 0, 0)),
            ("1.1234567\t\t0.5", timed(1_123_456, "", 500_000, 0)),
            (
                "1970-01-01T00:00:02Z\ta b\t3\t17",
                timed(2_000_000, "a b", 3_000_000, 17),
            ),
            ("1 k", Err("there is no tab followed by a key")),
            ("-\tk", Err("the start is not a time")),
            ("1\tk\t-", Err("the duration is not a number of seconds")),
            ("1\tk\t1\t-1", Err("the number of bytes is invalid")),
        ] {
            assert_eq!(KeyLogLine::parse(line.as_bytes()), expected, "{line}");
        }
    }
}
