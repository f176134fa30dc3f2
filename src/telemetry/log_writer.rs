//! Writes lines of many threads into one file; no thread waits for the disk.
//!
//! ```text
//!  request threads ──append──► pending (bounded, short lock) ──swap──► writer thread ──► sink
//! ```
//!
//! The writer thread swaps `pending` for an empty buffer and writes outside the lock. It is woken once
//! per batch, not once per line: by the first line, and at [`BATCH_BYTES`]. Invariants:
//!
//! * A line is written whole and in order, or dropped and counted; `append` never waits for I/O.
//! * A failed write is repeated; meanwhile `pending` fills up, then lines are dropped.
//! * A renamed file gets the lines appended before [`LogWriter::reopen`]; a line that was written to it
//!   in part is written again, whole, to the new file.
//! * A blocked sink never keeps the process from exiting: every wait has a deadline.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;

use super::error_log::LogRateLimit;
use crate::clock;
use crate::config::AccessLogConfig;

/// The most bytes that may wait for the sink; further lines are dropped.
const CAPACITY: usize = 4 << 20;
/// Bytes that start a write at once. Two such buffers fit into the L2 cache of a core.
const BATCH_BYTES: usize = 256 << 10;
/// How long the first line of a batch waits for further lines.
const BATCH_DELAY: Duration = Duration::from_millis(50);
/// The pause after a failed write.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// How long dropping a writer waits for its last lines to be written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The handle by which all threads append to an access log.
#[derive(Debug)]
pub(crate) struct LogWriter(Option<Arc<WriterShared>>);

impl LogWriter {
    /// Opens the destination and starts the writer thread; `dropped` counts lines that cannot be written.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread cannot be started.
    pub(crate) fn open(destination: &AccessLogConfig, dropped: Counter) -> io::Result<Self> {
        let sink = match destination {
            AccessLogConfig::Off => return Ok(Self::off()),
            AccessLogConfig::Stdout => LogSink::stdout()?,
            AccessLogConfig::File(path) => LogSink::file(path.clone())?,
        };
        Self::start(sink, dropped)
    }

    /// A writer that writes nothing.
    pub(crate) const fn off() -> Self {
        Self(None)
    }

    /// Whether lines are discarded, so that none needs to be rendered.
    pub(crate) const fn is_off(&self) -> bool {
        self.0.is_none()
    }

    /// Appends one line, with its line feed; drops and counts it if the buffer is full.
    pub(crate) fn append(&self, line: &[u8]) {
        if let Some(shared) = &self.0 {
            shared.append(line);
        }
    }

    /// Asks the writer thread to reopen the file after the lines appended so far are in the old file. If that
    /// fails, the old file stays in use and the error log has the reason. Does not wait.
    pub(crate) fn reopen(&self) {
        if let Some(shared) = &self.0 {
            shared.state.lock().commands.reopen = true;
            shared.wake.notify_one();
        }
    }

    /// Waits until the lines appended so far are written and a requested reopen is done; `false`: not
    /// within `timeout`. Blocks its thread.
    #[cfg(test)]
    fn flush(&self, timeout: Duration) -> bool {
        self.0.as_ref().is_none_or(|shared| shared.flush(timeout))
    }

    fn start(sink: LogSink, dropped: Counter) -> io::Result<Self> {
        let shared = Arc::new(WriterShared::new(dropped));
        let writer = WriterThread::new(sink, Arc::clone(&shared));
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run())?;
        Ok(Self(Some(shared)))
    }
}

/// Writes the last lines, for up to [`CLOSE_TIMEOUT`].
impl Drop for LogWriter {
    fn drop(&mut self) {
        let Some(shared) = &self.0 else { return };
        if !shared.flush(CLOSE_TIMEOUT) {
            log::error!("access log: the last lines were not written within {CLOSE_TIMEOUT:?}");
        }
        // Not joined: a thread that is blocked in a write must not keep the process from exiting.
        shared.state.lock().commands.stop = true;
        shared.wake.notify_one();
    }
}

