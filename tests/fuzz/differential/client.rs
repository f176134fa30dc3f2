//! The client: plays the requests of a case on one connection, and reads what comes back.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::case::{Case, Pause, Request, cut};
use super::generate::FORWARDED;
use super::message::{BodyEnd, Framing, Head, Wire};
use super::origin::Origin;

/// A response as the client got it.
#[derive(Clone, Debug, Default)]
pub(super) struct Received {
    pub(super) interim: Vec<Head>,
    pub(super) head: Head,
    pub(super) framing: Option<Framing>,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Vec<String>,
    pub(super) is_complete: bool,
}

impl Received {
    pub(super) fn status(&self) -> &str {
        status(&self.head)
    }
}

/// What came back on a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    pub(super) responses: Vec<Received>,
    /// Interim responses without a final one.
    pub(super) interim: Vec<Head>,
    /// What is not a response.
    pub(super) garbage: Option<String>,
    /// Whether a further request was answered.
    pub(super) is_kept: bool,
    /// Whether the connection stayed open after the client had closed its side.
    pub(super) is_hung: bool,
    is_closed: bool,
}

impl Outcome {
    /// The responses that Pingora makes without asking us, which are not in the access log.
    pub(super) fn unlogged(&self) -> usize {
        let own = self
            .responses
            .iter()
            .filter(|it| it.head.has("server", "Pingora"));
        own.count()
    }
}

/// The times that a client waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For a response that must come.
    pub(super) response: Duration,
    /// For a response that may come.
    pub(super) guess: Duration,
}

#[derive(Default)]
struct Progress {
    outcome: Mutex<Outcome>,
    changed: Notify,
}

impl Progress {
    fn update(&self, change: impl FnOnce(&mut Outcome)) {
        change(&mut self.outcome.lock());
        self.changed.notify_waiters();
    }

    /// Waits until the condition is met or the connection is closed; whether that was in time.
    async fn wait(&self, limit: Duration, condition: impl Fn(&Outcome) -> bool) -> bool {
        let met = async {
            loop {
                let changed = self.changed.notified();
                {
                    let outcome = self.outcome.lock();
                    if outcome.is_closed || condition(&outcome) {
                        return;
                    }
                }
                changed.await;
            }
        };
        timeout(limit, met).await.is_ok()
    }
}

/// Plays a case as a client with this address.
pub(super) async fn play(
    case: &Case,
    (client, edge): (Ipv4Addr, SocketAddr),
    origin: &Origin,
    patience: Patience,
) -> Outcome {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((client, 0).into()).expect("a port");
    let Ok(stream) = socket.connect(edge).await else {
        return Outcome::default();
    };
    let _ = stream.set_nodelay(true);
    let case = &with_forwarded_addresses(case, client);
    let (reader, writer) = stream.into_split();
    let progress = Progress::default();
    let mut is_hung = false;
    tokio::select! {
        biased;
        () = read(case, reader, &progress) => {}
        hung = write(case, writer, origin, &progress, patience) => is_hung = hung,
    }
    let mut outcome = progress.outcome.into_inner();
    outcome.is_hung = is_hung;
    outcome.is_kept = outcome.responses.len() > case.requests.len();
    outcome
}

/// The first octet of addresses in `X-Forwarded-For`; the others are those of the client.
pub(super) const FORWARDED_NET: u8 = 10;

/// The case with addresses in `X-Forwarded-For` by which the client is found in the access log if it is trusted.
fn with_forwarded_addresses(case: &Case, client: Ipv4Addr) -> Case {
    let [_, a, b, c] = client.octets();
    let address = Ipv4Addr::new(FORWARDED_NET, a, b, c).to_string();
    let mut case = case.clone();
    for line in case.requests.iter_mut().flat_map(|it| &mut it.lines) {
        if line.to_ascii_lowercase().starts_with(b"x-forwarded-for:") {
            for sample in FORWARDED {
                replace_all(line, sample.as_bytes(), address.as_bytes());
            }
        }
    }
    case
}

fn replace_all(line: &mut Vec<u8>, from: &[u8], to: &[u8]) {
    let mut start = 0;
    while let Some(place) = line[start..].windows(from.len()).position(|it| it == from) {
        let place = start + place;
        line.splice(place..place + from.len(), to.iter().copied());
        start = place + to.len();
    }
}

