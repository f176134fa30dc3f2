//! The routes of the admin API: method and path → endpoint.

use http::{Method, StatusCode};

use super::peer_changes::PeerChangeCommand;
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
    PeerChange(PeerChangeCommand),
    /// Puts the held lists of peers of an upstream in force.
    AcceptPeers(String),
    /// A command for the ACME certificate of this name.
    Certificate(String, CertAction),
    Reload,
    Upgrade,
}

/// The part of an upstream that a response shows.
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
    /// The path exists, with the methods that `Allow` lists here.
    MethodNotAllowed(&'static str),
}

/// The endpoints of one path.
struct Resource {
    /// For `GET` and `HEAD`.
    get: Option<Endpoint>,
    post: Option<Endpoint>,
    put: Option<Endpoint>,
    delete: Option<Endpoint>,
}

impl Endpoint {
    /// Finds the endpoint of a request.
    pub(super) fn find(method: &Method, path: &str) -> Result<Self, RoutingError> {
        let segments = segments(path);
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let resource = Resource::at(&segments).ok_or(RoutingError::NotFound)?;
        let allow = resource.allow();
        let endpoint = match method.as_str() {
            "GET" | "HEAD" => resource.get,
            "POST" => resource.post,
            "PUT" => resource.put,
            "DELETE" => resource.delete,
            _ => None,
        };
        endpoint.ok_or(RoutingError::MethodNotAllowed(allow))
    }

    /// Whether it changes something, and takes no body.
    pub(super) fn is_command_without_body(&self) -> bool {
        match self {
            Self::PeerDrain(_)
            | Self::AcceptPeers(_)
            | Self::Certificate(..)
            | Self::Reload
            | Self::Upgrade => true,
            Self::PeerChange(command) => command.has_no_body(),
            _ => false,
        }
    }
}

impl Resource {
    /// The resource at a path. Slice patterns check the whole table at compile time and hand out the names of the path.
    fn at(segments: &[&str]) -> Option<Self> {
        Some(match segments {
            [""] => Self::get(Endpoint::Dashboard),
            ["healthz"] => Self::get(Endpoint::Health),
            ["readyz"] => Self::get(Endpoint::Readiness),
            ["metrics"] => Self::get(Endpoint::Metrics),
            ["v1", "status"] => Self::get(Endpoint::Status),
            ["v1", "upstreams", name, rest @ ..] => return Self::of_upstream(name, rest),
            ["v1", "certificates", name, verb @ ("renew" | "revoke")] => {
                let action = match *verb {
                    "renew" => CertAction::Renew,
                    _ => CertAction::Revoke,
                };
                Self::post(Endpoint::Certificate((*name).to_owned(), action))
            }
            ["v1", "reload"] => Self::post(Endpoint::Reload),
            ["v1", "upgrade"] => Self::post(Endpoint::Upgrade),
            _ => return None,
        })
    }

    fn of_upstream(name: &str, segments: &[&str]) -> Option<Self> {
        let view = |view| Self::get(Endpoint::View(name.to_owned(), view));
        Some(match segments {
            [] => view(UpstreamView::Peers),
            ["ring"] => view(UpstreamView::Ring),
            ["owner"] => view(UpstreamView::Owner),
            ["hot"] => view(UpstreamView::HotKeys),
            ["diff"] => Self {
                post: Some(Endpoint::DiffWithBody(name.to_owned())),
                ..view(UpstreamView::Diff)
            },
            ["replay"] => Self::post(Endpoint::Replay(name.to_owned())),
            ["accept"] => Self::post(Endpoint::AcceptPeers(name.to_owned())),
            ["reset"] => Self::reset(name, None),
            ["peers", label] => Self {
                put: Some(Endpoint::PeerChange(PeerChangeCommand::Put {
                    upstream: name.to_owned(),
                    label: (*label).to_owned(),
                })),
                delete: Some(Endpoint::PeerChange(PeerChangeCommand::Remove {
                    upstream: name.to_owned(),
                    label: (*label).to_owned(),
                })),
                ..Self::NONE
            },
            ["peers", label, "reset"] => Self::reset(name, Some(label)),
            ["peers", label, verb @ ("drain" | "enable")] => {
                Self::post(Endpoint::PeerDrain(PeerDrainCommand {
                    upstream: name.to_owned(),
                    label: (*label).to_owned(),
                    draining: *verb == "drain",
                }))
            }
            _ => return None,
        })
    }

    /// No method.
    const NONE: Self = Self {
        get: None,
        post: None,
        put: None,
        delete: None,
    };