#[derive(Debug)]
struct WriterShared {
    state: Mutex<WriterState>,
    /// Signals work to the writer thread.
    wake: Condvar,
    /// Signals a finished batch to threads in `flush`.
    done: Condvar,
    dropped: Counter,
}

#[derive(Debug)]
struct WriterState {
    pending: Vec<u8>,
    /// The writer thread sleeps until something is appended.
    idle: bool,
    /// A thread waits in `flush`: write without waiting for more lines.
    flush_requested: bool,
    commands: WriterCommands,
    /// Batches that the writer thread has started.
    taken: u64,
    /// Batches that the writer thread has finished.
    finished: u64,
}

impl WriterShared {
    fn new(dropped: Counter) -> Self {
        let state = WriterState {
            // This reserves address space: a page uses memory only after a line was written to it. The buffer is
            // never reallocated, so no request copies the lines of other requests.
            pending: Vec::with_capacity(CAPACITY),
            idle: false,
            flush_requested: false,
            commands: WriterCommands::default(),
            taken: 0,
            finished: 0,
        };
        Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
            done: Condvar::new(),
            dropped,
        }
    }

    fn append(&self, line: &[u8]) {
        let mut state = self.state.lock();
        let before = state.pending.len();
        let after = before + line.len();
        if after > CAPACITY {
            drop(state);
            self.dropped.inc();
            return;
        }
        state.pending.extend_from_slice(line);
        // Only the line that reaches a threshold wakes the thread: a wake-up is a system call.
        let wake = mem::take(&mut state.idle) || (before < BATCH_BYTES && after >= BATCH_BYTES);
        drop(state);
        if wake {
            self.wake.notify_one();
        }
    }

    fn flush(&self, timeout: Duration) -> bool {
        let deadline = clock::now() + timeout;
        let mut state = self.state.lock();
        // The batch in progress may not hold the last line: wait for the one after it.
        let wanted = state.taken + 1;
        state.flush_requested = true;
        self.wake.notify_one();
        while state.finished < wanted {
            if self.done.wait_until(&mut state, deadline).timed_out() {
                return state.finished >= wanted;
            }
        }
        true
    }
}

impl WriterState {
    fn is_due(&self) -> bool {
        self.pending.len() >= BATCH_BYTES || self.has_command()
    }

    fn has_command(&self) -> bool {
        self.flush_requested || self.commands.reopen || self.commands.stop
    }

    /// Takes the commands; a reopen is done once, a stop stays.
    fn take_commands(&mut self) -> WriterCommands {
        let commands = self.commands;
        self.commands.reopen = false;
        commands
    }
}

/// The thread behind a [`LogWriter`].
struct WriterThread {
    shared: Arc<WriterShared>,
    sink: LogSink,
    /// The lines in progress.
    batch: Vec<u8>,
    /// Bytes of `batch` that the sink has taken.
    written: usize,
    error_log_limit: LogRateLimit,
}

/// Commands to the writer thread.
#[derive(Clone, Copy, Debug, Default)]
struct WriterCommands {
    reopen: bool,
    stop: bool,
}

impl WriterThread {
    fn new(sink: LogSink, shared: Arc<WriterShared>) -> Self {
        Self {
            shared,
            sink,
            batch: Vec::with_capacity(CAPACITY),
            written: 0,
            error_log_limit: LogRateLimit::every(Duration::from_secs(10)),
        }
    }

    fn run(mut self) {
        loop {
            let commands = if self.is_written() {
                self.next_batch()
            } else {
                self.wait_retry()
            };
            self.write();
            if commands.reopen && self.reopen() {
                self.write();
            }
            if self.is_written() {
                self.mark_finished();
            }
            if commands.stop {
                return self.count_unwritten();
            }
        }
    }

