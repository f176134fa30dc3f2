//! The proxy of an instance: the phases of [`EdgeProxy`] on Pingora, with pools of connections to peers.

use std::io;
use std::sync::Arc;

use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;

use super::runtime::worker_threads;
use crate::admin::AppState;
use crate::config::Config;
use crate::pingora_compat::http_proxy;
use crate::pingora_compat::upstream_h2::UpstreamH2Connector;
use crate::proxy::EdgeProxy;
use crate::upstream_http1::{PeerConnections, PeerConnector};

/// The proxy, with its pools of connections to peers.
pub(super) type PingoraProxy = HttpProxy<EdgeProxy, PeerConnector>;

/// Builds the proxy. `http1`: the connections to peers of HTTP/1.
///
/// # Errors
/// No loopback address can be bound.
pub(super) async fn build_proxy(
    app_state: &AppState,
    http1: Arc<PeerConnections>,
) -> io::Result<Arc<PingoraProxy>> {
    let conf = pingora_conf(&app_state.snapshot.load().config);
    let connector = PeerConnector::new(UpstreamH2Connector::new(&conf), http1);
    let app = EdgeProxy::new(
        Arc::clone(&app_state.snapshot),
        Arc::clone(&app_state.telemetry),
    );
    http_proxy::build(conf, app, connector).await
}

fn pingora_conf(config: &Config) -> ServerConf {
    ServerConf {
        threads: worker_threads(config).get(),
        upstream_keepalive_pool_size: config.pool_size,
        // A limit that is never reached: `policy::retry` decides. With 0, Pingora proxies nothing at all.
        max_retries: 2 * crate::upstream::MAX_ATTEMPTS,
        ..ServerConf::default()
    }
}
