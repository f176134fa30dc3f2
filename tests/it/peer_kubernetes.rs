//! Peers from a service of Kubernetes: pods that are replaced, scaled, rolled and terminated; an API server that fails.
//!
//! The API server is a stand-in; its assumptions are listed in `support/kubernetes_api.rs`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;

use serde_json::{Value, json};

use crate::support::edge::{ConfigBuilder, Edge, run};
use crate::support::kubernetes_api::{KubernetesApi, NAMESPACE, SERVICE};
use crate::support::load::{Load, ask_all, keys};
use crate::support::origin::Origin;
use crate::support::tls::Authority;
use crate::support::{port, wait};

const UPDATES: &str = "clockwise_discovery_updates_total";

fn source_yaml() -> String {
    format!("{{kubernetes: {{namespace: {NAMESPACE}, service: {SERVICE}, port: http}}}}")
}

/// A site with only this source of peers. Changes come into force without a long wait.
fn site(api: &KubernetesApi) -> ConfigBuilder {
    site_at(&format!("{{server: \"http://{}\"}}", api.address))
}

fn site_at(kubernetes: &str) -> ConfigBuilder {
    ConfigBuilder::of([source_yaml()])
        .app("discovery", "{settle: 10ms, max_lost: 50%}")
        .top("kubernetes", kubernetes)
}

/// The state of a pod, as the conditions of its endpoint.
#[derive(Clone, Copy)]
enum Pod {
    Ready,
    NotReady,
    /// It still answers requests.
    Terminating,
}

/// A slice with one pod: ports differ between the pods of a test, and all endpoints of a slice have the same ports.
fn pod_slice(pod: &str, origin: &Origin, state: Pod) -> Value {
    let conditions = match state {
        Pod::Ready => json!({"ready": true, "serving": true, "terminating": false}),
        Pod::NotReady => json!({"ready": false, "serving": false, "terminating": false}),
        Pod::Terminating => json!({"ready": false, "serving": true, "terminating": true}),
    };
    slice(
        origin.address.port(),
        &json!([{"addresses": [origin.address.ip().to_string()], "conditions": conditions, "hostname": pod,
                 "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": pod}, "nodeName": "node-1",
                 "zone": "z", "hints": {"forZones": [{"name": "z"}]}}]),
    )
}

fn slice(port: u16, endpoints: &Value) -> Value {
    json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
           "ports": [{"name": "http", "port": port, "protocol": "TCP"}], "endpoints": endpoints})
}

/// Sets a pod, in a slice named after it.
fn set(api: &KubernetesApi, pod: &str, origin: &Origin, state: Pod) {
    api.set(pod, pod_slice(pod, origin, state));
}

/// Pods `app-0`, `app-1`, …, one for each origin.
fn set_all(api: &KubernetesApi, origins: &[Origin]) {
    for (number, origin) in origins.iter().enumerate() {
        set(api, &format!("app-{number}"), origin, Pod::Ready);
    }
}

fn named_origins(count: usize) -> Vec<Origin> {
    (0..count).map(|_| Origin::named()).collect()
}

fn shown_peers(edge: &Edge) -> Vec<Value> {
    let view = edge.admin.get("/v1/upstreams/app").json();
    view["peers"].as_array().expect("`peers`").clone()
}

/// `LABEL=ADDRESS` of each peer, sorted.
fn peers(edge: &Edge) -> BTreeSet<String> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let peer = |peer: &Value| format!("{}={}", text(&peer["label"]), text(&peer["address"]));
    shown_peers(edge).iter().map(peer).collect()
}

fn wait_for_peers(edge: &Edge, expected: &[(&str, &Origin)]) {
    let expected = expected.iter();
    let expected: BTreeSet<_> = expected
        .map(|(label, origin)| format!("{label}={}", origin.label()))
        .collect();
    wait::until(&format!("the peers to be {expected:?}"), || {
        peers(edge) == expected
    });
}

fn source(edge: &Edge) -> Value {
    edge.admin.get("/v1/status").json()["upstreams"]["app"]["sources"][0].take()
}

