//! The demo's control server: stops and starts origins, and shows which keys moved.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};

use super::http::{get, read_target, write_text};
use super::origin::DemoOrigin;

/// The number of keys that `/keys` sends through the proxy.
const KEYS: usize = 1000;

/// How long `/start` waits for a passed health check; the demo's interval is 500 ms.
const START_TIMEOUT: Duration = Duration::from_secs(10);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

pub(super) struct DemoControlServer {
    pub(super) origins: Vec<Arc<DemoOrigin>>,
    pub(super) proxy: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) address: SocketAddr,
}

/// Which origin answered each key.
type KeyOwners = Vec<String>;

impl DemoControlServer {
    pub(super) async fn serve(self) {
        for origin in &self.origins {
            if let Err(error) = origin.start() {
                log::error!("origin {} cannot start: {error}", origin.name);
            }
        }
        match TcpListener::bind(self.address).await {
            Ok(listener) => self.serve_clients(listener).await,
            Err(error) => log::error!(
                "the control server cannot listen on {}: {error}",
                self.address
            ),
        }
    }

    /// Serves one client at a time: a demo has only one user.
    async fn serve_clients(self, listener: TcpListener) {
        let mut last_owners = KeyOwners::new();
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            if let Ok(Some(target)) = read_target(&mut stream).await {
                let text = self.execute(&target, &mut last_owners).await;
                // A client that has closed the connection needs no answer.
                let _ = write_text(&mut stream, &text).await;
            }
        }
    }

    async fn execute(&self, target: &str, last_owners: &mut KeyOwners) -> String {
        let origin = |name: &str| self.origins.iter().find(|origin| origin.name == name);
        let words: Vec<&str> = target.split('/').skip(1).collect();
        match words.as_slice() {
            ["keys"] => self
                .report_moved_keys(last_owners)
                .await
                .unwrap_or_else(|error| format!("the proxy does not answer: {error}\n")),
            ["kill", name] => match origin(name) {
                Some(origin) => {
                    origin.kill();
                    format!("origin {name} is stopped\n")
                }
                None => unknown_origin(name),
            },
            ["start", name] => match origin(name) {
                Some(origin) => self.start(origin).await,
                None => unknown_origin(name),
            },
            _ => "try /keys, /kill/b, /start/b\n".to_owned(),
        }
    }

    /// Starts an origin, and waits until the proxy sends it keys: the next `/keys` shows them.
    async fn start(&self, origin: &DemoOrigin) -> String {
        let name = origin.name;
        if let Err(error) = origin.start() {
            return format!("origin {name} cannot start: {error}\n");
        }
        let available = tokio::time::timeout(START_TIMEOUT, self.wait_until_available(name)).await;
        match available {
            Ok(Ok(())) => format!("origin {name} is started, and its keys are back\n"),
            Ok(Err(error)) => {
                format!("origin {name} is started; the admin API does not answer: {error}\n")
            }
            Err(_) => {
                format!("origin {name} is started; it has not passed a health check yet\n")
            }
        }
    }

    async fn wait_until_available(&self, label: &str) -> io::Result<()> {
        let mut stream = BufReader::new(TcpStream::connect(self.admin).await?);
        while !is_available(&mut stream, label).await? {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    async fn report_moved_keys(&self, last_owners: &mut KeyOwners) -> io::Result<String> {
        let owners = fetch_owners(self.proxy).await?;
        let mut lines = Vec::new();
        for (origin, keys) in counts(owners.iter()) {
            lines.push(format!("{keys:5} keys on origin {origin}\n"));
        }
        let moves = last_owners
            .iter()
            .zip(&owners)
            .filter(|(from, to)| from != to);
        let moves: Vec<String> = moves.map(|(from, to)| format!("{from} → {to}")).collect();
        if !last_owners.is_empty() {
            lines.push(format!(
                "{:5} keys moved since the last call\n",
                moves.len()
            ));
        }
        for (from_to, keys) in counts(moves.iter()) {
            lines.push(format!("      {from_to}: {keys}\n"));
        }
        *last_owners = owners;
        Ok(lines.concat())
    }
}

/// Asks the admin API whether a peer takes keys.
async fn is_available(admin: &mut BufReader<TcpStream>, label: &str) -> io::Result<bool> {
    let upstream: Value = serde_json::from_str(&get(admin, "/v1/upstreams/origins").await?)?;
    let peers = upstream.get("peers").and_then(Value::as_array);
    let mut peers = peers.into_iter().flatten();
    let peer = peers.find(|peer| peer.get("label").and_then(Value::as_str) == Some(label));
    let available = peer.and_then(|peer| peer.get("available")?.as_bool());
    Ok(available.unwrap_or(false))
}

fn unknown_origin(name: &str) -> String {
    format!("there is no origin {name}; there are a, b and c\n")
}

/// Sends each key through the proxy, and reads which origin answers.
async fn fetch_owners(proxy: SocketAddr) -> io::Result<KeyOwners> {
    let mut stream = BufReader::new(TcpStream::connect(proxy).await?);
    let mut owners = KeyOwners::new();
    for key in 0..KEYS {
        let body = get(&mut stream, &format!("/?user=user-{key}")).await?;
        owners.push(body.split(' ').nth(1).unwrap_or("?").to_owned());
    }
    Ok(owners)
}

fn counts<'a>(names: impl Iterator<Item = &'a String>) -> BTreeMap<&'a str, usize> {
    names.fold(BTreeMap::new(), |mut counts, name| {
        *counts.entry(name.as_str()).or_default() += 1;
        counts
    })
}
