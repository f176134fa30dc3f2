//! A cluster of etcd of the test's own: `etcd` and `etcdctl` (Debian's packages `etcd-server`, `etcd-client`).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::{self, Request};
use super::port;
use super::process::Process;
use super::tls::Authority;
use super::wait;

/// Running members, stopped when dropped.
pub(crate) struct Etcd {
    members: Vec<Member>,
    directory: TempDir,
    /// Options of each member, for TLS.
    options: Vec<String>,
    scheme: &'static str,
    /// Options of `etcdctl`, for TLS and a user.
    control_options: Vec<String>,
}

struct Member {
    client: SocketAddr,
    peer: SocketAddr,
    /// `None` while it is down.
    process: Option<Process>,
}

impl Etcd {
    /// One member.
    pub(crate) fn start() -> Self {
        Self::cluster(1)
    }

    /// This many members, with a leader.
    pub(crate) fn cluster(count: usize) -> Self {
        let mut etcd = Self::stopped(count, "http");
        etcd.launch_all();
        etcd
    }

    /// One member with TLS that asks for client certificates of `authority`, which has issued `etcd.crt` for 127.0.0.0/8
    /// addresses of this test and `client.crt`.
    pub(crate) fn with_tls(authority: &Authority) -> Self {
        let mut etcd = Self::stopped(1, "https");
        let host = etcd.members[0].client.ip().to_string();
        authority.issue("etcd", &[&host, "127.0.0.1"]);
        authority.issue("client", &["client.test"]);
        let path = |file: &str| authority.path(file).display().to_string();
        etcd.options = vec![
            format!("--cert-file={}", path("etcd.crt")),
            format!("--key-file={}", path("etcd.key")),
            format!("--trusted-ca-file={}", path("ca.crt")),
            "--client-cert-auth".to_owned(),
        ];
        etcd.control_options = vec![
            format!("--cacert={}", path("ca.crt")),
            format!("--cert={}", path("client.crt")),
            format!("--key={}", path("client.key")),
        ];
        etcd.launch_all();
        etcd
    }

    fn stopped(count: usize, scheme: &'static str) -> Self {
        // Each change waits for the disk: memory makes the tests independent of it.
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        let member = |_| Member {
            client: port::free(),
            peer: port::free(),
            process: None,
        };
        Self {
            members: (0..count).map(member).collect(),
            directory: directory.expect("a temporary directory"),
            options: Vec::new(),
            scheme,
            control_options: Vec::new(),
        }
    }

    /// The URL of a member.
    pub(crate) fn url(&self, member: usize) -> String {
        format!("{}://{}", self.scheme, self.members[member].client)
    }

    /// `endpoints` in YAML: all members.
    pub(crate) fn endpoints(&self) -> String {
        let urls = (0..self.members.len()).map(|member| format!("\"{}\"", self.url(member)));
        format!("[{}]", urls.collect::<Vec<_>>().join(", "))
    }

    /// SIGKILL to a member.
    pub(crate) fn kill(&mut self, member: usize) {
        self.members[member].process = None;
    }

    /// Stops a member without an end of its connections: it is silent.
    pub(crate) fn pause(&self, member: usize) {
        self.signal(member, "STOP");
    }

    /// Lets a member that was paused continue.
    pub(crate) fn resume(&self, member: usize) {
        self.signal(member, "CONT");
    }

    fn signal(&self, member: usize, name: &str) {
        let process = self.members[member].process.as_ref();
        process.expect("a running member").signal(name);
    }

