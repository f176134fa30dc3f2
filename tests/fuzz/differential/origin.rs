//! The origin of one slot: answers by the script of the slot's case, and records what it got.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

use super::case::{End, Response, When, cut};
use super::message::{BodyEnd, Framing, Head, Wire};

/// A request as the origin got it.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrived {
    pub(super) peer: &'static str,
    /// Whether it is not the first one on its connection.
    pub(super) is_reused: bool,
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Vec<String>,
    /// Whether the body came to its end.
    pub(super) is_complete: bool,
    /// What is wrong with it.
    pub(super) defect: Option<String>,
}

#[derive(Default)]
struct Script {
    responses: VecDeque<Response>,
    arrived: Vec<Arrived>,
    /// Exchanges that are not over.
    active: usize,
    /// The number of the case.
    case: u64,
    /// Connections that are open.
    connections: usize,
}

/// A program with two addresses, which answers the requests of one slot.
pub(super) struct Origin {
    pub(super) name: String,
    pub(super) addresses: [SocketAddr; 2],
    script: Mutex<Script>,
    /// Something arrived, or an exchange or a connection is over.
    changed: Notify,
    /// Closes the connections of a case.
    ended: watch::Sender<()>,
}

impl Origin {
    pub(super) async fn start(name: &str) -> Arc<Self> {
        let listen = || async { TcpListener::bind("127.0.0.1:0").await.expect("a port") };
        let listeners = [listen().await, listen().await];
        let addresses = [0, 1].map(|it: usize| listeners[it].local_addr().expect("bound"));
        let origin = Arc::new(Self {
            name: name.to_owned(),
            addresses,
            script: Mutex::default(),
            changed: Notify::new(),
            ended: watch::Sender::new(()),
        });
        for (listener, peer) in listeners.into_iter().zip(["a", "b"]) {
            let origin = Arc::clone(&origin);
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let _ = stream.set_nodelay(true);
                    let mut ended = origin.ended.subscribe();
                    origin.script.lock().connections += 1;
                    origin.changed.notify_waiters();
                    let origin = Arc::clone(&origin);
                    tokio::spawn(async move {
                        tokio::select! {
                            () = origin.serve(stream, peer) => {}
                            _ = ended.changed() => {}
                        }
                        origin.script.lock().connections -= 1;
                        origin.changed.notify_waiters();
                    });
                }
            });
        }
        origin
    }

    /// Begins a case.
    pub(super) fn begin(&self, case: u64, responses: &[Response]) {
        let mut script = self.script.lock();
        script.case = case;
        script.responses = responses.iter().cloned().collect();
        script.arrived.clear();
        script.active = 0;
    }

    /// Ends a case: closes its connections, so that the next case begins without any.
    pub(super) async fn end(&self) {
        loop {
            let changed = self.changed.notified();
            self.ended.send_replace(());
            if self.script.lock().connections == 0 {
                return;
            }
            changed.await;
        }
    }

    /// What came in this case.
    pub(super) fn arrived(&self) -> Vec<Arrived> {
        self.script.lock().arrived.clone()
    }

    /// Waits until a condition on the requests that came, and on how many of them are not over, is met.
    pub(super) async fn wait(&self, condition: impl Fn(&[Arrived], usize) -> bool) {
        loop {
            let changed = self.changed.notified();
            {
                let script = self.script.lock();
                if condition(&script.arrived, script.active) {
                    return;
                }
            }
            changed.await;
        }
    }

    async fn serve(&self, stream: TcpStream, peer: &'static str) {
        let (reader, mut writer) = stream.into_split();
        let mut wire = Wire::new(reader);
        let mut is_reused = false;
        while wire.is_open().await {
            let case = self.script.lock().case;
            let bytes = wire.until(b"\r\n\r\n").await;
            let arrived = Arrived {
                peer,
                is_reused,
                ..Arrived::default()
            };
            let (place, head, response) = self.arrive(case, arrived, bytes.as_deref(), &wire);
            let kept = match head {
                Some(head) => {
                    self.exchange(place, &head, &response, &mut wire, &mut writer)
                        .await
                }
                None => false,
            };
            self.over(case);
            if !kept {
                break;
            }
            is_reused = true;
        }
    }

    /// Records a head, and takes its response.
    fn arrive<R: AsyncRead + Unpin>(
        &self,
        case: u64,
        mut arrived: Arrived,
        bytes: Option<&[u8]>,
        wire: &Wire<R>,
    ) -> (Place, Option<Head>, Response) {
        let head = bytes.and_then(Head::parse);
        match (&head, bytes) {
            (Some(head), _) => arrived.head = head.clone(),
            (None, Some(bytes)) => {
                arrived.defect = Some(format!("head {}", bytes.escape_ascii()));
            }
            (None, None) => {
                arrived.defect = Some(format!("cut off: {}", wire.rest().escape_ascii()));
            }
        }
        let mut script = self.script.lock();
        let place = Place {
            case,
            index: script.arrived.len(),
        };
        script.arrived.push(arrived);
        script.active += 1;
        let response = script.responses.pop_front();
        drop(script);
        self.changed.notify_waiters();
        (place, head, response.unwrap_or_else(Response::plain))
    }

    fn update(&self, place: Place, change: impl FnOnce(&mut Arrived)) {
        let mut script = self.script.lock();
        if script.case == place.case
            && let Some(arrived) = script.arrived.get_mut(place.index)
        {
            change(arrived);
        }
        drop(script);
        self.changed.notify_waiters();
    }

    fn over(&self, case: u64) {
        let mut script = self.script.lock();
        if script.case == case {
            script.active = script.active.saturating_sub(1);
        }
        drop(script);
        self.changed.notify_waiters();
    }

    /// Answers one request; whether the connection can carry another.
    async fn exchange<R: AsyncRead + Unpin>(
        &self,
        place: Place,
        head: &Head,
        response: &Response,
        wire: &mut Wire<R>,
        writer: &mut OwnedWriteHalf,
    ) -> bool {
        let framing = match head.framing() {
            Ok(framing) => framing.unwrap_or(Framing::Length(0)),
            Err(defect) => {
                self.update(place, |arrived| arrived.defect = Some(defect));
                return false;
            }
        };
        let is_head = head.first.starts_with("HEAD ");
        if response.when == When::AfterHead {
            answer(response, is_head, writer).await;
        } else if head.has("expect", "100-continue") {
            let _ = writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        }
        let mut sink = |data: &[u8]| {
            self.update(place, |arrived| arrived.body.extend_from_slice(data));
        };
        let read = wire.body(framing, &mut sink).await;
        let is_complete = read.is_ok();
        self.update(place, |arrived| match read {
            Ok(trailers) => {
                arrived.trailers = trailers;
                arrived.is_complete = true;
            }
            Err(BodyEnd::Malformed) => arrived.defect = Some("malformed body".to_owned()),
            Err(BodyEnd::Truncated) => {}
        });
        if is_complete && response.when == When::AfterRequest {
            answer(response, is_head, writer).await;
        }
        if response.end == End::Stall {
            while wire.fill().await {}
        }
        is_complete && response.end == End::Keep
    }
}

/// The place of a request among those of its case.
#[derive(Clone, Copy)]
struct Place {
    case: u64,
    index: usize,
}

async fn answer(response: &Response, is_head: bool, writer: &mut OwnedWriteHalf) {
    let head = response.lines.concat();
    let heads = response.interim.iter().map(Vec::as_slice);
    let heads = heads.chain(cut(&head, &response.writes));
    let body = if is_head { &[][..] } else { &response.body };
    for piece in heads.chain(body.iter().map(Vec::as_slice)) {
        if writer.write_all(piece).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
}
