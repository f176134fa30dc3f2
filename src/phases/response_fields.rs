//! The fields that Clockwise sets on every response, of a peer or of our own; an interim response before it has none of them.

use http::header::STRICT_TRANSPORT_SECURITY;

use super::context::Context;
use crate::header::HeaderEdit;

/// Sets the fields that do not depend on where the response comes from.
pub(super) fn set_on_every(response: &mut impl HeaderEdit, ctx: &Context) {
    set_hsts(response, ctx);
}

/// Tells browsers to use HTTPS only, on a TLS listener with `hsts` (RFC 6797 §7.1).
fn set_hsts(response: &mut impl HeaderEdit, ctx: &Context) {
    let secured = ctx
        .connection()
        .and_then(|connection| connection.tls.as_ref());
    if let Some(hsts) = secured.and_then(|secured| secured.hsts.clone()) {
        response.set(&STRICT_TRANSPORT_SECURITY, hsts);
    }
}
