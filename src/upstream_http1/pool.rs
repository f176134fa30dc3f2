//! Idle connections to peers, for the next requests.
//!
//! Each worker thread has a shard, so that threads rarely wait for each other. A thread without an idle connection
//! to a peer takes one from another thread's shard. No task watches an idle connection: whether its peer has closed
//! it, or has sent bytes without a request, is checked when it is taken, and by a sweep once a second.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::upstreams::peer::{HttpPeer, Peer as _};

use super::peer_stream::PeerStream;
use crate::upstream::Address;

/// Identifies the connections that a request may use: those with the same key are interchangeable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    /// The peer's address.
    pub(crate) address: Address,
    /// A hash of TLS settings, server name and PROXY header; 0: plain TCP without a PROXY header.
    pub(crate) transport: u64,
}

impl PoolKey {
    /// The transport of plain TCP without a PROXY header.
    pub(crate) const PLAIN: u64 = 0;

    /// The key of connections to `peer`; `None`: it has no address.
    pub(crate) fn of(peer: &HttpPeer) -> Option<Self> {
        let is_plain = is_plain_tcp(peer) && peer.group_key == 0;
        let address = match &peer._address {
            SocketAddr::Inet(address) => Address::Ip(*address),
            SocketAddr::Unix(unix) => Address::Unix(unix.as_pathname()?.into()),
        };
        Some(Self {
            address,
            transport: if is_plain {
                Self::PLAIN
            } else {
                peer.reuse_hash() | 1
            },
        })
    }
}

/// Whether a connection to `peer` begins without TLS and without a PROXY header.
pub(super) fn is_plain_tcp(peer: &HttpPeer) -> bool {
    let is_inet = peer._address.as_inet().is_some();
    is_inet && !peer.is_tls() && peer.options.custom_l4.is_none()
}

/// An idle connection.
#[derive(Debug)]
struct Idle {
    stream: PeerStream,
    /// When it has been idle for too long, on the clock of [`clock::since_start`](crate::clock::since_start).
    expires: Duration,
}

/// The idle connections of one thread.
#[derive(Debug, Default)]
struct Shard {
    idle: HashMap<PoolKey, Vec<Idle>, foldhash::fast::RandomState>,
    /// The number of connections in `idle`.
    count: usize,
}

/// All idle connections of the process.
#[derive(Debug)]
pub(super) struct Pool {
    shards: Box<[Mutex<Shard>]>,
    /// The most idle connections of one shard; more are closed.
    shard_capacity: usize,
}

impl Pool {
    /// A pool for `threads` worker threads and `capacity` idle connections in all.
    pub(super) fn new(threads: usize, capacity: usize) -> Self {
        let threads = threads.max(1);
        Self {
            shards: (0..threads).map(|_| Mutex::default()).collect(),
            shard_capacity: capacity.div_ceil(threads).max(1),
        }
    }

    /// Takes an idle connection that looks open; the check needs no system call if nothing has arrived. The one that
    /// was used last comes first: it is the least likely to be closed soon.
    pub(super) fn take(&self, key: &PoolKey, now: Duration) -> Option<PeerStream> {
        let own = thread_number() % self.shards.len();
        let (before, from_own) = self.shards.split_at(own);
        let mut shards = from_own.iter().chain(before);
        shards.find_map(|shard| shard.lock().take(key, now))
    }

    /// Keeps a connection for another request; closes it if the thread's shard is full.
    pub(super) fn put(&self, key: PoolKey, stream: PeerStream, expires: Duration) {
        let own = thread_number() % self.shards.len();
        let Some(shard) = self.shards.get(own) else {
            return;
        };
        let mut shard = shard.lock();
        if shard.count < self.shard_capacity {
            shard.count += 1;
            let idle = shard.idle.entry(key).or_default();
            idle.push(Idle { stream, expires });
        }
    }

    /// Closes the connections that are idle for too long, or that their peers have closed.
    pub(super) fn sweep(&self, now: Duration) {
        for shard in &self.shards {
            shard.lock().sweep(now);
        }
    }
}

impl Shard {
    fn take(&mut self, key: &PoolKey, now: Duration) -> Option<PeerStream> {
        let idle = self.idle.get_mut(key)?;
        while let Some(mut last) = idle.pop() {
            self.count -= 1;
            if last.is_usable(now) {
                return Some(last.stream);
            }
        }
        None
    }

    fn sweep(&mut self, now: Duration) {
        self.idle.retain(|_, idle| {
            idle.retain_mut(|idle| idle.is_usable(now));
            !idle.is_empty()
        });
        self.count = self.idle.values().map(Vec::len).sum();
    }
}

impl Idle {
    fn is_usable(&mut self, now: Duration) -> bool {
        self.expires > now && self.stream.is_quiet()
    }
}

/// The number of this thread, which no other thread of the process has.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Relaxed));
    NUMBER.with(|number| *number)
}
