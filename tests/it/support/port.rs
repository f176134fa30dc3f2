//! TCP ports for servers that tests start.
//!
//! They come from below the kernel's ephemeral range, so no outgoing connection of another test can
//! sit on one while its server is down; one counter per process keeps tests apart.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::{Domain, Socket, Type};

const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A loopback address that nobody listens on now and that no other caller is given.
pub(crate) fn free() -> SocketAddr {
    (0..COUNT)
        .map(|_| candidate())
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("one of 20,000 ports is free")
}

fn candidate() -> SocketAddr {
    // Runs of several processes at once (nextest) start far apart.
    let start = process::id().wrapping_mul(2_654_435_761) >> 8;
    let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
    let port = u16::try_from(FIRST + offset).expect("below 65,536");
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A port that refuses every connect for as long as this value lives: bound, so that nobody else
/// gets it, and not listening.
pub(crate) struct Closed {
    pub(crate) address: SocketAddr,
    _bound: Socket,
}

impl Closed {
    pub(crate) fn new() -> Self {
        Self::hold(free())
    }

    /// Takes over `address` from a server that has just stopped.
    pub(crate) fn hold(address: SocketAddr) -> Self {
        let socket = reusable(address);
        Self {
            address,
            _bound: socket,
        }
    }
}

/// A server that never accepts: its queue is full, so that the kernel drops every further SYN and
/// a connect hangs.
pub(crate) struct Full {
    pub(crate) address: SocketAddr,
    _listening: Socket,
    _queued: Vec<Socket>,
}

impl Full {
    pub(crate) fn new() -> Self {
        let address = free();
        let socket = reusable(address);
        socket.listen(0).expect("listen");
        // A queue of length 0 holds one connection; a few more make sure of it.
        let queued = (0..4).map(|_| half_open(address)).collect();
        Self {
            address,
            _listening: socket,
            _queued: queued,
        }
    }
}

fn half_open(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.set_nonblocking(true).expect("nonblocking");
    // In progress is what is wanted: the SYN is on its way into the queue.
    let _ = socket.connect(&address.into());
    socket
}

/// A TCP socket bound to `address`, also while old connections of that port linger.
pub(crate) fn reusable(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket
        .bind(&address.into())
        .unwrap_or_else(|error| panic!("bind {address}: {error}"));
    socket
}
