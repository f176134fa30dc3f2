//! The program under test with its configuration, from start to exit.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::admin::Admin;
use super::client::{self, Connection, Request, Response};
use super::log;
use super::process::{self, Process};
use super::wait;

/// Builds a configuration: one upstream `app` behind one route, plus the settings of the test.
///
/// Probes, ejection and retries are off unless the test sets them, so that they cannot move requests.
#[derive(Clone)]
pub(crate) struct ConfigBuilder {
    peers: Vec<String>,
    app: BTreeMap<String, String>,
    top: BTreeMap<String, String>,
}

impl ConfigBuilder {
    /// Peers as in YAML: an address, or a flow mapping.
    pub(crate) fn of<T: ToString>(peers: impl IntoIterator<Item = T>) -> Self {
        let site = Self {
            peers: Vec::new(),
            app: BTreeMap::new(),
            top: BTreeMap::new(),
        };
        let site = site.peers(peers);
        let site = site
            .app("key", "{query: k}")
            .app("health", "off")
            .app("outlier_detection", "off");
        let site = site
            .app("retry", "off")
            .top("listeners", "[{address: \"127.0.0.1:0\"}]");
        let site = site
            .top("admin", "{address: \"127.0.0.1:0\"}")
            .top("threads", "2");
        site.top("routes", "[{upstream: app}]")
    }

    /// Replaces the peers.
    pub(crate) fn peers<T: ToString>(mut self, peers: impl IntoIterator<Item = T>) -> Self {
        self.peers = peers.into_iter().map(|peer| peer.to_string()).collect();
        self
    }