fn wait_for_error(edge: &Edge, text: &str) {
    wait::until(&format!("the source to fail: {text}"), || {
        let error = source(edge)["error"].take();
        error.as_str().is_some_and(|error| error.contains(text))
    });
}

/// The pages of lists that were read so far.
fn lists(api: &KubernetesApi) -> usize {
    api.requests().len() - api.watches()
}

fn owners(edge: &Edge, keys: &[String]) -> Vec<String> {
    edge.predict(keys, 1).into_iter().flatten().collect()
}

/// The labels from which and to which keys have moved.
fn moves(before: &[String], after: &[String]) -> (BTreeSet<String>, BTreeSet<String>) {
    let moved = before.iter().zip(after).filter(|(was, is)| was != is);
    moved.map(|(was, is)| (was.clone(), is.clone())).unzip()
}

fn only(label: &str) -> BTreeSet<String> {
    BTreeSet::from([label.to_owned()])
}

#[test]
fn pod_replaced_under_its_name_moves_no_key() {
    let origins = named_origins(4);
    let api = KubernetesApi::start();
    set_all(&api, &origins[..3]);
    let edge = site(&api).app("health", "{tcp: true}").start();
    let old = [
        ("app-0", &origins[0]),
        ("app-1", &origins[1]),
        ("app-2", &origins[2]),
    ];
    wait_for_peers(&edge, &old);
    let keys = keys(10_000);
    let before = owners(&edge, &keys);
    // As a StatefulSet does it: the old pod goes before the new one comes, with another address.
    set(&api, "app-1", &origins[1], Pod::Terminating);
    wait_for_peers(&edge, &[old[0], old[2]]);
    api.remove("app-1");
    set(&api, "app-1", &origins[3], Pod::NotReady);
    set(&api, "app-1", &origins[3], Pod::Ready);
    wait_for_peers(&edge, &[old[0], ("app-1", &origins[3]), old[2]]);
    assert_eq!(owners(&edge, &keys), before);
    // Replaced at once: the label never goes.
    set(&api, "app-1", &origins[1], Pod::Ready);
    wait_for_peers(&edge, &old);
    assert_eq!(owners(&edge, &keys), before);
    edge.admin.wait_for_state("app", "app-1", "up");
    let expected: Vec<_> = before
        .iter()
        .map(|owner| {
            old.iter()
                .find(|(label, _)| label == owner)
                .unwrap()
                .1
                .label()
        })
        .collect();
    assert_eq!(ask_all(&edge, &keys), expected);
    let shown = &shown_peers(&edge)[0];
    assert_eq!(shown["source"], "kubernetes:prod/app:http", "{shown}");
}

#[test]
fn scaled_service_moves_only_the_keys_of_the_pod_that_comes_or_goes() {
    let origins = named_origins(4);
    let api = KubernetesApi::start();
    set_all(&api, &origins[..3]);
    let edge = site(&api).start();
    let all: Vec<_> = ["app-0", "app-1", "app-2", "app-3"]
        .into_iter()
        .zip(&origins)
        .collect();
    wait_for_peers(&edge, &all[..3]);
    let keys = keys(10_000);
    let before = owners(&edge, &keys);
    set(&api, "app-3", &origins[3], Pod::NotReady);
    set(&api, "app-3", &origins[3], Pod::Ready);
    wait_for_peers(&edge, &all);
    let scaled_up = owners(&edge, &keys);
    assert_eq!(moves(&before, &scaled_up).1, only("app-3"));
    // A pod that is not ready goes as one that is removed does.
    set(&api, "app-0", &origins[0], Pod::NotReady);
    wait_for_peers(&edge, &all[1..]);
    assert_eq!(moves(&scaled_up, &owners(&edge, &keys)).0, only("app-0"));
    set(&api, "app-0", &origins[0], Pod::Ready);
    wait_for_peers(&edge, &all);
    assert_eq!(owners(&edge, &keys), scaled_up);
    api.remove("app-3");
    wait_for_peers(&edge, &all[..3]);
    assert_eq!(owners(&edge, &keys), before);
}

