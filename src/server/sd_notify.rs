//! What systemd is told (`sd_notify(3)`): one datagram to the socket that it named.
//!
//! Where there is no service manager, nothing is sent. `MAINPID` goes with every message of a
//! process that serves: after an upgrade the main process is another one. The service manager must
//! listen to every process of the service for that (`NotifyAccess=all`), and systemd does not wait
//! for the end of a main process that is not its own child. Under a supervisor neither matters.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::task::JoinHandle;

/// Names the service manager's socket.
pub(super) const SOCKET_ENV: &str = "NOTIFY_SOCKET";
/// Names the process that the watchdog's time is meant for.
pub(super) const WATCHDOG_PID_ENV: &str = "WATCHDOG_PID";

/// What only a supervisor is told; the prefix is what `sd_notify(3)` has for such words.
pub(super) const DRAINING_MESSAGE: &str = "X_CLOCKWISE_DRAINING=1";

/// The process serves what its configuration says.
pub(super) fn ready() {
    notify(&format!("READY=1\nMAINPID={}", std::process::id()));
}

/// The configuration is being read anew (`Type=notify-reload`).
pub(super) fn reloading() {
    let micros = crate::clock::monotonic_micros();
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

/// The process is coming to its end. With a successor the service lives on, and only a supervisor
/// is told: this process is not to lead again.
pub(super) fn stopping(succeeded: bool) {
    if !succeeded {
        notify("STOPPING=1");
    } else if super::supervisor::is_supervised() {
        notify(DRAINING_MESSAGE);
    }
}

/// Tells the service manager what it should know, if there is one.
pub(super) fn notify(state: &str) {
    if state.is_empty() {
        return;
    }
    let Some(name) = std::env::var_os(SOCKET_ENV) else {
        return;
    };
    if let Err(error) = send(&name, state) {
        log::warn!("the service manager cannot be told: {error}");
    }
}

/// Signs of life for the service manager's watchdog, until it is dropped.
#[derive(Debug)]
pub(super) struct Watchdog(JoinHandle<()>);

impl Watchdog {
    /// Starts, where the service manager asked for it (`sd_watchdog_enabled(3)`). Call within the
    /// runtime.
    pub(super) fn start() -> Option<Self> {
        let read = |name| std::env::var(name).ok();
        let ours = super::is_successor()
            || read(WATCHDOG_PID_ENV).is_none_or(|pid| pid == std::process::id().to_string());
        let limit = read("WATCHDOG_USEC").and_then(|micros| parse_watchdog_usec(&micros))?;
        ours.then(|| Self(tokio::spawn(send_keepalives(limit / 2))))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Each sign has gone through the runtime: its timer fired, and a new task had its turn. Where that
/// no longer happens, no request has its turn either.
async fn send_keepalives(pause: Duration) {
    loop {
        if tokio::spawn(async {}).await.is_ok() {
            notify("WATCHDOG=1");
        }
        tokio::time::sleep(pause).await;
    }
}

fn parse_watchdog_usec(micros: &str) -> Option<Duration> {
    let micros = micros.parse().ok().filter(|&micros| micros > 0)?;
    Some(Duration::from_micros(micros))
}

/// A name that begins with `@` is in Linux's abstract namespace. Never waits: what does not fit is
/// an error, not a stop.
fn send(name: &OsStr, state: &str) -> std::io::Result<()> {
    let address = match name.as_bytes().split_first() {
        Some((b'@', rest)) => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchdog_limit_is_a_positive_number_of_microseconds() {
        assert_eq!(
            parse_watchdog_usec("30000000"),
            Some(Duration::from_secs(30))
        );
        for nonsense in ["", "0", "-1", "30s"] {
            assert_eq!(parse_watchdog_usec(nonsense), None, "{nonsense}");
        }
    }
}
