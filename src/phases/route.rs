//! Phase 2: finds the route, and refuses what it does not allow.

use std::sync::Arc;

use http::Method;

use super::context::Context;
use super::{request_body, upgrade};
use crate::config::NormalizePath;
use crate::downstream::Connection;
use crate::fault::Fault;
use crate::header::HeaderRead;
use crate::request_target;
use crate::route::RouteError;
use crate::snapshot::RouteTarget;

/// Finds the route and what it lets the client switch to, and refuses a request without the certificate that it requires, or with too large a body.
pub(crate) fn resolve_route(headers: &impl HeaderRead, ctx: &mut Context) -> Result<(), Fault> {
    find_route(ctx)?;
    let (route, version) = (ctx.route.as_ref(), ctx.request.version);
    ctx.upgrade = route.and_then(|route| upgrade::offered(headers, version, &route.upgrades));
    check_client_certificate(ctx)?;
    request_body::check_declared_length(headers, ctx)
}

fn find_route(ctx: &mut Context) -> Result<(), Fault> {
    if ctx.request.method == Method::CONNECT {
        return Err(Fault::MethodNotAllowed);
    }
    look_up(ctx);
    let found = ctx.route_lookup.take().unwrap_or(Err(RouteError::NoRoute));
    check_path(&found, ctx)?;
    ctx.route = Some(found.map_err(|miss| match miss {
        RouteError::NoRoute => Fault::NoRoute,
        RouteError::MethodNotAllowed => Fault::MethodNotAllowed,
    })?);
    Ok(())
}

/// Refuses a path that is not normal, if `normalize_path` is `reject`; and one for which another route is found if the
/// path is read as some servers do ([`request_target::other_readings`]).
fn check_path(found: &Result<Arc<RouteTarget>, RouteError>, ctx: &Context) -> Result<(), Fault> {
    let rule = ctx.snapshot.config.normalize_path;
    let request = &ctx.request;
    if rule == NormalizePath::Off {
        return Ok(());
    }
    if rule == NormalizePath::Reject && request.normal_path.is_some() {
        return Err(Fault::AmbiguousPath);
    }
    let is_same = |path: &String| {
        let other = ctx
            .snapshot
            .routes
            .find(request.host_text(), path, &request.method);
        match (found, other) {
            (Ok(found), Ok(other)) => Arc::ptr_eq(found, other),
            (Err(found), Err(other)) => *found == other,
            _ => false,
        }
    };
    if request_target::other_readings(request.target.path())
        .iter()
        .all(is_same)
    {
        Ok(())
    } else {
        Err(Fault::AmbiguousPath)
    }
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

    fn normalizing(rule: &str, target: &str) -> Result<(), Fault> {
        let mut ctx = Context::for_test(&format!("normalize_path: {rule}\n{ROUTES}"));
        let target = RequestTarget::parse(target.as_bytes()).unwrap();
        ctx.request.normal_path = request_target::normalize(target.path());
        ctx.request.target = target;
        resolve_route(&header_map(&[]), &mut ctx)
    }

    #[test]
    fn path_with_two_routes_is_refused_unless_normalization_is_off() {
        for (target, fault) in [
            ("/get/x%2fy", None),
            ("/small/..%2fget", Some(Fault::AmbiguousPath)),
            ("/small\\..\\get", Some(Fault::AmbiguousPath)),
            ("/get%5Cx", Some(Fault::AmbiguousPath)),
            ("/get/../small", None),
            ("/get//../small", Some(Fault::AmbiguousPath)),
            ("/none%2fx", Some(Fault::NoRoute)),
        ] {
            let expected = fault.map_or(Ok(()), Err);
            assert_eq!(normalizing("match", target), expected, "{target}");
        }
        assert_eq!(normalizing("off", "/small/..%2fget"), Ok(()));
    }

    #[test]
    fn path_that_is_not_normal_is_refused_by_reject() {
        assert_eq!(normalizing("reject", "/get/x"), Ok(()));
        let refused = normalizing("reject", "/get/./x");
        assert_eq!(refused, Err(Fault::AmbiguousPath));
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
