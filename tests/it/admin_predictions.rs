//! Predictions over the admin API: the same results as the commands, with bounded input.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};

use crate::support::client::{self, Connection, Request, Response};
use crate::support::command_dir::{CommandDir, site};
use crate::support::edge::Edge;
use crate::support::load::keys;
use crate::support::wait;

/// An instance, and the commands with the same configuration.
fn start() -> (Edge, CommandDir) {
    start_with("ring", "ketama")
}

fn start_with(key: &str, value: &str) -> (Edge, CommandDir) {
    let yaml = site(["a", "b", "c"]).app(key, value).yaml();
    (Edge::start(&yaml), CommandDir::with(&yaml))
}

fn path(rest: &str) -> String {
    format!("/v1/upstreams/app/{rest}")
}

/// What a command prints as JSON.
fn printed(dir: &CommandDir, question: &str, rest: &str, input: &str) -> Value {
    let asked = format!("ring {question} -c clockwise.yaml -u app --json {rest}");
    serde_json::from_str(&dir.print(asked.trim_end(), input)).unwrap()
}

/// An answer without what only an instance knows.
#[track_caller]
fn told(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{response:?}");
    let mut told = response.json();
    let told_more = told.as_object_mut().unwrap();
    for word in ["down_now", "served_by"] {
        told_more.remove(word);
    }
    told
}

#[test]
fn admin_owner_equals_ring_owner() {
    let (edge, dir) = start();
    for (query, arguments) in [
        ("key=k1", "--walk 3 k1"),
        ("key=k1&walk=2", "--walk 2 k1"),
        ("key=k1&walk=all&down=a", "--walk 3 --down a k1"),
        (
            "key=k1&down=a&down=b&down=c",
            "--walk 3 --down a --down b --down c k1",
        ),
    ] {
        let answer = edge.admin.get(&path(&format!("owner?{query}")));
        assert_eq!(
            told(&answer),
            printed(&dir, "owner", arguments, ""),
            "{query}"
        );
    }
    let answer = edge.admin.get(&path("owner?key=k1&down=a&down=b")).json();
    let owner = edge.admin.get(&path("owner?key=k1")).json()["walk"][0].clone();
    assert_eq!(answer["served_by"], owner, "as things are");
    for (query, status) in [
        ("key=k1&walk=0", 400),
        ("key=k1&walk=some", 400),
        ("key=k1&what=1", 400),
        ("key=k1&down=nobody", 422),
    ] {
        let answer = edge.admin.get(&path(&format!("owner?{query}")));
        assert_eq!(answer.status, status, "{query}: {answer:?}");
    }
}

#[test]
fn admin_owner_limits_the_walk_by_default() {
    let peers = (0..20).map(|n| format!("{{address: \"127.0.0.1:1\", label: p{n}}}"));
    let edge = crate::support::edge::ConfigBuilder::of(peers).start();
    let walk = |query: &str| {
        let answer = edge.admin.get(&path(&format!("owner?key=k{query}"))).json();
        answer["walk"].as_array().unwrap().clone()
    };
    let all = walk("&walk=all");
    assert_eq!((all.len(), walk("").len()), (20, 16));
    assert_eq!(walk("&walk=18"), all[..18]);
}

#[test]
fn admin_ring_equals_ring_show() {
    for dialect in ["ketama", "haproxy", "caddy"] {
        let (edge, dir) = start_with("ring", dialect);
        let answer = edge.admin.get(&path("ring"));
        assert_eq!(told(&answer), printed(&dir, "show", "", ""), "{dialect}");
        dir.print("ring show -c clockwise.yaml -u app --svg ring.svg", "");
        let drawn = fs::read_to_string(dir.path().join("ring.svg")).unwrap();
        let asked = Request::get(&path("ring")).header("Accept", "text/html, image/svg+xml;q=0.9");
        for answer in [
            edge.admin.get(&path("ring?svg")),
            edge.admin.connect().exchange(&asked).unwrap(),
        ] {
            assert_eq!(answer.header("content-type"), Some("image/svg+xml"));
            assert_eq!(answer.text(), drawn, "{dialect}");
        }
    }
}

#[test]
fn admin_diff_with_keys_equals_ring_diff() {
    let (edge, dir) = start();
    let keys = keys(1000).join("\n");
    let ask = |query: &str, keys: &str| {
        let path = path(&format!("diff?{query}"));
        edge.admin.post_body(&path, keys)
    };
    for (query, arguments) in [
        ("without=b", "--without b"),
        (
            "add=d=2&weight=a=3&down=c",
            "--add d=2 --weight a=3 --down c",
        ),
    ] {
        let expected = printed(&dir, "diff", &format!("{arguments} --keys -"), &keys);
        assert_eq!(expected["counted"]["keys"], 1000);
        let lines = dir.diff(&format!("{arguments} --keys - --moved --json"), &keys);
        for keys in [keys.clone(), keys.replace('\n', "\r\n") + "\r\n"] {
            assert_eq!(told(&ask(query, &keys)), expected, "{query}");
            let listed = ask(&format!("{query}&moved"), &keys);
            assert_eq!(listed.header("content-type"), Some("application/x-ndjson"));
            assert_eq!(listed.text(), lines, "{query}");
        }
    }
    let empty = ask("without=b", "a\n\nb\n");
    assert_eq!(empty.status, 422);
    assert!(empty.text().contains("line 2 is empty"), "{empty:?}");
    for query in ["", "moved", "what=1&without=b"] {
        assert_eq!(ask(query, &keys).status, 400, "{query}");
    }
    for query in ["to", "without=b&moved"] {
        let answer = edge.admin.get(&path(&format!("diff?{query}")));
        assert_eq!(answer.status, 400, "{query} without a body");
    }
}