#[test]
fn rolled_stateful_set_moves_no_key_in_the_end() {
    let (old, new) = (named_origins(4), named_origins(4));
    let api = KubernetesApi::start();
    set_all(&api, &old);
    let edge = site(&api).start();
    let labels = ["app-0", "app-1", "app-2", "app-3"];
    let mut expected: Vec<_> = labels.into_iter().zip(&old).collect();
    wait_for_peers(&edge, &expected);
    let keys = keys(10_000);
    let before = owners(&edge, &keys);
    for number in (0..4).rev() {
        let label = labels[number];
        set(&api, label, &old[number], Pod::Terminating);
        api.remove(label);
        set(&api, label, &new[number], Pod::Ready);
        expected[number].1 = &new[number];
        wait_for_peers(&edge, &expected);
    }
    assert_eq!(owners(&edge, &keys), before);
}

#[test]
fn terminating_pod_drains_and_keeps_its_active_keys() {
    let origins = named_origins(2);
    let api = KubernetesApi::start();
    set_all(&api, &origins);
    let edge = site(&api).app("drain", "{idle: 1h, deadline: 1h}").start();
    wait_for_peers(&edge, &[("app-0", &origins[0]), ("app-1", &origins[1])]);
    let keys = keys(50);
    let before = ask_all(&edge, &keys);
    set(&api, "app-1", &origins[1], Pod::Terminating);
    edge.admin.wait_for_state("app", "app-1", "draining");
    assert_eq!(source(&edge)["leaving"][0], "app-1");
    assert_eq!(ask_all(&edge, &keys), before, "active keys stay");
    let others: Vec<String> = (0..50).map(|number| format!("other-{number}")).collect();
    let first = origins[0].label();
    assert!(ask_all(&edge, &others).iter().all(|peer| *peer == first));
    // The pod returns, ready.
    set(&api, "app-1", &origins[1], Pod::Ready);
    edge.admin.wait_for_state("app", "app-1", "up");
    assert_eq!(ask_all(&edge, &keys), before);
}

#[test]
fn expired_version_is_followed_by_a_new_list_in_both_of_its_forms() {
    let origins = named_origins(4);
    let api = KubernetesApi::start();
    set_all(&api, &origins[..2]);
    let edge = site(&api).start();
    let all: Vec<_> = ["app-0", "app-1", "app-2", "app-3"]
        .into_iter()
        .zip(&origins)
        .collect();
    wait_for_peers(&edge, &all[..2]);
    for (by_status, added) in [(false, 2), (true, 3)] {
        let watches = api.watches();
        api.wait_for_watches(watches.max(1));
        api.tell_gone_by_status(by_status);
        let lists = lists(&api);
        let (pod, origin) = all[added];
        api.set_unseen(pod, pod_slice(pod, origin, Pod::Ready));
        wait_for_peers(&edge, &all[..=added]);
        assert_eq!(self::lists(&api), lists + 1);
    }
    assert_eq!(source(&edge)["error"], Value::Null);
    assert!(
        !edge.stderr().contains("cannot be read"),
        "{}",
        edge.stderr()
    );
}

#[test]
fn long_list_is_read_in_pages_and_watched_from_its_version() {
    let origin = Origin::named();
    let api = KubernetesApi::start();
    // Most slices of a service that shrank are empty.
    for number in 0..250 {
        let empty = json!({"addressType": "IPv4", "ports": null, "endpoints": null});
        api.set(&format!("empty-{number:03}"), empty);
    }
    set(&api, "pod", &origin, Pod::Ready);
    let edge = site(&api).start();
    wait_for_peers(&edge, &[("pod", &origin)]);
    let requests = api.requests();
    let pages: Vec<_> = requests
        .iter()
        .filter(|target| target.contains("limit=100"))
        .collect();
    assert!(
        pages.len() >= 3 && pages[2].contains("&continue="),
        "{requests:?}"
    );
    api.wait_for_watches(1);
    let watch = api.requests().last().unwrap().clone();
    assert!(watch.contains("&resourceVersion=252&"), "{watch}");
    // A watch that ends is continued from the bookmark.
    let (watches, lists) = (api.watches(), lists(&api));
    api.bookmark();
    api.end_watches();
    api.wait_for_watches(watches + 1);
    let watch = api.requests().last().unwrap().clone();
    assert!(watch.contains("&resourceVersion=253&"), "{watch}");
    assert_eq!(self::lists(&api), lists);
}

