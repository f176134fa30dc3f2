//! Upgrades to a new process on the same sockets: clients notice nothing, state is kept, and a new process that
//! fails changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Output;
use std::thread;

use crate::support::client::{self, Request};
use crate::support::edge::{self, ConfigBuilder, Edge};
use crate::support::load::{ask_all, keys};
use crate::support::mixed_load::{DOWNLOAD, MixedLoad, open_socket};
use crate::support::origin::{Behaviour, Origin};
use crate::support::port::{self, ClosedPort};
use crate::support::{process, wait};

/// Probes that detect a refused connect at once, tolerate slow peers, and let no peer recover during a test.
const PROBED: &str = "{tcp: true, interval: 2s, timeout: 2s, fall: 1, rise: 1000}";

#[test]
fn upgrade_five_times_loses_no_request() {
    let scene = UpgradeFixture::new();
    let edge = Edge::start(&scene.yaml(&scene.site()));
    let load = all_kinds_of_clients(&edge);
    let mut pids = vec![edge.pid()];
    for _ in 0..5 {
        load.wait_for_more(1);
        upgrade(&edge);
        pids.push(edge.pid());
    }
    load.wait_for_more(2);
    eprintln!("five upgrades: {:?}", load.stop());
    pids.dedup();
    assert_eq!(pids.len(), 6, "six processes served");
    let only_the_last_remains = || edge.processes() == [edge.pid()];
    wait::until("the old processes to exit", only_the_last_remains);
}

#[test]
fn upgrade_is_triggered_by_sigusr2() {
    let scene = UpgradeFixture::new();
    let edge = Edge::start(&scene.yaml(&scene.site()));
    let before = edge.pid();
    edge.signal("USR2");
    wait::until("another process to serve", || {
        edge.admin
            .try_get("/v1/status")
            .is_ok_and(|status| status.json()["pid"] != before)
    });
    assert_eq!(edge.get("/?k=a").status, 200);
}

#[test]
fn upgrade_serves_an_added_listener() {
    let origin = Origin::start();
    let (one, two) = (port::free(), port::free());
    let site = ConfigBuilder::of([origin.label()]);
    let edge = site
        .clone()
        .top("listeners", &format!("[{{address: \"{one}\"}}]"))
        .start();
    edge.rewrite(
        &site
            .top("listeners", &format!("[{{address: \"{two}\"}}]"))
            .yaml(),
    );
    upgrade(&edge);
    assert_eq!(client::send(two, &Request::get("/?k=a")).status, 200);
    wait::until("the removed listener to be closed", || {
        TcpListener::bind(one).is_ok()
    });
}

#[test]
fn upgrade_moves_no_key_and_keeps_peer_state() {
    let mut origins: Vec<Origin> = (0..4).map(|_| Origin::named()).collect();
    let labels: Vec<String> = origins.iter().map(Origin::label).collect();
    let edge = ConfigBuilder::of(&labels).app("health", PROBED).start();
    origins[0].down();
    edge.admin.wait_for_state("app", &labels[0], "down");
    origins[0].up(); // its state stays `down` until 1,000 probes succeed
    edge.cli(&["drain", "app", &labels[1]], "");
    let requests = [origins[0].requests(), origins[1].requests()];
    let keys = keys(10_000);
    let before = ask_all(&edge, &keys);
    upgrade(&edge);
    let after = ask_all(&edge, &keys);
    let moved = before
        .iter()
        .zip(&after)
        .filter(|(was, is)| was != is)
        .count();
    assert_eq!(moved, 0, "of 10,000 keys");
    assert_eq!([origins[0].requests(), origins[1].requests()], requests);
    assert_eq!(edge.admin.state("app", &labels[1]), "draining");
}

#[test]
fn upgrade_continues_counters() {
    let scene = UpgradeFixture::new();
    let edge = Edge::start(&scene.yaml(&scene.site()));
    for _ in 0..5 {
        edge.get("/?k=a");
    }
    let name = "clockwise_upstream_requests_total";
    edge.admin.wait_for_metric(name, &["upstream=\"app\""], 5);
    upgrade(&edge);
    edge.get("/?k=a");
    edge.admin.wait_for_metric(name, &["upstream=\"app\""], 6);
}

