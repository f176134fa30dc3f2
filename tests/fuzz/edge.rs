//! The process under test.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;

/// A running process, killed when it is dropped.
pub(crate) struct Edge {
    child: Mutex<Child>,
    directory: TempDir,
    /// The address of its first listener.
    pub(crate) address: SocketAddr,
}

impl Edge {
    /// Starts the program with this configuration and a control socket, and waits until it is ready. `carrier`: the way of
    /// HTTP/1 through it; `None`: the usual one.
    pub(crate) fn start(yaml: &str, carrier: Option<&str>, stdout: Stdio) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let control = directory.path().join("control");
        let yaml = format!("control: {}\n{yaml}", control.display());
        fs::write(directory.path().join("clockwise.yaml"), yaml).expect("writable");
        let log = fs::File::create(directory.path().join("log")).expect("writable");
        let mut command = Command::new(env!("CARGO_BIN_EXE_clockwise"));
        command
            .args(["run", "-c", "clockwise.yaml"])
            .current_dir(directory.path())
            .env("XDG_RUNTIME_DIR", directory.path())
            .envs(carrier.map(|carrier| ("CLOCKWISE_HTTP1", carrier)))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(log);
        let mut child = command.spawn().expect("the program starts");
        let address = loop {
            if let Some(address) = bound_address(&control) {
                break address;
            }
            let ended = child.try_wait().expect("a child process");
            let log = || fs::read_to_string(directory.path().join("log")).unwrap_or_default();
            assert!(ended.is_none(), "the program ended: {}", log());
            thread::sleep(Duration::from_millis(20));
        };
        Self {
            child: Mutex::new(child),
            directory,
            address,
        }
    }

    /// Memory in use; KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.lock().id());
        let status = fs::read_to_string(status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap_or(u64::MAX)
    }

    /// The lines of its standard error that tell of a panic.
    pub(crate) fn panics(&self) -> String {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines = log.lines().filter(|line| line.contains("panic"));
        lines.take(20).collect::<Vec<_>>().join("\n")
    }

    /// Whether the process still runs.
    pub(crate) fn is_running(&self) -> bool {
        let ended = self.child.lock().try_wait();
        ended.is_ok_and(|ended| ended.is_none())
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The address of the listener, once the process is ready.
fn bound_address(control: &Path) -> Option<SocketAddr> {
    let mut stream = UnixStream::connect(control).ok()?;
    let request = b"GET /v1/status HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    stream.write_all(request).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n")?;
    let status: Value = serde_json::from_slice(answer.get(body + 4..)?).ok()?;
    status["listeners"][0]["bound"].as_str()?.parse().ok()
}
