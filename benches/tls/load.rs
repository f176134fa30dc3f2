//! The clients of `benches/tls/run`: as many handshakes, or requests, as are answered.
//!
//! `load ADDRESS CA SECONDS full|resumed|requests`, until the time is over; then a line
//! `RESULT DONE ERRORS`. Everybody offers the same: TLS 1.3, `TLS_AES_128_GCM_SHA256`, X25519. A
//! handshake is one connection, without a request, to the end that the server says; each client has
//! sessions of its own, so that each of its handshakes but the first can take one up. A handshake
//! that went another way than asked for is an error.

#![expect(clippy::expect_used, reason = "a slip ends the benchmark")]
#![expect(clippy::print_stdout, reason = "that is where the result goes")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const CLIENTS: usize = 32;

/// What the certificate is for.
const NAME: &str = "bench.test";

/// The end of the one answer there is.
const BODY: &[u8] = b"ok\n";

#[derive(Clone, Copy)]
enum Task {
    Handshakes(HandshakeKind),
    Requests,
}

#[derive(Default)]
struct Count {
    done: AtomicU64,
    errors: AtomicU64,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("ADDRESS CA SECONDS TASK");
    let address: SocketAddr = next().parse().expect("an address");
    let roots = roots(&next());
    let time = Duration::from_secs(next().parse().expect("seconds"));
    let task = match next().as_str() {
        "full" => Task::Handshakes(HandshakeKind::Full),
        "resumed" => Task::Handshakes(HandshakeKind::Resumed),
        _ => Task::Requests,
    };
    let count = Arc::new(Count::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all();
    let runtime = { runtime }.build().expect("a runtime");
    runtime.block_on(async {
        for _ in 0..CLIENTS {
            let client = Client::new(address, &roots, task, &count);
            tokio::spawn(client.work(task));
        }
        tokio::time::sleep(time).await;
    });
    let (done, errors) = (count.done.load(Relaxed), count.errors.load(Relaxed));
    println!("RESULT {done} {errors}");
}

fn roots(file: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(file).expect("a certificate");
    roots.add(authority).expect("an authority");
    roots
}

struct Client {
    address: SocketAddr,
    connector: TlsConnector,
    count: Arc<Count>,
}

impl Client {
    fn new(address: SocketAddr, roots: &RootCertStore, task: Task, count: &Arc<Count>) -> Self {
        let provider = CryptoProvider {
            cipher_suites: vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![ring::kx_group::X25519],
            ..ring::default_provider()
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider));
        let builder = builder
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3");
        let mut config = builder
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        if !matches!(task, Task::Handshakes(HandshakeKind::Resumed)) {
            config.resumption = Resumption::disabled();
        }
        Self {
            address,
            connector: TlsConnector::from(Arc::new(config)),
            count: Arc::clone(count),
        }
    }

    async fn work(self, task: Task) {
        // For the session that the next one takes up.
        let _ = self.handshake().await;
        loop {
            let done = match task {
                Task::Handshakes(kind) => self.handshake().await.map(|found| found == kind),
                Task::Requests => self.requests().await.map(|()| true),
            };
            let counted = match (done, task) {
                (Ok(true), Task::Handshakes(_)) => &self.count.done,
                _ => &self.count.errors,
            };
            counted.fetch_add(1, Relaxed);
        }
    }

    async fn handshake(&self) -> io::Result<HandshakeKind> {
        let mut stream = self.connect().await?;
        let kind = stream.get_ref().1.handshake_kind();
        stream.shutdown().await?;
        // What comes before the end are the sessions to take up later.
        stream.read(&mut [0]).await?;
        kind.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Asks until the connection ends, which it should not.
    async fn requests(&self) -> io::Result<()> {
        let mut stream = self.connect().await?;
        let mut answer = [0; 4096];
        for number in 0_u64.. {
            let number = number % 10_000;
            let request = format!("GET /{number} HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut length = 0;
            while !answer
                .get(..length)
                .is_some_and(|so_far| so_far.ends_with(BODY))
            {
                let room = answer.get_mut(length..).unwrap_or_default();
                match stream.read(room).await? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => length += count,
                }
            }
            let served = answer.starts_with(b"HTTP/1.1 200");
            let counted = if served {
                &self.count.done
            } else {
                &self.count.errors
            };
            counted.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        self.connector.connect(name, socket).await
    }
}
