//! Phase 2: finds the route, and refuses what it does not allow.

use std::sync::Arc;

use http::Method;

use super::context::Context;
use super::request_body;
use crate::downstream::Connection;
use crate::fault::Fault;
use crate::header::HeaderRead;
use crate::route::RouteError;
use crate::snapshot::RouteTarget;

/// Finds the route, and refuses a request without the certificate that it requires, or with too large a body.
pub(crate) fn resolve_route(headers: &impl HeaderRead, ctx: &mut Context) -> Result<(), Fault> {
    find_route(ctx)?;
    check_client_certificate(ctx)?;
    request_body::check_declared_length(headers, ctx)
}

fn find_route(ctx: &mut Context) -> Result<(), Fault> {
    if ctx.request.method == Method::CONNECT {
        return Err(Fault::MethodNotAllowed);
    }
    look_up(ctx);
    let found = ctx.route_lookup.take().unwrap_or(Err(RouteError::NoRoute));
    ctx.route = Some(found.map_err(|miss| match miss {
        RouteError::NoRoute => Fault::NoRoute,
        RouteError::MethodNotAllowed => Fault::MethodNotAllowed,
    })?);
    Ok(())
}

/// The route that matches the request, if any. Its result is kept for [`resolve_route`], so that a carrier may ask
/// earlier at no cost.
pub(crate) fn look_up(ctx: &mut Context) -> Option<&RouteTarget> {
    let Context {
        snapshot,
        request,
        route_lookup,
        ..
    } = ctx;
    let found = route_lookup.get_or_insert_with(|| {
        let routes = &snapshot.routes;
        let found = routes.find(request.host_text(), request.path(), &request.method);
        found.map(Arc::clone)
    });
    found.as_deref().ok()
}

/// Refuses a request without the client certificate that its route requires. Every listener reaches every route, so
/// such a request may come from a listener that does not ask for certificates.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::header_map;
    use crate::request_target::RequestTarget;

    const ROUTES: &str = "
routes:
  - {path: /get, methods: [GET], upstream: app}
  - {path: /small, upstream: app, max_body_size: 10}
upstreams: {app: {peers: [\"127.0.0.1:2\"]}}
";

    fn resolve(method: Method, path: &str, length: &'static str) -> Result<(), Fault> {
        let mut ctx = Context::for_test(ROUTES);
        ctx.request.method = method;
        ctx.request.target = RequestTarget::parse(path.as_bytes()).unwrap();
        resolve_route(&header_map(&[("content-length", length)]), &mut ctx)
    }

    #[test]
    fn route_is_found_by_path_and_method() {
        assert_eq!(resolve(Method::GET, "/get/x", "0"), Ok(()));
        assert_eq!(resolve(Method::GET, "/other", "0"), Err(Fault::NoRoute));
        let wrong_method = resolve(Method::POST, "/get", "0");
        assert_eq!(wrong_method, Err(Fault::MethodNotAllowed));
    }

    #[test]
    fn connect_is_a_method_of_no_route() {
        let refused = resolve(Method::CONNECT, "/small", "0");
        assert_eq!(refused, Err(Fault::MethodNotAllowed));
    }

    #[test]
    fn declared_body_is_limited_by_the_route() {
        assert_eq!(resolve(Method::POST, "/small", "10"), Ok(()));
        let refused = resolve(Method::POST, "/small", "11");
        assert_eq!(refused, Err(Fault::BodyTooLarge));
    }
}
