//! The proxy of an instance.
//!
//! Pingora makes a proxy with a connector of one's own for a service only, and shows it to nobody but to
//! what serves the service's connections. So there is such a service, until one connection was made to
//! it: ours.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;

use parking_lot::Mutex;
use pingora::apps::HttpServerOptions;
use pingora::protocols::Stream;
use pingora::proxy::{HttpProxy, ProxyServiceBuilder};
use pingora::server::configuration::ServerConf;
use pingora::server::{Fds, ShutdownWatch};
use pingora::services::Service as _;
use pingora::services::listening::Service;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::runtime::worker_threads;
use crate::admin::AppState;
use crate::config::Config;
use crate::proxy::{EdgeProxy, UpstreamH2Connector};

/// The proxy, with its pools of connections to peers.
pub(super) type PingoraProxy = HttpProxy<EdgeProxy, UpstreamH2Connector>;

/// Makes the proxy.
///
/// # Errors
/// The address of this host alone cannot be listened on.
pub(super) async fn build_proxy(subject: &AppState) -> io::Result<Arc<PingoraProxy>> {
    let (show, mut shown) = mpsc::channel(1);
    let mut service = proxy_service(subject, show);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    service.add_tcp(&address.to_string());
    let mut sockets = Fds::new();
    sockets.add(address.to_string(), listener.into_raw_fd());
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(async move {
        let sockets = Arc::new(Mutex::new(sockets));
        service.start_service(Some(sockets), stopped, 1).await;
    });
    let connection = TcpStream::connect(address).await;
    let proxy = match &connection {
        Ok(_) => shown.recv().await,
        Err(_) => None,
    };
    // Before it stops of itself: then it would tell the proxy to serve no more.
    serving.abort();
    let _ = serving.await;
    let _ = stop.send(true);
    connection?;
    proxy.ok_or_else(|| io::Error::other("the proxy was not shown"))
}

fn proxy_service(
    subject: &AppState,
    show: mpsc::Sender<Arc<PingoraProxy>>,
) -> Service<PingoraProxy> {
    let conf = pingora_conf(&subject.snapshot.load().config);
    let duplex = UpstreamH2Connector::new(&conf);
    let edge = EdgeProxy::new(
        Arc::clone(&subject.snapshot),
        Arc::clone(&subject.telemetry),
    );
    let mut options = HttpServerOptions::default();
    // Refused all the same, but by us: counted, logged, and told what is allowed.
    options.allow_connect_method_proxying = true;
    // What the service is connected to for; the instance's connections do not come in this way.
    options.force_custom = true;
    let shower = move |proxy: Arc<PingoraProxy>, _: Stream, _: &ShutdownWatch| {
        // Who else connects comes too late.
        let _ = show.try_send(proxy);
        Box::pin(std::future::ready(None)) as _
    };
    ProxyServiceBuilder::new(&Arc::new(conf), edge)
        .custom(duplex, Arc::new(shower))
        .server_options(options)
        .build()
}

fn pingora_conf(config: &Config) -> ServerConf {
    ServerConf {
        threads: worker_threads(config).get(),
        upstream_keepalive_pool_size: config.pool_size,
        // Our own rule decides (`policy::retry`); this one is only in its way. Zero would mean that
        // nothing is proxied at all.
        max_retries: 2 * crate::upstream::MAX_ATTEMPTS,
        ..ServerConf::default()
    }
}