#[test]
fn upgrade_keeps_an_ejection() {
    let (origin, closed) = (Origin::start(), ClosedPort::new());
    let peers = [origin.label(), closed.address.to_string()];
    let edge = ConfigBuilder::of(&peers)
        .app("outlier_detection", "{failures: 1, eject: 60s}")
        .start();
    for key in keys(50) {
        edge.get(&format!("/?k={key}"));
    }
    assert_eq!(edge.admin.state("app", &peers[1]), "ejected");
    upgrade(&edge);
    assert_eq!(edge.admin.state("app", &peers[1]), "ejected");
}

#[test]
fn upgrade_with_an_invalid_configuration_is_refused() {
    assert_upgrade_fails(
        |scene, edge| edge.rewrite(&scene.yaml(&scene.site().top("drain_timeout", "80"))),
        "clockwise.yaml:",
    );
}

#[test]
fn upgrade_to_another_file_is_refused() {
    let origin = Origin::start();
    let edge = ConfigBuilder::of([origin.label()]).start();
    let own = edge
        .directory()
        .canonicalize()
        .unwrap()
        .join("clockwise.yaml");
    fs::copy(&own, edge.directory().join("other.yaml")).unwrap();
    for options in [
        &["-c", "other.yaml"][..],
        &["-c", "other.yaml", "--force", "--json"],
    ] {
        let refused = edge::run(edge.directory(), &[&["upgrade"], options].concat(), "");
        assert_refused(
            &refused,
            &format!("the instance runs `{}`, not `", own.display()),
        );
    }
    assert_eq!(edge.pid(), edge.started_id());
    let done = edge.cli(&["upgrade"], "");
    assert!(done.contains(&own.display().to_string()), "{done}");
    assert_ne!(edge.pid(), edge.started_id());
    let status = edge.admin.get("/v1/status").json();
    assert_eq!(status["config"], own.display().to_string());
}

#[test]
fn upgrade_with_a_port_in_use_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let listeners = format!("[{{address: \"127.0.0.1:0\"}}, {{address: \"{address}\"}}]");
    assert_upgrade_fails(
        |scene, edge| edge.rewrite(&scene.yaml(&scene.site().top("listeners", &listeners))),
        &address,
    );
}

#[test]
fn upgrade_with_a_missing_program_is_refused() {
    assert_upgrade_fails(
        |_, edge| fs::remove_file(edge.program()).unwrap(),
        "cannot run",
    );
}

#[test]
fn upgrade_with_a_program_not_executable_is_refused() {
    let replace = |_: &UpgradeFixture, edge: &Edge| {
        fs::remove_file(edge.program()).unwrap();
        fs::write(edge.program(), "not a program").unwrap();
        fs::set_permissions(edge.program(), fs::Permissions::from_mode(0o644)).unwrap();
    };
    assert_upgrade_fails(replace, "cannot run");
}

#[test]
fn upgrade_with_a_program_that_crashes_is_refused() {
    assert_upgrade_fails(|_, edge| replace_program(edge, "crashes"), "exit status: 7");
}

#[test]
fn upgrade_with_a_program_that_hangs_is_refused_and_kills_it() {
    assert_upgrade_fails_within(
        "1s",
        |_, edge| replace_program(edge, "hangs"),
        "did not acknowledge within 1s",
    );
}

#[test]
fn upgrade_refused_by_the_program_quotes_its_reason() {
    assert_upgrade_fails(
        |_, edge| replace_program(edge, "refuses"),
        "it uses hand-over format 1",
    );
}

#[test]
fn upgrade_with_the_new_process_killed_changes_nothing() {
    let held = PausedUpgrade::start("60s");
    held.assert_upgrade_fails(
        |new| assert!(process::signal(new, "KILL")),
        "ended before it acknowledged",
    );
}

