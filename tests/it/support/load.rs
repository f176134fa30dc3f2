//! Clients that keep asking, each on its own keep-alive connection, and remember what they got.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::client::Connection;
use super::edge::Edge;
use super::wait;

/// Distinct printable keys that need no escape in a query.
pub(crate) fn keys(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("user-{number:05}"))
        .collect()
}

/// Clients that send requests until stopped.
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    keys: Vec<String>,
    next: AtomicUsize,
    stop: AtomicBool,
    answered: Mutex<Vec<KeyAnswer>>,
    failures: Mutex<Vec<String>>,
}

/// The response to one request.
#[derive(Clone, Debug)]
pub(crate) struct KeyAnswer {
    /// The index of the key.
    pub(crate) key: usize,
    /// The name of the origin, from the response.
    pub(crate) peer: String,
}

impl Load {
    /// Starts `clients` threads that send `GET /?k=KEY` for one key after the other, in a loop. They
    /// reconnect after `Connection: close`.
    pub(crate) fn start(edge: &Edge, clients: usize, keys: &[String]) -> Self {
        let shared = Arc::new(Shared {
            keys: keys.to_vec(),
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            answered: Mutex::default(),
            failures: Mutex::default(),
        });
        let address = edge.address;
        let client = |_| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.ask(address))
        };
        let clients = (0..clients).map(client).collect();
        Self { shared, clients }
    }

    /// Waits for `count` further responses.
    pub(crate) fn wait_for_more(&self, count: usize) {
        let goal = self.answered() + count;
        wait::until("further responses", || self.answered() >= goal);
    }

    fn answered(&self) -> usize {
        self.shared.answered.lock().expect("not poisoned").len()
    }

    /// The responses since the last call.
    pub(crate) fn take(&self) -> Vec<KeyAnswer> {
        self.shared
            .answered
            .lock()
            .expect("not poisoned")
            .split_off(0)
    }

    /// Waits until every client finds the listener closed. Panics if a request failed.
    #[track_caller]
    pub(crate) fn end_refused(self) {
        wait::until("the listener to close", || {
            self.clients.iter().all(JoinHandle::is_finished)
        });
        self.stop();
    }

    /// Stops the load after the requests in flight. Panics if any request failed.
    #[track_caller]
    pub(crate) fn stop(self) -> Vec<KeyAnswer> {
        self.shared.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.join().expect("a client");
        }
        let failures = self.shared.failures.lock().expect("not poisoned");
        assert!(
            failures.is_empty(),
            "{} requests failed: {:#?}",
            failures.len(),
            &failures[..failures.len().min(5)]
        );
        self.shared
            .answered
            .lock()
            .expect("not poisoned")
            .split_off(0)
    }
}

/// Sends each key once over a few keep-alive connections; returns the peer of each, in the order of the keys.
pub(crate) fn ask_all(edge: &Edge, keys: &[String]) -> Vec<String> {
    let share = keys.len().div_ceil(4);
    thread::scope(|scope| {
        let parts: Vec<_> = keys
            .chunks(share)
            .map(|part| scope.spawn(|| ask_part(edge, part)))
            .collect();
        parts
            .into_iter()
            .flat_map(|part| part.join().expect("a client"))
            .collect()
    })
}

fn ask_part(edge: &Edge, keys: &[String]) -> Vec<String> {
    let mut connection = edge.connect();
    let ask = |key| {
        let response = connection.get(&format!("/?k={key}")).expect("an answer");
        assert_eq!(response.status, 200, "{response:?}");
        response.text()
    };
    keys.iter().map(ask).collect()
}

impl Shared {
    /// Sends requests until stopped, or until the listener is closed.
    fn ask(&self, address: SocketAddr) {
        let mut kept = None;
        while !self.stop.load(Ordering::SeqCst) {
            let connection = match kept
                .take()
                .map_or_else(|| Connection::try_open(address), Ok)
            {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => return,
                opened => opened,
            };
            let key = self.next.fetch_add(1, Ordering::SeqCst) % self.keys.len();
            match connection.and_then(|connection| self.ask_one(key, connection)) {
                Ok(reusable) => kept = reusable,
                Err(error) => self.fail(key, &error.to_string()),
            }
        }
    }

    /// Sends one key; returns the connection if it can be reused.
    fn ask_one(&self, key: usize, mut connection: Connection) -> io::Result<Option<Connection>> {
        let response = connection.get(&format!("/?k={}", self.keys[key]))?;
        if response.status == 200 {
            let answered = KeyAnswer {
                key,
                peer: response.text(),
            };
            self.answered.lock().expect("not poisoned").push(answered);
        } else {
            self.fail(key, &format!("{response:?}"));
        }
        Ok((!response.closes()).then_some(connection))
    }

    fn fail(&self, key: usize, why: &str) {
        let line = format!("{}: {why}", self.keys[key]);
        self.failures.lock().expect("not poisoned").push(line);
    }
}
