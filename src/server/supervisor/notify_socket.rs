//! The socket on which the workers report, as to systemd, and the process id of each sender.
//!
//! Every process in the same network namespace can write to it, so the sender is taken from the credentials that the
//! kernel adds to each message (`SO_PASSCRED`, `unix(7)`). They are read with `nix`: a sender outside of our process
//! namespace has the process id 0, which `rustix` cannot represent.

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, RecvMsg, UnixCredentials, recvmsg};
use rustix::process::Pid;
use tokio::io::Interest;

/// The socket that `NOTIFY_SOCKET` names in the workers' environment.
#[derive(Debug)]
pub(super) struct NotifySocket(tokio::net::UnixDatagram);

/// One message.
#[derive(Debug)]
pub(super) struct NotifyMessage {
    pub(super) text: String,
    /// `None`: a process outside of our process namespace, or a message that carries descriptors.
    pub(super) sender: Option<Pid>,
}

impl NotifySocket {
    /// Opens a socket; the second value is its name in Linux's abstract namespace. It has no path: in a container the
    /// file system may be read-only. Must be called inside a Tokio runtime.
    pub(super) fn open() -> io::Result<(Self, String)> {
        let name = format!(
            "clockwise-{}-{:016x}",
            std::process::id(),
            rand::random::<u64>()
        );
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        rustix::net::sockopt::set_socket_passcred(&socket, true)?;
        socket.set_nonblocking(true)?;
        Ok((Self(tokio::net::UnixDatagram::from_std(socket)?), name))
    }

    /// Receives the next message. Can be dropped and called again without losing one.
    pub(super) async fn receive(&self) -> io::Result<NotifyMessage> {
        self.0
            .async_io(Interest::READABLE, || recv_message(&self.0))
            .await
    }
}

fn recv_message(socket: &impl AsRawFd) -> io::Result<NotifyMessage> {
    let mut text = vec![0; MAX_MESSAGE];
    let mut control = nix::cmsg_space!(UnixCredentials);
    let mut bytes = [IoSliceMut::new(&mut text)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let received = recvmsg(socket.as_raw_fd(), &mut bytes, Some(&mut control), flags)?;
    let (length, sender) = (received.bytes, sender_pid(&received));
    text.truncate(length);
    Ok(NotifyMessage {
        text: String::from_utf8_lossy(&text).into_owned(),
        sender,
    })
}

/// The sender, if the message carries credentials alone. Our workers send no descriptors: with them the control buffer
/// is too small, and `cmsgs` fails.
fn sender_pid(received: &RecvMsg<'_, '_, ()>) -> Option<Pid> {
    received
        .cmsgs()
        .ok()?
        .find_map(|message| match message {
            ControlMessageOwned::ScmCredentials(sender) => Some(sender.pid()),
            _ => None,
        })
        .and_then(Pid::from_raw)
}

/// The longest message that is read, in bytes; the same as in systemd.
const MAX_MESSAGE: usize = 4096;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg_addr};

    use super::*;

    fn with_socket<T>(then: impl AsyncFnOnce(NotifySocket, SocketAddr) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let (notify_socket, name) = NotifySocket::open().unwrap();
            then(notify_socket, SocketAddr::from_abstract_name(name).unwrap()).await
        })
    }

    #[test]
    fn notify_socket_reports_the_sender_pid_from_the_kernel() {
        let message = with_socket(async |notify_socket, address| {
            let socket = UnixDatagram::unbound().unwrap();
            socket.send_to_addr(b"READY=1", &address).unwrap();
            notify_socket.receive().await.unwrap()
        });
        assert_eq!(message.text, "READY=1");
        assert_eq!(message.sender, Some(rustix::process::getpid()));
    }

    #[test]
    fn notify_socket_message_with_descriptors_has_no_sender() {
        let message = with_socket(async |notify_socket, address| {
            let socket = UnixDatagram::unbound().unwrap();
            let name =
                rustix::net::SocketAddrUnix::new_abstract_name(address.as_abstract_name().unwrap());
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let rights = [socket.as_fd()];
            assert!(control.push(SendAncillaryMessage::ScmRights(&rights)));
            let bytes = [io::IoSlice::new(b"READY=1")];
            let flags = SendFlags::empty();
            sendmsg_addr(&socket, &name.unwrap(), &bytes, &mut control, flags).unwrap();
            notify_socket.receive().await.unwrap()
        });
        assert_eq!(message.sender, None);
    }
}