#[test]
fn api_server_that_is_away_changes_nothing_until_it_is_back() {
    let origins = named_origins(3);
    let mut api = KubernetesApi::start();
    set_all(&api, &origins[..2]);
    let edge = site(&api).start();
    let all: Vec<_> = ["app-0", "app-1", "app-2"]
        .into_iter()
        .zip(&origins)
        .collect();
    wait_for_peers(&edge, &all[..2]);
    let keys = keys(300);
    let before = ask_all(&edge, &keys);
    api.down();
    set(&api, "app-2", &origins[2], Pod::Ready);
    wait_for_error(&edge, "no connection to the API server at");
    edge.admin
        .wait_for_metric(UPDATES, &["result=\"failed\""], 3);
    assert_eq!(ask_all(&edge, &keys), before);
    wait_for_peers(&edge, &all[..2]);
    assert_eq!(edge.stderr().matches("cannot be read:").count(), 1);
    api.up();
    edge.wait_for_stderr("can be read again", 1);
    wait_for_peers(&edge, &all);
    assert_eq!(source(&edge)["error"], Value::Null);
}

#[test]
fn token_that_is_rotated_is_read_again_over_tls_with_an_own_authority() {
    let origins = named_origins(3);
    let authority = Authority::new();
    let host = port::free().ip().to_string();
    authority.issue("api", &[&host]);
    let api = KubernetesApi::secure(authority.server("api"));
    set_all(&api, &origins[..2]);
    api.accept_token("one");
    let token = authority.path("token");
    fs::write(&token, "one\n").unwrap();
    let settings = |ca: &Authority| {
        format!(
            "{{server: \"https://{}\", token_file: \"{}\", ca: \"{}\"}}",
            api.address,
            token.display(),
            ca.path("ca.crt").display()
        )
    };
    let other = Authority::new();
    let unverified = site_at(&settings(&other)).start();
    wait_for_error(&unverified, "TLS: ");
    assert_eq!(api.requests(), [""; 0]);
    drop(unverified);
    let edge = site_at(&settings(&authority)).start();
    let all: Vec<_> = ["app-0", "app-1", "app-2"]
        .into_iter()
        .zip(&origins)
        .collect();
    wait_for_peers(&edge, &all[..2]);
    api.wait_for_watches(1);
    // The watch goes on with the old token; what follows it does not.
    api.accept_token("two");
    api.end_watches();
    wait_for_error(&edge, "401 Unauthorized");
    fs::write(&token, "two\n").unwrap();
    edge.wait_for_stderr("can be read again", 1);
    set(&api, "app-2", &origins[2], Pod::Ready);
    wait_for_peers(&edge, &all);
    assert!(!edge.stderr().contains("Bearer"));
}

#[test]
fn missing_permission_is_said_with_the_rule_that_grants_it() {
    let origin = Origin::named();
    let api = KubernetesApi::start();
    set(&api, "pod", &origin, Pod::Ready);
    api.forbid(true);
    let edge = site(&api).start();
    wait_for_error(&edge, "verbs get, list and watch on `endpointslices`");
    assert_eq!(edge.get("/?k=a").status, 503);
    api.forbid(false);
    wait_for_peers(&edge, &[("pod", &origin)]);
    // The permission to watch alone is withdrawn: what is known stays.
    api.wait_for_watches(1);
    api.forbid(true);
    api.end_watches();
    wait_for_error(&edge, "403 Forbidden");
    assert_eq!(edge.get("/?k=a").status, 200);
}

