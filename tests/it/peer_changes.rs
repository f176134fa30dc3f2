//! Changes of peers by operators: each verb by command and by API, kept, refused, and under load.

#![expect(
    clippy::cognitive_complexity,
    clippy::too_many_lines,
    reason = "tables of cases, and scenarios with a state that goes on"
)]

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use serde_json::{Value, json};

use crate::support::admin::encode;
use crate::support::client::{self, Request, Response};
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::list_file::{ListFile, labelled};
use crate::support::load::{Load, ask_all, keys};
use crate::support::origin::Origin;
use crate::support::wait;

/// The path of a peer of `app`, with its query.
fn path(label: &str, query: &str) -> String {
    format!("/v1/upstreams/app/peers/{}{query}", encode(label))
}

fn put(edge: &Edge, label: &str, query: &str, body: &Value) -> Response {
    edge.admin
        .send("PUT", &path(label, query), &body.to_string())
}

fn delete(edge: &Edge, label: &str, query: &str) -> Response {
    edge.admin.send("DELETE", &path(label, query), "")
}

/// The answer to a change that succeeds.
#[track_caller]
fn changed(response: &Response) -> Value {
    assert!(matches!(response.status, 200 | 201), "{response:?}");
    response.json()
}

/// The status and the message of a change that is refused.
#[track_caller]
fn refused(response: &Response) -> (u16, String) {
    let body = response.json();
    let message = body["error"].as_str().unwrap_or_else(|| panic!("{body}"));
    (response.status, message.to_owned())
}

/// Peers with these labels, on these origins.
fn site(labels: &[&str], origins: &[Origin]) -> ConfigBuilder {
    let peers = labels.iter().zip(origins);
    ConfigBuilder::of(peers.map(|(label, origin)| labelled(label, origin)))
}

/// Origins that answer with their address.
fn named(count: usize) -> Vec<Origin> {
    (0..count).map(|_| Origin::named()).collect()
}

fn view(edge: &Edge) -> Value {
    edge.admin.get("/v1/upstreams/app").json()
}

/// `LABEL=ADDRESS*WEIGHT` of each peer, by label.
fn peers(edge: &Edge) -> Vec<String> {
    let view = view(edge);
    let peers = view["peers"].as_array().expect("`peers`").iter();
    let mut peers: Vec<String> = peers
        .map(|peer| {
            let text = |key: &str| peer[key].as_str().unwrap_or("-").to_owned();
            format!("{}={}*{}", text("label"), text("address"), peer["weight"])
        })
        .collect();
    peers.sort();
    peers
}

fn shown(label: &str, origin: &Origin, weight: u32) -> String {
    format!("{label}={}*{weight}", origin.label())
}

/// `LABEL CHANGE` of each change, with `!` if it is without effect.
fn changes(edge: &Edge) -> Vec<String> {
    let view = view(edge);
    let changes = view["changes"].as_array().expect("`changes`").iter();
    let change = |change: &Value| {
        let text = |key: &str| change[key].as_str().expect("text").to_owned();
        assert!(text("since").contains('T'), "{change}");
        let effect = if change["without_effect"].is_null() {
            ""
        } else {
            "!"
        };
        format!("{}{effect} {}", text("label"), text("change"))
    };
    changes.map(change).collect()
}

/// The peer that owns each key in the configuration in force, by the predictions of the admin API: the keys that would
/// move if a peer were removed are its own.
fn owners(edge: &Edge, keys: &[String]) -> BTreeMap<String, String> {
    let view = view(edge);
    let labels = view["peers"].as_array().expect("`peers`").iter();
    let mut owners = BTreeMap::new();
    for label in labels.map(|peer| peer["label"].as_str().expect("a label")) {
        let path = format!("/v1/upstreams/app/diff?without={}&moved", encode(label));
        let moved = edge.admin.post_body(&path, keys.join("\n")).text();
        for line in moved.lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(line["from"], *label);
            let key = line["key"].as_str().expect("a key").to_owned();
            owners.insert(key, label.to_owned());
        }
    }
    assert_eq!(owners.len(), keys.len());
    owners
}

