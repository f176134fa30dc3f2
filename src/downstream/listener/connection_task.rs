//! The task of one accepted connection: client, per-client limit, TLS, then HTTP.
//!
//! A task has the size of its largest state for as long as its connection is open. So the futures of what few connections
//! do, or for a short time, are boxed.

use std::net::SocketAddr;
use std::sync::Arc;

use pingora::apps::HttpServerApp;
use pingora::server::ShutdownWatch;

use super::socket::AcceptedSocket;
use crate::clock;
use crate::config::{AcceptProxyConfig, DownstreamConfig};
use crate::downstream::{
    CloseReason, Connection, ConnectionInfo, ConnectionLimit, ConnectionPermit, DownstreamSocket,
    Http1Engine, PartialRequestResponder, TlsSession, accept_tls, canonical_addr,
    read_proxy_header, serve,
};
use crate::proxy_protocol::ProxyHeader;
use crate::telemetry::metrics::{BadRequest, ConnectionRefusal, GaugeGuard, ListenerMetrics};
use crate::tls::ListenerTls;

/// The settings of a listener's new connections.
#[derive(Debug)]
pub(crate) struct ConnectionConfig {
    /// Limits and timeouts for the client.
    pub limits: DownstreamConfig,
    /// Sources that must send a PROXY header; `None`: the socket's address is the client's.
    pub proxy_protocol: Option<Arc<AcceptProxyConfig>>,
    /// TLS settings; `None`: connections are not encrypted.
    pub tls: Option<Arc<ListenerTls>>,
    /// Whether clients without TLS may begin with HTTP/2 (prior knowledge).
    pub h2c: bool,
    /// Answers requests without a complete header; `None`: they get a plain page, and no log line.
    pub responder: Option<Arc<dyn PartialRequestResponder>>,
}

/// Starts a [`ConnectionTask`] for each accepted socket of a listener.
pub(super) struct Acceptor<A, C> {
    pub(super) app: Arc<A>,
    pub(super) connection_limit: Arc<ConnectionLimit>,
    pub(super) connection_config: C,
    pub(super) listener: (Arc<str>, Arc<ListenerMetrics>),
    pub(super) shutdown: ShutdownWatch,
}

impl<A, C> Acceptor<A, C>
where
    A: HttpServerApp + Http1Engine + Send + Sync + 'static,
    C: Fn() -> ConnectionConfig,
{
    pub(super) fn spawn_connection(&self, (socket, remote_addr): AcceptedSocket) {
        let (_, metrics) = &self.listener;
        metrics.accepted.inc();
        let task = Box::new(ConnectionTask {
            socket,
            remote_addr: remote_addr.map(canonical_addr),
            listener: self.listener.clone(),
            permit: self.connection_limit.acquire(),
            config: (self.connection_config)(),
            shutdown: self.shutdown.clone(),
        });
        // Its own task before the first byte is read: a slow client must not delay the accept loop.
        let served = task.serve(Arc::clone(&self.app));
        tokio::spawn(clock::read_once_per_poll(Box::pin(served)));
    }
}

/// The size of a connection's future; bytes.
#[cfg(test)]
pub(crate) fn future_size<A>() -> usize
where
    A: HttpServerApp + Http1Engine + Send + Sync + 'static,
{
    fn output_size<T, A, F>(_: impl Fn(T, A) -> F) -> usize {
        size_of::<F>()
    }
    output_size(ConnectionTask::serve::<A>)
}

/// Serves one connection from the accept to the close.
struct ConnectionTask {
    socket: DownstreamSocket,
    /// The address at the other end of the socket.
    remote_addr: Option<SocketAddr>,
    listener: (Arc<str>, Arc<ListenerMetrics>),
    permit: ConnectionPermit,
    config: ConnectionConfig,
    shutdown: ShutdownWatch,
}

impl ConnectionTask {
    async fn serve<A>(mut self: Box<Self>, app: Arc<A>)
    where
        A: HttpServerApp + Http1Engine + Send + Sync + 'static,
    {
        let metrics = Arc::clone(&self.listener.1);
        let _active = GaugeGuard::new(&metrics.active);
        let info = match self.identify_client().await {
            Ok(info) => info,
            Err(refusal) => return metrics.refused.inc(refusal),
        };
        let mut tls_session = None;
        if let Some(tls) = self.config.tls.clone() {
            match Box::pin(accept_tls(self.socket, &tls)).await {
                Ok((socket, session)) => {
                    metrics.handshakes.inc(session.handshake_kind());
                    self.socket = socket;
                    tls_session = Some(session);
                }
                Err(reason) => return metrics.handshake_failures.inc(reason),
            }
        }
        let h2c = self.config.h2c;
        let responder = self.config.responder.take();
        let connection = self.into_connection(info, tls_session);
        let reason = serve(connection, h2c, responder.as_deref(), &app).await;
        count_close_reason(&metrics, reason);
    }

    fn into_connection(
        self: Box<Self>,
        info: ConnectionInfo,
        tls: Option<TlsSession>,
    ) -> Arc<Connection> {
        Connection::new(
            (self.socket, tls),
            info,
            self.listener,
            self.permit,
            self.config.limits,
            self.shutdown,
        )
    }

    /// Finds the client's address, and refuses the connection if that client has too many.
    async fn identify_client(&mut self) -> Result<ConnectionInfo, ConnectionRefusal> {
        let header = self.read_header_if_trusted().await?;
        let info = ConnectionInfo {
            remote_addr: self.remote_addr,
            proxy_header: header.map(Box::new),
        };
        match (info.client_addr(), self.config.limits.per_client) {
            (Some(client), Some(limit)) if !self.permit.acquire_for_client(client.ip(), limit) => {
                Err(ConnectionRefusal::ClientLimit)
            }
            _ => Ok(info),
        }
    }

    /// Reads the PROXY header from a trusted source, which must send one. Its presence is never guessed: otherwise
    /// any client could send one and choose its address.
    async fn read_header_if_trusted(&mut self) -> Result<Option<ProxyHeader>, ConnectionRefusal> {
        let Some(config) = &self.config.proxy_protocol else {
            return Ok(None);
        };
        // A Unix socket has no address: its file's permissions say which processes are trusted.
        let is_trusted = self
            .remote_addr
            .is_none_or(|remote| config.from.contains(remote.ip()));
        if is_trusted {
            let header = Box::pin(read_proxy_header(&mut self.socket, config.timeout));
            header.await.map(Some)
        } else if config.accept_untrusted {
            Ok(None)
        } else {
            Err(ConnectionRefusal::UntrustedSource)
        }
    }
}

fn count_close_reason(metrics: &ListenerMetrics, reason: CloseReason) {
    match reason {
        CloseReason::Clean | CloseReason::RequestTimeout => {}
        CloseReason::IdleTimeout => {
            metrics.idle_closed.inc();
        }
        CloseReason::HeaderTimeout => {
            metrics.header_timeouts.inc();
        }
        CloseReason::HeaderTooLarge => metrics.bad_requests.inc(BadRequest::HeaderTooLarge),
        CloseReason::MalformedRequest => metrics.bad_requests.inc(BadRequest::Malformed),
        CloseReason::HeaderTruncated => metrics.bad_requests.inc(BadRequest::Truncated),
        CloseReason::Http2Violation(violation) => metrics.http2_violations.inc(violation),
    }
}
