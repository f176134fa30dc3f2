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

use super::per_client_limit::{ClientConnectionCounts, ClientPermit};
use crate::config::PerClientLimitConfig;

/// How long one who waits for a place lets the idle connection that was called take to leave.
const EVICTION_INTERVAL: Duration = Duration::from_secs(1);

/// No limit.
const UNLIMITED: usize = usize::MAX;

/// Counts the open connections of a group of listeners.
///
/// At the limit, new connections wait instead of being refused, every response says
/// `Connection: close`, and whoever waits calls on idle connections to leave, the one that has been
/// idle for longest first: idle clients must not keep busy ones out for a whole keep-alive time.
#[derive(Debug)]
pub struct ConnectionLimit {
    limit: AtomicUsize,
    open: AtomicUsize,
    /// The process has no descriptor left, whatever the limit is.
    out_of_descriptors: AtomicBool,
    closed: Notify,
    evict: Notify,
    per_client: Arc<ClientConnectionCounts>,
}

impl ConnectionLimit {
    /// A gate that lets `limit` connections in at once; `None`: any number.
    pub fn new(limit: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit.unwrap_or(UNLIMITED)),
            open: AtomicUsize::new(0),
            out_of_descriptors: AtomicBool::new(false),
            closed: Notify::new(),
            evict: Notify::new(),
            per_client: Arc::default(),
        })
    }

    /// Another limit, from now on; connections above it stay.
    pub fn set_limit(&self, limit: Option<usize>) {
        self.limit
            .store(limit.unwrap_or(UNLIMITED), Ordering::Relaxed);
        self.closed.notify_waiters();
    }

    /// Open connections.
    pub fn open_connections(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Whether there are as many as there may be, or can be.
    pub fn is_reached(&self) -> bool {
        self.out_of_descriptors.load(Ordering::Relaxed)
            || self.open_connections() >= self.limit.load(Ordering::Relaxed)
    }

    /// Whether the process is out of descriptors: as good as full, until an accept succeeds.
    pub fn set_out_of_descriptors(&self, exhausted: bool) {
        // Read first: nearly always it is what it was, and a store would take the cache line.
        if self.out_of_descriptors.load(Ordering::Relaxed) != exhausted {
            self.out_of_descriptors.store(exhausted, Ordering::Relaxed);
        }
    }

    /// Waits until no connection is open.
    pub async fn wait_until_empty(&self) {
        self.wait_until(|gate| gate.open_connections() == 0).await;
    }

    /// Waits until there is room for one more, and calls on idle connections to make it.
    pub async fn wait_for_capacity(&self) {
        while self.is_reached() {
            self.evict.notify_one();
            let room = self.wait_until(|gate| !gate.is_reached());
            let _ = tokio::time::timeout(EVICTION_INTERVAL, room).await;
        }
    }

    /// Waits until a connection has left, or for `patience`, and calls on an idle one to do so.
    pub async fn evict_idle_and_wait(&self, patience: Duration) {
        self.evict.notify_one();
        let _ = tokio::time::timeout(patience, self.closed.notified()).await;
    }

    /// Takes a place, whether there is one or not.
    pub fn acquire(self: &Arc<Self>) -> ConnectionPermit {
        self.open.fetch_add(1, Ordering::SeqCst);
        ConnectionPermit {
            limit: Arc::clone(self),
            client_permit: None,
        }
    }

    /// What an idle connection listens for.
    pub(super) fn idle_eviction(&self) -> IdleEviction<'_> {
        IdleEviction {
            limit: self,
            notified: None,
        }
    }

    fn is_limited(&self) -> bool {
        self.limit.load(Ordering::Relaxed) != UNLIMITED
            || self.out_of_descriptors.load(Ordering::Relaxed)
    }

    async fn wait_until(&self, reached: impl Fn(&Self) -> bool) {
        loop {
            let left = self.closed.notified();
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
pub(super) struct IdleEviction<'a> {
    limit: &'a ConnectionLimit,
    notified: Option<Pin<Box<Notified<'a>>>>,
}

impl IdleEviction<'_> {
    /// Ready when this connection was called; poll again to listen for the next call. Where no gate
    /// can be full, nothing is registered.
    pub(super) fn poll_evicted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.notified.is_none() && !self.limit.is_limited() {
            return Poll::Pending;
        }
        let called = &self.limit.evict;
        let listening = self
            .notified
            .get_or_insert_with(|| Box::pin(called.notified()));
        ready!(listening.as_mut().poll(cx));
        self.notified = None;
        Poll::Ready(())
    }

    /// Listens no more; a call that came meanwhile goes to the next.
    pub(super) fn cancel(&mut self) {
        self.notified = None;
    }
}

/// One connection's place; leaves when dropped, however the connection ended.
#[derive(Debug)]
pub struct ConnectionPermit {
    limit: Arc<ConnectionLimit>,
    /// Its place among those of its client, where they are counted.
    client_permit: Option<ClientPermit>,
}

impl ConnectionPermit {
    /// The gate it came through.
    pub fn limit(&self) -> &ConnectionLimit {
        &self.limit
    }

    /// Counts the connection as this client's, where it may have one more. Those that came while
    /// nobody counted are not.
    pub fn acquire_for_client(&mut self, client: IpAddr, rule: PerClientLimitConfig) -> bool {
        self.client_permit = self.limit.per_client.acquire(client, rule);
        self.client_permit.is_some()
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limit.open.fetch_sub(1, Ordering::SeqCst);
        self.limit.closed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn idle_eviction_selects_the_connection_idle_longest() {
        let limit = ConnectionLimit::new(Some(2));
        let _permits = [limit.acquire(), limit.acquire()];
        let (mut first, mut second) = (limit.idle_eviction(), limit.idle_eviction());
        poll_fn(|cx| {
            assert!(first.poll_evicted(cx).is_pending());
            assert!(second.poll_evicted(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        limit.evict_idle_and_wait(Duration::ZERO).await;
        poll_fn(|cx| {
            assert!(first.poll_evicted(cx).is_ready());
            assert!(second.poll_evicted(cx).is_pending());
            Poll::Ready(())
        })
        .await;
    }
}
