//! The program behind the listeners: the engine for HTTP/1, Pingora's proxy for everything else.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use pingora::apps::{HttpServerApp, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;

use super::http_proxy::{PingoraProxy, build_proxy};
use super::runtime::worker_threads;
use crate::admin::AppState;
use crate::downstream::{Http1Client, Http1Engine, RequestEnd};
use crate::engine::Engine;
use crate::upstream_http1::PeerConnections;

/// Serves the requests of all connections.
pub(super) struct EdgeApp {
    pub(super) pingora: Arc<PingoraProxy>,
    /// `None`: Pingora serves every request.
    pub(super) engine: Option<Engine>,
}

impl HttpServerApp for EdgeApp {
    // Not by `async_trait`, which would put Pingora's boxed future into a second box.
    fn process_new_http<'app, 'shutdown, 'future>(
        self: &'app Arc<Self>,
        session: ServerSession,
        shutdown: &'shutdown ShutdownWatch,
    ) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'future>>
    where
        'app: 'future,
        'shutdown: 'future,
        Self: 'future,
    {
        self.pingora.process_new_http(session, shutdown)
    }
}

impl Http1Engine for EdgeApp {
    async fn serve_request(&self, client: &mut Http1Client) -> RequestEnd {
        match &self.engine {
            Some(engine) => engine.serve_request(client).await,
            None => RequestEnd::Unsuited,
        }
    }
}

/// Chooses the carrier of the HTTP/1 requests that the engine can serve: `pingora`; the engine without it.
const CARRIER_VARIABLE: &str = "CLOCKWISE_HTTP1";

/// Builds the engine and the proxy.
///
/// # Errors
/// No loopback address can be bound.
pub(super) async fn build_app(app_state: &AppState) -> io::Result<Arc<EdgeApp>> {
    let config = &app_state.snapshot.load().config;
    let peers = PeerConnections::new(worker_threads(config).get(), config.pool_size);
    let engine = || {
        let snapshot = Arc::clone(&app_state.snapshot);
        Engine::new(
            snapshot,
            Arc::clone(&app_state.telemetry),
            Arc::clone(&peers),
        )
    };
    Ok(Arc::new(EdgeApp {
        engine: uses_engine().then(engine),
        pingora: build_proxy(app_state, peers).await?,
    }))
}

fn uses_engine() -> bool {
    std::env::var_os(CARRIER_VARIABLE).is_none_or(|carrier| carrier != "pingora")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::downstream::listener::future_size;

    /// A request has a future of its own, so an idle connection needs no room for it.
    #[test]
    fn future_of_a_connection_is_at_most_2_kib() {
        let size = future_size::<EdgeApp>();
        assert!(size <= 2 * 1024, "{size} bytes");
    }
}