    /// Sets one key of the upstream `app`.
    pub(crate) fn app(mut self, key: &str, value: &str) -> Self {
        self.app.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Sets one top-level key.
    pub(crate) fn top(mut self, key: &str, value: &str) -> Self {
        self.top.insert(key.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn downstream(self, value: &str) -> Self {
        self.top("downstream", value)
    }

    pub(crate) fn start(&self) -> Edge {
        Edge::start(&self.yaml())
    }

    pub(crate) fn yaml(&self) -> String {
        let mut text = String::new();
        for (key, value) in &self.top {
            let _ = writeln!(text, "{key}: {value}");
        }
        text += "upstreams:\n  app:\n";
        for (key, value) in &self.app {
            let _ = writeln!(text, "    {key}: {value}");
        }
        text += "    peers:\n";
        for peer in &self.peers {
            let _ = writeln!(text, "      - {peer}");
        }
        text
    }
}

/// A running instance.
pub(crate) struct Edge {
    process: Process,
    directory: TempDir,
    /// Variables of its environment, for [`Self::restart`] too.
    environment: Vec<(&'static str, OsString)>,
    /// The address of the first listener.
    pub(crate) address: SocketAddr,
    pub(crate) admin: Admin,
}

impl Edge {
    /// Starts the program with this YAML and waits until it is ready. Adds a control socket in the
    /// instance's own directory.
    pub(crate) fn start(yaml: &str) -> Self {
        let mut edge = Self::launch(yaml);
        edge.wait_until_ready();
        edge
    }

    /// [`Self::start`] with this carrier of plain HTTP/1: `engine` or `pingora`.
    pub(crate) fn start_with_carrier(carrier: &str, yaml: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        write_config(directory.path(), yaml);
        let mut command = run_command(Path::new(BINARY), directory.path());
        let process = Process::spawn(command.env("CLOCKWISE_HTTP1", carrier));
        let mut edge = Self::over(directory, process);
        edge.wait_until_ready();
        edge
    }

    /// [`Self::start`] without waiting: `address` is not known yet.
    pub(crate) fn launch(yaml: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self::launch_in(directory, Path::new(BINARY), yaml)
    }

    /// [`Self::launch`] with these variables in the environment of the program.
    pub(crate) fn launch_with(yaml: &str, environment: Vec<(&'static str, OsString)>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        write_config(directory.path(), yaml);
        let mut command = run_command(Path::new(BINARY), directory.path());
        let process = Process::spawn(command.envs(environment.iter().cloned()));
        let mut edge = Self::over(directory, process);
        edge.environment = environment;
        edge
    }

    /// [`Self::start`] through a symbolic link ([`Self::program`]), which can be pointed to another program.
    pub(crate) fn start_replaceable(yaml: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let program = directory.path().join(PROGRAM);
        symlink(BINARY, &program).expect("a program of its own");
        let mut edge = Self::launch_in(directory, &program, yaml);
        edge.wait_until_ready();
        edge
    }

    fn launch_in(directory: TempDir, program: &Path, yaml: &str) -> Self {
        write_config(directory.path(), yaml);
        let process = Process::spawn(&mut run_command(program, directory.path()));
        Self::over(directory, process)
    }

    fn over(directory: TempDir, process: Process) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let admin = Admin::over(directory.path().join(CONTROL));
        Self {
            process,
            directory,
            environment: Vec::new(),
            address,
            admin,
        }
    }

    /// Starts the program again in the same directory, after its exit.
    pub(crate) fn restart(&mut self) {
        let mut command = run_command(Path::new(BINARY), self.directory.path());
        self.process = Process::spawn(command.envs(self.environment.iter().cloned()));
        self.wait_until_ready();
    }

    /// Replaces the configuration file atomically, without a reload.
    pub(crate) fn rewrite(&self, yaml: &str) {
        write_config(self.directory(), yaml);
    }

    /// Runs a command against the instance's control socket, independent of the configuration file.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        let arguments = [arguments, &["--control", CONTROL]].concat();
        run(self.directory(), &arguments, "")
    }

    /// The id of the serving process; after an upgrade, not the one that was started.
    #[track_caller]
    pub(crate) fn pid(&self) -> u32 {
        let pid = self.admin.get("/v1/status").json()["pid"].as_u64();
        pid.and_then(|pid| u32::try_from(pid).ok())
            .expect("a process id")
    }

    /// The live processes of this instance: the first one and its descendants.
    pub(crate) fn processes(&self) -> Vec<u32> {
        process::all_in(self.directory())
    }

    /// The link that [`Self::start_replaceable`] made.
    pub(crate) fn program(&self) -> PathBuf {
        self.directory().join(PROGRAM)
    }

    /// The id of the first process, also after an upgrade.
    pub(crate) fn started_id(&self) -> u32 {
        self.process.id()
    }

    /// The first process, also after an upgrade.
    pub(crate) fn started(&mut self) -> &mut Process {
        &mut self.process
    }

    pub(crate) fn wait_until_ready(&mut self) {
        wait::until("the instance to be ready", || {
            let exited = self.process.exited();
            assert!(exited.is_none(), "exited at start: {exited:?}");
            self.admin
                .try_get("/readyz")
                .is_ok_and(|answer| answer.status == 200)
        });
        let status = self.admin.get("/v1/status").json();
        let bound = status["listeners"][0]["bound"].as_str();
        let bound = bound.unwrap_or_else(|| panic!("no bound address in {status}"));
        self.address = bound.parse().expect("an address");
    }

    /// Sends one request on a new connection.
    #[track_caller]
    pub(crate) fn send(&self, request: &Request) -> Response {
        client::send(self.address, request)
    }

    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> Response {
        self.send(&Request::get(target))
    }

    /// Waits until no request is in flight. Only then are reusable connections back in the pool: the client
    /// has its response earlier.
    #[track_caller]
    pub(crate) fn settle(&self) {
        wait::until("the requests to be over", || {
            self.admin.metric("clockwise_peer_in_flight", &[]) == 0
        });
    }

    /// Sends a request to an echoing origin; returns its JSON.
    #[track_caller]
    pub(crate) fn echo(&self, request: &Request) -> Value {
        let response = self.send(request);
        assert_eq!(response.status, 200, "{response:?}");
        response.json()
    }

    #[track_caller]
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// The instance's own directory, to which paths in its configuration are relative.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.directory.path().join(CONTROL)
    }

    /// Runs a command with the instance's configuration file; returns its stdout.
    #[track_caller]
    pub(crate) fn cli(&self, arguments: &[&str], input: &str) -> String {
        let arguments = [arguments, &CONFIG].concat();
        let output = run(self.directory(), &arguments, input);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The walk of each key of `app` by `ring owner --walk`: labels, owner first.
    pub(crate) fn predict(&self, keys: &[String], walk: usize) -> Vec<Vec<String>> {
        let walk = walk.to_string();
        let text = self.cli(
            &["ring", "owner", "-u", "app", "--walk", &walk, "-"],
            &keys.join("\n"),
        );
        let labels = |line: &str| line.split('\t').skip(1).map(str::to_owned).collect();
        let predicted: Vec<Vec<String>> = text.lines().map(labels).collect();
        assert_eq!(predicted.len(), keys.len(), "one line per key");
        predicted
    }

    /// Waits for `count` lines of the access log.
    #[track_caller]
    pub(crate) fn log_lines(&self, count: usize) -> Vec<Value> {
        log::lines(&self.access_log(), count)
    }

    /// Waits for a line of the access log that is `wanted`; returns the last one.
    #[track_caller]
    pub(crate) fn log_line(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        log::line(&self.access_log(), wanted)
    }

    /// The file of `access_log: {path: access.log}`.
    pub(crate) fn access_log(&self) -> PathBuf {
        self.directory().join("access.log")
    }

    pub(crate) fn stdout(&self) -> String {
        self.process.stdout()
    }

    pub(crate) fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// Waits until stderr contains `text` at least `times` times. A thread reads stderr, so a line may arrive
    /// there after the process's response or exit.
    #[track_caller]
    pub(crate) fn wait_for_stderr(&self, text: &str, times: usize) {
        wait::until(&format!("{text:?} on stderr"), || {
            self.stderr().matches(text).count() >= times
        });
    }

    /// Panics unless the listen backlog holds `count` connections while nothing accepts.
    #[track_caller]
    pub(crate) fn assert_places(&self, address: SocketAddr, count: usize) {
        self.signal("STOP");
        let limit = Duration::from_millis(500);
        let standing = (0..count).map(|_| TcpStream::connect_timeout(&address, limit));
        let standing = standing.collect::<Result<Vec<_>, _>>();
        self.signal("CONT");
        assert_eq!(standing.expect("a place for each").len(), count);
    }

    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Sends SIGTERM and waits until the instance is no longer ready.
    pub(crate) fn begin_stop(&self) {
        self.signal("TERM");
        wait::until("the instance to drain", || {
            self.admin
                .try_get("/readyz")
                .map_or(true, |answer| answer.status == 503)
        });
    }

    /// Stops the process that serves, which after an upgrade is not the one that was started, and waits until all have
    /// exited.
    pub(crate) fn stop_serving(&mut self) {
        process::signal(self.pid(), "TERM");
        wait::until("all processes to exit", || {
            self.exited();
            self.processes().is_empty()
        });
    }

    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.process.exited()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }
}

impl Drop for Edge {
    /// Kills the processes of upgrades: they are not children of the test and would outlive it.
    fn drop(&mut self) {
        for pid in self.processes() {
            process::signal(pid, "KILL");
        }
    }
}

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_clockwise");
const PROGRAM: &str = "clockwise";
const CONTROL: &str = "control.sock";
const CONFIG: [&str; 2] = ["-c", "clockwise.yaml"];

/// Replaces the file by a rename: a reader sees the whole old or the whole new file.
fn write_config(directory: &Path, yaml: &str) {
    let yaml = format!("control: {}\n{yaml}", directory.join(CONTROL).display());
    let new = directory.join("clockwise.yaml.new");
    fs::write(&new, yaml).expect("writable");
    fs::rename(new, directory.join(CONFIG[1])).expect("renamed");
}

fn run_command(program: &Path, directory: &Path) -> Command {
    let mut command = command(program, directory);
    command.arg("run").args(CONFIG);
    command
}

/// A command of the program with `directory` as its working directory.
pub(crate) fn binary(directory: &Path) -> Command {
    command(Path::new(BINARY), directory)
}

fn command(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    // Prevents use of the machine's real default control socket.
    command
        .current_dir(directory)
        .env("XDG_RUNTIME_DIR", directory)
        .env_remove("RUST_LOG");
    command
}

/// Runs the program to its exit with `input` on stdin.
pub(crate) fn run(directory: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = binary(directory);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary");
    let mut stdin = child.stdin.take().expect("piped");
    // On its own thread, because both pipes can be full at once.
    let input = input.to_owned();
    let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("its output");
    let _ = writer.join();
    output
}
