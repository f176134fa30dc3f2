//! The stage of the process, its configuration file, the addresses it listens on, and the commands it accepts (reload, upgrade).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use crate::clock;

/// A stage of the process; it only advances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum ProcessStage {
    /// First health checks are running; no connection is accepted.
    Starting,
    /// Connections are accepted.
    Serving,
    /// No new connection is accepted; the open ones finish.
    Draining,
}

impl ProcessStage {
    /// The name in logs and the admin API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

/// A listener's address as configured, and as bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BoundAddress {
    /// The address as configured; its port may be 0.
    pub configured: String,
    /// The address with the port that the kernel chose.
    pub bound: String,
}

/// The addresses on which the process listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BoundAddresses {
    /// The listeners for clients.
    pub listeners: Vec<BoundAddress>,
    /// The admin API; `None`: disabled.
    pub admin: Option<SocketAddr>,
}

/// The process from which this one took over the sockets in an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PredecessorStatus {
    /// Its process id.
    pub pid: u32,
    /// Its open connections.
    pub connections: u64,
}

/// A command of the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ControlCommand {
    /// Load the configuration file.
    Reload {
        /// Only report what would change.
        dry_run: bool,
        /// Reload even if more keys move than `max_moved` allows.
        force: bool,
    },
    /// Hand the sockets over to a new process.
    Upgrade {
        /// Upgrade even if more keys move than `max_moved` allows.
        force: bool,
    },
    /// Put the lists of peers in force that are held.
    AcceptPeers {
        /// The name of the upstream.
        upstream: String,
    },
    /// Change a peer of an upstream.
    ChangePeers(PeerChangeRequest),
}

/// A change of the peers of an upstream by an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerChangeRequest {
    /// The name of the upstream.
    pub upstream: String,
    /// The change.
    pub edit: PeerEdit,
    /// Only report what would change.
    pub dry_run: bool,
    /// Change even if more keys move than `max_moved` allows, or no peer is left.
    pub force: bool,
}

/// What an operator changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerEdit {
    /// Add or replace a peer; with only `weight`, change its weight.
    Put {
        /// Its label.
        label: String,
        /// The other keys of a peer in the configuration: `address`, `weight`, `id`, `server_name`.
        fields: Map<String, Value>,
        /// Refuse a label that exists.
        must_be_new: bool,
    },
    /// Remove a peer.
    Remove {
        /// Its label.
        label: String,
    },
    /// Forget the changes of a peer, or of all.
    Reset {
        /// Its label.
        label: Option<String>,
    },
}

/// Why a command failed. The configuration in force stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ControlError {
    /// The command failed, with a message for the operator.
    #[error("{0}")]
    Failed(String),
    /// A limit in the configuration forbids the command.
    #[error("{0}")]
    LimitExceeded(String),
    /// What the command names does not exist.
    #[error("{0}")]
    NotFound(String),
    /// What the command would add exists.
    #[error("{0}")]
    Exists(String),
    /// The command is too dangerous without `force`.
    #[error("{0}")]
    NeedsForce(String),
    /// Another command is being executed, or the process is shutting down.
    #[error("{0}")]
    Busy(String),
}

/// The outcome of a command: a JSON report for the operator.
pub(crate) type ControlResult = Result<Value, ControlError>;

/// The receiving end of the commands; each comes with a channel for its result.
pub(crate) type ControlReceiver = mpsc::Receiver<(ControlCommand, oneshot::Sender<ControlResult>)>;

/// The state of the process, shared by the admin API, the control socket and the server.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    /// When the process started.
    pub started: Timestamp,
    config_path: Option<PathBuf>,
    stage: AtomicU8,
    addresses: ArcSwap<BoundAddresses>,
    predecessor: ArcSwap<Option<PredecessorStatus>>,
    commands: mpsc::Sender<(ControlCommand, oneshot::Sender<ControlResult>)>,
}

impl Lifecycle {
    /// The state of a process that starts now, and the receiver of its commands.
    ///
    /// `config_path`: the absolute path of the configuration file; `None`: there is nothing to reload from.
    pub(crate) fn new(config_path: Option<PathBuf>) -> (Self, ControlReceiver) {
        let (commands, receiver) = mpsc::channel(16);
        let lifecycle = Self {
            started: clock::wall(),
            config_path,
            stage: AtomicU8::new(ProcessStage::Starting as u8),
            addresses: ArcSwap::default(),
            predecessor: ArcSwap::default(),
            commands,
        };
        (lifecycle, receiver)
    }

    /// The absolute path of the configuration file that this process reads in a reload, and its successor at its start;
    /// `None`: there is none.
    pub(crate) fn config_path(&self) -> Option<&Path> {
        self.config_path.as_deref()
    }

    /// The current stage.
    pub(crate) fn stage(&self) -> ProcessStage {
        match self.stage.load(Ordering::SeqCst) {
            0 => ProcessStage::Starting,
            1 => ProcessStage::Serving,
            _ => ProcessStage::Draining,
        }
    }

    /// Advances to a later stage; an earlier one is ignored.
    pub(crate) fn advance(&self, stage: ProcessStage) {
        self.stage.fetch_max(stage as u8, Ordering::SeqCst);
    }

    /// The addresses; empty until the sockets are bound.
    pub(crate) fn addresses(&self) -> Arc<BoundAddresses> {
        self.addresses.load_full()
    }

    /// Sets the addresses.
    pub(crate) fn set_addresses(&self, addresses: BoundAddresses) {
        self.addresses.store(Arc::new(addresses));
    }

    /// The process before this one; `None` once it has drained.
    pub(crate) fn predecessor(&self) -> Option<PredecessorStatus> {
        **self.predecessor.load()
    }

    /// Sets the state of the process before this one.
    pub(crate) fn set_predecessor(&self, predecessor: Option<PredecessorStatus>) {
        self.predecessor.store(Arc::new(predecessor));
    }

    /// Sends a command to the server, and waits for its result.
    pub(crate) async fn execute(&self, command: ControlCommand) -> ControlResult {
        let shutting_down = || ControlError::Busy("the process is shutting down".to_owned());
        let (sender, result) = oneshot::channel();
        self.commands
            .send((command, sender))
            .await
            .map_err(|_| shutting_down())?;
        result.await.map_err(|_| shutting_down())?
    }
}