    /// Waits for work and swaps the buffers.
    fn next_batch(&mut self) -> WriterCommands {
        let mut state = self.shared.state.lock();
        while state.pending.is_empty() && !state.has_command() {
            state.idle = true;
            self.shared.wake.wait(&mut state);
        }
        state.idle = false;
        let deadline = clock::now() + BATCH_DELAY;
        while !state.is_due()
            && !self
                .shared
                .wake
                .wait_until(&mut state, deadline)
                .timed_out()
        {}
        self.batch.clear();
        self.written = 0;
        mem::swap(&mut state.pending, &mut self.batch);
        state.flush_requested = false;
        state.taken += 1;
        state.take_commands()
    }

    /// Waits until a failed batch may be written again.
    fn wait_retry(&self) -> WriterCommands {
        let mut state = self.shared.state.lock();
        let deadline = clock::now() + RETRY_DELAY;
        while !state.commands.reopen && !state.commands.stop {
            if self
                .shared
                .wake
                .wait_until(&mut state, deadline)
                .timed_out()
            {
                break;
            }
        }
        state.take_commands()
    }

    fn write(&mut self) {
        if let Err(error) = self.write_rest() {
            self.log_error(&format_args!("access log: {error}"));
        }
    }

    fn write_rest(&mut self) -> io::Result<()> {
        while let Some(rest @ [_, ..]) = self.batch.get(self.written..) {
            match self.sink.file.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn is_written(&self) -> bool {
        self.written >= self.batch.len()
    }

    /// Whether there is a new file.
    fn reopen(&mut self) -> bool {
        match self.sink.reopened() {
            Ok(Some(sink)) => self.sink = sink,
            Ok(None) => return false,
            Err(error) => {
                log::error!(
                    "access log: cannot reopen the file, the old one stays in use: {error}"
                );
                return false;
            }
        }
        self.rewind();
        true
    }

    /// Goes back to the start of a line that was written in part.
    fn rewind(&mut self) {
        let written = self.batch.get(..self.written).unwrap_or_default();
        if !self.is_written() {
            self.written = written
                .iter()
                .rposition(|&b| b == b'\n')
                .map_or(0, |end| end + 1);
        }
    }

    fn mark_finished(&self) {
        let mut state = self.shared.state.lock();
        state.finished = state.taken;
        self.shared.done.notify_all();
    }

    /// Counts the lines that will never be written.
    fn count_unwritten(self) {
        let rest = self.batch.get(self.written..).unwrap_or_default();
        let state = self.shared.state.lock();
        self.shared
            .dropped
            .inc_by(count_lines(rest) + count_lines(&state.pending));
    }

    fn log_error(&self, message: &fmt::Arguments<'_>) {
        if let Some(suppressed) = self.error_log_limit.try_acquire(clock::since_start()) {
            let repeated = if suppressed == 0 {
                String::new()
            } else {
                format!(" ({suppressed} more times)")
            };
            log::error!("{message}{repeated}");
        }
    }
}

fn count_lines(text: &[u8]) -> u64 {
    text.iter().map(|&byte| u64::from(byte == b'\n')).sum()
}

/// An open destination.
#[derive(Debug)]
struct LogSink {
    file: File,
    /// `None`: not a named file, so it cannot be reopened.
    path: Option<PathBuf>,
}

impl LogSink {
    /// A copy of the descriptor: [`io::stdout`] itself would buffer a partial line.
    fn stdout() -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self { file, path: None })
    }

    fn file(path: PathBuf) -> io::Result<Self> {
        let file = open_append(&path)?;
        Ok(Self {
            file,
            path: Some(path),
        })
    }

    fn reopened(&self) -> io::Result<Option<Self>> {
        self.path.clone().map(Self::file).transpose()
    }
}