    /// Starts a member again, with its data; it may have to wait for others.
    pub(crate) fn launch(&mut self, member: usize) {
        let mut command = Command::new("etcd");
        let data = self.data(member).display().to_string();
        let Member { client, peer, .. } = self.members[member];
        let (url, peer_url) = (format!("{}://{client}", self.scheme), peer_url(peer));
        command
            .env("ETCD_UNSUPPORTED_ARCH", "arm64")
            .current_dir(self.directory.path())
            .args(["--name", &name(member), "--data-dir", &data])
            .args([
                "--listen-client-urls",
                &url,
                "--advertise-client-urls",
                &url,
            ])
            .args(["--listen-peer-urls", &peer_url])
            .args(["--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &self.initial_cluster()])
            .args(&self.options);
        if cfg!(not(target_arch = "aarch64")) {
            command.env_remove("ETCD_UNSUPPORTED_ARCH");
        }
        self.members[member].process = Some(Process::listening("etcd", &mut command, client));
    }

    /// Starts a member again, and waits until it answers with a leader.
    pub(crate) fn restart(&mut self, member: usize) {
        self.launch(member);
        self.wait_until_ready(member);
    }

    fn launch_all(&mut self) {
        let all = 0..self.members.len();
        for member in all.clone() {
            self.launch(member);
        }
        for member in all {
            self.wait_until_ready(member);
        }
    }

    fn wait_until_ready(&self, member: usize) {
        wait::until_due(2 * wait::PATIENCE, "a member of etcd to answer", || {
            self.answers(member)
        });
    }

    /// Sets a key.
    pub(crate) fn put(&self, key: &str, value: &str) {
        self.gateway(
            "kv/put",
            &json!({"key": base64(key), "value": base64(value)}),
        );
    }

    /// Sets many keys, some at a time.
    pub(crate) fn put_all(&self, pairs: &[(String, String)]) {
        // A transaction has at most 128 operations.
        for some in pairs.chunks(100) {
            let put = |(key, value): &(String, String)| json!({"request_put": {"key": base64(key), "value": base64(value)}});
            let puts: Vec<Value> = some.iter().map(put).collect();
            self.gateway("kv/txn", &json!({"success": puts}));
        }
    }

    /// Sets a key with a lease; returns the id of the lease.
    pub(crate) fn put_leased(&self, key: &str, value: &str, seconds: u32) -> String {
        let lease = self.gateway("lease/grant", &json!({"TTL": seconds}));
        let lease = lease["ID"].as_str().expect("a lease").to_owned();
        let put = json!({"key": base64(key), "value": base64(value), "lease": lease});
        self.gateway("kv/put", &put);
        lease
    }

    /// Keeps a lease alive; returns its time to live in seconds, `None`: it has ended.
    pub(crate) fn keep_alive(&self, lease: &str) -> Option<u32> {
        let answer = self.gateway("lease/keepalive", &json!({"ID": lease}));
        // A number in JSON of protobuf is a text, and 0 is left out.
        answer["result"]["TTL"].as_str()?.parse().ok()
    }

    /// Removes a key.
    pub(crate) fn delete(&self, key: &str) {
        self.gateway("kv/deleterange", &json!({"key": base64(key)}));
    }

    /// Forgets the history before now.
    pub(crate) fn compact(&self) {
        let answer = self.gateway("kv/range", &json!({"key": base64("x")}));
        let revision = answer["header"]["revision"].as_str().expect("a revision");
        self.gateway(
            "kv/compaction",
            &json!({"revision": revision, "physical": true}),
        );
    }

    /// Asks the first member that runs, by its interface for HTTP.
    fn gateway(&self, method: &str, body: &Value) -> Value {
        let member = self.members.iter().find(|one| one.process.is_some());
        let address = member.expect("a running member").client;
        let request = Request::post(&format!("/v3/{method}"), body.to_string());
        let answer = client::send(address, &request);
        assert_eq!(answer.status, 200, "{method}: {}", answer.text());
        answer.json()
    }

    /// Runs `etcdctl`; returns its output.
    #[track_caller]
    pub(crate) fn control(&self, arguments: &[&str]) -> String {
        let output = self.try_control(0, arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Whether a member answers, which needs a majority.
    pub(crate) fn answers(&self, member: usize) -> bool {
        self.try_control(member, &["get", "ready"]).status.success()
    }

    fn try_control(&self, member: usize, arguments: &[&str]) -> Output {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.url(member)])
            .args(&self.control_options)
            .args(arguments);
        command.output().expect("etcdctl")
    }

    /// Further commands authenticate as the user `root` with this password.
    pub(crate) fn authenticate(&mut self, password: &str) {
        self.control_options.push(format!("--user=root:{password}"));
    }

    /// Writes a snapshot of the data.
    pub(crate) fn save(&self) -> PathBuf {
        let file = self.directory.path().join("snapshot.db");
        self.control(&["snapshot", "save", file.to_str().expect("UTF-8")]);
        file
    }

    /// Replaces the data of the only member by a snapshot while it is down; it is started again.
    pub(crate) fn restore(&mut self, snapshot: &Path) {
        self.kill(0);
        std::fs::remove_dir_all(self.data(0)).expect("the data of the member");
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["snapshot", "restore"])
            .arg(snapshot)
            .args([
                "--name",
                &name(0),
                "--initial-cluster",
                &self.initial_cluster(),
            ])
            .args([
                "--initial-advertise-peer-urls",
                &peer_url(self.members[0].peer),
            ])
            .arg("--data-dir")
            .arg(self.data(0))
            .output()
            .expect("etcdctl");
        assert!(output.status.success(), "{output:?}");
        self.restart(0);
    }

    /// Lets the only member, which is down, run behind other addresses while `work` changes its data. Nothing that watches
    /// it sees the changes.
    pub(crate) fn hidden(&mut self, work: impl FnOnce(&Self)) {
        let known = self.members[0].client;
        self.members[0].client = port::free();
        self.restart(0);
        work(self);
        self.kill(0);
        self.members[0].client = known;
    }

    fn data(&self, member: usize) -> PathBuf {
        self.directory.path().join(name(member))
    }

    fn initial_cluster(&self) -> String {
        let members = self.members.iter().enumerate();
        let members = members.map(|(index, one)| format!("{}={}", name(index), peer_url(one.peer)));
        members.collect::<Vec<_>>().join(",")
    }
}

fn name(member: usize) -> String {
    format!("m{member}")
}

fn peer_url(address: SocketAddr) -> String {
    format!("http://{address}")
}

fn base64(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}