/// Sends all requests; whether the connection stays open after the end.
async fn write(
    case: &Case,
    mut writer: OwnedWriteHalf,
    origin: &Origin,
    progress: &Progress,
    patience: Patience,
) -> bool {
    let limit = if case.is_malformed {
        patience.guess
    } else {
        patience.response
    };
    for (index, request) in case.requests.iter().enumerate() {
        let head = request.lines.concat();
        send(&mut writer, cut(&head, &request.writes)).await;
        match request.pause {
            Pause::None => {}
            Pause::Response => {
                let _ = progress
                    .wait(limit, |it| {
                        it.responses.len() > index
                            || it.responses.len() == index && !it.interim.is_empty()
                    })
                    .await;
            }
            Pause::Leave => {
                let arrived = origin.wait(|arrived, _| arrived.len() > index);
                let _ = timeout(limit, arrived).await;
                return false;
            }
        }
        send(&mut writer, request.body.iter().map(Vec::as_slice)).await;
        if request.waits {
            let _ = progress.wait(limit, |it| it.responses.len() > index).await;
        }
    }
    let count = case.requests.len();
    let _ = progress.wait(limit, |it| it.responses.len() >= count).await;
    let probe = format!("GET /plain HTTP/1.1\r\nHost: {}.test\r\n\r\n", origin.name);
    send(&mut writer, [probe.as_bytes()]).await;
    let _ = progress.wait(limit, |it| it.responses.len() > count).await;
    let _ = writer.shutdown().await;
    !progress.wait(patience.response, |_| false).await
}

async fn send<'a>(writer: &mut OwnedWriteHalf, pieces: impl IntoIterator<Item = &'a [u8]>) {
    for piece in pieces {
        // A closed connection is seen by the reader.
        let _ = writer.write_all(piece).await;
        tokio::task::yield_now().await;
    }
}

async fn read(case: &Case, reader: OwnedReadHalf, progress: &Progress) {
    let mut wire = Wire::new(reader);
    while let Some(bytes) = wire.until(b"\r\n\r\n").await {
        let head = Head::parse(&bytes).filter(|head| head.first.starts_with("HTTP/1."));
        let Some(head) = head else {
            progress.update(|it| it.garbage = Some(bytes.escape_ascii().to_string()));
            break;
        };
        if status(&head).starts_with('1') {
            progress.update(|it| it.interim.push(head));
            continue;
        }
        let index = progress.outcome.lock().responses.len();
        let is_head = case.requests.get(index).is_some_and(Request::is_head);
        let (received, is_last) = read_body(head, is_head, &mut wire).await;
        progress.update(|it| {
            let interim = std::mem::take(&mut it.interim);
            it.responses.push(Received {
                interim,
                ..received
            });
        });
        if is_last {
            break;
        }
    }
    let rest = wire.rest();
    progress.update(|it| {
        if !rest.is_empty() && it.garbage.is_none() {
            it.garbage = Some(rest.escape_ascii().to_string());
        }
        it.is_closed = true;
    });
}

/// Reads the body of a response; the response, and whether none can follow.
async fn read_body(head: Head, is_head: bool, wire: &mut Wire<OwnedReadHalf>) -> (Received, bool) {
    let mut received = Received::default();
    let has_no_body = is_head || ["204", "304"].contains(&status(&head));
    let framing = match head.framing() {
        Ok(_) if has_no_body => Framing::Length(0),
        Ok(framing) => framing.unwrap_or(Framing::UntilClose),
        Err(_) => Framing::UntilClose,
    };
    received.framing = (!has_no_body).then_some(framing);
    let body = &mut received.body;
    let read = wire
        .body(framing, &mut |data: &[u8]| body.extend_from_slice(data))
        .await;
    received.is_complete = read.is_ok();
    let is_malformed = read == Err(BodyEnd::Malformed);
    received.trailers = read.unwrap_or_default();
    received.head = head;
    let is_last = !received.is_complete || framing == Framing::UntilClose || is_malformed;
    (received, is_last)
}

fn status(head: &Head) -> &str {
    head.first.get(9..12).unwrap_or_default()
}
