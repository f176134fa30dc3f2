//! Clients that keep asking, each on its own keep-alive connection, and remember what they got.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::client::Connection;
use super::edge::Edge;
use super::wait;

/// Keys that are distinct, printable and need no escape in a query.
pub(crate) fn keys(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("user-{number:05}"))
        .collect()
}

/// A running load.
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

/// Which peer answered for which key.
#[derive(Clone, Debug)]
pub(crate) struct KeyAnswer {
    /// Index into the keys of the load.
    pub(crate) key: usize,
    /// What the origin said its name is.
    pub(crate) peer: String,
}

impl Load {
    /// Starts `clients` threads that ask `GET /?k=KEY` for one key after the other, round and
    /// round, reconnecting where the server said `Connection: close`.
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

    /// Waits until so many further requests have been answered.
    pub(crate) fn wait_for_more(&self, count: usize) {
        let goal = self.answered() + count;
        wait::until("the load to go on", || self.answered() >= goal);
    }

    fn answered(&self) -> usize {
        self.shared.answered.lock().expect("not poisoned").len()
    }

    /// What was answered since the last call.
    pub(crate) fn take(&self) -> Vec<KeyAnswer> {
        self.shared
            .answered
            .lock()
            .expect("not poisoned")
            .split_off(0)
    }

    /// Waits until every client has found the listener closed; panics where a request failed.
    #[track_caller]
    pub(crate) fn end_refused(self) {
        wait::until("the listener to close", || {
            self.clients.iter().all(JoinHandle::is_finished)
        });
        self.stop();
    }

    /// Ends the load after the requests under way; panics where one of all its requests failed.
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

/// Every key once, over a few keep-alive connections: the peer of each, in the order of the keys.
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
    /// Asks until it is told to stop, or until nobody listens any more.
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

    /// Asks for one key; the connection, where it may be used again.
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
