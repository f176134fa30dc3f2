//! What systemd is told (`sd_notify(3)`): one datagram to the socket that it named.
//!
//! Where there is no service manager, nothing is sent. `MAINPID` goes with every message of a
//! process that serves: after an upgrade the main process is another one.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The process serves what its configuration says.
pub(super) fn ready() {
    tell(&format!("READY=1\nMAINPID={}", std::process::id()));
}

/// The configuration is being read anew (`Type=notify-reload`).
pub(super) fn reloading() {
    let micros = crate::clock::monotonic_micros();
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

/// The process is coming to its end. With a successor the service lives on.
pub(super) fn stopping(succeeded: bool) {
    if !succeeded {
        tell("STOPPING=1");
    }
}

fn tell(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(&name, state) {
        log::warn!("the service manager cannot be told: {error}");
    }
}

/// A name that begins with `@` is in Linux's abstract namespace.
fn send(name: &std::ffi::OsStr, state: &str) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let address = match name.as_bytes().split_first() {
        Some((b'@', rest)) => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(state.as_bytes(), &address)
        .map(|_| ())
}