/// Mode 0640: the log holds addresses of clients.
fn open_append(path: &Path) -> io::Result<File> {
    // Opening a named pipe without a reader blocks; opened for reading as well, it does not.
    let is_pipe = fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo());
    OpenOptions::new()
        .append(true)
        .create(true)
        .read(is_pipe)
        .mode(0o640)
        .open(path)
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read};
    use std::os::fd::OwnedFd;
    use std::process::Command;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn log_writer_loses_or_tears_no_line_across_threads() {
        let (dir, path) = log_file();
        let dropped = Counter::default();
        let writer = open(&path, &dropped);
        thread::scope(|scope| {
            for t in 0..8 {
                let writer = &writer;
                scope.spawn(move || append_numbered(writer, t, 20_000));
            }
        });
        drop(writer);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count() as u64 + dropped.get(), 160_000);
        let mut last = [None; 8];
        for line in text.lines() {
            let (t, n) = numbered(line);
            assert!(last[t] < Some(n), "out of order or twice: {line}");
            last[t] = Some(n);
        }
        drop(dir);
    }

    #[test]
    fn log_writer_writes_soon_without_a_flush() {
        let (_dir, path) = log_file();
        let writer = open(&path, &Counter::default());
        for n in 1..4 {
            writer.append(b"x\n");
            eventually(|| fs::read(&path).unwrap().len() == 2 * n);
        }
    }

    #[test]
    fn log_writer_on_a_blocked_pipe_drops_and_counts_then_resumes() {
        let (mut reader, writer, dropped) = piped();
        let line = [b"x".repeat(99), b"\n".to_vec()].concat();
        let total = 3 * CAPACITY / line.len();
        for _ in 0..total {
            writer.append(&line);
        }
        assert!(dropped.get() > 0);
        assert!(!writer.flush(Duration::from_millis(50)));
        let reading = thread::spawn(move || {
            let mut text = Vec::new();
            reader.read_to_end(&mut text).unwrap();
            text
        });
        assert!(writer.flush(SOON));
        writer.append(b"last\n");
        drop(writer);
        let text = reading.join().unwrap();
        assert!(text.ends_with(b"x\nlast\n"));
        assert_eq!(count_lines(&text) - 1 + dropped.get(), total as u64);
    }

    #[test]
    fn log_writer_on_a_blocked_pipe_does_not_delay_exit() {
        let (_reader, writer, _) = piped();
        writer.append(&b"x\n".repeat(CAPACITY / 4));
        let before = clock::now();
        drop(writer);
        assert!(before.elapsed() < CLOSE_TIMEOUT + Duration::from_secs(1));
    }

    #[test]
    fn log_writer_on_a_closed_pipe_counts_lost_lines() {
        let (reader, writer, dropped) = piped();
        drop(reader);
        writer.append(b"a\nb\n");
        assert!(!writer.flush(Duration::from_millis(100)));
        drop(writer);
        eventually(|| dropped.get() == 2);
    }

    #[test]
    fn log_writer_retries_after_disk_full() {
        let (_dir, path) = log_file();
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let writer = open(&path, &Counter::default());
        writer.append(b"a\n");
        assert!(!writer.flush(Duration::from_millis(100)));
        fs::remove_file(&path).unwrap();
        writer.reopen();
        assert!(writer.flush(SOON));
        assert_eq!(fs::read(&path).unwrap(), b"a\n");
    }

    #[test]
    fn log_writer_rotation_splits_between_lines() {
        let (dir, path) = log_file();
        let old = dir.path().join("old");
        let writer = open(&path, &Counter::default());
        writer.append(b"before\n");
        fs::rename(&path, &old).unwrap();
        writer.reopen();
        assert!(writer.flush(SOON));
        writer.append(b"after\n");
        drop(writer);
        assert_eq!(fs::read(&old).unwrap(), b"before\n");
        assert_eq!(fs::read(&path).unwrap(), b"after\n");
    }

    #[test]
    fn log_writer_rotation_under_load_loses_no_line() {
        let (dir, path) = log_file();
        let dropped = Counter::default();
        let writer = open(&path, &dropped);
        thread::scope(|scope| {
            let writer = &writer;
            scope.spawn(move || append_numbered(writer, 0, 200_000));
            for turn in 0..10 {
                fs::rename(&path, dir.path().join(turn.to_string())).unwrap();
                writer.reopen();
                assert!(writer.flush(SOON));
            }
        });
        drop(writer);
        let files = (0..10)
            .map(|turn| dir.path().join(turn.to_string()))
            .chain([path]);
        let text: String = files
            .map(|file| fs::read_to_string(file).unwrap())
            .collect();
        let numbers: Vec<_> = text.lines().map(|line| numbered(line).1).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b));
        assert_eq!(numbers.len() as u64 + dropped.get(), 200_000);
    }

    #[test]
    fn log_writer_reopen_failure_keeps_the_open_file() {
        let (dir, path) = log_file();
        let old = dir.path().join("old");
        let writer = open(&path, &Counter::default());
        fs::rename(&path, &old).unwrap();
        fs::create_dir(&path).unwrap();
        writer.reopen();
        writer.append(b"x\n");
        assert!(writer.flush(SOON));
        assert_eq!(fs::read(&old).unwrap(), b"x\n");
    }

    #[test]
    fn log_writer_rewrites_a_partial_line_whole() {
        let (_reader, pipe) = io::pipe().unwrap();
        let mut writer =
            WriterThread::new(sink(pipe), Arc::new(WriterShared::new(Counter::default())));
        writer.batch.extend_from_slice(b"one\ntwo\n");
        for (written, rewound) in [(0, 0), (2, 0), (4, 4), (5, 4), (8, 8)] {
            writer.written = written;
            writer.rewind();
            assert_eq!(writer.written, rewound, "from {written}");
        }
    }

    #[test]
    fn log_writer_on_a_named_pipe_without_reader_does_not_block_the_start() {
        let (_dir, path) = log_file();
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        let writer = open(&path, &Counter::default());
        writer.append(b"x\n");
        assert!(writer.flush(SOON));
    }

    #[test]
    fn log_writer_open_failure_is_an_error() {
        let destination = AccessLogConfig::File("/nowhere/access.log".into());
        let error = LogWriter::open(&destination, Counter::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn log_writer_that_is_off_discards_everything() {
        let writer = LogWriter::open(&AccessLogConfig::Off, Counter::default()).unwrap();
        writer.append(b"x\n");
        writer.reopen();
        assert!(writer.is_off() && writer.flush(Duration::ZERO));
    }

    fn log_file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        (dir, path)
    }

    fn open(path: &Path, dropped: &Counter) -> LogWriter {
        LogWriter::open(&AccessLogConfig::File(path.into()), dropped.clone()).unwrap()
    }

    fn piped() -> (PipeReader, LogWriter, Counter) {
        let (reader, pipe) = io::pipe().unwrap();
        let dropped = Counter::default();
        let writer = LogWriter::start(sink(pipe), dropped.clone()).unwrap();
        (reader, writer, dropped)
    }

    fn sink(pipe: impl Into<OwnedFd>) -> LogSink {
        LogSink {
            file: pipe.into().into(),
            path: None,
        }
    }

    fn append_numbered(writer: &LogWriter, thread: usize, count: usize) {
        for n in 0..count {
            writer.append(format!("{thread} {n} {}\n", "x".repeat(n % 50)).as_bytes());
        }
    }

    /// Checks that a line of [`append_numbered`] is whole.
    fn numbered(line: &str) -> (usize, usize) {
        let mut words = line.split(' ');
        let mut number = || words.next().unwrap().parse::<usize>().unwrap();
        let (thread, n) = (number(), number());
        assert_eq!(words.next().unwrap().len(), n % 50, "{line}");
        (thread, n)
    }

    fn eventually(condition: impl Fn() -> bool) {
        for _ in 0..1_000 {
            if condition() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("the condition did not become true");
    }
}
