//! `retry` of an upstream: attempts on other peers.

use std::time::Duration;

use crate::config::fields::{Fields, SectionOff};
use crate::config::schema::SectionSchema;
use crate::config::values::DURATION_BOUNDS;

/// Retries of failed attempts on other peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryConfig {
    /// Attempts in total, the first included; 1 ..= 16.
    pub attempts: u32,
    /// No further attempt starts later than this after the first one started.
    pub timeout: Duration,
}

pub(super) static RETRY: SectionSchema = SectionSchema {
    title: "`retry`",
    path: "upstreams.NAME.retry",
    example: "{attempts: 3, timeout: 10s}",
    keys: &["attempts", "timeout"],
    ..SectionSchema::EMPTY
};

pub(super) fn read(upstream: &Fields<'_>) -> RetryConfig {
    let timeout = Duration::from_secs(10);
    match upstream.section_or_off("retry", &RETRY) {
        Err(SectionOff) => RetryConfig {
            attempts: 1,
            timeout,
        },
        Ok(None) => RetryConfig {
            attempts: 3,
            timeout,
        },
        Ok(Some(fields)) => RetryConfig {
            attempts: fields.number("attempts", 3, 1..=16),
            timeout: fields.duration("timeout", timeout, DURATION_BOUNDS),
        },
    }
}
