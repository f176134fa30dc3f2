//! How many connections there are, how many there may be, and when the last one has left.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::clients::{Clients, Seat};
use crate::config::PerClient;

/// How long one who waits for a place lets the idle connection that was called take to leave.
const CALL_AGAIN: Duration = Duration::from_secs(1);

/// No limit.
const ANY: usize = usize::MAX;

/// Counts the open connections of a group of listeners.
///
/// At the limit, new connections wait instead of being refused, every response says
/// `Connection: close`, and whoever waits calls on idle connections to leave, the one that has been
/// idle for longest first: idle clients must not keep busy ones out for a whole keep-alive time.
#[derive(Debug)]
pub struct Gate {
    limit: AtomicUsize,
    inside: AtomicUsize,
    /// The process has no descriptor left, whatever the limit is.
    exhausted: AtomicBool,
    left: Notify,
    called: Notify,
    clients: Arc<Clients>,
}

impl Gate {
    /// A gate that lets `limit` connections in at once; `None`: any number.
    pub fn new(limit: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit.unwrap_or(ANY)),
            inside: AtomicUsize::new(0),
            exhausted: AtomicBool::new(false),
            left: Notify::new(),
            called: Notify::new(),
            clients: Arc::default(),
        })
    }

    /// Another limit, from now on; connections above it stay.
    pub fn set_limit(&self, limit: Option<usize>) {
        self.limit.store(limit.unwrap_or(ANY), Ordering::Relaxed);
        self.left.notify_waiters();
    }

    /// Open connections.
    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::SeqCst)
    }

    /// Whether there are as many as there may be, or can be.
    pub fn is_full(&self) -> bool {
        self.exhausted.load(Ordering::Relaxed)
            || self.inside() >= self.limit.load(Ordering::Relaxed)
    }

    /// Whether the process is out of descriptors: as good as full, until an accept succeeds.
    pub fn set_exhausted(&self, exhausted: bool) {
        // Read first: nearly always it is what it was, and a store would take the cache line.
        if self.exhausted.load(Ordering::Relaxed) != exhausted {
            self.exhausted.store(exhausted, Ordering::Relaxed);
        }
    }

    /// Waits until no connection is open.
    pub async fn empty(&self) {
        self.until(|gate| gate.inside() == 0).await;
    }

    /// Waits until there is room for one more, and calls on idle connections to make it.
    pub async fn room(&self) {
        while self.is_full() {
            self.called.notify_one();
            let room = self.until(|gate| !gate.is_full());
            let _ = tokio::time::timeout(CALL_AGAIN, room).await;
        }
    }

    /// Waits until a connection has left, or for `patience`, and calls on an idle one to do so.
    pub async fn one_left(&self, patience: Duration) {
        self.called.notify_one();
        let _ = tokio::time::timeout(patience, self.left.notified()).await;
    }

    /// Takes a place, whether there is one or not.
    pub fn enter(self: &Arc<Self>) -> Guest {
        self.inside.fetch_add(1, Ordering::SeqCst);
        Guest {
            gate: Arc::clone(self),
            seat: None,
        }
    }

    /// What an idle connection listens for.
    pub(super) fn call(&self) -> Call<'_> {
        Call {
            gate: self,
            listening: None,
        }
    }

    fn is_limited(&self) -> bool {
        self.limit.load(Ordering::Relaxed) != ANY || self.exhausted.load(Ordering::Relaxed)
    }

    async fn until(&self, reached: impl Fn(&Self) -> bool) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            // Registered before the look, so that a leaver in between is not missed.
            left.as_mut().enable();
            if reached(self) {
                return;
            }
            left.await;
        }
    }
}

/// One connection's ear for the call to leave. Calls go to whoever has listened for longest.
pub(super) struct Call<'a> {
    gate: &'a Gate,
    listening: Option<Pin<Box<Notified<'a>>>>,
}

impl Call<'_> {
    /// Ready when this connection was called; poll again to listen for the next call. Where no gate
    /// can be full, nothing is registered.
    pub(super) fn poll_called(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.listening.is_none() && !self.gate.is_limited() {
            return Poll::Pending;
        }
        let called = &self.gate.called;
        let listening = self
            .listening
            .get_or_insert_with(|| Box::pin(called.notified()));
        ready!(listening.as_mut().poll(cx));
        self.listening = None;
        Poll::Ready(())
    }

    /// Listens no more; a call that came meanwhile goes to the next.
    pub(super) fn withdraw(&mut self) {
        self.listening = None;
    }
}

/// One connection's place; leaves when dropped, however the connection ended.
#[derive(Debug)]
pub struct Guest {
    gate: Arc<Gate>,
    /// Its place among those of its client, where they are counted.
    seat: Option<Seat>,
}

impl Guest {
    /// The gate it came through.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Counts the connection as this client's, where it may have one more. Those that came while
    /// nobody counted are not.
    pub fn seat(&mut self, client: IpAddr, rule: PerClient) -> bool {
        self.seat = self.gate.clients.seat(client, rule);
        self.seat.is_some()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.gate.inside.fetch_sub(1, Ordering::SeqCst);
        self.gate.left.notify_waiters();
    }
}