    fn get(endpoint: Endpoint) -> Self {
        Self {
            get: Some(endpoint),
            ..Self::NONE
        }
    }

    fn post(endpoint: Endpoint) -> Self {
        Self {
            post: Some(endpoint),
            ..Self::NONE
        }
    }

    /// Forgets the changes of one peer, or of all.
    fn reset(upstream: &str, label: Option<&str>) -> Self {
        Self::post(Endpoint::PeerChange(PeerChangeCommand::Reset {
            upstream: upstream.to_owned(),
            label: label.map(str::to_owned),
        }))
    }

    /// The value of `Allow` (RFC 9110 §10.2.1).
    fn allow(&self) -> &'static str {
        match (&self.get, &self.post) {
            _ if self.put.is_some() => "PUT, DELETE",
            (Some(_), Some(_)) => "GET, HEAD, POST",
            (Some(_), None) => "GET, HEAD",
            (None, _) => "POST",
        }
    }
}

impl RoutingError {
    pub(super) fn response(&self) -> AdminResponse {
        match self {
            Self::NotFound => AdminResponse::error(
                StatusCode::NOT_FOUND,
                "no such path; the operator's guide (conf/README.md) lists the paths",
            ),
            Self::MethodNotAllowed(allow) => AdminResponse::method_not_allowed(allow),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::ALLOW;

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
    fn admin_request_with_a_wrong_method_is_405_with_the_right_ones() {
        for (method, path, allow) in [
            (Method::DELETE, "/", "GET, HEAD"),
            (Method::POST, "/metrics", "GET, HEAD"),
            (Method::PUT, "/v1/upstreams/a", "GET, HEAD"),
            (Method::DELETE, "/v1/upstreams/a/ring", "GET, HEAD"),
            (Method::PUT, "/v1/upstreams/a/diff", "GET, HEAD, POST"),
            (Method::GET, "/v1/reload", "POST"),
            (Method::GET, "/v1/upstreams/a/accept", "POST"),
            (Method::GET, "/v1/upstreams/a/replay", "POST"),
            (Method::HEAD, "/v1/upstreams/a/peers/b/enable", "POST"),
            (Method::POST, "/v1/upstreams/a/peers/b", "PUT, DELETE"),
            (Method::DELETE, "/v1/upstreams/a/peers/b/reset", "POST"),
            (Method::GET, "/v1/upstreams/a/reset", "POST"),
            (Method::GET, "/v1/certificates/a.test/renew", "POST"),
        ] {
            let error = Endpoint::find(&method, path).unwrap_err();
            assert_eq!(error, RoutingError::MethodNotAllowed(allow), "{path}");
            let response = error.response().into_http();
            assert_eq!(
                (response.status(), &response.headers()[ALLOW]),
                (
                    StatusCode::METHOD_NOT_ALLOWED,
                    &HeaderValue::from_static(allow)
                )
            );
        }
    }

    #[test]
    fn admin_endpoint_depends_on_the_method() {
        let find = |method, path| Endpoint::find(&method, path).unwrap();
        let diff = Endpoint::View("a".to_owned(), UpstreamView::Diff);
        assert_eq!(find(Method::HEAD, "/v1/upstreams/a/diff"), diff);
        let with_body = Endpoint::DiffWithBody("a".to_owned());
        assert_eq!(find(Method::POST, "/v1/upstreams/a/diff"), with_body);
        let change = |method, path| match find(method, path) {
            Endpoint::PeerChange(command) => command,
            other => panic!("{other:?}"),
        };
        let (upstream, label) = ("a".to_owned(), "reset".to_owned());
        let put = PeerChangeCommand::Put { upstream, label };
        assert_eq!(change(Method::PUT, "/v1/upstreams/a/peers/reset"), put);
        let (upstream, label) = ("a".to_owned(), "b/c".to_owned());
        let remove = PeerChangeCommand::Remove { upstream, label };
        assert_eq!(
            change(Method::DELETE, "/v1/upstreams/a/peers/b%2Fc"),
            remove
        );
        for (path, label) in [
            ("/v1/upstreams/a/peers/b/reset", Some("b")),
            ("/v1/upstreams/a/reset", None),
        ] {
            let reset = PeerChangeCommand::Reset {
                upstream: "a".to_owned(),
                label: label.map(str::to_owned),
            };
            assert_eq!(change(Method::POST, path), reset);
        }
        let revoke = Endpoint::Certificate("a.test".to_owned(), CertAction::Revoke);
        assert_eq!(find(Method::POST, "/v1/certificates/a.test/revoke"), revoke);
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