/// The keys with another owner than before, per pair of owners.
fn moved(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> BTreeMap<(String, String), usize> {
    let mut moved = BTreeMap::new();
    for (key, was) in before {
        let is = &after[key];
        if was != is {
            *moved.entry((was.clone(), is.clone())).or_default() += 1;
        }
    }
    moved
}

/// The pairs of owners between which keys move, as an answer says.
fn announced(answer: &Value) -> BTreeMap<(String, String), f64> {
    let pairs = answer["movement"]["pairs"].as_array().expect("`pairs`");
    let pair = |pair: &Value| {
        let text = |key: &str| pair[key].as_str().unwrap_or_default().to_owned();
        ((text("from"), text("to")), pair["share"].as_f64().unwrap())
    };
    pairs.iter().map(pair).collect()
}

#[test]
fn command_of_each_kind_changes_a_peer_and_says_which_keys_move() {
    let origins = named(5);
    let edge = site(&["a", "b", "c"], &origins).start();
    let file = [
        shown("a", &origins[0], 1),
        shown("b", &origins[1], 1),
        shown("c", &origins[2], 1),
    ];
    assert_eq!(peers(&edge), file);
    let (third, fourth) = (origins[3].label(), origins[4].label());

    let added = edge.cli(&["peers", "add", "app", "d", &third, "--weight", "2"], "");
    assert!(
        added.contains(&format!("app d: {third}, weight 2, by an operator")),
        "{added}"
    );
    assert!(
        added.contains("% of the keys move") && added.contains(" -> d"),
        "{added}"
    );
    assert!(added.contains("warning: no `state_file`"), "{added}");
    assert!(
        added.contains("generation 2 is in force, with 4 peers"),
        "{added}"
    );
    assert_eq!(peers(&edge)[3], shown("d", &origins[3], 2));
    let again = edge.command(&["peers", "add", "app", "d", &third]);
    assert_eq!(again.status.code(), Some(4), "{again:?}");

    let set = edge.cli(&["peers", "set", "app", "a", &fourth, "--id", "7"], "");
    let shown_peer = format!("app a: {fourth}, weight 1, id 7, by an operator since");
    assert!(set.contains(&shown_peer), "{set}");
    let in_file = format!("; the configuration has {}, weight 1", origins[0].label());
    assert!(set.contains(&in_file), "{set}");
    let weighed = edge.cli(&["peers", "weight", "app", "b", "5"], "");
    assert!(
        weighed.contains("app b: weight 5, by an operator since"),
        "{weighed}"
    );
    let removed = edge.cli(&["peers", "remove", "app", "c"], "");
    assert!(
        removed.contains("app c: removed, by an operator since"),
        "{removed}"
    );
    let expected = [
        shown("a", &origins[4], 1),
        shown("b", &origins[1], 5),
        shown("d", &origins[3], 2),
    ];
    assert_eq!(peers(&edge), expected);
    assert_eq!(changes(&edge), ["a set", "b weight", "c remove", "d set"]);
    let status = edge.cli(&["status"], "");
    assert!(
        status.contains("change          app c: removed"),
        "{status}"
    );
    let metric = || {
        edge.admin
            .metric("clockwise_upstream_changed_peers", &["upstream=\"app\""])
    };
    assert_eq!(metric(), 4);

    // A peer that only an operator has is gone without a trace.
    edge.cli(&["peers", "remove", "app", "d"], "");
    let reset = edge.cli(&["peers", "reset", "app", "b"], "");
    assert!(reset.contains("app b: no change is left"), "{reset}");
    assert_eq!(changes(&edge), ["a set", "c remove"]);
    let dry = edge.cli(&["peers", "reset", "app", "--dry-run"], "");
    assert!(dry.contains("app forgets the changes of: a c"), "{dry}");
    assert!(
        dry.contains("dry run: nothing was changed; the upstream would have 3 peers"),
        "{dry}"
    );
    assert_eq!(metric(), 2);
    edge.cli(&["peers", "reset", "app"], "");
    assert_eq!((peers(&edge), metric()), (file.to_vec(), 0));
    let unchanged = edge.command(&["peers", "reset", "app", "a"]);
    assert_eq!(unchanged.status.code(), Some(4), "{unchanged:?}");
    let json = edge.cli(&["peers", "weight", "app", "a", "2", "--json"], "");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["change"]["change"], &json["changed"]),
        (&json!("weight"), &json!(true))
    );
}

