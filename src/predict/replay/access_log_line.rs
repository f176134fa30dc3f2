//! Parses a line of Clockwise's access log, which `telemetry` writes.
//!
//! Unknown fields are ignored, so that lines of later versions can be read.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;

/// The fields of a logged request that a replay needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AccessLogLine<'a> {
    /// The start of the request, in microseconds since 1970.
    pub(super) start: u64,
    /// The duration of the request, in microseconds.
    pub(super) duration: u64,
    /// Bytes of the response body that were sent to the client.
    pub(super) bytes_sent: u64,
    /// The upstream of the route; `None` if no route matched.
    pub(super) upstream: Option<Cow<'a, str>>,
    /// The last peer tried.
    pub(super) peer: Option<Cow<'a, str>>,
    /// The hash of the key; `None` if the request had no key.
    pub(super) key_hash: Option<u64>,
}

/// Why a line cannot be parsed.
#[derive(Debug, thiserror::Error)]
pub(super) enum AccessLogLineError {
    /// The line does not begin with `{`, as a line of another program's log.
    #[error("not JSON, so not a line of Clockwise's access log")]
    NotAccessLog,
    /// Invalid JSON, or a field is missing or has another type.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// The time cannot be parsed.
    #[error("{0}")]
    Time(#[from] jiff::Error),
    /// The time is before 1970, or the duration is negative or above 100 years.
    #[error("the time or the duration is out of range")]
    OutOfRange,
    /// The line has a key but no hash (an old version wrote it), or the hash is not hexadecimal.
    #[error("`key_hash` is missing or not hexadecimal")]
    KeyHash,
}

impl<'a> AccessLogLine<'a> {
    /// Parses one line.
    ///
    /// # Errors
    /// See [`AccessLogLineError`].
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, AccessLogLineError> {
        if !line.starts_with(b"{") {
            return Err(AccessLogLineError::NotAccessLog);
        }
        let line: AccessLogJson<'a> = serde_json::from_slice(line)?;
        let time: Timestamp = line.time.0.parse()?;
        Ok(Self {
            start: u64::try_from(time.as_microsecond())
                .map_err(|_| AccessLogLineError::OutOfRange)?,
            duration: to_microseconds(line.duration).ok_or(AccessLogLineError::OutOfRange)?,
            bytes_sent: line.sent,
            key_hash: line.key_hash()?,
            upstream: line.upstream.map(|text| text.0),
            peer: line.peer.map(|text| text.0),
        })
    }
}

#[derive(Deserialize)]
struct AccessLogJson<'a> {
    #[serde(borrow)]
    time: BorrowedText<'a>,
    duration: f64,
    sent: u64,
    #[serde(borrow)]
    upstream: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    peer: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    key_source: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    key_hash: Option<BorrowedText<'a>>,
}

/// A string, borrowed from the line if it has no escapes.
#[derive(Deserialize)]
struct BorrowedText<'a>(#[serde(borrow)] Cow<'a, str>);

impl AccessLogJson<'_> {
    fn key_hash(&self) -> Result<Option<u64>, AccessLogLineError> {
        match (&self.key_hash, &self.key_source) {
            (Some(hash), _) => u64::from_str_radix(&hash.0, 16)
                .map(Some)
                .map_err(|_| AccessLogLineError::KeyHash),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(AccessLogLineError::KeyHash),
        }
    }
}

/// Converts seconds to microseconds; `None` below 0 and above 100 years.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked"
)]
fn to_microseconds(seconds: f64) -> Option<u64> {
    const MAX_SECONDS: f64 = 3.2e9;
    (0.0..=MAX_SECONDS)
        .contains(&seconds)
        .then(|| (seconds * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"time":"2026-01-02T03:04:05.678Z","client":"192.0.2.1","path":"/\u0007","sent":7,"duration":1.002003,"upstream":"app","peer":"a\"b","key_source":"cookie","key_hash":"00c0ffee","later":[{}]}"#;

    fn parse(from: &str, to: &str) -> Result<(u64, u64, Option<u64>), String> {
        let line = LINE.replace(from, to);
        let logged = AccessLogLine::parse(line.as_bytes()).map_err(|error| error.to_string())?;
        Ok((logged.start, logged.duration, logged.key_hash))
    }

    #[test]
    fn access_log_line_is_parsed() {
        let logged = AccessLogLine::parse(LINE.as_bytes()).unwrap();
        let expected = AccessLogLine {
            start: 1_767_323_045_678_000,
            duration: 1_002_003,
            bytes_sent: 7,
            upstream: Some("app".into()),
            peer: Some("a\"b".into()),
            key_hash: Some(0x00c0_ffee),
        };
        assert_eq!(logged, expected);
    }

    #[test]
    fn access_log_line_without_key_has_no_hash() {
        let (from, to) = (
            r#""key_source":"cookie","key_hash":"00c0ffee""#,
            r#""key_source":null,"key_hash":null"#,
        );
        assert_eq!(parse(from, to).unwrap().2, None);
        let (from, to) = (r#","key_hash":"00c0ffee""#, "");
        assert!(parse(from, to).unwrap_err().contains("key_hash"));
    }

    #[test]
    fn access_log_line_with_an_invalid_field_is_an_error() {
        for (from, to) in [
            ("{\"time", "time"),
            ("2026", "x"),
            ("2026", "1926"),
            ("1.002003", "-1.0"),
            ("1.002003", "1e300"),
            ("00c0ffee", "no"),
            ("\"sent\":7,", ""),
        ] {
            parse(from, to).expect_err(to);
        }
    }

    #[test]
    fn access_log_line_that_is_not_json_is_reported_as_another_log() {
        for line in [
            "2026-11-22 20:36:01 status installed",
            "\u{1f}\u{8b}",
            "",
            "7",
        ] {
            let error = AccessLogLine::parse(line.as_bytes()).unwrap_err();
            assert!(matches!(error, AccessLogLineError::NotAccessLog), "{error}");
        }
    }
}
