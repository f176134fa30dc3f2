//! Under a service manager, and with the supervisor: notifications, socket activation, signals.

use std::fs;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr as SocketAddress, UnixDatagram};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::admin::Admin;
use crate::support::client::{self, Connection, Request};
use crate::support::edge::{BINARY, ConfigBuilder, binary, run};
use crate::support::origin::{Behaviour, Origin};
use crate::support::process::{Process, write_script};
use crate::support::wait;

/// What a service manager is to the process: a directory, a socket for messages, an environment.
struct ServiceManager {
    directory: TempDir,
    mailbox: UnixDatagram,
    messages: Receiver<String>,
}

/// A process that a [`ServiceManager`] has started.
struct Service {
    process: Process,
    admin: Admin,
}

impl ServiceManager {
    fn new(site: &ConfigBuilder) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mailbox = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        let messages = collect(mailbox.try_clone().unwrap());
        let manager = Self {
            directory,
            mailbox,
            messages,
        };
        let yaml = format!("control: {}\n{}", manager.control().display(), site.yaml());
        fs::write(manager.path().join("clockwise.yaml"), yaml).unwrap();
        manager
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn control(&self) -> std::path::PathBuf {
        self.path().join("control.sock")
    }

    /// The program, with what a service manager sets.
    fn command(&self) -> Command {
        let mut command = binary(self.path());
        command.env("NOTIFY_SOCKET", self.path().join("notify"));
        command
    }

    fn start(&self, command: &mut Command) -> Service {
        self.start_with(command, Stdio::null())
    }

    fn start_with(&self, command: &mut Command, stdin: Stdio) -> Service {
        let process = Process::spawn_with(command, stdin);
        let admin = Admin::over(self.control());
        Service { process, admin }
    }

    fn run(&self, arguments: &[&str]) -> Service {
        self.start(self.command().arg("run").args(arguments).args(CONFIG))
    }

    /// The next message that has this line, or one that begins so; its whole text.
    fn message(&self, line: &str) -> String {
        wait::value(line, || {
            let mut messages = self.messages.try_iter();
            messages.find(|message| message.lines().any(|told| told.starts_with(line)))
        })
    }

    /// True if no message arrives for `time`.
    fn is_silent_for(&self, time: Duration) -> bool {
        self.messages.recv_timeout(time).is_err()
    }

    /// Replaces the process that serves; the id of the new one.
    fn upgrade(&self, service: &Service) -> u64 {
        let output = run(self.path(), &[&["upgrade"], &CONFIG[..]].concat(), "");
        assert!(
            output.status.success(),
            "{output:?}\n{}",
            service.process.stderr()
        );
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let pid = text.split(' ').nth(1).expect("process PID serves");
        pid.parse().expect("a number")
    }

    /// Likewise, and the process that served before is gone. Until then it is the new one's parent, and the
    /// exit code of the new one is not the supervisor's to have.
    fn replace(&self, service: &Service) -> u64 {
        let old = service.pid();
        let new = self.upgrade(service);
        wait::until("the process before to be reaped", || {
            !Path::new(&format!("/proc/{old}")).exists()
        });
        new
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        // Wakes the thread that collects.
        let _ = self.mailbox.shutdown(Shutdown::Both);
    }
}

