//! A proxy of Pingora outside Pingora's server.
//!
//! Pingora 0.9.1 builds a proxy with a custom connector only as part of a service, and passes it only to the code that serves
//! the connections of that service. So a service is started on a loopback address, one connection is made to it, and the
//! proxy is taken from there. Without this, Clockwise could not accept connections itself: PROXY protocol, connection limits,
//! deadlines of connections, and the hand-over of an upgrade need that.
//!
//! It can be removed when `HttpProxy` has a public constructor with a connector: README.md, request 2.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;

use parking_lot::Mutex;
use pingora::apps::HttpServerOptions;
use pingora::connectors::http::custom::Connector;
use pingora::protocols::Stream;
use pingora::proxy::{HttpProxy, ProxyHttp, ProxyServiceBuilder};
use pingora::server::configuration::ServerConf;
use pingora::server::{Fds, ShutdownWatch};
use pingora::services::Service as _;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

/// Builds a proxy with its own connector and pools.
///
/// # Errors
/// No loopback address can be bound.
pub(crate) async fn build<P, C>(
    conf: ServerConf,
    app: P,
    connector: C,
) -> io::Result<Arc<HttpProxy<P, C>>>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
    C: Connector,
{
    let (sender, mut receiver) = mpsc::channel(1);
    let on_connection = move |proxy: Arc<HttpProxy<P, C>>, _: Stream, _: &ShutdownWatch| {
        // Only the first connection counts.
        let _ = sender.try_send(proxy);
        Box::pin(std::future::ready(None)) as _
    };
    let mut options = HttpServerOptions::default();
    // CONNECT is rejected by the proxy's own phases, which count and log it.
    options.allow_connect_method_proxying = true;
    // Connections of the service go to `on_connection`.
    options.force_custom = true;
    let mut service = ProxyServiceBuilder::new(&Arc::new(conf), app)
        .custom(connector, Arc::new(on_connection))
        .server_options(options)
        .build();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    service.add_tcp(&address.to_string());
    let mut sockets = Fds::new();
    sockets.add(address.to_string(), listener.into_raw_fd());
    let (stop, stopped) = watch::channel(false);
    let service = tokio::spawn(async move {
        let sockets = Arc::new(Mutex::new(sockets));
        service.start_service(Some(sockets), stopped, 1).await;
    });
    let connection = TcpStream::connect(address).await;
    let proxy = match &connection {
        Ok(_) => receiver.recv().await,
        Err(_) => None,
    };
    // Aborted, not stopped: a service that stops shuts its proxy down, too.
    service.abort();
    let _ = service.await;
    let _ = stop.send(true);
    connection?;
    proxy.ok_or_else(|| io::Error::other("Pingora's service did not pass its proxy on"))
}
