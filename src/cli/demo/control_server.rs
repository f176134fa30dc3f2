//! The demo's switchboard: kills and starts origins, and shows which keys moved.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};

use super::http::{get, read_target, write_text};
use super::origin::DemoOrigin;

/// Keys that `/keys` sends through the proxy.
const KEYS: usize = 1000;

pub(super) struct DemoControlServer {
    pub(super) origins: Vec<Arc<DemoOrigin>>,
    pub(super) proxy: SocketAddr,
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
            Err(error) => log::error!("the switchboard cannot listen on {}: {error}", self.address),
        }
    }

    /// One client at a time: it is one person's.
    async fn serve_clients(self, listener: TcpListener) {
        let mut seen = KeyOwners::new();
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            if let Ok(Some(target)) = read_target(&mut stream).await {
                let text = self.execute(&target, &mut seen).await;
                // A client that does not wait for its answer does not need it.
                let _ = write_text(&mut stream, &text).await;
            }
        }
    }

    async fn execute(&self, target: &str, seen: &mut KeyOwners) -> String {
        let origin = |name: &str| self.origins.iter().find(|origin| origin.name == name);
        let words: Vec<&str> = target.split('/').skip(1).collect();
        match words.as_slice() {
            ["keys"] => self
                .report_moved_keys(seen)
                .await
                .unwrap_or_else(|error| format!("the proxy does not answer: {error}\n")),
            ["kill", name] => match origin(name) {
                Some(origin) => {
                    origin.kill();
                    format!("origin {name} is dead\n")
                }
                None => unknown_origin(name),
            },
            ["start", name] => match origin(name).map(|origin| origin.start()) {
                Some(Ok(())) => format!("origin {name} serves\n"),
                Some(Err(error)) => format!("origin {name} cannot start: {error}\n"),
                None => unknown_origin(name),
            },
            _ => "try /keys, /kill/b, /start/b\n".to_owned(),
        }
    }

    async fn report_moved_keys(&self, seen: &mut KeyOwners) -> io::Result<String> {
        let now = fetch_owners(self.proxy).await?;
        let mut lines = Vec::new();
        for (origin, keys) in counts(now.iter()) {
            lines.push(format!("{keys:5} keys on origin {origin}\n"));
        }
        let moves = seen.iter().zip(&now).filter(|(from, to)| from != to);
        let moves: Vec<String> = moves.map(|(from, to)| format!("{from} → {to}")).collect();
        if !seen.is_empty() {
            lines.push(format!(
                "{:5} keys moved since the last look\n",
                moves.len()
            ));
        }
        for (way, keys) in counts(moves.iter()) {
            lines.push(format!("      {way}: {keys}\n"));
        }
        *seen = now;
        Ok(lines.concat())
    }
}

fn unknown_origin(name: &str) -> String {
    format!("there is no origin {name}; there are a, b and c\n")
}

/// Which origin answers each key now, by asking the proxy.
async fn fetch_owners(proxy: SocketAddr) -> io::Result<KeyOwners> {
    let mut stream = BufReader::new(TcpStream::connect(proxy).await?);
    let mut places = KeyOwners::new();
    for key in 0..KEYS {
        let body = get(&mut stream, &format!("/?user=user-{key}")).await?;
        places.push(body.split(' ').nth(1).unwrap_or("?").to_owned());
    }
    Ok(places)
}

fn counts<'a>(names: impl Iterator<Item = &'a String>) -> BTreeMap<&'a str, usize> {
    names.fold(BTreeMap::new(), |mut counts, name| {
        *counts.entry(name.as_str()).or_default() += 1;
        counts
    })
}