#[test]
fn api_puts_deletes_and_resets_with_the_status_that_fits() {
    let origins = named(4);
    let edge = site(&["a", "b"], &origins)
        .top("state_file", "state.json")
        .start();
    let body = json!({"address": origins[2].label(), "weight": 2, "id": 3});
    let created = put(&edge, "x/y", "", &body);
    assert_eq!(created.status, 201, "{created:?}");
    let created = created.json();
    assert_eq!(created["change"]["id"], "3");
    assert_eq!(
        (&created["created"], &created["warnings"]),
        (&json!(true), &json!([]))
    );
    // The same again changes nothing, not even the time of the change.
    let generation = edge.admin.get("/v1/status").json()["generation"].take();
    let again = put(&edge, "x/y", "", &body);
    assert_eq!(again.status, 200, "{again:?}");
    let again = again.json();
    assert_eq!(
        (&again["changed"], &again["generation"]),
        (&json!(false), &generation)
    );
    assert_eq!(again["change"], created["change"]);
    assert_eq!(again["movement"]["moved"]["hashes"], 0);

    let weighed = put(&edge, "x/y", "", &json!({"weight": 4}));
    assert_eq!(weighed.status, 200, "{weighed:?}");
    let weighed = weighed.json();
    let change = &weighed["change"];
    assert_eq!(
        (
            &change["change"],
            &change["address"],
            &change["weight"],
            &change["id"]
        ),
        (&json!("set"), &body["address"], &json!(4), &json!("3"))
    );
    assert_eq!(put(&edge, "b", "", &json!({"weight": 3})).status, 200);
    let listed = &view(&edge)["peers"][1];
    assert_eq!(
        (&listed["weight"], &listed["change"]["listed"]["weight"]),
        (&json!(3), &json!(1))
    );
    assert_eq!(delete(&edge, "x/y", "").status, 200);
    assert_eq!(delete(&edge, "a", "").status, 200);
    assert_eq!(delete(&edge, "a", "").status, 404);
    assert_eq!(peers(&edge), [shown("b", &origins[1], 3)]);
    let reset = edge.admin.post(&path("a", "/reset"));
    assert_eq!(changed(&reset)["forgotten"], json!(["a"]));
    let all = edge.admin.post("/v1/upstreams/app/reset");
    assert_eq!(changed(&all)["forgotten"], json!(["b"]));
    let none = edge.admin.post("/v1/upstreams/app/reset");
    assert_eq!(changed(&none)["changed"], json!(false));
    assert_eq!(
        peers(&edge),
        [shown("a", &origins[0], 1), shown("b", &origins[1], 1)]
    );
    assert_eq!(view(&edge)["changes"], json!([]));
    // The status has the same list.
    put(&edge, "a", "", &json!({"weight": 3}));
    let status = edge.admin.get("/v1/status").json();
    assert_eq!(
        status["upstreams"]["app"]["changes"],
        view(&edge)["changes"]
    );
}

#[test]
fn change_is_validated_like_the_configuration_and_refused_with_the_reason() {
    let origins = named(2);
    let edge = site(&["a", "b"], &origins).start();
    let address = origins[0].label();
    let before = (
        peers(&edge),
        edge.admin.get("/v1/status").json()["generation"].take(),
    );
    for (label, query, body, status, part) in [
        (
            "c",
            "",
            json!({"address": "10.0.0.1"}),
            422,
            "`10.0.0.1` is not the address of a peer; add the port",
        ),
        ("c", "", json!({}), 422, "a peer needs `address`"),
        (
            "c",
            "",
            json!({"adress": address}),
            422,
            "did you mean `address`",
        ),
        (
            "c",
            "",
            json!({"address": address, "weight": 0}),
            422,
            "weight",
        ),
        (
            "c",
            "",
            json!({"address": address, "weight": 300}),
            422,
            "256",
        ),
        (
            "c",
            "",
            json!({"address": address, "weight": "2"}),
            422,
            "weight",
        ),
        (
            "c",
            "",
            json!({"address": address, "weight": 1.5}),
            422,
            "`varnish` and `ats`",
        ),
        ("a", "", json!({"weight": 1.5}), 422, "`varnish` and `ats`"),
        (
            "c",
            "",
            json!({"address": address, "server_name": "a.test"}),
            422,
            "`server_name` without `tls`",
        ),
        (
            "c d",
            "",
            json!({"address": address}),
            422,
            "`c d` cannot be a label",
        ),
        (
            "c",
            "",
            json!({"address": address, "id": "b"}),
            422,
            "another peer as `b`",
        ),
        (
            "c",
            "",
            json!({"address": address, "id": ""}),
            422,
            "cannot be an id",
        ),
        (
            "c",
            "",
            json!({"label": "d", "address": address}),
            400,
            "the path names peer `c`",
        ),
        ("c", "", json!([]), 400, "not an object"),
        (
            "c",
            "",
            json!({"weight": 2}),
            404,
            "has no peer `c`; it has: a, b",
        ),
        (
            "a",
            "?add",
            json!({"address": address}),
            409,
            "use `set` to replace it",
        ),
        (
            "a",
            "?new",
            json!({"address": address}),
            400,
            "unknown query parameter `new`",
        ),
        (
            "a",
            "?dry-run",
            json!({"address": address}),
            400,
            "`dry_run`, `force`, `add`",
        ),
    ] {
        let (found, message) = refused(&put(&edge, label, query, &body));
        assert_eq!(found, status, "{label}{query} {body}: {message}");
        assert!(message.contains(part), "{label}{query} {body}: {message}");
    }
    assert_eq!(
        edge.admin.send("PUT", &path("a", ""), "weight: 2").status,
        400
    );
    for (method, target, body, status, part) in [
        (
            "PUT",
            "/v1/upstreams/x/peers/a",
            r#"{"weight": 2}"#,
            404,
            "no upstream `x`",
        ),
        (
            "DELETE",
            "/v1/upstreams/app/peers/c",
            "",
            404,
            "has no peer `c`",
        ),
        (
            "DELETE",
            "/v1/upstreams/app/peers/a?add",
            "",
            400,
            "unknown query parameter `add`",
        ),
        (
            "DELETE",
            "/v1/upstreams/app/peers/a",
            "{}",
            400,
            "takes no body",
        ),
        (
            "POST",
            "/v1/upstreams/app/peers/a/reset",
            "",
            404,
            "no operator has changed peer `a`",
        ),
        (
            "POST",
            "/v1/upstreams/app/reset?all",
            "",
            400,
            "unknown query parameter `all`",
        ),
        ("POST", "/v1/upstreams/app/peers/a", "", 405, "PUT, DELETE"),
    ] {
        let (found, message) = refused(&edge.admin.send(method, target, body));
        assert_eq!(found, status, "{method} {target}: {message}");
        assert!(message.contains(part), "{method} {target}: {message}");
    }
    let weight = edge.command(&["peers", "weight", "app", "a", "much"]);
    assert_eq!(weight.status.code(), Some(1), "{weight:?}");
    let after = (
        peers(&edge),
        edge.admin.get("/v1/status").json()["generation"].take(),
    );
    assert_eq!(after, before);
}

