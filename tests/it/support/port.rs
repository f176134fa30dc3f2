//! TCP ports for the servers of tests.
//!
//! Each test process has its own loopback address and counts its ports up, so that no two servers collide. The
//! ports are below the ephemeral range of the kernel, so no outgoing connection can take one while its server is
//! down.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

use socket2::{Domain, Socket, Type};

use super::wait;

static NEXT: AtomicU16 = AtomicU16::new(12_000);

/// An unused address, given to one caller only.
pub(crate) fn free() -> SocketAddr {
    let mut candidates = std::iter::repeat_with(candidate).take(1000);
    // Bound but not listening: a child process of another test may hold a copy of the socket for an instant,
    // which is harmless then.
    let free = candidates.find(|&address| unbound(address).bind(&address.into()).is_ok());
    free.expect("one of 1,000 ports is free")
}

/// A free ephemeral port of this address. The kernel may give it to another process later.
pub(crate) fn free_at(host: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((host, 0)).expect("a free port");
    listener.local_addr().expect("an address")
}

fn candidate() -> SocketAddr {
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(port < 32_000, "out of ports below the ephemeral ones");
    (own_host(), port).into()
}

/// An address in 127.64.0.0/10 made from the process id, which is below 2^22 on Linux.
fn own_host() -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 64, 0, 0).to_bits() | (process::id() & 0x3f_ffff))
}

/// A port that refuses connections until dropped: bound, so that no other server gets it, but not listening.
pub(crate) struct ClosedPort {
    pub(crate) address: SocketAddr,
    _bound: Socket,
}

impl ClosedPort {
    pub(crate) fn new() -> Self {
        Self::hold(free())
    }

    /// Binds the address of a server that has just stopped.
    pub(crate) fn hold(address: SocketAddr) -> Self {
        let socket = reusable(address);
        Self {
            address,
            _bound: socket,
        }
    }
}

/// A server with a full listen backlog: the kernel drops every SYN, and connects hang.
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
        // A backlog of 0 holds one connection; more connects fill it reliably.
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
    // The expected error is EINPROGRESS: the SYN is on its way into the backlog.
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
    // A child process of another test may hold the socket that `free` closed, until its exec.
    wait::value(&format!("{address} to be free"), || {
        socket.bind(&address.into()).ok()
    });
    socket
}
