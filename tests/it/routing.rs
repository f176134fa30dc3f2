//! Routes by host, path and method, the most specific first.

use crate::support::client::Request;
use crate::support::edge::Edge;
use crate::support::origin::Origin;

/// Two upstreams, `a` and `b`, of one origin each, behind these routes.
struct TwoUpstreams {
    edge: Edge,
    a: Origin,
    b: Origin,
}

impl TwoUpstreams {
    fn behind(routes: &str) -> Self {
        let (a, b) = (Origin::start(), Origin::start());
        let yaml = format!(
            "listeners: [{{address: \"127.0.0.1:0\"}}]\nadmin: off\nroutes: {routes}\nupstreams:\n  \
             a: {{health: off, peers: [\"{}\"]}}\n  b: {{health: off, peers: [\"{}\"]}}\n",
            a.address, b.address
        );
        Self {
            edge: Edge::start(&yaml),
            a,
            b,
        }
    }

    /// The name of the upstream that answered, or the status of the refusal.
    fn route(&self, method: &str, host: &str, target: &str) -> String {
        let request = Request::new(method, target).header("Host", host);
        let response = self.edge.send(&request);
        if response.status != 200 {
            return response.status.to_string();
        }
        match response.json()["origin"].as_str() {
            Some(origin) if origin == self.a.label() => "a".to_owned(),
            Some(origin) if origin == self.b.label() => "b".to_owned(),
            other => panic!("{other:?} answered"),
        }
    }
}

#[test]
fn route_exact_host_precedes_wildcard_precedes_any() {
    let two = TwoUpstreams::behind(
        "[{host: www.example.com, upstream: a}, {host: \"*.example.com\", upstream: b}]",
    );
    assert_eq!(two.route("GET", "www.example.com", "/"), "a");
    assert_eq!(two.route("GET", "WWW.Example.COM:8080", "/"), "a");
    assert_eq!(two.route("GET", "api.example.com", "/"), "b");
    assert_eq!(two.route("GET", "example.com", "/"), "404");
    assert_eq!(two.route("GET", "other.net", "/"), "404");
}

#[test]
fn route_without_host_takes_unmatched_requests() {
    let two = TwoUpstreams::behind("[{upstream: a}, {host: example.com, path: /b, upstream: b}]");
    assert_eq!(two.route("GET", "example.com", "/b"), "b");
    assert_eq!(two.route("GET", "example.com", "/c"), "a");
    assert_eq!(two.route("GET", "other.net", "/b"), "a");
}

#[test]
fn route_path_matches_at_segment_boundaries() {
    let two = TwoUpstreams::behind("[{path: /api, upstream: a}, {path: /api/v2, upstream: b}]");
    assert_eq!(two.route("GET", "h", "/api"), "a");
    assert_eq!(two.route("GET", "h", "/api?x=/api/v2"), "a");
    assert_eq!(two.route("GET", "h", "/api/v1"), "a");
    assert_eq!(two.route("GET", "h", "/api/v2/x"), "b");
    assert_eq!(two.route("GET", "h", "/api/v22"), "a");
    assert_eq!(two.route("GET", "h", "/apis"), "404");
    assert_eq!(two.route("GET", "h", "/"), "404");
}

#[test]
fn route_with_method_precedes_any_method() {
    let two = TwoUpstreams::behind("[{upstream: a}, {methods: [POST, PUT], upstream: b}]");
    assert_eq!(two.route("POST", "h", "/"), "b");
    assert_eq!(two.route("GET", "h", "/"), "a");
}

#[test]
fn route_without_the_method_is_405_with_allow() {
    let two = TwoUpstreams::behind("[{path: /a, methods: [GET, HEAD], upstream: a}]");
    assert_eq!(two.route("GET", "h", "/a"), "a");
    let refused = two.edge.send(&Request::new("DELETE", "/a"));
    assert_eq!(
        (refused.status, refused.header("allow")),
        (405, Some("GET, HEAD"))
    );
    assert_eq!(two.route("DELETE", "h", "/b"), "404");
}

#[test]
fn route_order_in_the_file_is_irrelevant() {
    let forward = TwoUpstreams::behind("[{path: /x, upstream: a}, {path: /x/y, upstream: b}]");
    let backward = TwoUpstreams::behind("[{path: /x/y, upstream: b}, {path: /x, upstream: a}]");
    for target in ["/x", "/x/y", "/x/yy", "/x/y/z"] {
        assert_eq!(
            forward.route("GET", "h", target),
            backward.route("GET", "h", target)
        );
    }
}

#[test]
fn route_miss_keeps_the_connection_open() {
    let two = TwoUpstreams::behind("[{path: /a, methods: [GET], upstream: a}]");
    let mut connection = two.edge.connect();
    assert_eq!(connection.get("/nowhere").unwrap().status, 404);
    assert_eq!(
        connection
            .exchange(&Request::new("PUT", "/a"))
            .unwrap()
            .status,
        405
    );
    assert_eq!(connection.get("/a").unwrap().status, 200);
}