#[test]
fn change_is_refused_where_the_ring_needs_an_id_or_others_would_be_renumbered() {
    let origins = named(4);
    let address = origins[3].label();
    let numbered = |label: &str, index: usize| {
        format!(
            "{{label: {label}, address: \"{}\", id: {}}}",
            origins[index].label(),
            index + 1
        )
    };
    let edge = ConfigBuilder::of([numbered("a", 0), numbered("b", 1)])
        .app("ring", "haproxy")
        .start();
    let (status, message) = refused(&put(&edge, "c", "", &json!({"address": address})));
    assert!(
        status == 422 && message.contains("numbers peers without `id`"),
        "{message}"
    );
    let (status, message) = refused(&put(
        &edge,
        "c",
        "",
        &json!({"address": address, "id": "x"}),
    ));
    assert!(status == 422 && message.contains('x'), "{message}");
    assert_eq!(
        put(&edge, "c", "", &json!({"address": address, "id": 9})).status,
        201
    );
    assert_eq!(delete(&edge, "a", "").status, 200);

    let positional = site(&["a", "b"], &origins).app("ring", "haproxy").start();
    let (status, message) = refused(&delete(&positional, "a", ""));
    assert!(
        status == 422 && message.contains("would be renumbered"),
        "{message}"
    );
    assert_eq!(put(&positional, "a", "", &json!({"weight": 2})).status, 200);

    let fractions = site(&["a", "b"], &origins).app("ring", "varnish").start();
    let weighed = put(&fractions, "a", "", &json!({"weight": 2.5}));
    assert_eq!(changed(&weighed)["change"]["weight"], 2.5);
}

#[test]
fn dry_run_says_what_the_change_does_and_changes_nothing() {
    let origins = named(3);
    let edge = site(&["a", "b"], &origins)
        .top("state_file", "state.json")
        .start();
    let state = |edge: &Edge| {
        (
            view(edge),
            edge.admin.get("/v1/status").json()["generation"].take(),
        )
    };
    let before = state(&edge);
    let body = json!({"address": origins[2].label()});
    let dry = [
        put(&edge, "c", "?dry_run", &body),
        put(&edge, "a", "?dry_run=1", &json!({"weight": 3})),
        delete(&edge, "b", "?dry_run=true"),
    ];
    assert_eq!(state(&edge), before);
    let real = [
        put(&edge, "c", "", &body),
        edge.admin.post("/v1/upstreams/app/reset"),
        put(&edge, "a", "", &json!({"weight": 3})),
        edge.admin.post("/v1/upstreams/app/reset"),
        delete(&edge, "b", ""),
    ];
    for (dry, real) in dry.iter().zip([&real[0], &real[2], &real[4]]) {
        let (dry, real) = (changed(dry), changed(real));
        for key in ["movement", "label", "changed", "created", "peers", "drains"] {
            assert_eq!(dry[key], real[key], "{key}");
        }
        assert_eq!(
            (&dry["dry_run"], &real["dry_run"]),
            (&json!(true), &json!(false))
        );
        let hashes = dry["movement"]["moved"]["hashes"].as_u64().unwrap();
        assert!(
            hashes > 1 << 28 && dry["movement"]["exact"] == true,
            "{dry}"
        );
    }
}

