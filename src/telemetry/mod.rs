//! What the process tells the outside about itself: counters, one line per request, an error log.
//!
//! ```text
//!  request ──► metrics (atomics)                       ──► GET /metrics
//!          ──► access_log::Record ──► writer (thread)  ──► file or stdout
//!  process ──► log                                     ──► stderr
//! ```
//!
//! Nothing here decides anything about a request, and nothing here makes a request wait: a counter
//! is one atomic addition, a log line is one copy into a buffer that another thread empties. What
//! cannot be written is dropped and counted.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;

pub use self::access_log::{AccessLogRecord, LoggedProxyHeader, LoggedTls};
pub use self::log_writer::LogWriter;
pub use self::metrics::Metrics;
use crate::clock;
use crate::config::{AccessLogConfig, Config};

pub mod access_log;
mod counter_carryover;
pub mod error_log;
mod histogram;
pub mod log_writer;
mod metric_group;
pub mod metrics;

/// Where requests are counted and logged; one per process.
#[derive(Debug)]
pub struct Telemetry {
    /// The counters.
    pub metrics: Metrics,
    access_log: ArcSwap<LogWriter>,
}

impl Telemetry {
    /// Zero counts and an open access log; fails where that cannot be opened.
    pub fn open(config: &Config) -> io::Result<Self> {
        let telemetry = Self {
            metrics: Metrics::new(env!("CARGO_PKG_VERSION"), clock::wall()),
            access_log: ArcSwap::from_pointee(LogWriter::off()),
        };
        telemetry.replace_log(telemetry.open_log(&config.access_log)?);
        Ok(telemetry)
    }

    /// Opens another access log, for [`Self::log_to`]. Blocks for as long as the disk does.
    pub fn open_log(&self, destination: &AccessLogConfig) -> io::Result<LogWriter> {
        LogWriter::open(destination, self.metrics.process.log_dropped.clone())
    }

    /// Puts another access log in use and returns the one before, which gets all lines up to now:
    /// to drop it blocks for up to two seconds.
    pub fn replace_log(&self, log: LogWriter) -> Arc<LogWriter> {
        self.access_log.swap(Arc::new(log))
    }

    /// Logs one request; never waits.
    pub fn log(&self, record: &AccessLogRecord) {
        record.log(&self.access_log.load());
    }

    /// Reopens the access log's file, see [`LogWriter::reopen`].
    pub fn reopen(&self) {
        self.access_log.load().reopen();
    }

    /// Writes the access log's last lines and closes it; what is logged later is lost. Blocks for up
    /// to two seconds.
    pub fn close(&self) {
        self.access_log.store(Arc::new(LogWriter::off()));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn access_log_new_destination_receives_following_lines() {
        let dir = tempfile::tempdir().unwrap();
        let telemetry = Telemetry {
            metrics: Metrics::new("1", jiff::Timestamp::UNIX_EPOCH),
            access_log: ArcSwap::from_pointee(LogWriter::off()),
        };
        let files = ["a", "b"].map(|name| dir.path().join(name));
        for file in &files {
            let log = telemetry.open_log(&AccessLogConfig::File(file.clone()));
            drop(telemetry.replace_log(log.unwrap()));
            telemetry.access_log.load().append(b"x\n");
        }
        telemetry
            .open_log(&AccessLogConfig::File(dir.path().join("no/where")))
            .unwrap_err();
        telemetry.close();
        assert!(telemetry.access_log.load().is_off());
        for file in &files {
            assert_eq!(fs::read(file).unwrap(), b"x\n");
        }
    }
}