#[test]
fn upgrade_with_the_new_process_stopped_kills_it() {
    let held = PausedUpgrade::start("10s");
    held.assert_upgrade_fails(
        |new| assert!(process::signal(new, "STOP")),
        "did not acknowledge within 10s",
    );
}

#[test]
fn upgrade_during_an_upgrade_is_refused() {
    let held = PausedUpgrade::start("60s");
    thread::scope(|scope| {
        let first = scope.spawn(|| held.edge.command(&["upgrade"]));
        held.new_process();
        // Several: no process that receives one may carry it out.
        let more: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| held.edge.command(&["upgrade"])))
            .collect();
        for second in more {
            assert_refused(&second.join().unwrap(), "in progress");
        }
        held.resume();
        let first = first.join().unwrap();
        assert!(first.status.success(), "{first:?}");
    });
    held.load.stop();
}

#[test]
fn admin_requests_during_an_upgrade_reach_the_serving_process() {
    let held = PausedUpgrade::start("60s");
    let old = held.edge.pid();
    let mut stages = BTreeMap::new();
    let mut request_status = || {
        let status = held.edge.admin.get("/v1/status").json();
        let from_old_process = status["pid"].as_u64() == Some(old.into());
        *stages
            .entry((from_old_process, status["stage"].to_string()))
            .or_insert(0) += 1;
    };
    thread::scope(|scope| {
        let first = scope.spawn(|| held.edge.command(&["upgrade"]));
        held.new_process();
        (0..20).for_each(|_| request_status());
        held.resume();
        while !first.is_finished() {
            request_status();
        }
        assert!(first.join().unwrap().status.success());
    });
    let starting = stages.keys().any(|(_, stage)| stage.contains("starting"));
    assert!(
        !starting,
        "(from the old process, stage) -> responses: {stages:?}"
    );
    held.load.stop();
}

#[test]
fn drain_during_an_upgrade_is_kept() {
    let mut held = PausedUpgrade::start("60s");
    held.load.abandon(); // all its peers will drain
    let labels: Vec<String> = held.scene.app.iter().map(Origin::label).collect();
    thread::scope(|scope| {
        let first = scope.spawn(|| held.edge.command(&["upgrade"]));
        held.new_process();
        for label in &labels {
            let drained = held.edge.command(&["drain", "app", label, "--force"]);
            assert!(drained.status.success(), "{drained:?}");
        }
        held.resume();
        assert!(first.join().unwrap().status.success());
    });
    for label in &labels {
        assert_eq!(held.edge.admin.state("app", label), "draining");
    }
}

#[test]
fn ejection_during_an_upgrade_is_kept() {
    let rules = "{failures: 1, eject: 60s}";
    let mut held = PausedUpgrade::start_with("60s", |site| site.app("outlier_detection", rules));
    held.load.abandon(); // some of its requests would fail
    let label = held.scene.app[0].label();
    thread::scope(|scope| {
        let first = scope.spawn(|| held.edge.command(&["upgrade"]));
        held.new_process();
        held.scene.app[0].down();
        for key in keys(50) {
            held.edge.get(&format!("/?k={key}"));
        }
        assert_eq!(held.edge.admin.state("app", &label), "ejected");
        held.resume();
        assert!(first.join().unwrap().status.success());
    });
    assert_eq!(held.edge.admin.state("app", &label), "ejected");
}

#[test]
fn upgrade_with_the_old_process_killed_activates_the_new_one() {
    let mut held = PausedUpgrade::start("60s");
    let new = thread::scope(|scope| {
        scope.spawn(|| held.edge.command(&["upgrade"]));
        let new = held.new_process();
        assert!(process::signal(held.edge.started_id(), "KILL"));
        new
    });
    held.edge.wait();
    held.load.abandon();
    held.resume();
    wait::until("the new process to serve", || {
        held.edge
            .admin
            .try_get("/readyz")
            .is_ok_and(|answer| answer.status == 200)
    });
    assert_eq!(held.edge.pid(), new);
    let load = MixedLoad::before(&held.edge).busy(1);
    load.wait_for_more(2);
    load.stop();
}

