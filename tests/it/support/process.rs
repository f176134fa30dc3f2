//! A child process with collected output, killed when its owner is dropped.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::wait;

/// A running child process, killed when dropped.
pub(crate) struct Process {
    child: Child,
    stdout: Output,
    stderr: Output,
}

/// The collected output of one stream.
type Output = Arc<Mutex<String>>;

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self::spawn_with(command, Stdio::null())
    }

    /// Spawns `program`, and waits until it listens on `address`. Panics if it is not installed: a test
    /// that needs it fails, it is never skipped.
    pub(crate) fn listening(program: &str, command: &mut Command, address: SocketAddr) -> Self {
        let mut process = Self::spawn(command);
        // A busy machine delays the start of some programs by more than the usual patience.
        wait::until_due(2 * wait::PATIENCE, &format!("{program} to listen"), || {
            assert!(
                process.exited().is_none(),
                "{program} stopped: {}{}",
                process.stdout(),
                process.stderr()
            );
            TcpStream::connect(address).is_ok()
        });
        process
    }

    /// Like [`Self::spawn`], with `stdin` as the child's standard input.
    pub(crate) fn spawn_with(command: &mut Command, stdin: Stdio) -> Self {
        command
            .stdin(stdin)
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

    /// Waits for its exit status; panics if it does not exit in time.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait::value("the process to exit", || self.exited())
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name: `TERM`, `USR1`.
    pub(crate) fn signal(&self, name: &str) {
        assert!(signal(self.child.id(), name), "no process to send {name}");
    }

    /// SIGKILL, and gone when this returns.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Before the kill: a crash of the program may be why the test fails.
        let ended = self.child.try_wait().ok().flatten();
        self.kill();
        if thread::panicking() {
            let id = self.child.id();
            let state = ended.map_or_else(|| "running".to_owned(), |status| status.to_string());
            eprintln!("--- stderr of process {id} ({state})\n{}---", self.stderr());
        }
    }
}

/// Writes a script that can be run. A shell writes it: what other tests start at this moment inherits our
/// descriptors for an instant, and a file that anybody has open for writing cannot be run (`ETXTBSY`).
pub(crate) fn write_script(path: &Path, text: &str) {
    let mut command = Command::new("sh");
    command.args(["-c", "printf %s \"$1\" >\"$0\" && chmod 755 \"$0\""]);
    let written = command.arg(path).arg(text).status();
    assert!(written.expect("sh").success(), "{}", path.display());
}

/// Sends a signal by name; true if the process exists.
pub(crate) fn signal(pid: u32, name: &str) -> bool {
    // The shell's own `kill`: /bin/kill is not on every small image.
    let command = format!("kill -{name} {pid}");
    let output = Command::new("sh").args(["-c", &command]).output();
    output.expect("sh").status.success()
}

/// The live processes that work in `directory`. Zombies have no directory any more.
pub(crate) fn all_in(directory: &Path) -> Vec<u32> {
    let works_here =
        |pid: &u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|place| place == directory);
    all().filter(works_here).collect()
}

/// The processes that `parent` has started and not yet waited for.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let line = format!("PPid:\t{parent}");
    let is_child = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/status"))
            .is_ok_and(|status| status.lines().any(|known| known == line))
    };
    all().filter(is_child).collect()
}

fn all() -> impl Iterator<Item = u32> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    processes.filter_map(|process| process.file_name().to_str()?.parse().ok())
}

/// Memory of a process that is in use; KiB.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.expect("VmRSS in KiB")
}

/// Memory of a process once it has not changed by more than 256 KiB for a second; KiB.
#[track_caller]
pub(crate) fn settled(pid: u32) -> u64 {
    let mut seen = (resident(pid), Instant::now());
    wait::value("the memory to settle", || {
        let now = resident(pid);
        if now.abs_diff(seen.0) > 256 {
            seen = (now, Instant::now());
        }
        (seen.1.elapsed() > Duration::from_secs(1)).then_some(now)
    })
}

/// Open descriptors of a process.
pub(crate) fn descriptors(pid: u32) -> usize {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process");
    open.count()
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
