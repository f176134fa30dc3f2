//! Before everything else, on plain HTTP: a certificate authority checks that a name is served here (ACME's
//! http-01: RFC 8555, 8.3).
//!
//! Only tokens that this process ordered, or another one that shares its storage, are answered. A request with any
//! other token is routed like all requests: the peers may order certificates of their own.

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use tokio::sync::Semaphore;

use super::context::Context;
use crate::downstream::LocalReply;

const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";

/// Look-ups in the shared storage that may run at once: any client can cause them.
static SHARED_LOOKUPS: Semaphore = Semaphore::const_new(16);

/// The response to a challenge of ours; `None`: it is none.
pub(crate) async fn respond(ctx: &Context) -> Option<LocalReply> {
    key_authorization(ctx).await.map(reply)
}

/// The key authorization for the request's token; `None`: not a challenge of ours.
async fn key_authorization(ctx: &Context) -> Option<String> {
    let token = ctx.request.uri.path().strip_prefix(CHALLENGE_PATH)?;
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