#[test]
fn stop_signal_cancels_an_upgrade() {
    let mut held = PausedUpgrade::start("60s");
    held.load.abandon();
    let upgrade = thread::scope(|scope| {
        let upgrade = scope.spawn(|| held.edge.command(&["upgrade"]));
        held.new_process();
        held.edge.signal("TERM");
        upgrade.join().unwrap()
    });
    assert_refused(&upgrade, "was cancelled");
    assert!(held.edge.wait().success());
    assert_eq!(held.edge.processes(), [0; 0], "no process is left");
    assert!(
        TcpListener::bind(held.edge.address).is_ok(),
        "the socket is closed"
    );
}

#[test]
fn cancelled_upgrade_stops_a_process_started_by_a_script() {
    let mut held = PausedUpgrade::start("60s");
    held.load.abandon();
    let script = format!("#!/bin/sh\n{} \"$@\"\nexit $?\n", edge::BINARY);
    let new = held.edge.directory().join("script");
    process::write_script(&new, &script);
    fs::rename(new, held.edge.program()).unwrap();
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| held.edge.command(&["upgrade"]));
        held.new_process();
        held.edge.signal("TERM");
        assert_refused(&upgrade.join().unwrap(), "was cancelled");
    });
    assert!(held.edge.wait().success());
    held.resume();
    wait::until("all processes to end", || held.edge.processes().is_empty());
}

#[test]
fn failed_upgrade_keeps_the_backlog() {
    let (origin, held, address) = (
        Origin::start(),
        Origin::behaving(Behaviour::Hold),
        port::free(),
    );
    let listener = |backlog: u32| format!("[{{address: \"{address}\", backlog: {backlog}}}]");
    let site = ConfigBuilder::of([origin.label()]);
    let edge = site.clone().top("listeners", &listener(100)).start();
    let holds = site
        .peers([origin.label(), held.label()])
        .app("health", "{http: /, interval: 60s, timeout: 60s}");
    edge.rewrite(&holds.top("listeners", &listener(1)).yaml());
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| edge.command(&["upgrade"]));
        held.wait_for_requests(1);
        for new in process::children(edge.started_id()) {
            assert!(process::signal(new, "KILL"));
        }
        assert_refused(&upgrade.join().unwrap(), "ended before it acknowledged");
    });
    edge.assert_places(address, 10);
}

#[test]
fn upgrade_removes_a_moved_control_socket_at_once() {
    let scene = UpgradeFixture::new();
    let mut edge = Edge::start(&scene.yaml(&scene.site()));
    let socket = open_socket(edge.address).unwrap();
    let (file, other) = (
        edge.directory().join("clockwise.yaml"),
        edge.directory().join("other.sock"),
    );
    let yaml = fs::read_to_string(&file).unwrap();
    let moved = yaml.replace(edge.control().to_str().unwrap(), other.to_str().unwrap());
    fs::write(&file, moved).unwrap();
    let output = edge.command(&["upgrade"]);
    assert!(output.status.success(), "{output:?}");
    assert!(other.exists() && !edge.control().exists());
    assert!(edge.exited().is_none(), "it still drains");
    drop(socket);
    assert!(edge.wait().success());
    assert!(other.exists());
}

#[test]
fn reload_during_a_failed_upgrade_is_applied_afterwards() {
    let held = PausedUpgrade::start("60s");
    let edge = &held.edge;
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| edge.command(&["upgrade"]));
        let new = held.new_process();
        edge.signal("HUP");
        wait::until("the reload to be postponed", || {
            edge.stderr().contains("reload: postponed")
        });
        assert!(process::signal(new, "KILL"));
        held.resume();
        assert_refused(&upgrade.join().unwrap(), "ended before it acknowledged");
    });
    wait::until("the reload", || generation(edge) == 2);
    assert_unchanged(&held.edge, held.load);
}