#[test]
fn only_the_keys_of_the_changed_peer_move_as_the_answer_says() {
    let origins = named(5);
    let edge = site(&["a", "b", "c", "d"], &origins).start();
    let keys = keys(10_000);
    let by_address: BTreeMap<_, _> = ["a", "b", "c", "d"]
        .into_iter()
        .zip(origins.iter().map(Origin::label))
        .collect();
    let mut before = owners(&edge, &keys);
    for (label, change) in [
        ("e", Some(json!({"address": origins[4].label()}))),
        ("e", Some(json!({"weight": 3}))),
        ("e", Some(json!({"weight": 2}))),
        (
            "a",
            Some(json!({"address": origins[0].label(), "id": "other"})),
        ),
        ("b", None),
        ("e", None),
    ] {
        let answer = match &change {
            Some(body) => put(&edge, label, "", body),
            None => delete(&edge, label, ""),
        };
        let announced = announced(&changed(&answer));
        let after = owners(&edge, &keys);
        let moves = moved(&before, &after);
        assert!(!moves.is_empty(), "{label} {change:?}");
        for ((from, to), count) in &moves {
            // A peer with another place on the ring loses keys and gets others.
            assert!(
                from == label || to == label,
                "{label} {change:?}: {from} -> {to}"
            );
            let share = announced[&(from.clone(), to.clone())];
            let (expected, deviation) = (share * 10_000.0, 5.0 * (share * 10_000.0).sqrt() + 1.0);
            let count = f64::from(u32::try_from(*count).unwrap());
            assert!(
                (count - expected).abs() < deviation,
                "{from} -> {to}: {count}, not {expected}"
            );
        }
        before = after;
    }
    // What is predicted is what serves.
    let served = ask_all(&edge, &keys);
    for (key, peer) in keys.iter().zip(&served) {
        assert_eq!(*peer, by_address[before[key].as_str()], "{key}");
    }
    // A new address of a label moves no key.
    let moved_server = put(&edge, "c", "", &json!({"address": origins[4].label()}));
    assert_eq!(changed(&moved_server)["movement"]["moved"]["hashes"], 0);
    assert_eq!(owners(&edge, &keys), before);
}

#[test]
fn change_that_moves_too_much_or_empties_the_upstream_needs_force() {
    let origins = named(3);
    let edge = site(&["a", "b"], &origins).app("max_moved", "10%").start();
    let body = json!({"address": origins[2].label()});
    for query in ["", "?dry_run"] {
        let (status, message) = refused(&put(&edge, "c", query, &body));
        assert_eq!(status, 412, "{message}");
        assert!(message.contains("`max_moved` allows 10 %"), "{message}");
    }
    let refused_command = edge.command(&["peers", "remove", "app", "a"]);
    assert_eq!(
        refused_command.status.code(),
        Some(3),
        "{refused_command:?}"
    );
    assert_eq!(
        put(&edge, "a", "", &json!({"address": origins[2].label()})).status,
        200
    );
    assert_eq!(put(&edge, "c", "?force", &body).status, 201);
    assert_eq!(delete(&edge, "c", "?force").status, 200);
    edge.cli(&["peers", "remove", "app", "a", "--force"], "");

    let last = delete(&edge, "b", "");
    let (status, message) = refused(&last);
    assert_eq!((status, &last.json()["can_force"]), (409, &json!(true)));
    assert!(message.contains("would have no peers"), "{message}");
    assert_eq!(edge.get("/?k=a").status, 200);
    assert_eq!(delete(&edge, "b", "?force").status, 200);
    assert_eq!(edge.get("/?k=a").status, 503);
    // Without peers, no key has an owner that it could lose.
    assert_eq!(
        put(&edge, "b", "", &json!({"address": origins[1].label()})).status,
        201
    );
    assert_eq!(edge.get("/?k=a").status, 200);
    // A reset is limited, too.
    let (status, message) = refused(&edge.admin.post("/v1/upstreams/app/reset"));
    assert_eq!(status, 412, "{message}");
    edge.cli(&["peers", "reset", "app", "--force"], "");
    assert_eq!(peers(&edge).len(), 2);
}

