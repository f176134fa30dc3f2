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
pub(crate) use self::hex::hex_digits;
pub(crate) use self::log_writer::LogWriter;
pub(crate) use self::metrics::Metrics;
pub(crate) use self::source_metrics::{SourceMetrics, SourceUpdateResult};
use crate::clock;
use crate::config::{AccessLogConfig, Config};

pub(crate) mod access_log;
mod counter_carryover;
pub(crate) mod error_log;
mod hex;
mod histogram;
pub(crate) mod log_writer;
mod metric_group;
pub(crate) mod metrics;
mod prometheus_text;
mod source_metrics;

/// The metrics and the access log of the process.
#[derive(Debug)]
pub(crate) struct Telemetry {
    /// The counters.
    pub metrics: Metrics,
    access_log: ArcSwap<LogWriter>,
}

/// The destinations that a new configuration adds: open, and not in use yet.
#[derive(Debug)]
pub(crate) struct PreparedTelemetry {
    /// `None`: the access log stays.
    access_log: Option<LogWriter>,
}

/// The destinations that are out of use. A drop writes their last lines, and blocks for up to two seconds.
#[derive(Debug)]
pub(crate) struct ReplacedTelemetry {
    _access_log: Option<Arc<LogWriter>>,
}

impl Telemetry {
    /// Metrics that start at zero, and an open access log.
    ///
    /// # Errors
    /// The access log cannot be opened.
    pub(crate) fn open(config: &Config) -> io::Result<Self> {
        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), clock::wall());
        let access_log = open_log(&metrics, &config.access_log)?;
        Ok(Self {
            metrics,
            access_log: ArcSwap::from_pointee(access_log),
        })
    }

    /// Opens the destinations of `after` that `before` has not. Blocks for as long as the disk does.
    ///
    /// # Errors
    /// A message: a destination cannot be opened.
    pub(crate) fn prepare(
        &self,
        before: &Config,
        after: &Config,
    ) -> Result<PreparedTelemetry, String> {
        let open = || {
            open_log(&self.metrics, &after.access_log)
                .map_err(|error| format!("cannot open the access log: {error}"))
        };
        let is_new = before.access_log != after.access_log;
        Ok(PreparedTelemetry {
            access_log: is_new.then(open).transpose()?,
        })
    }

    /// Puts the prepared destinations in use.
    pub(crate) fn replace(&self, prepared: PreparedTelemetry) -> ReplacedTelemetry {
        let replace = |log| self.access_log.swap(Arc::new(log));
        ReplacedTelemetry {
            _access_log: prepared.access_log.map(replace),
        }
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

fn open_log(metrics: &Metrics, destination: &AccessLogConfig) -> io::Result<LogWriter> {
    LogWriter::open(destination, metrics.process.log_dropped.clone())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn logging_to(file: &Path) -> Config {
        let text = format!(
            "access_log: {{path: \"{}\"}}\nlisteners: [{{address: \"127.0.0.1:0\"}}]\nroutes: [{{upstream: app}}]\n\
             upstreams: {{app: {{peers: [\"127.0.0.1:1\"]}}}}",
            file.display()
        );
        crate::config::parse("test", &text).unwrap()
    }

    #[test]
    fn access_log_new_destination_receives_following_lines() {
        let dir = tempfile::tempdir().unwrap();
        let configs = ["a", "b"].map(|name| logging_to(&dir.path().join(name)));
        let telemetry = Telemetry::open(&configs[0]).unwrap();
        telemetry.access_log.load().append(b"a\n");
        let same = telemetry.prepare(&configs[0], &configs[0]).unwrap();
        assert!(same.access_log.is_none());
        let prepared = telemetry.prepare(&configs[0], &configs[1]).unwrap();
        drop(telemetry.replace(prepared));
        telemetry.access_log.load().append(b"b\n");
        let missing = logging_to(&dir.path().join("no/where"));
        let error = telemetry.prepare(&configs[1], &missing).unwrap_err();
        assert!(error.starts_with("cannot open the access log"), "{error}");
        telemetry.close();
        assert!(telemetry.access_log.load().is_off());
        for name in ["a", "b"] {
            let text = fs::read_to_string(dir.path().join(name)).unwrap();
            assert_eq!(text, format!("{name}\n"));
        }
    }
}
