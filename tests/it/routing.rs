//! Which upstream a request goes to: host, path, method, by specificity.

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
fn an_exact_host_beats_a_wildcard_and_that_beats_any() {
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
fn a_route_without_a_host_takes_what_no_other_takes() {
    let two = TwoUpstreams::behind("[{upstream: a}, {host: example.com, path: /b, upstream: b}]");
    assert_eq!(two.route("GET", "example.com", "/b"), "b");
    assert_eq!(two.route("GET", "example.com", "/c"), "a");
    assert_eq!(two.route("GET", "other.net", "/b"), "a");
}

#[test]
fn a_path_is_a_prefix_at_segment_borders() {
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
fn a_route_for_the_method_beats_one_for_any() {
    let two = TwoUpstreams::behind("[{upstream: a}, {methods: [POST, PUT], upstream: b}]");
    assert_eq!(two.route("POST", "h", "/"), "b");
    assert_eq!(two.route("GET", "h", "/"), "a");
}

#[test]
fn a_method_that_no_route_takes_is_405_and_names_those_that_are() {
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
fn the_order_of_the_routes_decides_nothing() {
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
fn a_connection_is_kept_after_a_refusal() {
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