#[test]
fn reload_keeps_changes_and_warns_of_those_that_hide_the_file_or_have_no_effect() {
    let origins = named(5);
    let first = site(&["a", "b", "c"], &origins).top("state_file", "state.json");
    let edge = first.start();
    put(
        &edge,
        "a",
        "",
        &json!({"address": origins[3].label(), "weight": 2}),
    );
    put(&edge, "b", "", &json!({"weight": 3}));
    put(&edge, "n", "", &json!({"address": origins[4].label()}));
    let (before, keys) = (peers(&edge), keys(500));
    let served = ask_all(&edge, &keys);
    let reloaded = edge.cli(&["reload"], "");
    assert!(
        !reloaded.contains("upstream app:  ") && !reloaded.contains("% of its keys"),
        "{reloaded}"
    );
    let hides = format!(
        "warning: upstream app: peer a is {}, weight 2, by an operator; in the file it is {}, weight 1 (since ",
        origins[3].label(),
        origins[0].label()
    );
    assert!(reloaded.contains(&hides), "{reloaded}");
    assert!(
        reloaded.contains("peer b has weight 3, by an operator"),
        "{reloaded}"
    );
    assert!(
        reloaded.contains("run `clockwise peers reset app b`"),
        "{reloaded}"
    );
    assert!(!reloaded.contains("peer n"), "{reloaded}");
    assert_eq!((peers(&edge), ask_all(&edge, &keys)), (before, served));

    // The file no longer has `b`, and has a peer with the label that was added.
    edge.rewrite(
        &site(&["a", "c", "n"], &origins)
            .top("state_file", "state.json")
            .yaml(),
    );
    let reloaded = edge.cli(&["reload"], "");
    assert!(
        reloaded.contains(
            "an operator's change of peer b is without effect: no peer has this label now"
        ),
        "{reloaded}"
    );
    assert!(reloaded.contains("peer n is "), "{reloaded}");
    assert_eq!(changes(&edge), ["a set", "b! weight", "n set"]);
    let expected = [
        shown("a", &origins[3], 2),
        shown("c", &origins[1], 1),
        shown("n", &origins[4], 1),
    ];
    assert_eq!(peers(&edge), expected);
    let status = edge.cli(&["status"], "");
    assert!(
        status.contains("without effect: no peer has this label now"),
        "{status}"
    );
    // With the peer its change has an effect again.
    edge.rewrite(&first.yaml());
    edge.cli(&["reload"], "");
    assert_eq!(changes(&edge), ["a set", "b weight", "n set"]);
    edge.cli(&["peers", "reset", "app"], "");
    let reloaded = edge.cli(&["reload"], "");
    assert!(!reloaded.contains("warning"), "{reloaded}");
}

#[test]
fn upgrade_and_restart_keep_changes_and_a_state_file_of_any_age_does() {
    let origins = named(4);
    let yaml =
        site(&["a", "b", "c"], &origins).top("state_file", "{path: state.json, max_age: 1s}");
    let mut edge = yaml.start();
    put(
        &edge,
        "d",
        "",
        &json!({"address": origins[3].label(), "id": "x"}),
    );
    put(&edge, "b", "", &json!({"weight": 3}));
    delete(&edge, "a", "");
    let keys = keys(500);
    let (before, served) = (view(&edge)["changes"].take(), ask_all(&edge, &keys));
    // The answer came after the file had the change.
    let path = edge.directory().join("state.json");
    assert!(fs::read_to_string(&path).unwrap().contains("\"remove\""));
    let upgraded = edge.command(&["upgrade"]);
    assert!(upgraded.status.success(), "{upgraded:?}");
    assert_eq!(
        (&view(&edge)["changes"], ask_all(&edge, &keys)),
        (&before, served.clone())
    );
    edge.stop_serving();
    // Long after `max_age`.
    let text = fs::read_to_string(&path).unwrap();
    let (start, rest) = text.split_once("\"written_at\":\"").unwrap();
    let (_, end) = rest.split_once('"').unwrap();
    fs::write(
        &path,
        format!("{start}\"written_at\":\"2020-01-01T00:00:00Z\"{end}"),
    )
    .unwrap();
    edge.restart();
    edge.wait_for_stderr("except for the changes of peers by operators", 1);
    edge.wait_for_stderr("peer a is removed, by an operator", 1);
    assert_eq!(
        (&view(&edge)["changes"], ask_all(&edge, &keys)),
        (&before, served)
    );
    edge.cli(&["peers", "reset", "app"], "");
    edge.stop_serving();
    edge.restart();
    assert_eq!(view(&edge)["changes"], json!([]));
}

#[test]
fn change_without_a_state_file_or_with_one_that_cannot_be_written_is_made_with_a_warning() {
    let origins = named(2);
    let site = site(&["a", "b"], &origins);
    let edge = site.start();
    let answer = changed(&put(&edge, "a", "", &json!({"weight": 2})));
    let warning = answer["warnings"][0].to_string();
    assert!(warning.contains("does not outlive a restart"), "{answer}");
    edge.rewrite(&site.top("state_file", "missing/state.json").yaml());
    edge.cli(&["reload"], "");
    let answer = changed(&put(&edge, "a", "", &json!({"weight": 3})));
    let warning = answer["warnings"][0].to_string();
    assert!(
        warning.contains("the state file cannot be written"),
        "{answer}"
    );
    fs::create_dir(edge.directory().join("missing")).unwrap();
    let answer = changed(&put(&edge, "a", "", &json!({"weight": 4})));
    assert_eq!(answer["warnings"], json!([]));
}

