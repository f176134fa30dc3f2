//! What the process as a whole is doing, and what it can be asked to do next.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::clock;

/// A stage in the life of the process; it only goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// The peers are asked for the first time; nothing is accepted.
    Starting,
    /// Connections are accepted.
    Serving,
    /// No connection is accepted; the open ones come to their end.
    Draining,
}

impl Stage {
    /// For people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

/// A listener's address as configured, and as bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundAddress {
    /// As configured; its port may be 0.
    pub configured: String,
    /// With the port that the kernel chose.
    pub bound: String,
}

/// Where the process listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// For clients.
    pub listeners: Vec<BoundAddress>,
    /// For operators; `None`: off.
    pub admin: Option<SocketAddr>,
}

/// The process that this one took the sockets over from, while it still has connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Predecessor {
    /// Its process id.
    pub pid: u32,
    /// Its open connections.
    pub connections: u64,
}

/// What the process can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Put the configuration file in force.
    Reload {
        /// Only say what would change.
        dry_run: bool,
        /// Even if more keys move than `max_moved` allows.
        force: bool,
    },
    /// Hand the sockets over to a new process.
    Upgrade {
        /// Even if more keys move than `max_moved` allows.
        force: bool,
    },
}

/// Why an order was not carried out. Whatever the reason: what was in force is in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It failed; this is what to say to the operator.
    #[error("{0}")]
    Failed(String),
    /// A limit that the operator set forbids it.
    #[error("{0}")]
    Limit(String),
    /// Another order is being carried out, or the process is at its end.
    #[error("{0}")]
    Busy(String),
}

/// What came of an order.
pub type Reply = Result<Value, Refusal>;

/// Orders on their way to whoever carries them out.
pub type Orders = mpsc::Receiver<(Order, oneshot::Sender<Reply>)>;

/// What the process is doing, shared by all who ask or change it.
#[derive(Debug)]
pub struct Lifecycle {
    /// When the process started.
    pub started: Timestamp,
    stage: AtomicU8,
    addresses: ArcSwap<Addresses>,
    predecessor: ArcSwap<Option<Predecessor>>,
    orders: mpsc::Sender<(Order, oneshot::Sender<Reply>)>,
}

impl Lifecycle {
    /// A process that starts now, and the orders that it will be given.
    pub fn new() -> (Self, Orders) {
        let (orders, given) = mpsc::channel(16);
        let lifecycle = Self {
            started: clock::wall(),
            stage: AtomicU8::new(Stage::Starting as u8),
            addresses: ArcSwap::default(),
            predecessor: ArcSwap::default(),
            orders,
        };
        (lifecycle, given)
    }

    /// The stage the process is in.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::SeqCst) {
            0 => Stage::Starting,
            1 => Stage::Serving,
            _ => Stage::Draining,
        }
    }

    /// Goes on to a later stage; an earlier one is ignored.
    pub fn advance(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::SeqCst);
    }

    /// Where the process listens; empty before it is bound.
    pub fn addresses(&self) -> Arc<Addresses> {
        self.addresses.load_full()
    }

    /// Says where the process listens.
    pub fn set_addresses(&self, addresses: Addresses) {
        self.addresses.store(Arc::new(addresses));
    }

    /// The process before this one, while it drains.
    pub fn predecessor(&self) -> Option<Predecessor> {
        **self.predecessor.load()
    }

    /// Says how far the process before this one is.
    pub fn set_predecessor(&self, predecessor: Option<Predecessor>) {
        self.predecessor.store(Arc::new(predecessor));
    }

    /// Gives an order, and waits for what comes of it.
    pub async fn order(&self, order: Order) -> Reply {
        let gone = || Refusal::Busy("the process is at its end".to_owned());
        let (reply, answer) = oneshot::channel();
        self.orders.send((order, reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}
