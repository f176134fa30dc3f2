//! The routes of the admin API: method and path → endpoint.

use http::{Method, StatusCode};

use super::peer_drain::PeerDrainCommand;
use super::query::segments;
use super::response::AdminResponse;
use crate::tls::CertAction;

/// One endpoint, with the names that its path holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Dashboard,
    Health,
    Readiness,
    Metrics,
    Status,
    /// One upstream, read only.
    View(String, UpstreamView),
    /// The change of one upstream that query and body describe.
    DiffWithBody(String),
    /// The replay of a log, which is the body, on one upstream.
    Replay(String),
    PeerDrain(PeerDrainCommand),
    /// A command for the ACME certificate of this name.
    Certificate(String, CertAction),
    Reload,
    Upgrade,
}

/// What is shown of one upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UpstreamView {
    Peers,
    Ring,
    Owner,
    HotKeys,
    Diff,
}

/// Why a request has no endpoint.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RoutingError {
    NotFound,
    /// The path exists, with this method.
    UseMethod(Method),
}

impl Endpoint {
    /// Finds the endpoint of a request.
    pub(super) fn find(method: &Method, path: &str) -> Result<Self, RoutingError> {
        let segments = segments(path);
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let view = |name: &str, view| Self::View(name.to_owned(), view);
        // Slice patterns check the whole table at compile time and hand out the names of the path.
        Ok(match (method.as_str(), segments.as_slice()) {
            ("GET" | "HEAD", [""]) => Self::Dashboard,
            ("GET" | "HEAD", ["healthz"]) => Self::Health,
            ("GET" | "HEAD", ["readyz"]) => Self::Readiness,
            ("GET" | "HEAD", ["metrics"]) => Self::Metrics,
            ("GET" | "HEAD", ["v1", "status"]) => Self::Status,
            ("GET" | "HEAD", ["v1", "upstreams", name]) => view(name, UpstreamView::Peers),
            ("GET" | "HEAD", ["v1", "upstreams", name, "ring"]) => view(name, UpstreamView::Ring),
            ("GET" | "HEAD", ["v1", "upstreams", name, "owner"]) => view(name, UpstreamView::Owner),
            ("GET" | "HEAD", ["v1", "upstreams", name, "hot"]) => view(name, UpstreamView::HotKeys),
            ("GET" | "HEAD", ["v1", "upstreams", name, "diff"]) => view(name, UpstreamView::Diff),
            ("POST", ["v1", "upstreams", name, "diff"]) => Self::DiffWithBody((*name).to_owned()),
            ("POST", ["v1", "upstreams", name, "replay"]) => Self::Replay((*name).to_owned()),
            (
                "POST",
                [
                    "v1",
                    "upstreams",
                    name,
                    "peers",
                    label,
                    verb @ ("drain" | "enable"),
                ],
            ) => Self::PeerDrain(PeerDrainCommand {
                upstream: (*name).to_owned(),
                label: (*label).to_owned(),
                draining: *verb == "drain",
            }),
            ("POST", ["v1", "certificates", name, "renew"]) => {
                Self::Certificate((*name).to_owned(), CertAction::Renew)
            }
            ("POST", ["v1", "certificates", name, "revoke"]) => {
                Self::Certificate((*name).to_owned(), CertAction::Revoke)
            }
            ("POST", ["v1", "reload"]) => Self::Reload,
            ("POST", ["v1", "upgrade"]) => Self::Upgrade,
            (_, path) => return Err(RoutingError::for_path(path)),
        })
    }
}

impl RoutingError {
    /// The error for a path, given that its method does not fit.
    fn for_path(segments: &[&str]) -> Self {
        match segments {
            ["" | "healthz" | "readyz" | "metrics"]
            | ["v1", "status"]
            | ["v1", "upstreams", _]
            | ["v1", "upstreams", _, "ring" | "owner" | "hot" | "diff"] => {
                Self::UseMethod(Method::GET)
            }
            ["v1", "upstreams", _, "replay"]
            | ["v1", "upstreams", _, "peers", _, "drain" | "enable"]
            | ["v1", "certificates", _, "renew" | "revoke"]
            | ["v1", "reload" | "upgrade"] => Self::UseMethod(Method::POST),
            _ => Self::NotFound,
        }
    }

    pub(super) fn response(&self) -> AdminResponse {
        match self {
            Self::NotFound => AdminResponse::error(
                StatusCode::NOT_FOUND,
                "no such path; the operator's guide (conf/README.md) lists the paths",
            ),
            Self::UseMethod(method) => {
                AdminResponse::error(StatusCode::METHOD_NOT_ALLOWED, &format!("use {method}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_path_segments_are_decoded_after_they_are_split() {
        let endpoint = Endpoint::find(
            &Method::POST,
            "/v1/upstreams/a%2Fb/peers/%5B::1%5D:80/drain",
        );
        let command = PeerDrainCommand {
            upstream: "a/b".to_owned(),
            label: "[::1]:80".to_owned(),
            draining: true,
        };
        assert_eq!(endpoint, Ok(Endpoint::PeerDrain(command)));
    }

    #[test]
    fn admin_request_with_a_wrong_method_names_the_right_one() {
        let error = |method, path| Endpoint::find(&method, path).unwrap_err();
        for path in ["/", "/metrics", "/v1/status", "/v1/upstreams/a/ring"] {
            assert_eq!(
                error(Method::DELETE, path),
                RoutingError::UseMethod(Method::GET),
                "{path}"
            );
        }
        for path in [
            "/v1/reload",
            "/v1/upstreams/a/replay",
            "/v1/upstreams/a/peers/b/enable",
            "/v1/certificates/a.test/renew",
        ] {
            assert_eq!(
                error(Method::GET, path),
                RoutingError::UseMethod(Method::POST),
                "{path}"
            );
        }
    }

    #[test]
    fn admin_path_that_does_not_exist_is_not_found_for_any_method() {
        for method in [Method::GET, Method::POST] {
            for path in ["/nothing", "/v1/upstreams", "/v1/upstreams/a/nothing"] {
                assert_eq!(
                    Endpoint::find(&method, path),
                    Err(RoutingError::NotFound),
                    "{method} {path}"
                );
            }
        }
    }
}
