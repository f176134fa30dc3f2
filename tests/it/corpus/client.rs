//! The client of HTTP/1 of the corpus: sends any bytes, and reads responses strictly.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::strict::{Flaw, Message, Wire};
use crate::support::wait::PATIENCE;

pub(super) struct Client {
    wire: Wire<TcpStream>,
    /// Whether the other side has announced that it closes.
    pub(super) is_closing: bool,
}

impl Client {
    pub(super) fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect_timeout(&address, PATIENCE).expect("connect");
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            wire: Wire::new(socket),
            is_closing: false,
        }
    }

    /// Sends bytes.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.socket.write_all(bytes)
    }

    pub(super) fn finish_sending(&mut self) {
        let _ = self.wire.socket.shutdown(Shutdown::Write);
    }

    /// Reads the head of the next response, interim or final.
    pub(super) fn head(&mut self) -> Result<Message, Flaw> {
        self.wire.response_head()
    }

    /// Reads the body that follows the head of a final response.
    pub(super) fn body(&mut self, method: &str, response: &mut Message) -> Result<(), Flaw> {
        self.is_closing |= self.wire.response_body(method, response)?;
        Ok(())
    }

    /// Reads the next final response to a request with this method.
    pub(super) fn response(&mut self, method: &str) -> Result<Message, Flaw> {
        let mut response = self.head()?;
        while matches!(response.status(), 100 | 102..200) {
            response = self.head()?;
        }
        self.body(method, &mut response)?;
        Ok(response)
    }

    /// Whether the other side closes, and sends nothing before.
    pub(super) fn ends(&mut self) -> Result<(), String> {
        match self.wire.rest() {
            Ok(rest) if rest.is_empty() => Ok(()),
            // Reset.
            Err(Flaw::Cut(why)) if why.contains("reset") => Ok(()),
            Ok(rest) => Err(format!("`{}` before the end", rest.escape_ascii())),
            Err(flaw) => Err(format!("still open: {flaw:?}")),
        }
    }

    /// Whether bytes are left that belong to no response.
    pub(super) fn has_unread(&self) -> bool {
        !self.wire.buffer.is_empty()
    }
}
