//! A child process whose output is collected and which never outlives its owner.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use super::wait;

/// A running child; killed, by its own id, when dropped.
pub(crate) struct Process {
    child: Child,
    stdout: Output,
    stderr: Output,
}

/// What the child has written so far on one of its streams.
type Output = Arc<Mutex<String>>;

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = collect(child.stdout.take().expect("piped"));
        let stderr = collect(child.stderr.take().expect("piped"));
        Self {
            child,
            stdout,
            stderr,
        }
    }

    pub(crate) fn stdout(&self) -> String {
        self.stdout.lock().expect("not poisoned").clone()
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().expect("not poisoned").clone()
    }

    /// How it ended, if it has.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("own child")
    }

    /// How it ends; panics where it does not in time.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait::value("the process to exit", || self.exited())
    }

    /// Sends a signal by name: `TERM`, `USR1`.
    pub(crate) fn signal(&self, name: &str) {
        // The shell's own `kill`: /bin/kill is not on every small image.
        let command = format!("kill -{name} {}", self.child.id());
        let status = Command::new("sh")
            .args(["-c", &command])
            .status()
            .expect("sh");
        assert!(status.success(), "{command}");
    }

    /// SIGKILL, and gone when this returns.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!(
                "--- stderr of process {}\n{}---",
                self.child.id(),
                self.stderr()
            );
        }
    }
}

/// Reads to the end on a thread of its own, so that the child never blocks on a full pipe.
fn collect(stream: impl Read + Send + 'static) -> Output {
    let output = Output::default();
    let into = Arc::clone(&output);
    thread::spawn(move || {
        let mut lines = BufReader::new(stream);
        let mut line = Vec::new();
        while lines
            .read_until(b'\n', &mut line)
            .is_ok_and(|length| length > 0)
        {
            into.lock()
                .expect("not poisoned")
                .push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    output
}
