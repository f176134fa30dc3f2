//! How many connections there are, how many there may be, and when the last one has left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the open connections of a group of listeners.
///
/// At the limit, accepting waits: new connections stay in the kernel's queue instead of being
/// refused, and every response says `Connection: close`, so that places come free.
#[derive(Debug)]
pub struct Gate {
    limit: AtomicUsize,
    inside: AtomicUsize,
    left: Notify,
}

impl Gate {
    /// A gate that lets `limit` connections in at once; `None`: any number.
    pub fn new(limit: Option<usize>) -> Arc<Self> {
        let limit = AtomicUsize::new(limit.unwrap_or(usize::MAX));
        Arc::new(Self {
            limit,
            inside: AtomicUsize::new(0),
            left: Notify::new(),
        })
    }

    /// Another limit, from now on; connections above it stay.
    pub fn set_limit(&self, limit: Option<usize>) {
        self.limit
            .store(limit.unwrap_or(usize::MAX), Ordering::Relaxed);
        self.left.notify_waiters();
    }

    /// Open connections.
    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::SeqCst)
    }

    /// Whether there are as many as there may be.
    pub fn is_full(&self) -> bool {
        self.inside() >= self.limit.load(Ordering::Relaxed)
    }

    /// Waits until no connection is open.
    pub async fn empty(&self) {
        self.until(|gate| gate.inside() == 0).await;
    }

    /// Waits until there is room for one more.
    pub async fn room(&self) {
        self.until(|gate| !gate.is_full()).await;
    }

    /// Takes a place, whether there is one or not.
    pub fn enter(self: &Arc<Self>) -> Guest {
        self.inside.fetch_add(1, Ordering::SeqCst);
        Guest(Arc::clone(self))
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

/// One connection's place; leaves when dropped, however the connection ended.
#[derive(Debug)]
pub struct Guest(Arc<Gate>);

impl Guest {
    /// The gate it came through.
    pub fn gate(&self) -> &Gate {
        &self.0
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
        self.0.left.notify_waiters();
    }
}
