//! The two processes under test: the same configuration, one on each way of HTTP/1.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixStream, unix::pipe};
use tokio::sync::Notify;

use super::client::FORWARDED_NET;
use super::origin::Origin;

/// The path of each route, and the settings of its upstream.
pub(super) const ROUTES: &[(&str, &str)] = &[
    ("/plain", "{key: client_ip, retry: off, peers: [A]}"),
    (
        "/retry",
        "{key: [{header: x-user}, client_ip], retry: {attempts: 3}, peers: [A, B]}",
    ),
    (
        "/sticky",
        "{key: {cookie: {name: cw, generate: true, ttl: 1h, refresh: true}}, peers: [A]}",
    ),
    ("/limit", "{key: client_ip, retry: off, peers: [A]}"),
    (
        "/short",
        "{key: client_ip, retry: off, timeouts: {connect: 30s, first_byte: 1s, read: 1s}, peers: [A]}",
    ),
    (
        "/reject",
        "{key: {header: x-user}, missing_key: reject, host_header: peer, peers: [A]}",
    ),
    (
        "/methods",
        "{key: [{query: k}, client_ip], host_header: fixed.test, peers: [A, B]}",
    ),
    ("/down", "{key: client_ip, peers: [DEAD]}"),
    (
        "/half",
        "{key: client_ip, retry: {attempts: 2}, peers: [DEAD, A]}",
    ),
];

/// The index of the route with short timeouts.
pub(super) const SHORT: usize = 4;

/// Lines of the access log by the client's address.
type Lines = Arc<Mutex<HashMap<Ipv4Addr, Vec<Value>>>>;

/// A running process.
pub(super) struct Edge {
    child: Mutex<Child>,
    _directory: TempDir,
    pub(super) address: SocketAddr,
    lines: Lines,
    /// A line came.
    pub(super) logged: Arc<Notify>,
}

impl Edge {
    /// Starts a process before these origins, one a slot, and waits until it is ready.
    pub(super) async fn start(carrier: &str, origins: &[Arc<Origin>], dead: SocketAddr) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let control = directory.path().join("control");
        let yaml = format!("control: {}\n{}", control.display(), config(origins, dead));
        fs::write(directory.path().join("clockwise.yaml"), yaml).expect("writable");
        let (log, stdout) = pipe::pipe().expect("a pipe");
        let mut command = Command::new(env!("CARGO_BIN_EXE_clockwise"));
        command
            .args(["run", "-c", "clockwise.yaml"])
            .current_dir(directory.path())
            .env("XDG_RUNTIME_DIR", directory.path())
            .env("CLOCKWISE_HTTP1", carrier)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(log.into_blocking_fd().expect("a descriptor"));
        let child = command.spawn().expect("the program starts");
        let (lines, logged) = (Lines::default(), Arc::new(Notify::new()));
        tokio::spawn(read_log(stdout, Arc::clone(&lines), Arc::clone(&logged)));
        let address = loop {
            if let Some(address) = bound_address(&control).await {
                break address;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        Self {
            child: Mutex::new(child),
            _directory: directory,
            address,
            lines,
            logged,
        }
    }

    /// Takes the lines of a client.
    pub(super) fn lines(&self, client: Ipv4Addr) -> Vec<Value> {
        let lines = self.lines.lock();
        lines.get(&client).cloned().unwrap_or_default()
    }

    /// Forgets the lines of a client.
    pub(super) fn forget(&self, client: Ipv4Addr) {
        self.lines.lock().remove(&client);
    }

    /// Whether the process still runs.
    pub(super) fn is_running(&self) -> bool {
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

fn config(origins: &[Arc<Origin>], dead: SocketAddr) -> String {
    let yaml = String::from(
        "listeners: [{address: \"127.0.0.1:0\"}]
admin: off
threads: 1
access_log: {path: stdout}
error_log: {level: off}
trusted_proxies: [127.128.0.0/9]
forwarding: {forwarded: true}
downstream: {keepalive_requests: 4, max_header_size: 4KiB, max_uri_length: 256}
",
    );
    let (mut routes, mut upstreams) = (String::from("routes:\n"), String::from("upstreams:\n"));
    for origin in origins {
        let name = &origin.name;
        for (path, settings) in ROUTES {
            let upstream = format!("{name}-{}", path.trim_matches('/'));
            let extra = match *path {
                "/limit" => ", max_body_size: 64",
                "/methods" => ", methods: [GET, HEAD, OPTIONS]",
                _ => "",
            };
            let _ = writeln!(
                routes,
                "  - {{host: {name}.test, path: {path}, upstream: {upstream}{extra}}}"
            );
            let peer = |label, address| format!("{{address: \"{address}\", label: {label}}}");
            let settings = settings
                .replace("DEAD", &peer("dead", dead))
                .replace('A', &peer("a", origin.addresses[0]))
                .replace('B', &peer("b", origin.addresses[1]))
                .replacen('{', "{health: off, outlier_detection: off, ", 1);
            // A busy machine must not look like a peer that does not answer.
            let has_timeouts = settings.contains("timeouts");
            let patience = if has_timeouts {
                ""
            } else {
                "timeouts: {connect: 30s}, "
            };
            let settings = settings.replacen('{', &format!("{{{patience}"), 1);
            let _ = writeln!(upstreams, "  {upstream}: {settings}");
        }
    }
    yaml + &routes + &upstreams
}

async fn read_log(stdout: pipe::Receiver, lines: Lines, logged: Arc<Notify>) {
    let mut reader = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = reader.next_line().await {
        let line: Value = serde_json::from_str(&line).expect("a line of the access log is JSON");
        let client: Option<Ipv4Addr> = line["client"].as_str().and_then(|it| it.parse().ok());
        let client = client.map(|it| match it.octets() {
            [FORWARDED_NET, a, b, c] => Ipv4Addr::new(127, a, b, c),
            _ => it,
        });
        let mut lines = lines.lock();
        lines
            .entry(client.unwrap_or(Ipv4Addr::UNSPECIFIED))
            .or_default()
            .push(line);
        logged.notify_waiters();
    }
}

/// The address of the listener, once the process is ready.
async fn bound_address(control: &std::path::Path) -> Option<SocketAddr> {
    let mut stream = UnixStream::connect(control).await.ok()?;
    let request = b"GET /v1/status HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n")?;
    let status: Value = serde_json::from_slice(answer.get(body + 4..)?).ok()?;
    status["listeners"][0]["bound"].as_str()?.parse().ok()
}
