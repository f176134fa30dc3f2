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
use std::time::Duration;

use arc_swap::ArcSwap;

pub use self::access_log::Record;
pub use self::metrics::Metrics;
pub use self::writer::LogWriter;
use crate::config::AccessLog;

pub mod access_log;
mod group;
mod histogram;
pub mod log;
pub mod metrics;
pub mod writer;

/// Where requests are counted and logged; one per process.
#[derive(Debug)]
pub struct Telemetry {
    /// The counters.
    pub metrics: Metrics,
    access_log: ArcSwap<LogWriter>,
}

impl Telemetry {
    /// Without an access log; [`Telemetry::log_to`] opens one.
    pub fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            access_log: ArcSwap::from_pointee(LogWriter::off()),
        }
    }

    /// Opens another access log and closes the one in use, which gets all lines up to now. Fails,
    /// and changes nothing, where it cannot be opened. Blocks for up to two seconds.
    pub fn log_to(&self, destination: &AccessLog) -> io::Result<()> {
        let dropped = self.metrics.process.log_dropped.clone();
        let writer = LogWriter::open(destination, dropped)?;
        self.access_log.store(Arc::new(writer));
        Ok(())
    }

    /// Logs one request; never waits.
    pub fn log(&self, record: &Record) {
        record.log(&self.access_log.load());
    }

    /// See [`LogWriter::reopen`].
    pub fn reopen_log(&self) {
        self.access_log.load().reopen();
    }

    /// See [`LogWriter::flush`].
    pub fn flush_log(&self, patience: Duration) -> bool {
        self.access_log.load().flush(patience)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn another_destination_gets_the_lines_from_then_on() {
        let dir = tempfile::tempdir().unwrap();
        let telemetry = Telemetry::new(Metrics::new("1", jiff::Timestamp::UNIX_EPOCH));
        let files = ["a", "b"].map(|name| dir.path().join(name));
        for file in &files {
            telemetry.log_to(&AccessLog::File(file.clone())).unwrap();
            telemetry.access_log.load().append(b"x\n");
        }
        telemetry
            .log_to(&AccessLog::File(dir.path().join("no/where")))
            .unwrap_err();
        assert!(telemetry.flush_log(Duration::from_secs(10)));
        for file in &files {
            assert_eq!(fs::read(file).unwrap(), b"x\n");
        }
    }
}
