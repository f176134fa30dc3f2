//! The limit on open connections, and the eviction of idle ones when it is reached.

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

/// The time that an evicted idle connection has to close before the next one is evicted.
const EVICTION_INTERVAL: Duration = Duration::from_secs(1);

/// No limit.
const UNLIMITED: usize = usize::MAX;

/// Counts the open connections of a group of listeners.
///
/// At the limit, new connections wait instead of being refused, every response has `Connection: close`, and the
/// acceptor evicts idle connections, the longest idle first: idle clients must not block new ones for a whole
/// keep-alive time.
#[derive(Debug)]
pub(crate) struct ConnectionLimit {
    limit: AtomicUsize,
    open: AtomicUsize,
    /// The process has no file descriptor left; then the limit counts as reached.
    out_of_descriptors: AtomicBool,
    /// Wakes every waiter when a connection closes or the limit changes.
    closed: Notify,
    /// Wakes one idle connection: Tokio's `Notify` wakes the longest waiter.
    evict: Notify,
    per_client: Arc<ClientConnectionCounts>,
}

impl ConnectionLimit {
    /// At most `limit` connections at once; `None`: any number.
    pub(crate) fn new(limit: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit.unwrap_or(UNLIMITED)),
            open: AtomicUsize::new(0),
            out_of_descriptors: AtomicBool::new(false),
            closed: Notify::new(),
            evict: Notify::new(),
            per_client: Arc::default(),
        })
    }

    /// Changes the limit; connections above it stay open.
    pub(crate) fn set_limit(&self, limit: Option<usize>) {
        self.limit
            .store(limit.unwrap_or(UNLIMITED), Ordering::Relaxed);
        self.closed.notify_waiters();
    }

    /// The number of open connections.
    pub(crate) fn open_connections(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Whether the limit is reached, or the process is out of descriptors.
    pub(crate) fn is_reached(&self) -> bool {
        self.out_of_descriptors.load(Ordering::Relaxed)
            || self.open_connections() >= self.limit.load(Ordering::Relaxed)
    }

    /// Sets whether the process is out of descriptors: the limit counts as reached until an accept succeeds.
    pub(crate) fn set_out_of_descriptors(&self, is_out: bool) {
        // Loads first: the value rarely changes, and a store invalidates the cache line of the other threads.
        if self.out_of_descriptors.load(Ordering::Relaxed) != is_out {
            self.out_of_descriptors.store(is_out, Ordering::Relaxed);
        }
    }

    /// Waits until no connection is open.
    pub(crate) async fn wait_until_empty(&self) {
        self.wait_until(|limit| limit.open_connections() == 0).await;
    }

    /// Waits until one more connection is allowed; meanwhile evicts an idle one every second.
    pub(crate) async fn wait_for_capacity(&self) {
        while self.is_reached() {
            self.evict.notify_one();
            let capacity = self.wait_until(|limit| !limit.is_reached());
            let _ = tokio::time::timeout(EVICTION_INTERVAL, capacity).await;
        }
    }

    /// Evicts an idle connection and waits until any connection has closed, at most for `timeout`.
    pub(crate) async fn evict_idle_and_wait(&self, timeout: Duration) {
        self.evict.notify_one();
        let _ = tokio::time::timeout(timeout, self.closed.notified()).await;
    }

    /// Counts a connection as open, even above the limit.
    pub(crate) fn acquire(self: &Arc<Self>) -> ConnectionPermit {
        self.open.fetch_add(1, Ordering::SeqCst);
        ConnectionPermit {
            limit: Arc::clone(self),
            client_permit: None,
        }
    }

    /// A handle with which an idle connection waits for its eviction.
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
            let closed = self.closed.notified();
            tokio::pin!(closed);
            // Registered before the check, so that a close in between is not missed.
            closed.as_mut().enable();
            if reached(self) {
                return;
            }
            closed.await;
        }
    }
}

/// One idle connection's wait for its eviction. The connection that has waited for longest is evicted first.
pub(super) struct IdleEviction<'a> {
    limit: &'a ConnectionLimit,
    notified: Option<Pin<Box<Notified<'a>>>>,
}

impl IdleEviction<'_> {
    /// Ready when this connection is evicted; a further poll waits for the next eviction. Registers no waiter if
    /// there is no limit.
    pub(super) fn poll_evicted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.notified.is_none() && !self.limit.is_limited() {
            return Poll::Pending;
        }
        let evict = &self.limit.evict;
        let notified = self
            .notified
            .get_or_insert_with(|| Box::pin(evict.notified()));
        ready!(notified.as_mut().poll(cx));
        self.notified = None;
        Poll::Ready(())
    }

    /// Stops waiting; an eviction that has arrived but was not polled goes to the next connection.
    pub(super) fn cancel(&mut self) {
        self.notified = None;
    }
}

/// Counts one connection as open until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    limit: Arc<ConnectionLimit>,
    /// Counts the connection for its client, if `per_client` is set.
    client_permit: Option<ClientPermit>,
}

impl ConnectionPermit {
    /// The limit that counts the connection.
    pub(crate) fn limit(&self) -> &ConnectionLimit {
        &self.limit
    }

    /// Counts the connection for this client. False: the client has reached the limit. Connections that were
    /// accepted before `per_client` was set are not counted.
    pub(crate) fn acquire_for_client(
        &mut self,
        client: IpAddr,
        config: PerClientLimitConfig,
    ) -> bool {
        self.client_permit = self.limit.per_client.acquire(client, config);
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
