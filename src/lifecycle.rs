//! What the process as a whole is doing: starting, serving, draining.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use jiff::Timestamp;

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
    pub configured: SocketAddr,
    /// With the port that the kernel chose.
    pub bound: SocketAddr,
}

/// What the process is doing, shared by all who ask or change it.
#[derive(Debug)]
pub struct Lifecycle {
    /// When the process started.
    pub started: Timestamp,
    stage: AtomicU8,
    addresses: OnceLock<Addresses>,
}

/// Where the process listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// For clients.
    pub listeners: Vec<BoundAddress>,
    /// For operators; `None`: off.
    pub admin: Option<SocketAddr>,
}

impl Lifecycle {
    /// A process that starts now.
    pub fn new() -> Self {
        Self {
            started: clock::wall(),
            stage: AtomicU8::new(Stage::Starting as u8),
            addresses: OnceLock::new(),
        }
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
    pub fn addresses(&self) -> Addresses {
        self.addresses.get().cloned().unwrap_or_default()
    }

    /// Says, once, where the process listens.
    pub fn set_addresses(&self, addresses: Addresses) {
        // A second call would be a defect of the assembly; the first one stands.
        let _ = self.addresses.set(addresses);
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}