#[test]
fn admin_diff_to_a_configuration_equals_ring_diff() {
    let (edge, dir) = start();
    let then = [
        site(["a", "c", "d"]).yaml(),
        site(["a", "b", "c"])
            .app("ring", "{dialect: circle}")
            .yaml(),
    ];
    let ask = |query: &str, yaml: &str| edge.admin.post_body(&path(query), yaml);
    for yaml in then {
        dir.write("then.yaml", &yaml);
        let expected = printed(&dir, "diff", "--to then.yaml", "");
        assert_eq!(told(&ask("diff?to", &yaml)), expected);
        let expected = printed(&dir, "diff", "--to then.yaml --weight a=2 --down c", "");
        assert_eq!(told(&ask("diff?to&weight=a=2&down=c", &yaml)), expected);
    }
    let wrong = ask("diff?to", "upstreams: {app: {peers: []}}");
    assert_eq!(wrong.status, 422);
    assert!(wrong.text().contains("the body:1:"), "{wrong:?}");
    let other = site(["a"]).yaml().replace("app", "other");
    let other = ask("diff?to", &other);
    assert!(
        other.status == 422 && other.text().contains("no upstream `app`"),
        "{other:?}"
    );
}

/// The log of another proxy: a request each 10 ms, each of 25 ms.
fn log(requests: usize) -> String {
    let mut log = String::new();
    for number in 0..requests {
        let (second, milli) = (1_700_000_000 + number / 100, number % 100 * 10);
        let key = number * number % 50;
        let _ = writeln!(log, "{second}.{milli:03}\tk{key}\t0.025\t100");
    }
    log + "no request\n"
}

#[test]
fn admin_replay_equals_ring_replay() {
    let (edge, dir) = start();
    let log = log(10_000);
    dir.write("keys.log", &log);
    for (query, arguments) in [
        ("", ""),
        ("&bounded_load=1.25", "--bounded-load 1.25"),
        ("&down=b", "--down b"),
        (
            "&without=b&add=d&weight=a=3",
            "--without b --add d --weight a=3",
        ),
    ] {
        let arguments = format!("--format keys --log keys.log {arguments}");
        let expected = printed(&dir, "replay", &arguments, "");
        let path = path(&format!("replay?format=keys{query}"));
        assert_eq!(
            told(&edge.admin.post_body(&path, log.as_str())),
            expected,
            "{query}"
        );
    }
    for (query, status) in [
        ("format=none", 400),
        ("bounded_load=1", 400),
        ("what=1", 400),
        ("down=nobody", 422),
        ("format=clockwise", 422),
    ] {
        let answer = edge
            .admin
            .post_body(&path(&format!("replay?{query}")), "1\tk\n");
        assert_eq!(answer.status, status, "{query}: {answer:?}");
    }
    assert_eq!(edge.admin.get(&path("replay")).status, 405);
}

#[test]
fn admin_replay_starts_with_the_peers_down_now() {
    let (edge, _desk) = start();
    edge.admin.post(&path("peers/b/drain"));
    let ask = |query: &str| {
        let path = path(&format!("replay?format=keys{query}"));
        edge.admin.post_body(&path, log(100)).json()
    };
    let report = ask("&up=b");
    assert_eq!(report["down_now"], json!(["b"]));
    let of_b = |when: &str| report[when]["peers"][1]["requests"].as_u64().unwrap();
    assert!(of_b("now") == 0 && of_b("after") > 0, "{report}");
}

/// Sends what begins a question, and no more.
fn begin(edge: &Edge, rest: &str, length: usize, headers: &str) -> Connection {
    let mut connection = edge.admin.connect();
    let path = path(rest);
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n{headers}\r\n");
    connection.send(head).unwrap();
    connection
}

#[test]
fn admin_request_body_is_limited_before_reading() {
    let (edge, _desk) = start();
    for (question, length) in [("diff?down=a", 17 << 20), ("replay", 257 << 20)] {
        let mut connection = begin(&edge, question, length, "");
        assert_eq!(connection.response().unwrap().status, 413, "{question}");
    }
    let mut connection = begin(&edge, "diff?down=a", 2, "Expect: 100-continue\r\n");
    assert_eq!(connection.head().unwrap().status, 100);
    connection.send("k\n").unwrap();
    assert_eq!(connection.response().unwrap().status, 200);
}

#[test]
fn admin_predictions_are_limited_to_two_at_once() {
    let (edge, _desk) = start();
    let begun = || begin(&edge, "replay?format=keys", 4, "Expect: 100-continue\r\n");
    let mut held = [begun(), begun()];
    for connection in &mut held {
        assert_eq!(connection.head().unwrap().status, 100, "it has its place");
    }
    let ask = || edge.admin.post_body(&path("diff?down=a"), "k\n").status;
    assert_eq!(ask(), 429);
    assert_eq!(edge.admin.get(&path("diff?down=a")).status, 200);
    assert_eq!(edge.admin.get("/v1/upstreams/app").status, 200);
    let [mut done, gone] = held;
    done.send("1\tk\n").unwrap();
    assert_eq!(done.response().unwrap().status, 200);
    drop(gone);
    wait::until("their places to be free", || ask() == 200);
}

#[test]
fn admin_predictions_from_another_origin_are_refused() {
    let (edge, _desk) = start();
    let status = edge.admin.get("/v1/status").json();
    let address = status["admin"].as_str().unwrap().to_owned();
    for question in ["diff?down=a", "replay"] {
        let request = Request::post(&path(question), "k\n").header("Host", &address);
        let lured = request.clone().header("Origin", "http://evil.test");
        let ask = |request: &Request| client::send(address.parse().unwrap(), request).status;
        assert_eq!(ask(&lured), 403, "{question}");
        assert_ne!(ask(&request), 403, "{question}");
    }
}