#[test]
fn slice_that_is_broken_keeps_its_last_state_and_is_logged_once() {
    let origins = named_origins(3);
    let api = KubernetesApi::start();
    set_all(&api, &origins[..2]);
    let edge = site(&api).start();
    let all: Vec<_> = ["app-0", "app-1", "app-2"]
        .into_iter()
        .zip(&origins)
        .collect();
    wait_for_peers(&edge, &all[..2]);
    api.wait_for_watches(1);
    let broken = json!([{"addresses": ["10.0.0.999"]}]);
    api.set("app-0", slice(80, &broken));
    set(&api, "app-2", &origins[2], Pod::Ready);
    wait_for_peers(&edge, &all);
    edge.wait_for_stderr(
        "EndpointSlice app-0 cannot be read: `10.0.0.999` is not an IP address",
        1,
    );
    // A slice without the port, and one with names, have no peers.
    let other_port = json!({"addressType": "IPv4", "ports": [{"name": "grpc", "port": 90}],
                            "endpoints": [{"addresses": ["10.0.0.1"]}]});
    api.set("other-port", other_port);
    let names =
        json!({"addressType": "FQDN", "ports": [], "endpoints": [{"addresses": ["a.test"]}]});
    api.set("names", names);
    edge.wait_for_stderr("EndpointSlice other-port: no TCP port `http`", 1);
    edge.wait_for_stderr("EndpointSlice names: addresses of type FQDN are ignored", 1);
    wait_for_peers(&edge, &all);
    assert_eq!(edge.stderr().matches("EndpointSlice app-0").count(), 1);
}

#[test]
fn service_that_lost_all_its_pods_is_held_and_serves() {
    let origins = named_origins(2);
    let api = KubernetesApi::start();
    set_all(&api, &origins);
    let edge = site(&api).start();
    wait_for_peers(&edge, &[("app-0", &origins[0]), ("app-1", &origins[1])]);
    for pod in ["app-0", "app-1"] {
        api.remove(pod);
    }
    let reason = wait::value("a list to be held", || {
        let reason = source(&edge)["held"]["reason"].take();
        reason.as_str().map(str::to_owned)
    });
    // The first of the two changes may have come into force before.
    assert!(reason.contains("it is empty"), "{reason}");
    assert_eq!(edge.get("/?k=a").status, 200);
    edge.wait_for_stderr("the service has no EndpointSlices", 1);
    set_all(&api, &origins);
    wait::until("no list to be held", || source(&edge)["held"].is_null());
    wait_for_peers(&edge, &[("app-0", &origins[0]), ("app-1", &origins[1])]);
}

#[test]
fn start_without_the_api_server_serves_the_list_of_the_state_file() {
    let origins = named_origins(3);
    let mut api = KubernetesApi::start();
    set_all(&api, &origins[..2]);
    let mut edge = site(&api).top("state_file", "state.json").start();
    let all: Vec<_> = ["app-0", "app-1", "app-2"]
        .into_iter()
        .zip(&origins)
        .collect();
    wait_for_peers(&edge, &all[..2]);
    let keys = keys(300);
    let before = ask_all(&edge, &keys);
    edge.begin_stop();
    edge.wait();
    api.down();
    edge.restart();
    wait_for_peers(&edge, &all[..2]);
    assert_eq!(ask_all(&edge, &keys), before);
    edge.wait_for_stderr("the 2 peers that it had before serve", 1);
    api.up();
    set(&api, "app-2", &origins[2], Pod::Ready);
    wait_for_peers(&edge, &all);
}

