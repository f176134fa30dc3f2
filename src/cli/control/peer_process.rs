//! The check that the process that answers on a control socket is the instance, and not one of another user that has
//! taken its path: a forged answer would be a success that never was.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Checks the user of the process that listens on `socket` (`SO_PEERCRED`, unix(7)).
///
/// # Errors
/// If it is neither this user nor root; root also accepts the owner of the socket's directory.
pub(super) fn check_peer_process(stream: &UnixStream, socket: &Path) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?.uid.as_raw();
    let own = rustix::process::geteuid().as_raw();
    let directory = match socket.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let owner = fs::metadata(directory).map(|directory| directory.uid());
    if is_trusted(peer, own, owner.ok()) {
        return Ok(());
    }
    let text = if own == ROOT {
        format!(
            "the process that listens there belongs to user {peer}, which owns neither this command nor the directory of the socket"
        )
    } else {
        format!("the process that listens there belongs to user {peer}, not to user {own} or root")
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

/// Whether an answer of user `peer` counts for a command of user `own`. A service with a user of its own, as with
/// `DynamicUser=` of systemd, owns the directory of its socket. In a directory of root or of a third user, such as that for
/// temporary files, any user may have made the socket.
fn is_trusted(peer: u32, own: u32, directory_owner: Option<u32>) -> bool {
    peer == own || peer == ROOT || (own == ROOT && directory_owner == Some(peer))
}

const ROOT: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_process_is_trusted_by_its_user_and_by_root_in_its_own_directory_only() {
        let (service, other) = (998, 65534);
        for (peer, own, directory_owner, trusted) in [
            (ROOT, ROOT, Some(ROOT), true),
            (ROOT, ROOT, Some(other), true),
            (service, service, Some(ROOT), true),
            (service, service, Some(other), true),
            (ROOT, service, Some(other), true),
            (service, ROOT, Some(service), true),
            (service, ROOT, Some(ROOT), false),
            (service, ROOT, Some(other), false),
            (service, ROOT, None, false),
            (other, service, Some(service), false),
            (other, service, Some(other), false),
        ] {
            assert_eq!(
                is_trusted(peer, own, directory_owner),
                trusted,
                "{peer} answers {own} in a directory of {directory_owner:?}"
            );
        }
    }
}
