//! The socket on which the proxy's processes say who leads, and the kernel's word on who said it.
//!
//! Anybody in the same network namespace can write to it: a sender is known by what the kernel adds
//! to each message (`SO_PASSCRED`, `unix(7)`), not by what it says. The credentials are read with
//! `nix`: a sender outside our process namespace has the process id 0, which `rustix` cannot hold.

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, RecvMsg, UnixCredentials, recvmsg};
use rustix::process::Pid;
use tokio::io::Interest;

/// The longest message that is read; systemd's own bound is the same.
const MAX_MESSAGE: usize = 4096;

/// Where messages come in.
#[derive(Debug)]
pub(super) struct NotifySocket(tokio::net::UnixDatagram);

/// What was said, and by whom.
#[derive(Debug)]
pub(super) struct NotifyMessage {
    pub(super) text: String,
    /// `None`: by a process that we cannot see.
    pub(super) sender: Option<Pid>,
}

impl NotifySocket {
    /// Opens one; its name in Linux's abstract namespace. It has none in the file system, which a
    /// container may not let us write to. Call within the runtime.
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

    /// The next message. Can be dropped and called again without losing one.
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

/// A message that carries more than credentials, such as descriptors, is nobody's of ours.
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg_addr};

    use super::*;

    fn mailbox<T>(then: impl AsyncFnOnce(NotifySocket, SocketAddr) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let (mailbox, name) = NotifySocket::open().unwrap();
            then(mailbox, SocketAddr::from_abstract_name(name).unwrap()).await
        })
    }

    #[test]
    fn notify_socket_reports_the_sender_pid_from_the_kernel() {
        let message = mailbox(async |mailbox, address| {
            let socket = UnixDatagram::unbound().unwrap();
            socket.send_to_addr(b"READY=1", &address).unwrap();
            mailbox.receive().await.unwrap()
        });
        assert_eq!(message.text, "READY=1");
        assert_eq!(message.sender, Some(rustix::process::getpid()));
    }

    #[test]
    fn notify_socket_message_with_descriptors_has_no_sender() {
        let message = mailbox(async |mailbox, address| {
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
            mailbox.receive().await.unwrap()
        });
        assert_eq!(message.sender, None);
    }
}
