//! Phase 2: finds the route, and refuses what it does not allow.

use std::sync::Arc;

use http::Method;
use pingora::http::RequestHeader;

use super::context::Context;
use super::request_body;
use crate::downstream::Connection;
use crate::fault::Fault;
use crate::route::RouteError;

/// Finds the route, and refuses a request without the certificate that it requires, or with too large a body.
pub(super) fn resolve_route(request: &RequestHeader, ctx: &mut Context) -> Result<(), Fault> {
    find_route(ctx)?;
    check_client_certificate(ctx)?;
    request_body::check_declared_length(request, ctx)
}

fn find_route(ctx: &mut Context) -> Result<(), Fault> {
    if ctx.request.method == Method::CONNECT {
        return Err(Fault::MethodNotAllowed);
    }
    let route = ctx.snapshot.routes.find(
        ctx.request.host_text(),
        ctx.request.path(),
        &ctx.request.method,
    );
    ctx.route = Some(Arc::clone(route.map_err(|miss| match miss {
        RouteError::NoRoute => Fault::NoRoute,
        RouteError::MethodNotAllowed => Fault::MethodNotAllowed,
    })?));
    Ok(())
}

/// Every listener reaches every route: the route's demand holds on listeners without client certificates, too.
fn check_client_certificate(ctx: &Context) -> Result<(), Fault> {
    let is_required = ctx
        .route
        .as_ref()
        .is_some_and(|route| route.requires_client_cert);
    let certificate = ctx.connection().and_then(Connection::client_certificate);
    if is_required && certificate.is_none() {
        return Err(Fault::ClientCertificateRequired);
    }
    Ok(())
}