/// Takes the messages as they come, like a service manager: a queue that is full takes no more.
fn collect(mailbox: UnixDatagram) -> Receiver<String> {
    let (sender, messages) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = mailbox.recv(&mut buffer) {
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    messages
}

impl Service {
    fn wait_until_ready(&self) {
        wait::until("the service to be ready", || {
            self.admin
                .try_get("/readyz")
                .is_ok_and(|answer| answer.status == 200)
        });
    }

    /// The process that answers operators.
    fn pid(&self) -> u64 {
        self.admin.get("/v1/status").json()["pid"].as_u64().unwrap()
    }

    fn address(&self) -> SocketAddr {
        let status = self.admin.get("/v1/status").json();
        let bound = status["listeners"][0]["bound"].as_str().unwrap();
        bound.parse().unwrap()
    }

    fn ask(&self) -> u16 {
        client::send(self.address(), &Request::get("/?k=a")).status
    }

    fn stop(&mut self) -> ExitStatus {
        self.process.signal("TERM");
        self.process.wait()
    }
}

const CONFIG: [&str; 2] = ["-c", "clockwise.yaml"];

fn site(origin: &Origin) -> ConfigBuilder {
    ConfigBuilder::of([origin.label()]).downstream("{keepalive: 2s}")
}

fn is_alive(pid: u64) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn kill(pid: u64) {
    let killed = Command::new("sh")
        .args(["-c", &format!("kill -9 {pid}")])
        .status();
    assert!(killed.unwrap().success());
}

#[test]
fn sd_notify_reports_ready_main_pid_and_stopping() {
    let origin = Origin::start();
    let manager = ServiceManager::new(&site(&origin));
    let mut service = manager.run(&[]);
    let ready = manager.message("READY=1");
    assert!(ready.contains(&format!("MAINPID={}", service.pid())));
    service.process.signal("HUP");
    manager.message("RELOADING=1");
    manager.message("READY=1");
    assert!(service.stop().success());
    manager.message("STOPPING=1");
}

/// A watchdog of 100 ms gets a message every 50 ms.
const SIX_SIGNS: Duration = Duration::from_millis(300);

#[test]
fn sd_watchdog_is_sent_only_by_the_leading_process() {
    let origin = Origin::behaving(Behaviour::Hold);
    let manager = ServiceManager::new(&site(&origin));
    let mut command = manager.command();
    command.env("WATCHDOG_USEC", "100000").arg("run");
    let service = manager.start(command.args(CONFIG));
    manager.message("READY=1");
    manager.message("WATCHDOG=1");
    let old = service.pid();
    // A request that holds the old process while the new one leads.
    let mut held = Connection::open(service.address());
    held.send("GET /?k=a HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    origin.wait_for_requests(1);
    let new = manager.upgrade(&service);
    assert!(
        manager
            .message("READY=1")
            .contains(&format!("MAINPID={new}"))
    );
    manager.message("WATCHDOG=1");
    kill(new);
    // Messages sent before its end still arrive; then none does, although `old` still runs.
    wait::until("silence", || manager.is_silent_for(SIX_SIGNS));
    assert!(is_alive(old));
}

#[test]
fn sd_watchdog_for_another_pid_is_not_sent() {
    let origin = Origin::start();
    let manager = ServiceManager::new(&site(&origin));
    let mut command = manager.command();
    let limit = [("WATCHDOG_USEC", "100000"), ("WATCHDOG_PID", "1")];
    let service = manager.start(command.envs(limit).arg("run").args(CONFIG));
    manager.message("READY=1");
    service.wait_until_ready();
    assert!(manager.is_silent_for(SIX_SIGNS));
}

/// Starts with `socket` as the one passed descriptor, as `sd_listen_fds(3)` has it: number 3.
fn activate(manager: &ServiceManager, socket: &TcpListener) -> Service {
    let binary = env!("CARGO_BIN_EXE_clockwise");
    let script = format!(
        "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec {binary} run -c clockwise.yaml"
    );
    let socket = OwnedFd::from(socket.try_clone().unwrap());
    let mut shell = Command::new("sh");
    shell.current_dir(manager.path()).args(["-c", &script]);
    let service = manager.start_with(&mut shell, Stdio::from(socket));
    service.wait_until_ready();
    service
}

#[test]
fn socket_activation_is_used_upgraded_and_left_in_place() {
    let origin = Origin::start();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let listeners = format!("[{{address: \"{address}\"}}]");
    let manager = ServiceManager::new(&site(&origin).top("listeners", &listeners));
    for _ in 0..2 {
        // Waits in the queue from before the start.
        let mut early = Connection::open(address);
        let mut service = activate(&manager, &socket);
        assert_eq!(early.get("/?k=a").unwrap().status, 200);
        drop(early);
        let old = service.pid();
        let new = manager.upgrade(&service);
        assert_ne!(new, old);
        assert_eq!(service.ask(), 200);
        // The first process was ours to wait for; the one that leads is not.
        assert!(service.process.wait().success());
        let stopped = Command::new("sh")
            .args(["-c", &format!("kill {new}")])
            .status();
        assert!(stopped.unwrap().success());
        wait::until("the new process to end", || !is_alive(new));
    }
}

#[test]
fn socket_activation_without_a_listener_closes_the_socket() {
    let origin = Origin::start();
    let manager = ServiceManager::new(&site(&origin));
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let service = activate(&manager, &socket);
    let warning = format!("bound to {address}, which no listener names");
    wait::until("the warning", || {
        service.process.stderr().contains(&warning)
    });
    drop(socket);
    // A child that another test is just starting may hold a copy, until it executes.
    wait::until("the socket to be closed", || {
        Connection::try_open(address).is_err()
    });
}

#[test]
fn supervisor_stays_while_workers_are_replaced() {
    let origin = Origin::start();
    let manager = ServiceManager::new(&site(&origin));
    let mut service = manager.run(&["--supervise"]);
    let text = manager.message("READY=1");
    assert!(
        !text.contains("MAINPID"),
        "the main process is the supervisor: {text}"
    );
    let second = manager.replace(&service);
    manager.message("READY=1");
    // A signal to the supervisor reaches the process that leads now.
    service.process.signal("USR2");
    wait::until("a third process to lead", || {
        let status = service.admin.try_get("/v1/status");
        status.is_ok_and(|status| status.json()["pid"] != second)
    });
    manager.message("READY=1");
    assert_eq!((service.ask(), service.process.exited()), (200, None));
    let third = service.pid();
    assert!(service.stop().success());
    assert!(!is_alive(third));
}

#[test]
fn supervisor_exits_with_the_leading_worker() {
    let origin = Origin::start();
    let manager = ServiceManager::new(&site(&origin));
    let mut service = manager.run(&["--supervise"]);
    service.wait_until_ready();
    let leader = manager.replace(&service);
    manager.message("READY=1");
    manager.message("READY=1");
    kill(leader);
    assert_eq!(service.process.wait().code(), Some(128 + 9));

    fs::write(manager.path().join("clockwise.yaml"), "listeners: []").unwrap();
    let mut service = manager.run(&["--supervise"]);
    assert_eq!(service.process.wait().code(), Some(1));
}

#[test]
fn supervisor_ignores_a_check_process_as_successor() {
    let origin = Origin::start();
    let manager = ServiceManager::new(&site(&origin));
    let program = manager.path().join("program");
    symlink(BINARY, &program).unwrap();
    let mut command = Command::new(&program);
    command.current_dir(manager.path());
    command.args(["run", "--supervise"]).args(CONFIG);
    let mut service = manager.start(&mut command);
    service.wait_until_ready();
    let leader = manager.replace(&service);
    // Outlives the leader, for longer than the supervisor waits for another one to lead.
    let script = "#!/bin/sh\n[ \"$1\" = check ] && : >checks && exec sleep 3\n";
    fs::remove_file(&program).unwrap();
    write_script(&program, script);
    service.process.signal("USR2");
    let checks = manager.path().join("checks");
    wait::until("the check", || checks.exists());
    kill(leader);
    assert_eq!(service.process.wait().code(), Some(128 + 9));
}

#[test]
fn supervisor_ignores_notifications_of_other_processes() {
    let origin = Origin::start();
    let manager = ServiceManager::new(&site(&origin));
    let mut service = manager.run(&["--supervise"]);
    manager.message("READY=1");
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    let name = format!("@clockwise-{}-", service.process.id());
    let name = sockets
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .find_map(|path| path.starts_with(&name).then(|| path[1..].to_owned()));
    let mailbox = SocketAddress::from_abstract_name(name.expect("a mailbox")).unwrap();
    let stranger = UnixDatagram::unbound().unwrap();
    let lie = format!("STATUS=lie\nSTOPPING=1\nMAINPID={}", std::process::id());
    stranger.send_to_addr(lie.as_bytes(), &mailbox).unwrap();
    // A signal that is passed on after the lie reaches the process that leads, as before.
    service.process.signal("HUP");
    let text = manager.messages.recv_timeout(wait::PATIENCE).unwrap();
    assert!(text.starts_with("RELOADING=1"), "{text}");
    assert!(service.stop().success());
}

#[test]
fn supervisor_waits_for_drains_and_a_second_signal_stops_it() {
    let origin = Origin::behaving(Behaviour::Hold);
    let manager = ServiceManager::new(&site(&origin));
    let mut service = manager.run(&["--supervise"]);
    service.wait_until_ready();
    let mut held = Connection::open(service.address());
    held.send("GET /?k=a HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    origin.wait_for_requests(1);
    let old = service.pid();
    let new = manager.upgrade(&service);
    manager.message("READY=1");
    manager.message("READY=1");
    service.process.signal("TERM");
    wait::until("the leader to end", || !is_alive(new));
    // What must not happen is given the time to happen.
    thread::sleep(Duration::from_millis(1500));
    assert!(is_alive(old) && service.process.exited().is_none());
    assert!(service.stop().success());
    assert!(!is_alive(old));
}
