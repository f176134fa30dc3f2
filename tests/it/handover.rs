//! The new process of a hot restart against a simulated old one: the messages of the protocol, in every order.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::admin::Admin;
use crate::support::edge::{self, ConfigBuilder};
use crate::support::origin::Origin;
use crate::support::process::Process;
use crate::support::wait;

#[test]
fn handover_with_another_format_version_is_refused() {
    let mut new = NewProcess::start();
    new.say(&json!({"format": 99, "version": "9.9.9", "pid": std::process::id()}));
    let refused = new.hear().to_string();
    assert!(
        refused.contains("format 99") && refused.contains("9.9.9"),
        "{refused}"
    );
    assert_eq!(new.process.wait().code(), Some(1));
}

#[test]
fn handover_predecessor_that_hangs_up_and_still_runs_is_not_replaced() {
    let mut new = NewProcess::start();
    new.greet(std::process::id());
    new.hang_up();
    assert_eq!(new.process.wait().code(), Some(1));
    wait::until("it to say why", || {
        new.process.stderr().contains("cancelled the upgrade")
    });
}

#[test]
fn handover_predecessor_that_has_exited_is_replaced() {
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let mut new = NewProcess::start();
    new.greet(gone.id());
    new.hang_up();
    new.wait_until_ready();
}

#[test]
fn handover_predecessor_that_cancels_and_exits_is_not_replaced() {
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let mut new = NewProcess::start();
    new.greet(gone.id());
    new.say(&json!("cancelled"));
    new.hang_up();
    assert_eq!(new.process.wait().code(), Some(1));
}

#[test]
fn handover_keeps_a_drain_command_given_to_the_new_process() {
    let mut new = NewProcess::start();
    let labels: Vec<String> = new.origins.iter().map(Origin::label).collect();
    // The states in Activate, and in the report after the admin sockets were closed.
    let peer_state = |draining: [bool; 2]| {
        let peer = |(label, draining)| {
            let known = json!({"address": label, "draining": draining});
            (String::clone(label), known)
        };
        let peers: serde_json::Map<_, _> = labels.iter().zip(draining).map(peer).collect();
        json!({"upstreams": {"app": peers}})
    };
    new.greet(std::process::id());
    assert!(new.hear()["ready"].is_object());
    new.say(&json!({"peer_state": peer_state([false, false])}));
    assert_eq!(new.hear(), "serving");
    new.wait_until_ready();
    let drain = format!("/v1/upstreams/app/peers/{}/drain", labels[0]);
    assert_eq!(new.admin.post(&drain).status, 200);
    new.say(&json!({"connections": 0, "peer_state": peer_state([false, true])}));
    assert_eq!(new.hear(), "state_applied");
    let states = labels.iter().map(|label| new.admin.state("app", label));
    assert_eq!(states.collect::<Vec<_>>(), ["draining", "draining"]);
}

/// A process that was started to take over from the test.
struct NewProcess {
    process: Process,
    admin: Admin,
    wire: Option<UnixStream>,
    origins: Vec<Origin>,
    _directory: TempDir,
}

impl NewProcess {
    fn start() -> Self {
        let (wire, theirs) = UnixStream::pair().unwrap();
        wire.set_read_timeout(Some(wait::PATIENCE)).unwrap();
        let origins = Origin::some(2);
        let directory = tempfile::tempdir().unwrap();
        let control = directory.path().join("control.sock");
        let site = ConfigBuilder::of(origins.iter().map(Origin::label));
        let yaml = site.top("control", &control.display().to_string()).yaml();
        fs::write(directory.path().join("c.yaml"), yaml).unwrap();
        let mut command = edge::binary(directory.path());
        command
            .args(["run", "-c", "c.yaml"])
            .env("CLOCKWISE_SUCCESSOR", "1");
        let process = Process::spawn_with(&mut command, OwnedFd::from(theirs).into());
        drop(command); // and with it our copy of their end
        Self {
            process,
            admin: Admin::over(control),
            wire: Some(wire),
            origins,
            _directory: directory,
        }
    }

    /// The first message, of a predecessor without sockets.
    fn greet(&mut self, pid: u32) {
        self.say(&json!({"format": 3, "version": "0", "pid": pid}));
    }

    fn say(&mut self, message: &Value) {
        let message = message.to_string();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let wire = self.wire.as_mut().unwrap();
        wire.write_all(&[&length[..], message.as_bytes()].concat())
            .unwrap();
    }

    fn hear(&mut self) -> Value {
        let wire = self.wire.as_mut().unwrap();
        let mut length = [0; 4];
        wire.read_exact(&mut length).unwrap();
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        wire.read_exact(&mut message).unwrap();
        serde_json::from_slice(&message).unwrap()
    }

    fn hang_up(&mut self) {
        self.wire = None;
    }

    fn wait_until_ready(&mut self) {
        wait::until("the new process to serve", || {
            let ended = self.process.exited();
            assert!(ended.is_none(), "{ended:?}: {}", self.process.stderr());
            self.admin
                .try_get("/readyz")
                .is_ok_and(|answer| answer.status == 200)
        });
    }
}
