//! The origins of the corpus: the strict one, which records what it gets, and Node.js.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use super::strict::{Flaw, Message, Wire};
use crate::support::port;
use crate::support::process::Process;

/// Accepts connections on a free port, each on its own thread, until the end of the tests.
pub(super) fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let address = port::free();
    let socket = port::reusable(address);
    socket.listen(1024).expect("listen");
    let listener = TcpListener::from(socket);
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(socket));
        }
    });
    address
}

/// What arrived on a connection of the strict origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Request(Message),
    /// The end of the connection within a request.
    Cut,
    Malformed(String),
}

/// Answers each request with a description of it, and records it.
pub(super) struct StrictOrigin {
    pub(super) address: SocketAddr,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    /// Complete requests.
    number: u64,
    events: Vec<Event>,
}

impl StrictOrigin {
    pub(super) fn start() -> Self {
        let log = Arc::<Mutex<Log>>::default();
        let for_threads = Arc::clone(&log);
        let address = listen(move |socket| {
            let _ = socket.set_nodelay(true);
            if let Err(flaw) = serve(socket, &for_threads) {
                let event = match flaw {
                    Flaw::Cut(_) => Event::Cut,
                    Flaw::Malformed(why) => Event::Malformed(why),
                };
                for_threads.lock().unwrap().events.push(event);
            }
        });
        Self { address, log }
    }

    /// What arrived since the last call.
    pub(super) fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.log.lock().unwrap().events)
    }
}

fn serve(socket: TcpStream, log: &Mutex<Log>) -> Result<(), Flaw> {
    let mut wire = Wire::new(socket);
    while let Some(mut request) = wire.request_head()? {
        let expects = request.values("expect").next().is_some();
        if expects {
            let _ = wire.socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        wire.request_body(&mut request)?;
        let json = {
            let mut log = log.lock().unwrap();
            log.number += 1;
            log.events.push(Event::Request(request.clone()));
            request.to_json(log.number)
        };
        if answer(&mut wire.socket, request.method(), &json.to_string()).is_err() {
            break;
        }
    }
    Ok(())
}

/// Answers with 200 and this body.
pub(super) fn answer(socket: &mut TcpStream, method: &str, body: &str) -> io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let body = if method == "HEAD" { "" } else { body };
    socket.write_all((head + body).as_bytes())
}

/// A Node.js that runs `node.js`.
pub(super) struct Node {
    pub(super) address: SocketAddr,
    /// Whether it is version 20 or later.
    pub(super) is_20: bool,
    _process: Process,
}

impl Node {
    /// Panics if Node.js is not installed; `tests/install.sh` installs it.
    pub(super) fn start() -> Self {
        let address = port::free();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/corpus/node.js");
        let mut command = Command::new("node");
        command.arg(script);
        command.args([address.port().to_string(), address.ip().to_string()]);
        let process = Process::listening("node", &mut command, address);
        Self {
            address,
            is_20: Self::major_version() >= 20,
            _process: process,
        }
    }

    fn major_version() -> u32 {
        let output = Command::new("node").arg("--version").output();
        let version = String::from_utf8(output.expect("an answer").stdout).expect("text");
        let major = version.trim_start_matches('v').split('.').next();
        major.and_then(|it| it.parse().ok()).expect("a version")
    }
}
