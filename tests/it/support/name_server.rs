//! A name server of the test's own, with records that a test changes while it runs: `unbound` (Debian's package).
//!
//! It has the zone `test.`. Names below `half.test.` have only the records that are set: a question for another type
//! is passed on to a server that does not exist, so that its answer is SERVFAIL. Names below `child.parent.test.` that are not
//! set are answered with a referral. It knows no `localhost`.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

use super::port;
use super::process::Process;
use super::wait;

/// A running name server, stopped when dropped.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    directory: TempDir,
    answers_tcp: bool,
    /// The records of each name.
    records: BTreeMap<String, Vec<String>>,
    /// `None` while it is down.
    process: Option<Process>,
}

impl NameServer {
    pub(crate) fn start() -> Self {
        Self::with(true)
    }

    /// A server that truncates long answers, and has none by TCP.
    pub(crate) fn udp_only() -> Self {
        Self::with(false)
    }

    fn with(answers_tcp: bool) -> Self {
        let mut server = Self {
            address: port::free(),
            directory: tempfile::tempdir().expect("a temporary directory"),
            answers_tcp,
            records: BTreeMap::new(),
            process: None,
        };
        server.up();
        server
    }

    /// Replaces the records of a name in one step; each as in `5 A 10.0.0.1`: time to live, type and data.
    pub(crate) fn set<T: ToString>(&mut self, name: &str, records: impl IntoIterator<Item = T>) {
        let records = records.into_iter().map(|record| record.to_string());
        self.records.insert(name.to_owned(), records.collect());
        self.write_records();
        let reloaded = self.control(&["reload"]);
        assert!(reloaded.status.success(), "{reloaded:?}");
        self.wait_until_ready();
    }

    pub(crate) fn down(&mut self) {
        self.process = None;
    }

    pub(crate) fn up(&mut self) {
        self.write_config();
        self.write_zone();
        self.write_records();
        let mut command = Command::new("/usr/sbin/unbound");
        command.args(["-d", "-c"]).arg(self.config());
        self.process = Some(Process::spawn(&mut command));
        self.wait_until_ready();
    }

    /// The questions that it has been asked since its start or the last change of its records.
    pub(crate) fn questions(&self) -> u64 {
        let stats = self.control(&["stats_noreset"]);
        let text = String::from_utf8(stats.stdout).expect("text");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("total.num.queries="));
        line.and_then(|count| count.parse().ok()).expect("a count")
    }

    fn wait_until_ready(&mut self) {
        wait::until("the name server to run", || {
            if let Some(process) = &mut self.process {
                assert!(process.exited().is_none(), "unbound: {}", process.stderr());
            }
            self.control(&["status"]).status.success()
        });
    }

    fn control(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("/usr/sbin/unbound-control");
        command.arg("-c").arg(self.config()).args(arguments);
        command.output().expect("unbound-control")
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("unbound.conf")
    }

    fn write_records(&self) {
        let lines = self.records.iter().flat_map(|(name, records)| {
            let line = move |record: &String| {
                let (ttl, data) = record.split_once(' ').expect("a time to live");
                format!("  local-data: \"{name}. {ttl} IN {data}\"\n")
            };
            records.iter().map(line)
        });
        let text: String = ["server:\n".to_owned()].into_iter().chain(lines).collect();
        fs::write(self.directory.path().join("records.conf"), text).expect("writable");
    }

    /// A zone of which another server, which does not run, has a part.
    fn write_zone(&self) {
        let text = "\
@ 60 IN SOA ns.parent.test. host.parent.test. 1 2 3 4 60
@ 60 IN NS ns.parent.test.
ns 60 IN A 127.0.0.1
child 60 IN NS ns.child
ns.child 60 IN A 127.0.0.1
alias 1 IN CNAME app.child
";
        fs::write(self.directory.path().join("parent.zone"), text).expect("writable");
    }

    fn write_config(&self) {
        let directory = self.directory.path().display();
        let tcp = if self.answers_tcp { "yes" } else { "no" };
        let (ip, port) = (self.address.ip(), self.address.port());
        let text = format!(
            "server:
  directory: \"{directory}\"
  chroot: \"\"
  username: \"\"
  pidfile: \"\"
  use-syslog: no
  do-daemonize: no
  interface: {ip}@{port}
  access-control: 127.0.0.0/8 allow
  module-config: \"iterator\"
  do-tcp: {tcp}
  local-zone: \"test.\" static
  local-zone: \"half.test.\" typetransparent
  local-zone: \"silent.test.\" deny
  local-zone: \"localhost.\" static
  local-zone: \"parent.test.\" transparent
auth-zone:
  name: \"parent.test.\"
  zonefile: \"{directory}/parent.zone\"
  for-downstream: yes
  for-upstream: no
remote-control:
  control-enable: yes
  control-interface: \"{directory}/control\"
  control-use-cert: no
forward-zone:
  name: \".\"
  forward-addr: 127.0.0.1@1
include: \"{directory}/records.conf\"
"
        );
        fs::write(self.config(), text).expect("writable");
    }
}