#[test]
fn reload_during_an_upgrade_is_applied_by_the_new_process() {
    let held = PausedUpgrade::start("60s");
    let edge = &held.edge;
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| edge.command(&["upgrade"]));
        held.new_process();
        edge.signal("HUP");
        wait::until("the reload to be postponed", || {
            edge.stderr().contains("reload: postponed")
        });
        held.resume();
        assert!(upgrade.join().unwrap().status.success());
    });
    assert_ne!(edge.pid(), edge.started_id());
    wait::until("the reload", || generation(edge) == 2);
    held.load.stop();
}

#[test]
fn log_reopen_during_an_upgrade_applies_to_both_processes() {
    let held =
        PausedUpgrade::start_with("60s", |site| site.top("access_log", "{path: access.log}"));
    let log = held.edge.access_log();
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| held.edge.command(&["upgrade"]));
        held.new_process();
        fs::rename(&log, held.edge.directory().join("access.log.1")).unwrap();
        held.edge.signal("USR1");
        wait::until("the old process's new file", || log.exists());
        held.resume();
        assert!(upgrade.join().unwrap().status.success());
    });
    // The new process is told after it has begun to serve: the lines until then are in the renamed file.
    wait::until("a line of the new process in the new file", || {
        let path = "/of-the-new-process";
        assert_eq!(held.edge.get(path).status, 200);
        fs::read_to_string(&log).is_ok_and(|text| text.contains(path))
    });
    held.load.stop();
}

#[test]
fn upgrade_without_a_listener_closes_it_without_resets() {
    let origin = Origin::start();
    let (goes, stays) = (port::free(), port::free());
    let site = ConfigBuilder::of([origin.label()]);
    let listeners = |addresses: &[SocketAddr]| {
        let listener = |address| format!("{{address: \"{address}\"}}, ");
        let all: String = addresses.iter().map(listener).collect();
        site.clone().top("listeners", &format!("[{all}]"))
    };
    let edge = listeners(&[goes, stays]).start();
    edge.rewrite(&listeners(&[stays]).yaml());
    let until_refused = || loop {
        match client::try_send(goes, &Request::get("/?k=a")) {
            Ok(response) => assert_eq!(response.status, 200),
            Err(error) => return error.kind(),
        }
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(until_refused)).collect();
        upgrade(&edge);
        for client in clients {
            assert_eq!(client.join().unwrap(), ErrorKind::ConnectionRefused);
        }
    });
    assert_eq!(client::send(stays, &Request::get("/?k=a")).status, 200);
}

