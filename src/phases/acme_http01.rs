//! Before all other phases, on connections without TLS: answers a certificate authority that checks whether a name is
//! served here (ACME's http-01: RFC 8555 §8.3).
//!
//! Only tokens of this process, or of another one with the same storage, are answered. A request with any other token
//! is routed as usual: the peers may order certificates of their own.

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use tokio::sync::Semaphore;

use super::context::Context;
use crate::downstream::LocalReply;

const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";

/// The most look-ups in the shared storage at the same time: any client can cause them.
static SHARED_LOOKUPS: Semaphore = Semaphore::const_new(16);

/// The response to an HTTP-01 validation; `None` for any other request, and for an unknown token.
pub(crate) async fn respond(ctx: &Context) -> Option<LocalReply> {
    key_authorization(ctx).await.map(reply)
}

/// The key authorization for the request's token; `None` if no challenge of Clockwise has it.
async fn key_authorization(ctx: &Context) -> Option<String> {
    let token = ctx.request.target.path().strip_prefix(CHALLENGE_PATH)?;
    let connection = ctx.connection()?;
    if connection.tls.is_some() || ctx.request.method != Method::GET {
        return None;
    }
    let certs = &ctx.snapshot.managed_certs;
    let ours = certs.key_authorization(token);
    if ours.is_some() {
        return ours;
    }
    let (shared, token) = (certs.shared_challenges()?, token.to_owned());
    let permit = SHARED_LOOKUPS.acquire().await.ok()?;
    // The storage may be on a slow disk, which must not block a worker.
    let lookup = tokio::task::spawn_blocking(move || {
        let found = shared.key_authorization(&token);
        drop(permit);
        found
    });
    lookup.await.ok().flatten()
}

/// The response to the certificate authority.
fn reply(key_authorization: String) -> LocalReply {
    let mut reply = LocalReply::new(StatusCode::OK, key_authorization);
    let fields = [
        (CONTENT_TYPE, "application/octet-stream"),
        (CACHE_CONTROL, "no-store"),
    ];
    reply
        .headers
        .extend(fields.map(|(name, value)| (name, HeaderValue::from_static(value))));
    reply
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::sign::CertifiedKey;

    use super::*;
    use crate::config::DownstreamConfig;
    use crate::downstream::{ConnectionLimit, Exchange};
    use crate::request_target::RequestTarget;
    use crate::tls::SharedChallenges;

    /// Knows one token.
    #[derive(Debug)]
    struct Shared;

    impl SharedChallenges for Shared {
        fn key_authorization(&self, token: &str) -> Option<String> {
            (token == "shared").then(|| "shared.thumb".to_owned())
        }

        fn alpn_cert(&self, _name: &str) -> Option<Arc<CertifiedKey>> {
            None
        }
    }

    /// A request for `path` on a connection without TLS, and the client's end of that.
    fn asking(path: &'static str) -> (Context, tokio::net::UnixStream) {
        let mut ctx = Context::for_test(
            "routes: [{upstream: app}]\nupstreams: {app: {peers: [\"127.0.0.1:2\"]}}",
        );
        let limit = ConnectionLimit::new(None);
        let (exchange, client) = Exchange::for_test(DownstreamConfig::DEFAULT, &limit);
        ctx.exchange = Some(exchange);
        ctx.request.target = RequestTarget::parse(path.as_bytes()).unwrap();
        (ctx, client)
    }

    #[tokio::test]
    async fn challenge_of_this_process_is_answered_while_it_is_pending() {
        let (mut ctx, _client) = asking("/.well-known/acme-challenge/token");
        assert!(respond(&ctx).await.is_none());
        let certs = Arc::clone(&ctx.snapshot.managed_certs);
        let pending = certs.serve_http01("token".to_owned(), "token.thumb".to_owned());
        let reply = respond(&ctx).await.unwrap();
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(reply.body, "token.thumb");
        assert_eq!(reply.headers[CONTENT_TYPE], "application/octet-stream");
        assert_eq!(reply.headers[CACHE_CONTROL], "no-store");
        for method in [Method::HEAD, Method::POST] {
            ctx.request.method = method;
            assert!(respond(&ctx).await.is_none(), "{}", ctx.request.method);
        }
        ctx.request.method = Method::GET;
        drop(pending);
        assert!(respond(&ctx).await.is_none());
    }

    #[tokio::test]
    async fn challenge_of_a_process_with_the_same_storage_is_answered() {
        for (path, body) in [
            ("/.well-known/acme-challenge/shared", Some("shared.thumb")),
            ("/.well-known/acme-challenge/unknown", None),
            ("/.well-known/acme-challenge", None),
            ("/shared", None),
        ] {
            let (ctx, _client) = asking(path);
            let certs = &ctx.snapshot.managed_certs;
            certs.set_shared_challenges(Some(Arc::new(Shared)));
            let reply = respond(&ctx).await;
            let answered = reply.map(|reply| reply.body);
            assert_eq!(answered.as_deref(), body.map(str::as_bytes), "{path}");
        }
    }
}
