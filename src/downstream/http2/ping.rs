//! Sends a PING to a client that ends its request after it has received the end of the response.
//!
//! Both sides have closed the stream then. libcurl 7.88 (Debian 12) does not read the rest of the response
//! until the server sends another frame; without one, it waits until its own timeout. Sending
//! `RST_STREAM(NO_ERROR)` before the request ends (RFC 9113 §8.1) does not help: libcurl reports an
//! error. A closed stream cannot carry a frame, so the frame is a PING, which belongs to the
//! connection (RFC 9113 §6.7).

use std::future::{pending, poll_fn};

use h2::{Ping, PingPong};

/// Sends PINGs on one connection; at most one is unacknowledged.
pub(super) struct Pings {
    /// `None`: the connection has ended.
    handle: Option<PingPong>,
    unacknowledged: bool,
    /// Another PING must follow the acknowledgement: the client may have received the current one before it
    /// ended its request.
    due: bool,
}

impl Pings {
    pub(super) fn new(handle: Option<PingPong>) -> Self {
        Self {
            handle,
            unacknowledged: false,
            due: false,
        }
    }

    /// Sends a PING, now or after the acknowledgement of the previous one.
    pub(super) fn send(&mut self) {
        self.due = true;
        self.send_if_due();
    }

    /// Waits until the PING is acknowledged; never returns if none was sent. Cancel-safe.
    pub(super) async fn acknowledged(&mut self) {
        let Some(handle) = self.handle.as_mut().filter(|_| self.unacknowledged) else {
            return pending().await;
        };
        if poll_fn(|cx| handle.poll_pong(cx)).await.is_err() {
            self.handle = None;
        }
        self.unacknowledged = false;
        self.send_if_due();
    }

    fn send_if_due(&mut self) {
        let Some(handle) = self.handle.as_mut() else {
            return;
        };
        if self.due && !self.unacknowledged {
            self.due = false;
            self.unacknowledged = handle.send_ping(Ping::opaque()).is_ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use bytes::Bytes;
    use h2::server::{Connection, handshake};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::super::super::preface::PREFACE;
    use super::*;

    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const ACK: u8 = 1;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 0], payload].concat()
    }

    /// The flags and the payload of the next PING.
    async fn next_ping(client: &mut DuplexStream) -> (u8, Vec<u8>) {
        loop {
            let mut header = [0; 9];
            client.read_exact(&mut header).await.unwrap();
            let mut payload = vec![0; usize::from(header[2])];
            client.read_exact(&mut payload).await.unwrap();
            if header[3] == PING {
                return (header[4], payload);
            }
        }
    }

    async fn drive<T>(
        connection: &mut Connection<DuplexStream, Bytes>,
        pings: &mut Pings,
        client: impl Future<Output = T>,
    ) -> T {
        let mut client = pin!(client);
        loop {
            tokio::select! {
                done = &mut client => return done,
                () = pings.acknowledged() => {}
                _ = connection.accept() => panic!("the connection has ended"),
            }
        }
    }

    #[tokio::test]
    async fn second_ping_waits_for_the_acknowledgement_of_the_first() {
        let (server, mut client) = duplex(1 << 16);
        let settings = [frame(SETTINGS, 0, &[]), frame(SETTINGS, ACK, &[])].concat();
        let greeting = [PREFACE.as_slice(), &settings].concat();
        client.write_all(&greeting).await.unwrap();
        let mut connection = handshake(server).await.unwrap();
        let mut pings = Pings::new(connection.ping_pong());
        (0..3).for_each(|_| pings.send());
        for _ in 0..2 {
            let (flags, payload) = drive(&mut connection, &mut pings, next_ping(&mut client)).await;
            assert_eq!(flags, 0);
            let answer = frame(PING, ACK, &payload);
            client.write_all(&answer).await.unwrap();
        }
        // The client's own PING is acknowledged next: no third one was sent.
        let own = frame(PING, 0, b"own ping");
        client.write_all(&own).await.unwrap();
        let (flags, payload) = drive(&mut connection, &mut pings, next_ping(&mut client)).await;
        assert_eq!((flags, &*payload), (ACK, &b"own ping"[..]));
    }
}