#[test]
fn changes_lie_over_the_list_of_a_source_and_follow_its_addresses() {
    let origins = named(5);
    let file = ListFile::with(&[
        labelled("x", &origins[0]),
        labelled("y", &origins[1]),
        labelled("z", &origins[2]),
    ]);
    let edge = file.site().start();
    put(&edge, "x", "", &json!({"weight": 4}));
    delete(&edge, "y", "");
    put(&edge, "z", "", &json!({"address": origins[3].label()}));
    let listed = &view(&edge)["changes"][0]["listed"];
    assert_eq!(listed["source"], *format!("file:{}", file.path().display()));
    // The weight stays with the label, the removed peer stays away, the operator's address stays.
    file.replace(&[
        labelled("x", &origins[4]),
        labelled("y", &origins[4]),
        labelled("z", &origins[4]),
    ]);
    let expected = [shown("x", &origins[4], 4), shown("z", &origins[3], 1)];
    wait::until("the new address of x", || peers(&edge) == expected);
    file.replace(&[labelled("y", &origins[1]), labelled("z", &origins[2])]);
    wait::until("x to go", || peers(&edge) == [shown("z", &origins[3], 1)]);
    assert_eq!(changes(&edge), ["x! weight", "y remove", "z set"]);
    // A peer that is set stays when its source loses it.
    file.replace(&[labelled("x", &origins[0]), labelled("y", &origins[1])]);
    let expected = [shown("x", &origins[0], 4), shown("z", &origins[3], 1)];
    wait::until("x to return", || peers(&edge) == expected);
    edge.cli(&["peers", "reset", "app"], "");
    assert_eq!(
        peers(&edge),
        [shown("x", &origins[0], 1), shown("y", &origins[1], 1)]
    );
}

