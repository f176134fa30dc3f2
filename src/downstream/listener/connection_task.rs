//! The task of one accepted connection: client, per-client limit, TLS, then HTTP.

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
        if let DownstreamSocket::Tcp(tcp) = &socket {
            // Responses are collected into one write by `BufferedSocket`, so the kernel must not delay it (Nagle).
            let _ = tcp.set_nodelay(true);
        }
        let task = ConnectionTask {
            remote_addr: remote_addr.map(canonical_addr),
            listener: self.listener.clone(),
            permit: self.connection_limit.acquire(),
            config: (self.connection_config)(),
            shutdown: self.shutdown.clone(),
        };
        // Its own task before the first byte is read: a slow client must not delay the accept loop.
        let served = task.serve(socket, Arc::clone(&self.app));
        tokio::spawn(clock::read_once_per_poll(Box::pin(served)));
    }
}

/// The size of a connection's future; bytes.
#[cfg(test)]
pub(crate) fn future_size<A>() -> usize
where
    A: HttpServerApp + Http1Engine + Send + Sync + 'static,
{
    fn output_size<T, S, A, F>(_: impl Fn(T, S, A) -> F) -> usize {
        size_of::<F>()
    }
    output_size(ConnectionTask::serve::<A>)
}

/// Serves one connection from the accept to the close.
struct ConnectionTask {
    /// The address at the other end of the socket.
    remote_addr: Option<SocketAddr>,
    listener: (Arc<str>, Arc<ListenerMetrics>),
    permit: ConnectionPermit,
    config: ConnectionConfig,
    shutdown: ShutdownWatch,
}

impl ConnectionTask {
    async fn serve<A>(mut self, mut socket: DownstreamSocket, app: Arc<A>)
    where
        A: HttpServerApp + Http1Engine + Send + Sync + 'static,
    {
        let metrics = Arc::clone(&self.listener.1);
        let _active = GaugeGuard::new(&metrics.active);
        let info = match self.identify_client(&mut socket).await {
            Ok(info) => info,
            Err(refusal) => return metrics.refused.inc(refusal),
        };
        let tls = self.config.tls.as_deref();
        let Some(socket_and_tls) = accept_tls_if_configured(tls, socket, &metrics).await else {
            return;
        };
        let connection = Connection::new(
            socket_and_tls,
            info,
            self.listener,
            self.permit,
            self.config.limits,
            self.shutdown,
        );
        let responder = self.config.responder.as_deref();
        let reason = serve(connection, self.config.h2c, responder, &app).await;
        count_close_reason(&metrics, reason);
    }

    /// Finds the client's address, and refuses the connection if that client has too many.
    async fn identify_client(
        &mut self,
        socket: &mut DownstreamSocket,
    ) -> Result<ConnectionInfo, ConnectionRefusal> {
        let header = self.read_header_if_trusted(socket).await?;
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
    async fn read_header_if_trusted(
        &self,
        socket: &mut DownstreamSocket,
    ) -> Result<Option<ProxyHeader>, ConnectionRefusal> {
        let Some(config) = &self.config.proxy_protocol else {
            return Ok(None);
        };
        // A Unix socket has no address: its file's permissions say which processes are trusted.
        let is_trusted = self
            .remote_addr
            .is_none_or(|remote| config.from.contains(remote.ip()));
        if is_trusted {
            read_proxy_header(socket, config.timeout).await.map(Some)
        } else if config.accept_untrusted {
            Ok(None)
        } else {
            Err(ConnectionRefusal::UntrustedSource)
        }
    }
}

/// Does the TLS handshake if TLS is configured; `None`: it failed, and was counted.
async fn accept_tls_if_configured(
    tls: Option<&ListenerTls>,
    socket: DownstreamSocket,
    metrics: &ListenerMetrics,
) -> Option<(DownstreamSocket, Option<TlsSession>)> {
    let Some(tls) = tls else {
        return Some((socket, None));
    };
    match accept_tls(socket, tls).await {
        Ok((socket, session)) => {
            metrics.handshakes.inc(session.handshake_kind());
            Some((socket, Some(session)))
        }
        Err(reason) => {
            metrics.handshake_failures.inc(reason);
            None
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
