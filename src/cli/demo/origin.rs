//! One origin of the demo: answers every request with its name.

use std::io;
use std::net::SocketAddr;

use parking_lot::Mutex;
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::http::{read_target, write_text};

#[derive(Debug)]
pub(super) struct DemoOrigin {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl DemoOrigin {
    pub(super) fn new(name: &'static str, address: SocketAddr) -> Self {
        Self {
            name,
            address,
            task: Mutex::new(None),
        }
    }

    /// Starts the origin if it is not running. Must be called within a Tokio runtime.
    pub(super) fn start(&self) -> io::Result<()> {
        let mut task = self.task.lock();
        if task.is_none() {
            let listener = listen(self.address)?;
            *task = Some(tokio::spawn(serve(listener, self.name)));
        }
        Ok(())
    }

    /// Stops the origin like a killed process: open connections are closed, and new ones are refused.
    pub(super) fn kill(&self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

async fn serve(listener: TcpListener, name: &'static str) {
    // When this task is aborted, the set is dropped, and its connections are closed.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(answer_requests(stream, name));
        while connections.try_join_next().is_some() {}
    }
}

async fn answer_requests(stream: TcpStream, name: &'static str) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(target) = read_target(&mut stream).await? {
        write_text(&mut stream, &format!("origin {name} answers {target}\n")).await?;
    }
    Ok(())
}