#[test]
fn pod_finds_the_api_server_in_its_environment() {
    let origin = Origin::named();
    let authority = Authority::new();
    authority.issue("api", &[&port::free().ip().to_string()]);
    let api = KubernetesApi::secure(authority.server("api"));
    set(&api, "pod", &origin, Pod::Ready);
    api.accept_token("one");
    fs::write(authority.path("token"), "one").unwrap();
    let yaml = site_at(&format!(
        "{{token_file: \"{}\", ca: \"{}\"}}",
        authority.path("token").display(),
        authority.path("ca.crt").display()
    ))
    .yaml();
    let (host, port) = (api.address.ip(), api.address.port());
    let environment = vec![
        ("KUBERNETES_SERVICE_HOST", OsString::from(host.to_string())),
        ("KUBERNETES_SERVICE_PORT", OsString::from(port.to_string())),
    ];
    let mut edge = Edge::launch_with(&yaml, environment);
    edge.wait_until_ready();
    wait_for_peers(&edge, &[("pod", &origin)]);
    // Elsewhere, what is missing is said.
    let nowhere = vec![("KUBERNETES_SERVICE_HOST", OsString::new())];
    let mut elsewhere = Edge::launch_with(&yaml, nowhere);
    elsewhere.wait_until_ready();
    wait_for_error(&elsewhere, "KUBERNETES_SERVICE_HOST is not set");
}

#[test]
fn commands_without_an_instance_read_the_service_once() {
    let origins = named_origins(2);
    let mut api = KubernetesApi::start();
    set_all(&api, &origins);
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("site.yaml"), site(&api).yaml()).unwrap();
    let ask = |arguments: &[&str]| {
        let output = run(directory.path(), arguments, "");
        let text = String::from_utf8([output.stdout, output.stderr].concat());
        (output.status.code(), text.expect("UTF-8"))
    };
    let show = ["ring", "show", "-c", "site.yaml", "-u", "app"];
    let (code, text) = ask(&show);
    assert!(code == Some(0) && text.contains("\napp-1 "), "{text}");
    let (code, text) = ask(&["check", "-c", "site.yaml"]);
    assert_eq!((code, text.trim()), (Some(0), "site.yaml: ok"));
    assert_eq!(api.watches(), 0);
    api.down();
    let (code, text) = ask(&show);
    assert!(
        code == Some(1) && text.contains("no connection to the API server"),
        "{text}"
    );
    let (code, text) = ask(&["check", "-c", "site.yaml"]);
    assert!(
        code == Some(0) && text.contains("kubernetes:prod/app:http"),
        "{text}"
    );
    let (code, text) = ask(&["check", "--offline", "-c", "site.yaml"]);
    assert_eq!((code, text.trim()), (Some(0), "site.yaml: ok"));
}

#[test]
fn hundred_changes_of_a_service_under_load_fail_no_request() {
    let origins = named_origins(5);
    let api = KubernetesApi::start();
    set_all(&api, &origins[..3]);
    let edge = site(&api)
        .app("health", "{tcp: true, interval: 1s}")
        .app("discovery", "{settle: 10ms, max_lost: off}")
        .start();
    let keys = keys(10_000);
    let load = Load::start(&edge, 4, &keys);
    let mut expected: Vec<_> = ["app-0", "app-1", "app-2"]
        .into_iter()
        .zip(&origins)
        .collect();
    wait_for_peers(&edge, &expected);
    for round in 1..=100 {
        match round % 4 {
            // A pod is replaced under its name.
            0 | 2 => {
                let replacement = &origins[if round % 4 == 0 { 2 } else { 3 }];
                set(&api, "app-2", replacement, Pod::Ready);
                expected[2].1 = replacement;
            }
            // Scaled up, then down: the pod terminates before it goes.
            1 => {
                set(&api, "app-3", &origins[4], Pod::Ready);
                expected.push(("app-3", &origins[4]));
            }
            _ => {
                set(&api, "app-3", &origins[4], Pod::Terminating);
                expected.truncate(3);
            }
        }
        if round % 10 == 0 {
            api.end_watches();
        }
        wait_for_peers(&edge, &expected);
    }
    load.wait_for_more(1_000);
    let answers = load.stop();
    assert!(answers.len() > 1_000);
    let before = owners(&edge, &keys);
    let by_label = |label: &String| {
        let peer = expected.iter().find(|(known, _)| known == label);
        peer.expect("a known label").1.label()
    };
    let served: Vec<_> = before.iter().map(by_label).collect();
    wait::until("the last pod to be probed", || {
        let state = |peer: &Value| peer["state"] == "up";
        shown_peers(&edge).iter().all(state)
    });
    assert_eq!(ask_all(&edge, &keys), served);
}
