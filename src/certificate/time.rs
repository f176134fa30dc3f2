//! Times in certificates: seconds since 1970.

use std::fmt;

use jiff::Timestamp;

pub(super) const SECONDS_A_DAY: i64 = 86_400;

/// Displays a time as RFC 3339, or as the plain number if it is out of range.
pub(super) struct DisplayTime(pub(super) i64);

impl fmt::Display for DisplayTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_second(self.0) {
            Ok(time) => time.fmt(f),
            Err(_) => self.0.fmt(f),
        }
    }
}
