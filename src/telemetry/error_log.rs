//! The error log on stderr: one line per message.
//!
//! ```text
//! 2026-01-02T03:04:05.678Z warn clockwise::probe app: 10.0.0.1:8080 is down
//! ```
//!
//! Requests write nothing here: their place is the access log and the metrics, which are bounded. Pingora
//! 0.9.1 logs an error for most things that a client can do wrong, so its crates of the request path are
//! silent unless the level is `debug` or `trace`; otherwise any client could fill the log. Control
//! characters are escaped: a message may quote a peer or a file, and stays one line.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use env_logger::fmt::Formatter;
use env_logger::{Builder, Logger};
use log::{LevelFilter, Log, Metadata, Record};
use prometheus_client::metrics::counter::Counter;

use crate::clock;
use crate::config::ErrorLogConfig;

/// Crates that log errors of clients at levels meant for operators.
const NOISY_CRATES: [&str; 3] = ["pingora_proxy", "pingora_core", "pingora_http"];

/// Starts the error log of the process. A logger that is already installed stays; then only the level
/// is set.
pub(crate) fn init(settings: ErrorLogConfig) {
    let logger = Builder::new()
        .filter_level(LevelFilter::Trace)
        .format(write_line)
        .build();
    // Fails only if a logger is already installed.
    let _ = log::set_boxed_logger(Box::new(FilteredLogger(logger)));
    set_level(settings);
}

/// Changes the level; for a reload.
pub(crate) fn set_level(settings: ErrorLogConfig) {
    log::set_max_level(settings.level);
}

/// Logs and counts every panic from now on, in place of the message of the standard library.
pub(crate) fn count_panics(panics: Counter) {
    panic::set_hook(Box::new(move |panic| {
        panics.inc();
        log::error!("{panic}");
    }));
}

/// Passes a repeated message once per interval and counts the others.
#[derive(Debug)]
pub(crate) struct LogRateLimit {
    interval: u64,
    /// When the next message may pass; nanoseconds on the monotonic clock.
    next: AtomicU64,
    suppressed: AtomicU64,
}

impl LogRateLimit {
    /// At most one message per interval.
    pub(crate) fn every(interval: Duration) -> Self {
        Self {
            interval: nanoseconds(interval),
            next: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    /// The number of messages suppressed since the last one, if a message may pass now; `now` is on the
    /// monotonic clock.
    pub(crate) fn try_acquire(&self, now: Duration) -> Option<u64> {
        let now = nanoseconds(now);
        let next = self.next.load(Ordering::Relaxed);
        let after = now.saturating_add(self.interval);
        // Of threads that race here, only the one that advances `next` may pass.
        let is_due = now >= next
            && self
                .next
                .compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if is_due {
            Some(self.suppressed.swap(0, Ordering::Relaxed))
        } else {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A logger without the messages of [`NOISY_CRATES`]. The level is [`log::max_level`], so that a reload
/// can change it.
struct FilteredLogger<L = Logger>(L);

impl<L: Log> Log for FilteredLogger<L> {
    fn enabled(&self, metadata: &Metadata) -> bool {
        is_enabled(metadata, log::max_level())
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

fn is_enabled(metadata: &Metadata, level: LevelFilter) -> bool {
    let crate_name = metadata.target().split("::").next().unwrap_or_default();
    metadata.level() <= level
        && (level >= LevelFilter::Debug || !NOISY_CRATES.contains(&crate_name))
}

fn write_line(out: &mut Formatter, record: &Record) -> std::io::Result<()> {
    let mut message = OneLine(String::new());
    // Writing to a `String` never fails; a value with a failing `Display` ends the message there.
    let _ = write!(message, "{}", record.args());
    let level = match record.level() {
        log::Level::Error => "error",
        log::Level::Warn => "warn",
        log::Level::Info => "info",
        log::Level::Debug => "debug",
        log::Level::Trace => "trace",
    };
    writeln!(
        out,
        "{:.3} {level} {} {}",
        clock::wall(),
        record.target(),
        message.0
    )
}

/// Text with its control characters escaped as in a Rust string literal.
struct OneLine(String);

impl fmt::Write for OneLine {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            if char.is_control() {
                self.0.extend(char.escape_default());
            } else {
                self.0.push(char);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    #[test]
    fn pingora_log_messages_pass_only_at_debug_level() {
        let enabled = |target, level, limit| {
            is_enabled(
                &Metadata::builder().target(target).level(level).build(),
                limit,
            )
        };
        for (target, level, limit, expected) in [
            ("clockwise::probe", Level::Info, LevelFilter::Info, true),
            ("clockwise::probe", Level::Debug, LevelFilter::Info, false),
            ("clockwise", Level::Error, LevelFilter::Off, false),
            ("pingora_proxy", Level::Error, LevelFilter::Info, false),
            (
                "pingora_core::protocols::http::v1",
                Level::Warn,
                LevelFilter::Warn,
                false,
            ),
            (
                "pingora_proxy::proxy_h1",
                Level::Error,
                LevelFilter::Debug,
                true,
            ),
            (
                "pingora_load_balancing",
                Level::Warn,
                LevelFilter::Info,
                true,
            ),
        ] {
            assert_eq!(
                enabled(target, level, limit),
                expected,
                "{target} {level} {limit}"
            );
        }
    }

    #[test]
    fn log_message_control_characters_are_escaped() {
        let mut message = OneLine(String::new());
        write!(message, "a\nb\x1b[2J\u{9b} é").unwrap();
        assert_eq!(message.0, "a\\nb\\u{1b}[2J\\u{9b} é");
    }

    #[test]
    fn log_rate_limit_passes_a_repeated_message_once_per_interval() {
        let second = Duration::from_secs;
        let warning = LogRateLimit::every(second(10));
        let answers = [0, 1, 9, 10, 11, 30].map(|at| warning.try_acquire(second(at)));
        assert_eq!(answers, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
