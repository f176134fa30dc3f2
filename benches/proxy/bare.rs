//! The yardstick of `benches/proxy/run`: the least that is a keyed proxy on Pingora.
//!
//! Pingora's own consistent ring over peers that never change, the path as the key, and nothing
//! else: no log, no counters, no timeouts, no fields added, no retry. What a request costs here is
//! what Pingora costs. `bare LISTEN TLS_LISTEN CERT KEY PEER...`, addresses as `host:port`; one thread, until
//! killed.

#![expect(clippy::expect_used, reason = "a slip ends the benchmark")]

use async_trait::async_trait;
use pingora::lb::LoadBalancer;
use pingora::lb::selection::Consistent;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

/// The allocator of the `clockwise` command, so that the two differ in nothing but their code.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// More steps on the ring than it can take to meet a peer, all of which are up.
const MAX_ITERATIONS: usize = 256;

/// Idle connections to peers that are kept; the default of `clockwise`.
const POOL_SIZE: usize = 512;

struct Bare(LoadBalancer<Consistent>);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let key = session.req_header().uri.path().as_bytes();
        let peer = self.0.select(key, MAX_ITERATIONS);
        let peer = peer.ok_or_else(|| Error::new_in(ErrorType::InternalError))?;
        Ok(Box::new(HttpPeer::new(peer, false, String::new())))
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || {
        arguments
            .next()
            .expect("LISTEN TLS_LISTEN CERT KEY PEER...")
    };
    let (listen, tls_listen, cert, key) = (next(), next(), next(), next());
    let ring = LoadBalancer::try_from_iter(arguments).expect("every PEER is an address");

    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: POOL_SIZE,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut proxy = http_proxy_service(&server.configuration, Bare(ring));
    proxy.add_tcp(&listen);
    proxy
        .add_tls(&tls_listen, &cert, &key)
        .expect("a certificate and its key");
    server.add_service(proxy);
    server.run_forever();
}
