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
pub enum ProcessStage {
    /// The peers are asked for the first time; nothing is accepted.
    Starting,
    /// Connections are accepted.
    Serving,
    /// No connection is accepted; the open ones come to their end.
    Draining,
}

impl ProcessStage {
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
pub struct BoundAddresses {
    /// For clients.
    pub listeners: Vec<BoundAddress>,
    /// For operators; `None`: off.
    pub admin: Option<SocketAddr>,
}

/// The process that this one took the sockets over from, while it still has connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PredecessorStatus {
    /// Its process id.
    pub pid: u32,
    /// Its open connections.
    pub connections: u64,
}

/// What the process can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlCommand {
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
pub enum ControlError {
    /// It failed; this is what to say to the operator.
    #[error("{0}")]
    Failed(String),
    /// A limit that the operator set forbids it.
    #[error("{0}")]
    LimitExceeded(String),
    /// Another order is being carried out, or the process is at its end.
    #[error("{0}")]
    Busy(String),
}

/// What came of an order.
pub type ControlResult = Result<Value, ControlError>;

/// Orders on their way to whoever carries them out.
pub type ControlReceiver = mpsc::Receiver<(ControlCommand, oneshot::Sender<ControlResult>)>;

/// What the process is doing, shared by all who ask or change it.
#[derive(Debug)]
pub struct Lifecycle {
    /// When the process started.
    pub started: Timestamp,
    stage: AtomicU8,
    addresses: ArcSwap<BoundAddresses>,
    predecessor: ArcSwap<Option<PredecessorStatus>>,
    commands: mpsc::Sender<(ControlCommand, oneshot::Sender<ControlResult>)>,
}

impl Lifecycle {
    /// A process that starts now, and the orders that it will be given.
    pub fn new() -> (Self, ControlReceiver) {
        let (orders, given) = mpsc::channel(16);
        let lifecycle = Self {
            started: clock::wall(),
            stage: AtomicU8::new(ProcessStage::Starting as u8),
            addresses: ArcSwap::default(),
            predecessor: ArcSwap::default(),
            commands: orders,
        };
        (lifecycle, given)
    }

    /// The stage the process is in.
    pub fn stage(&self) -> ProcessStage {
        match self.stage.load(Ordering::SeqCst) {
            0 => ProcessStage::Starting,
            1 => ProcessStage::Serving,
            _ => ProcessStage::Draining,
        }
    }

    /// Goes on to a later stage; an earlier one is ignored.
    pub fn advance(&self, stage: ProcessStage) {
        self.stage.fetch_max(stage as u8, Ordering::SeqCst);
    }

    /// Where the process listens; empty before it is bound.
    pub fn addresses(&self) -> Arc<BoundAddresses> {
        self.addresses.load_full()
    }

    /// Says where the process listens.
    pub fn set_addresses(&self, addresses: BoundAddresses) {
        self.addresses.store(Arc::new(addresses));
    }

    /// The process before this one, while it drains.
    pub fn predecessor(&self) -> Option<PredecessorStatus> {
        **self.predecessor.load()
    }

    /// Says how far the process before this one is.
    pub fn set_predecessor(&self, predecessor: Option<PredecessorStatus>) {
        self.predecessor.store(Arc::new(predecessor));
    }

    /// Gives an order, and waits for what comes of it.
    pub async fn execute(&self, order: ControlCommand) -> ControlResult {
        let gone = || ControlError::Busy("the process is at its end".to_owned());
        let (reply, answer) = oneshot::channel();
        self.commands
            .send((order, reply))
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}
