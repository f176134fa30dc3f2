//! TCP ports for servers that tests start.
//!
//! Each process has a loopback address of its own, and counts its ports up: two servers of all the
//! tests that run never meet. The ports lie below the kernel's ephemeral range, so no outgoing
//! connection can sit on one while its server is down.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

use socket2::{Domain, Socket, Type};

use super::wait;

static NEXT: AtomicU16 = AtomicU16::new(12_000);

/// An address that nobody listens on, and that no other caller is given.
pub(crate) fn free() -> SocketAddr {
    let mut candidates = std::iter::repeat_with(candidate).take(1000);
    // Bound, not listening: a child that another test is just starting may hold a copy for an instant, and that
    // one is in nobody's way.
    let free = candidates.find(|&address| unbound(address).bind(&address.into()).is_ok());
    free.expect("one of 1,000 ports is free")
}

/// A port of this address that the kernel has just had free; somebody else may be given it, too.
pub(crate) fn free_at(host: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((host, 0)).expect("a free port");
    listener.local_addr().expect("an address")
}

fn candidate() -> SocketAddr {
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(port < 32_000, "out of ports below the ephemeral ones");
    (own_host(), port).into()
}

/// An address in 127.64.0.0/10 made of the process id, which is below 2^22 on Linux.
fn own_host() -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 64, 0, 0).to_bits() | (process::id() & 0x3f_ffff))
}

/// A port that refuses every connect for as long as this value lives: bound, so that nobody else
/// gets it, and not listening.
pub(crate) struct ClosedPort {
    pub(crate) address: SocketAddr,
    _bound: Socket,
}

impl ClosedPort {
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
pub(crate) struct FullBacklog {
    pub(crate) address: SocketAddr,
    _listening: Socket,
    _queued: Vec<Socket>,
}

impl FullBacklog {
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

fn unbound(address: SocketAddr) -> Socket {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, None).expect("socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket
}

/// A TCP socket bound to `address`, also while old connections of that port linger.
pub(crate) fn reusable(address: SocketAddr) -> Socket {
    let socket = unbound(address);
    // A child that another test is just starting may hold what `free` has closed, until it executes.
    wait::value(&format!("{address} to be free"), || {
        socket.bind(&address.into()).ok()
    });
    socket
}
