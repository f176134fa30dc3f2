//! Metrics, access log and error log.
//!
//! ```text
//!  request ──► metrics (atomics)                        ──► GET /metrics
//!          ──► AccessLogRecord ──► log_writer (thread)  ──► file or stdout
//!  process ──► error_log                                ──► stderr
//! ```
//!
//! Nothing here decides anything about a request, and nothing here makes a request wait: a counter
//! is one atomic addition, a log line is one copy into a buffer that another thread empties. A line
//! that cannot be written is dropped and counted.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;

pub(crate) use self::access_log::{AccessLogRecord, LoggedProxyHeader, LoggedTls};
pub(crate) use self::log_writer::LogWriter;
pub(crate) use self::metrics::Metrics;
use crate::clock;
use crate::config::{AccessLogConfig, Config};

pub(crate) mod access_log;
mod counter_carryover;
pub(crate) mod error_log;
mod histogram;
pub(crate) mod log_writer;
mod metric_group;
pub(crate) mod metrics;
mod prometheus_text;

/// The metrics and the access log of the process.
#[derive(Debug)]
pub(crate) struct Telemetry {
    /// The counters.
    pub metrics: Metrics,
    access_log: ArcSwap<LogWriter>,
}

impl Telemetry {
    /// Metrics that start at zero, and an open access log.
    ///
    /// # Errors
    /// The access log cannot be opened.
    pub(crate) fn open(config: &Config) -> io::Result<Self> {
        let telemetry = Self {
            metrics: Metrics::new(env!("CARGO_PKG_VERSION"), clock::wall()),
            access_log: ArcSwap::from_pointee(LogWriter::off()),
        };
        telemetry.replace_log(telemetry.open_log(&config.access_log)?);
        Ok(telemetry)
    }

    /// Opens another access log, for [`Self::replace_log`]. Blocks for as long as the disk does.
    ///
    /// # Errors
    /// The access log cannot be opened.
    pub(crate) fn open_log(&self, destination: &AccessLogConfig) -> io::Result<LogWriter> {
        LogWriter::open(destination, self.metrics.process.log_dropped.clone())
    }

    /// Puts another access log in use and returns the previous one. Dropping that writes its last
    /// lines, and blocks for up to two seconds.
    pub(crate) fn replace_log(&self, log: LogWriter) -> Arc<LogWriter> {
        self.access_log.swap(Arc::new(log))
    }

    /// Logs one request, without waiting.
    pub(crate) fn log(&self, record: &AccessLogRecord) {
        record.log(&self.access_log.load());
    }

    /// Reopens the file of the access log: see [`LogWriter::reopen`].
    pub(crate) fn reopen(&self) {
        self.access_log.load().reopen();
    }

    /// Writes the last lines of the access log and closes it; later lines are lost. Blocks for up to
    /// two seconds.
    pub(crate) fn close(&self) {
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
