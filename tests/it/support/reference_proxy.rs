//! Other load balancers: runs one with a configuration and finds the server of each key.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::thread;

use tempfile::TempDir;

use super::client::{Connection, Request};
use super::process::Process;

/// Concurrent connections.
const CLIENTS: usize = 8;

/// A running load balancer.
pub(crate) struct ReferenceProxy {
    pub(crate) address: SocketAddr,
    _process: Process,
    _directory: TempDir,
}

impl ReferenceProxy {
    /// Starts `program`, which must listen on `address`, in a new directory with these files. `@DIR@` in files
    /// and arguments is replaced by the directory. Panics if the program is not installed; `tests/install.sh`
    /// installs it.
    pub(crate) fn start(
        program: &str,
        arguments: &[&str],
        address: SocketAddr,
        files: &[(&str, &str)],
    ) -> Self {
        let (mut command, directory) = prepare(program, arguments, files);
        Self {
            address,
            _process: Process::listening(program, &mut command, address),
            _directory: directory,
        }
    }

    /// The responses to all requests, over a few keep-alive connections.
    pub(crate) fn ask_all(&self, requests: &[Request]) -> Vec<String> {
        let address = self.address;
        spread(requests, |part| {
            let mut connection = Connection::open(address);
            let mut ask = |request| {
                let response = connection.exchange(request).expect("an answer");
                assert_eq!(response.status, 200, "{response:?}");
                if response.closes() {
                    connection = Connection::open(address);
                }
                response.text()
            };
            part.iter().map(&mut ask).collect()
        })
    }

    /// The responses to one request from each of these addresses.
    pub(crate) fn ask_from(&self, sources: &[IpAddr]) -> Vec<String> {
        spread(sources, |part| {
            let ask = |source: &IpAddr| ask_from(*source, self.address).expect("an answer");
            part.iter().map(ask).collect()
        })
    }
}

/// Runs `program` to its exit; returns its stdout.
pub(crate) fn output(program: &str, arguments: &[&str], files: &[(&str, &str)]) -> String {
    let (mut command, _directory) = prepare(program, arguments, files);
    let output = command.output().expect(program);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn prepare(program: &str, arguments: &[&str], files: &[(&str, &str)]) -> (Command, TempDir) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = directory.path().display().to_string();
    for (name, text) in files {
        let text = text.replace("@DIR@", &place);
        fs::write(directory.path().join(name), text).expect("writable");
    }
    let mut command = Command::new(program);
    let arguments = arguments.iter();
    command.args(arguments.map(|argument| argument.replace("@DIR@", &place)));
    command.current_dir(directory.path());
    command
        .env("PATH", search_path())
        .env("HOME", directory.path());
    (command, directory)
}

/// The response to a request from this source address.
pub(crate) fn ask_from(source: IpAddr, address: SocketAddr) -> io::Result<String> {
    Ok(Connection::from(source, address)?.get("/")?.text())
}

/// Runs `work` on one part of `all` per client, concurrently, and concatenates the results.
pub(crate) fn spread<T: Sync>(all: &[T], work: impl Fn(&[T]) -> Vec<String> + Sync) -> Vec<String> {
    let work = &work;
    thread::scope(|scope| {
        let parts: Vec<_> = all
            .chunks(all.len().div_ceil(CLIENTS))
            .map(|part| scope.spawn(move || work(part)))
            .collect();
        let answers = parts.into_iter().map(|part| part.join().expect("a client"));
        answers.flatten().collect()
    })
}

/// The search path of programs: first those that `tests/install.sh` has fetched, then Debian's daemons.
fn search_path() -> String {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.cache/venv/bin");
    let system = "/usr/sbin:/usr/local/sbin:/usr/bin:/bin:/usr/local/bin";
    format!("{}:{system}", fetched.display())
}
