//! The access log of a process under test, by client.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::Notify;

use super::client::FORWARDED_NET;

/// Lines of the access log by the client's address.
type Lines = Arc<Mutex<HashMap<Ipv4Addr, Vec<Value>>>>;

/// The lines that a process has written.
pub(super) struct AccessLog {
    lines: Lines,
    /// A line came.
    pub(super) logged: Arc<Notify>,
}

impl AccessLog {
    /// A log, and the standard output of the process that writes it.
    pub(super) fn pipe() -> (Self, Stdio) {
        let (writer, reader) = pipe::pipe().expect("a pipe");
        let (lines, logged) = (Lines::default(), Arc::new(Notify::new()));
        tokio::spawn(read(reader, Arc::clone(&lines), Arc::clone(&logged)));
        let writer = writer.into_blocking_fd().expect("a descriptor");
        (Self { lines, logged }, writer.into())
    }

    /// The lines of a client.
    pub(super) fn lines(&self, client: Ipv4Addr) -> Vec<Value> {
        let lines = self.lines.lock();
        lines.get(&client).cloned().unwrap_or_default()
    }

    /// Forgets the lines of a client.
    pub(super) fn forget(&self, client: Ipv4Addr) {
        self.lines.lock().remove(&client);
    }
}

async fn read(log: pipe::Receiver, lines: Lines, logged: Arc<Notify>) {
    let mut reader = BufReader::new(log).lines();
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
