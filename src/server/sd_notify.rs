//! Messages to the service manager (`sd_notify(3)`): one datagram to the socket that `NOTIFY_SOCKET` names.
//!
//! Without a service manager, nothing is sent. `READY=1` carries `MAINPID`, since after an upgrade the main process is
//! another one. For that the service manager must accept messages of every process of the service
//! (`NotifyAccess=all`); systemd does not wait for the exit of a main process that is not its child. Under a supervisor
//! neither matters.
//!
//! The crate `sd-notify` (0.5.0) does not do: it sends blocking, cannot reach an abstract socket (`@name`), such as the
//! supervisor's, and takes the watchdog as meant for another process after an upgrade.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::process_role;

/// Names the service manager's socket.
pub(super) const SOCKET_ENV: &str = "NOTIFY_SOCKET";

/// Names the process that the watchdog watches.
pub(super) const WATCHDOG_PID_ENV: &str = "WATCHDOG_PID";

/// Only for a supervisor; `sd_notify(3)` reserves the prefix `X_` for such extensions.
pub(super) const DRAINING_MESSAGE: &str = "X_CLOCKWISE_DRAINING=1";

/// Reports that the process serves its configuration.
pub(super) fn ready() {
    notify(&format!("READY=1\nMAINPID={}", std::process::id()));
}

/// Reports that a reload has begun (`Type=notify-reload`); [`ready`] ends it.
pub(super) fn reloading() {
    let micros = crate::clock::monotonic_micros();
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

/// Reports that the process drains. After an upgrade the service continues, so only a supervisor gets a message: this
/// process must not lead again.
pub(super) fn stopping(after_upgrade: bool) {
    if !after_upgrade {
        notify("STOPPING=1");
    } else if process_role::is_supervised() {
        notify(DRAINING_MESSAGE);
    }
}

/// Sends a message, if there is a service manager.
pub(super) fn notify(message: &str) {
    if message.is_empty() {
        return;
    }
    let Some(name) = std::env::var_os(SOCKET_ENV) else {
        return;
    };
    if let Err(error) = send(&name, message) {
        log::warn!("cannot notify the service manager: {error}");
    }
}

/// Keeps the service manager's watchdog alive until it is dropped.
#[derive(Debug)]
pub(super) struct Watchdog(JoinHandle<()>);

impl Watchdog {
    /// Starts, if the service manager asks for it (`sd_watchdog_enabled(3)`). Must be called inside a Tokio
    /// runtime.
    pub(super) fn start() -> Option<Self> {
        let read = |name| std::env::var(name).ok();
        // After an upgrade the variable still names the first process; the new one becomes the main process in its
        // place.
        let is_ours = process_role::is_successor()
            || read(WATCHDOG_PID_ENV).is_none_or(|pid| pid == std::process::id().to_string());
        let limit = read("WATCHDOG_USEC").and_then(|micros| parse_watchdog_usec(&micros))?;
        is_ours.then(|| Self(tokio::spawn(send_keepalives(limit / 2))))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Each keep-alive goes through the runtime: its timer has fired, and a new task has run. If that stops working, no
/// request is served either.
async fn send_keepalives(interval: Duration) {
    loop {
        if tokio::spawn(async {}).await.is_ok() {
            notify("WATCHDOG=1");
        }
        tokio::time::sleep(interval).await;
    }
}

fn parse_watchdog_usec(micros: &str) -> Option<Duration> {
    let micros = micros.parse().ok().filter(|&micros| micros > 0)?;
    Some(Duration::from_micros(micros))
}

/// A name that begins with `@` is in Linux's abstract namespace. Never blocks: a full queue is an error.
fn send(name: &OsStr, message: &str) -> std::io::Result<()> {
    let address = match name.as_bytes().split_first() {
        Some((b'@', rest)) => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket
        .send_to_addr(message.as_bytes(), &address)
        .map(|_| ())
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