#[test]
fn upgrade_over_max_moved_is_refused_unless_forced() {
    let origins = Origin::some(4);
    let labels: Vec<String> = origins.iter().map(Origin::label).collect();
    let site = ConfigBuilder::of(&labels).app("max_moved", "10%");
    let edge = site.start();
    edge.rewrite(&site.peers(&labels[1..]).yaml());
    let refused = edge.command(&["upgrade"]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    assert_eq!(edge.pid(), edge.started_id());
    let forced = edge.command(&["upgrade", "--force"]);
    assert!(forced.status.success(), "{forced:?}");
    assert_ne!(edge.pid(), edge.started_id());
}

#[test]
fn old_process_killed_after_an_upgrade_drops_only_its_connections() {
    let scene = UpgradeFixture::new();
    let mut edge = Edge::start(&scene.yaml(&scene.site()));
    let mut old_socket = open_socket(edge.address).unwrap();
    upgrade(&edge);
    let mut new_socket = open_socket(edge.address).unwrap();
    let load = MixedLoad::before(&edge).busy(2).fresh(1);
    edge.started().kill();
    old_socket.time_to_close();
    load.wait_for_more(50);
    new_socket.send("still there").unwrap();
    assert_eq!(new_socket.exactly(11).unwrap(), b"still there");
    load.stop();
    wait::until("the predecessor to be gone", || {
        predecessor(&edge).is_null()
    });
}

#[test]
fn status_shows_the_old_process_until_it_has_drained() {
    let scene = UpgradeFixture::new();
    let mut edge = Edge::start(&scene.yaml(&scene.site()));
    let old = edge.pid();
    let socket = open_socket(edge.address).unwrap();
    upgrade(&edge);
    wait::until("the old process's connection in the status", || {
        predecessor(&edge)["connections"] == 1
    });
    assert_eq!(predecessor(&edge)["pid"], old);
    let text = edge.cli(&["status"], "");
    assert!(
        text.contains(&old.to_string()),
        "no predecessor in:\n{text}"
    );
    assert!(edge.exited().is_none());
    drop(socket);
    assert!(edge.wait().success());
    wait::until("the predecessor to be gone", || {
        predecessor(&edge).is_null()
    });
    assert_eq!(edge.get("/?k=a").status, 200);
}

#[test]
fn cold_start_restores_the_state_file_unless_too_old() {
    let mut origins = Origin::some(3);
    let labels: Vec<String> = origins.iter().map(Origin::label).collect();
    let site = ConfigBuilder::of(&labels).app("health", PROBED);
    let mut edge = site
        .top("state_file", "{path: state.json, max_age: 10m}")
        .start();
    edge.cli(&["drain", "app", &labels[0]], "");
    origins[1].down();
    edge.admin.wait_for_state("app", &labels[1], "down");
    origins[1].up();
    stop(&mut edge);
    edge.restart();
    let states = |edge: &Edge| {
        let states = labels.iter().map(|label| edge.admin.state("app", label));
        states.collect::<Vec<_>>()
    };
    assert_eq!(states(&edge), ["draining", "down", "up"]);
    stop(&mut edge);
    let file = edge.directory().join("state.json");
    let state: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let mut old = state;
    old["written_at"] = "2020-01-01T00:00:00Z".into();
    fs::write(&file, old.to_string()).unwrap();
    edge.restart();
    assert_eq!(states(&edge), ["up", "up", "up"]);
    wait::until("the warning that the file is ignored", || {
        edge.stderr().contains("is ignored")
    });
}

/// Origins for all kinds of clients of [`MixedLoad`].
struct UpgradeFixture {
    app: Vec<Origin>,
    other: [(&'static str, Origin); 3],
}

impl UpgradeFixture {
    fn new() -> Self {
        let other = [
            ("upload", Origin::start()),
            ("download", Origin::behaving(Behaviour::Body(DOWNLOAD))),
            ("socket", Origin::behaving(Behaviour::Upgrade)),
        ];
        Self {
            app: Origin::some(3),
            other,
        }
    }

    fn site(&self) -> ConfigBuilder {
        ConfigBuilder::of(self.app.iter().map(Origin::label))
            .downstream("{keepalive: 15s}")
            .top("upgrade_timeout", "60s")
    }

    /// The YAML of `site` with a route and an upstream for each of the other origins.
    fn yaml(&self, site: &ConfigBuilder) -> String {
        let route = |name: &str| format!("{{path: /{name}, upstream: {name}}}, ");
        let routes: String = self.other.iter().map(|(name, _)| route(name)).collect();
        let site = site
            .clone()
            .top("routes", &format!("[{routes}{{upstream: app}}]"));
        let upstream = |(name, origin): &(&str, Origin)| {
            format!(
                "  {name}: {{peers: [\"{}\"], health: off, retry: off}}\n",
                origin.label()
            )
        };
        site.yaml() + &self.other.iter().map(upstream).collect::<String>()
    }
}

/// An instance with an upgrade that waits in the middle of the hand-over until [`Self::resume`]: a peer that
/// is only in the new configuration holds its response to the first probe.
struct PausedUpgrade {
    scene: UpgradeFixture,
    edge: Edge,
    load: MixedLoad,
    peer: Origin,
}

impl PausedUpgrade {
    fn start(upgrade_timeout: &str) -> Self {
        Self::start_with(upgrade_timeout, |site| site)
    }

    fn start_with(
        upgrade_timeout: &str,
        change: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
    ) -> Self {
        let (scene, peer) = (UpgradeFixture::new(), Origin::behaving(Behaviour::Hold));
        let site = change(scene.site().top("upgrade_timeout", upgrade_timeout));
        let edge = Edge::start_replaceable(&scene.yaml(&site));
        let holds = format!(
            "  held: {{peers: [\"{}\"], health: {{http: /, interval: 60s, timeout: 60s}}}}\n",
            peer.label()
        );
        edge.rewrite(&(scene.yaml(&site) + &holds));
        let load = MixedLoad::before(&edge).busy(1).idle(5).fresh(1);
        Self {
            scene,
            edge,
            load,
            peer,
        }
    }

    /// Waits until the new process has the sockets and probes its peers; returns its id.
    fn new_process(&self) -> u32 {
        self.peer.wait_for_requests(1);
        let new = process::children(self.edge.started_id());
        assert_eq!(new.len(), 1, "one new process: {new:?}");
        new[0]
    }

    /// Lets the held peer respond, so that the upgrade continues.
    fn resume(&self) {
        self.peer.behave(Behaviour::Echo);
    }

    /// Starts an upgrade, calls `disturb` with the id of the new process, and asserts that the upgrade fails
    /// without any other effect.
    #[track_caller]
    fn assert_upgrade_fails(self, disturb: impl FnOnce(u32), reason: &str) {
        let output = thread::scope(|scope| {
            let upgrade = scope.spawn(|| self.edge.command(&["upgrade"]));
            disturb(self.new_process());
            upgrade.join().unwrap()
        });
        assert_refused(&output, reason);
        assert_unchanged(&self.edge, self.load);
    }
}

/// Asserts that an upgrade after `prepare` fails without any other effect.
#[track_caller]
fn assert_upgrade_fails(prepare: impl FnOnce(&UpgradeFixture, &Edge), reason: &str) {
    assert_upgrade_fails_within("60s", prepare, reason);
}

/// [`assert_upgrade_fails`] with this `upgrade_timeout`.
#[track_caller]
fn assert_upgrade_fails_within(
    upgrade_timeout: &str,
    prepare: impl FnOnce(&UpgradeFixture, &Edge),
    reason: &str,
) {
    let scene = UpgradeFixture::new();
    let edge =
        Edge::start_replaceable(&scene.yaml(&scene.site().top("upgrade_timeout", upgrade_timeout)));
    let load = MixedLoad::before(&edge).busy(1).idle(5).fresh(1).sockets(1);
    prepare(&scene, &edge);
    assert_refused(&edge.command(&["upgrade"]), reason);
    assert_unchanged(&edge, load);
}

/// Asserts that a command was refused by the running instance: exit code 4, with this reason on stderr.
#[track_caller]
fn assert_refused(output: &Output, reason: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(stderr.contains(reason), "no `{reason}` in: {stderr}");
}

/// Asserts that only the first process serves and no client's request failed.
#[track_caller]
fn assert_unchanged(edge: &Edge, load: MixedLoad) {
    assert_eq!(edge.pid(), edge.started_id());
    assert_eq!(
        edge.processes(),
        [edge.started_id()],
        "only the first process is left"
    );
    assert_eq!(edge.admin.get("/readyz").status, 200);
    load.wait_for_more(2);
    load.stop();
}

fn all_kinds_of_clients(edge: &Edge) -> MixedLoad {
    let load = MixedLoad::before(edge).busy(3).idle(20).fresh(1);
    load.uploads(1).downloads(1).sockets(2)
}

#[track_caller]
fn upgrade(edge: &Edge) {
    let before = edge.pid();
    let output = edge.command(&["upgrade"]);
    assert!(output.status.success(), "{output:?}");
    assert_ne!(edge.pid(), before);
}

fn replace_program(edge: &Edge, fake: &str) {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fake_programs");
    fs::remove_file(edge.program()).unwrap();
    symlink(place.join(fake), edge.program()).unwrap();
}

fn stop(edge: &mut Edge) {
    edge.signal("TERM");
    assert!(edge.wait().success());
}

fn generation(edge: &Edge) -> u64 {
    let status = edge.admin.get("/v1/status").json();
    status["generation"].as_u64().unwrap()
}

fn predecessor(edge: &Edge) -> serde_json::Value {
    edge.admin.get("/v1/status").json()["predecessor"].take()
}