#[test]
fn removed_peer_drains_and_returns_with_its_keys() {
    let origins = named(3);
    let drain = |time: &str| format!("{{idle: {time}, deadline: {time}}}");
    let with = |time: &str| {
        site(&["a", "b"], &origins)
            .app("drain", &drain(time))
            .top("state_file", "state.json")
    };
    let mut edge = with("1h").start();
    let keys = keys(60);
    let before = ask_all(&edge, &keys);
    let removed = changed(&delete(&edge, "b", ""));
    assert_eq!(
        (&removed["drains"], &removed["peers"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(edge.admin.state("app", "b"), "draining");
    assert_eq!(ask_all(&edge, &keys), before, "active keys stay");
    let others: Vec<String> = (0..50).map(|number| format!("other-{number}")).collect();
    let first = origins[0].label();
    assert!(
        ask_all(&edge, &others).iter().all(|peer| *peer == first),
        "new keys go elsewhere"
    );
    // A second removal finds no peer, though it still drains.
    assert_eq!(delete(&edge, "b", "").status, 404);
    // An upgrade and a restart go on with the drain.
    let upgraded = edge.command(&["upgrade"]);
    assert!(upgraded.status.success(), "{upgraded:?}");
    edge.admin.wait_for_state("app", "b", "draining");
    edge.stop_serving();
    edge.restart();
    edge.admin.wait_for_state("app", "b", "draining");
    assert_eq!(changes(&edge), ["b remove"]);
    // The peer returns, and its drain ends.
    edge.cli(&["peers", "reset", "app", "b"], "");
    edge.admin.wait_for_state("app", "b", "up");
    assert_eq!(ask_all(&edge, &keys), before);
    // An added peer that is removed drains, too; an operator's own drain is not ended by a change.
    put(&edge, "n", "", &json!({"address": origins[2].label()}));
    ask_all(&edge, &keys);
    assert_eq!(changed(&delete(&edge, "n", ""))["drains"], json!(true));
    assert_eq!(view(&edge)["changes"], json!([]));
    edge.cli(&["drain", "app", "a"], "");
    delete(&edge, "b", "");
    edge.rewrite(&with("1s").yaml());
    edge.cli(&["reload"], "");
    wait::until("the drains to end", || {
        peers(&edge) == [shown("a", &origins[0], 1)]
    });
    edge.wait_for_stderr("peer b is removed: its drain is over", 1);
    assert_eq!(edge.admin.state("app", "a"), "draining");
}

#[test]
fn change_needs_the_token_and_comes_from_no_other_site() {
    let origins = named(2);
    let start = |admin: &str| {
        let edge = site(&["a", "b"], &origins).top("admin", admin).start();
        let address = edge.admin.get("/v1/status").json()["admin"]
            .as_str()
            .unwrap()
            .to_owned();
        (edge, address)
    };
    let send = |address: &str, method: &str, headers: &[(&str, &str)]| {
        let request = Request::new(method, "/v1/upstreams/app/peers/a");
        let request = if method == "PUT" {
            request.body(r#"{"weight": 2}"#)
        } else {
            request
        };
        let add = |request: Request, (name, value): &(&str, &str)| request.header(name, value);
        let request = headers.iter().fold(request, add);
        client::send(address.parse().unwrap(), &request).status
    };
    let (edge, address) = start("{address: \"127.0.0.1:0\"}");
    let own = format!("http://{address}");
    for method in ["PUT", "DELETE"] {
        for headers in [
            vec![("Host", "evil.example")],
            vec![
                ("Host", address.as_str()),
                ("Origin", "http://evil.example"),
            ],
            vec![("Host", address.as_str()), ("Sec-Fetch-Site", "cross-site")],
        ] {
            assert_eq!(
                send(&address, method, &headers),
                403,
                "{method} {headers:?}"
            );
        }
    }
    assert_eq!(changes(&edge), [""; 0]);
    let same = [
        ("Host", address.as_str()),
        ("Origin", own.as_str()),
        ("Sec-Fetch-Site", "same-origin"),
    ];
    assert_eq!(send(&address, "PUT", &same), 200);
    assert_eq!(changes(&edge), ["a weight"]);

    let (edge, address) = start("{address: \"127.0.0.1:0\", token: s3cret-enough-for-a-test}");
    for method in ["PUT", "DELETE"] {
        assert_eq!(
            send(&address, method, &[("Host", &address)]),
            401,
            "{method}"
        );
    }
    let token = [
        ("Host", address.as_str()),
        ("Authorization", "Bearer s3cret-enough-for-a-test"),
    ];
    assert_eq!(send(&address, "DELETE", &token), 200);
    assert_eq!(changes(&edge), ["a remove"]);
}

#[test]
fn change_that_would_push_out_another_peer_is_refused() {
    let origins = named(4);
    let with_id = |label: &str, index: usize, id: &str| {
        format!(
            "{{label: {label}, address: \"{}\", id: {id}}}",
            origins[index].label()
        )
    };
    let file = ListFile::with(&[with_id("x", 0, "one")]);
    let edge = file.site().app("ring", "nginx").start();
    let body = json!({"address": origins[1].label(), "id": "one"});
    let (status, message) = refused(&put(&edge, "n", "", &body));
    assert!(
        status == 422 && message.contains("would also change peer `x`"),
        "{message}"
    );
    // Once the peer is removed, its place is free; then it cannot come back.
    delete(&edge, "x", "?force");
    assert_eq!(put(&edge, "n", "", &body).status, 201);
    let back = edge.admin.post(&path("x", "/reset"));
    let left_out =
        edge.admin.get("/v1/status").json()["upstreams"]["app"]["sources"][0]["left_out"].take();
    let warning = changed(&back)["warnings"][0].to_string();
    assert!(warning.contains("peer x is left out"), "{warning}");
    assert_eq!(
        (peers(&edge), left_out),
        (vec![shown("n", &origins[1], 1)], json!(["x"]))
    );
}

#[test]
fn hundred_changes_under_load_with_a_source_and_reloads_fail_no_request() {
    let origins = named(6);
    let list = |round: usize| {
        let mut list = vec![labelled("x", &origins[round % 2])];
        if round.is_multiple_of(3) {
            list.push(labelled("y", &origins[2]));
        }
        list
    };
    let file = ListFile::with(&list(0));
    let source = format!("{{file: \"{}\"}}", file.path().display());
    let site = file
        .site()
        .peers([labelled("a", &origins[3]), source])
        .app("health", "{tcp: true, interval: 1s}")
        .app("discovery", "{settle: 10ms, max_lost: off}")
        .top("state_file", "state.json");
    let edge = site.start();
    let keys = keys(10_000);
    let load = Load::start(&edge, 4, &keys);
    thread::scope(|scope| {
        let changer = scope.spawn(|| {
            for round in 0..100 {
                let answer = match round % 5 {
                    0 => put(&edge, "n", "", &json!({"address": origins[4].label()})),
                    1 => put(&edge, "a", "", &json!({"weight": 1 + round % 7})),
                    2 => put(
                        &edge,
                        "n",
                        "",
                        &json!({"address": origins[5].label(), "weight": 2}),
                    ),
                    3 => put(&edge, "x", "", &json!({"weight": 1 + round % 3})),
                    _ => delete(&edge, "n", ""),
                };
                changed(&answer);
            }
        });
        for round in 1.. {
            if changer.is_finished() {
                break;
            }
            file.replace(&list(round));
            edge.cli(&["reload"], "");
        }
    });
    load.wait_for_more(1_000);
    let answers = load.stop();
    assert!(answers.len() > 1_000);
    file.replace(&list(3));
    let expected = [
        shown("a", &origins[3], 6),
        shown("x", &origins[1], 3),
        shown("y", &origins[2], 1),
    ];
    wait::until("the last list", || peers(&edge) == expected);
    assert_eq!(changes(&edge), ["a weight", "x weight"]);
    let (owners, served) = (owners(&edge, &keys), ask_all(&edge, &keys));
    let by_label = BTreeMap::from([("a", 3), ("x", 1), ("y", 2)]);
    for (key, peer) in keys.iter().zip(&served) {
        assert_eq!(
            *peer,
            origins[by_label[owners[key].as_str()]].label(),
            "{key}"
        );
    }
}
