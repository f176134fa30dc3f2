//! Who leads, who drains, and who leads next: what the supervisor knows of its workers.
//!
//! A worker is a process that has led, or leads now. It is heard, not asked: one that has not said
//! that it drains still serves, and leads again where the one that came after it has failed.

use rustix::process::{Pid, Signal as Number};

use super::process_tree;
use crate::server::sd_notify;

/// The workers, and what has become of the leader.
#[derive(Debug)]
pub(super) struct Workers {
    leader: Pid,
    /// Whether the leader has said that it is coming to its end.
    leader_stopping: bool,
    /// Those that have not ended, the one that led last at the end.
    workers: Vec<Worker>,
    /// The exit code of the last leader, where it has ended.
    exit_code: Option<u8>,
}

#[derive(Debug)]
struct Worker {
    pid: Pid,
    /// It accepts no more connections.
    draining: bool,
}

impl Workers {
    /// The first process leads.
    pub(super) fn new(leader: Pid) -> Self {
        Self {
            leader,
            leader_stopping: false,
            workers: vec![Worker {
                pid: leader,
                draining: false,
            }],
            exit_code: None,
        }
    }

    /// The exit code of the leader, where it has ended and nobody leads.
    pub(super) fn exit_code(&self) -> Option<u8> {
        self.exit_code
    }

    /// Takes note of what one of ours says of itself, and returns what is meant for whoever stands
    /// above us; to them we are the main process, whoever leads. Others are not heard.
    pub(super) fn handle_message(&mut self, sender: Pid, message: &str) -> Option<String> {
        if !self.is_worker(sender) && !process_tree::is_descendant(sender) {
            log::debug!("process {sender} is none of ours: {message:?} is not heard");
            return None;
        }
        let says = |what| message.lines().any(|line| line == what);
        let main = message
            .lines()
            .find_map(|line| line.strip_prefix("MAINPID="))
            .and_then(|pid| Pid::from_raw(pid.parse().ok().filter(|&pid| pid > 0)?));
        if let Some(pid) =
            main.filter(|&pid| self.is_worker(pid) || process_tree::is_descendant(pid))
        {
            self.set_leader(pid);
        }
        let ends = says("STOPPING=1");
        self.leader_stopping |= ends && sender == self.leader;
        if ends || says(sd_notify::DRAINING_MESSAGE) {
            self.mark_draining(sender);
        }
        Some(self.forwarded_message(sender, message))
    }

    fn forwarded_message(&self, sender: Pid, message: &str) -> String {
        let is_ours = |line: &str| {
            line.starts_with("MAINPID=")
                || line == sd_notify::DRAINING_MESSAGE
                || (line == "STOPPING=1" && sender != self.leader)
        };
        let rest = message.lines().filter(|line| !is_ours(line));
        rest.collect::<Vec<_>>().join("\n")
    }

    /// Makes a process the leader; one that says that it leads does not drain.
    fn set_leader(&mut self, pid: Pid) {
        if pid != self.leader {
            log::info!("process {pid} leads now; it was {}", self.leader);
            self.leader = pid;
            self.leader_stopping = false;
            self.exit_code = None;
        }
        self.workers.retain(|worker| worker.pid != pid);
        self.workers.push(Worker {
            pid,
            draining: false,
        });
    }

    fn mark_draining(&mut self, pid: Pid) {
        for worker in &mut self.workers {
            worker.draining |= worker.pid == pid;
        }
    }

    /// A process of ours has ended with this exit code.
    pub(super) fn record_exit(&mut self, pid: Pid, code: u8) {
        self.workers.retain(|worker| worker.pid != pid);
        if pid == self.leader {
            self.exit_code = Some(code);
        }
    }

    /// Takes note of those that ended as another process's children: their exit codes are not for us
    /// to have.
    pub(super) fn remove_exited(&mut self) {
        self.workers
            .retain(|worker| process_tree::is_descendant(worker.pid));
        if self.exit_code.is_none() && !self.is_worker(self.leader) {
            self.exit_code = Some(u8::from(!self.leader_stopping));
        }
    }

    /// What is done where the leader has ended and nobody has said that it leads: where it failed,
    /// another that serves leads, or may come to serve. The exit code, once nobody is left.
    ///
    /// Where nobody serves, those that drain are not waited for, so that whoever stands above us can
    /// start anew; nor is anybody made leader once we are told to stop.
    pub(super) fn replace_leader(&mut self, stopping: bool) -> Option<u8> {
        let code = self.exit_code?;
        self.remove_exited();
        if code != 0 {
            match self.next_leader().filter(|_| !stopping) {
                Some(heir) => {
                    log::warn!("process {} failed (exit code {code})", self.leader);
                    self.set_leader(heir);
                    return None;
                }
                None => self.signal_all(Number::TERM),
            }
        }
        self.workers.is_empty().then_some(code)
    }

    /// The worker that led last and does not drain, else a process that was about to take over.
    fn next_leader(&self) -> Option<Pid> {
        let mut serving = self.workers.iter().filter(|worker| !worker.draining);
        let worker = serving.next_back().map(|worker| worker.pid);
        worker.or_else(|| process_tree::newest_successor(|pid| self.is_worker(pid)))
    }

    fn is_worker(&self, pid: Pid) -> bool {
        self.workers.iter().any(|worker| worker.pid == pid)
    }

    /// Sends a signal to the leader.
    pub(super) fn signal_leader(&self, number: Number) {
        send_signal(self.leader, number);
    }

    /// Sends a signal to every worker.
    pub(super) fn signal_all(&self, number: Number) {
        let alive = self
            .workers
            .iter()
            .filter(|worker| process_tree::is_descendant(worker.pid));
        alive.for_each(|worker| send_signal(worker.pid, number));
    }
}

fn send_signal(worker: Pid, number: Number) {
    // It may have ended a moment ago, which we hear of next.
    let _ = rustix::process::kill_process(worker, number);
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// Processes that do nothing, and are ours.
    struct Children(Vec<Child>);

    impl Children {
        fn start(count: usize) -> (Self, Vec<Pid>) {
            let start = |_| Command::new("sleep").arg("60").spawn().unwrap();
            let children: Vec<_> = (0..count).map(start).collect();
            let pids = children.iter().map(Pid::from_child).collect();
            (Self(children), pids)
        }

        fn kill(&mut self, index: usize) {
            self.0[index].kill().unwrap();
            self.0[index].wait().unwrap();
        }
    }

    impl Drop for Children {
        fn drop(&mut self) {
            for child in &mut self.0 {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    fn leads(pid: Pid) -> String {
        format!("READY=1\nMAINPID={pid}")
    }

    #[test]
    fn workers_leader_failure_makes_the_serving_worker_lead() {
        let (mut children, pids) = Children::start(2);
        let mut succession = Workers::new(pids[0]);
        succession.handle_message(pids[1], &leads(pids[1]));
        assert_eq!(succession.leader, pids[1]);
        children.kill(1);
        succession.record_exit(pids[1], 137);
        assert_eq!(succession.replace_leader(false), None);
        assert_eq!((succession.leader, succession.exit_code()), (pids[0], None));
        // It was not told to end.
        assert!(process_tree::is_descendant(pids[0]));
    }

    #[test]
    fn workers_leader_failure_with_only_draining_workers_stops_them() {
        let (mut children, pids) = Children::start(2);
        let mut succession = Workers::new(pids[0]);
        succession.handle_message(pids[0], sd_notify::DRAINING_MESSAGE);
        succession.handle_message(pids[1], &leads(pids[1]));
        children.kill(1);
        succession.record_exit(pids[1], 1);
        assert_eq!(succession.replace_leader(false), None);
        let ended = children.0[0].wait().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&ended),
            Some(15)
        );
        assert_eq!(succession.replace_leader(false), Some(1));
    }

    #[test]
    fn workers_leader_failure_during_stop_elects_no_leader() {
        let (mut children, pids) = Children::start(2);
        let mut succession = Workers::new(pids[0]);
        succession.handle_message(pids[1], &leads(pids[1]));
        children.kill(1);
        succession.record_exit(pids[1], 1);
        succession.replace_leader(true);
        assert!(!children.0[0].wait().unwrap().success());
        assert_eq!(succession.replace_leader(true), Some(1));
    }

    #[test]
    fn worker_that_cancels_its_drain_leads_again() {
        let (_children, pids) = Children::start(2);
        let mut succession = Workers::new(pids[0]);
        succession.handle_message(pids[1], &leads(pids[1]));
        succession.handle_message(pids[0], sd_notify::DRAINING_MESSAGE);
        succession.handle_message(pids[0], &leads(pids[0]));
        assert_eq!(succession.next_leader(), Some(pids[0]));
        assert_eq!(succession.workers.len(), 2);
    }

    #[test]
    fn notify_message_from_an_unknown_process_is_ignored() {
        let (_children, pids) = Children::start(1);
        let mut succession = Workers::new(pids[0]);
        let stranger = rustix::process::getppid().unwrap();
        let lies = format!("STOPPING=1\n{}", leads(stranger));
        assert_eq!(succession.handle_message(stranger, &lies), None);
        // Nor may one of ours put a stranger in its place.
        let passed_on = succession.handle_message(pids[0], &leads(stranger));
        assert_eq!(passed_on.as_deref(), Some("READY=1"));
        assert_eq!(
            (succession.leader, succession.leader_stopping),
            (pids[0], false)
        );
    }

    #[test]
    fn worker_leader_exit_without_stopping_message_counts_as_failure() {
        for (farewell, code) in [(true, 0), (false, 1)] {
            let (mut children, pids) = Children::start(1);
            let mut succession = Workers::new(pids[0]);
            if farewell {
                succession.handle_message(pids[0], "STOPPING=1");
            }
            children.kill(0);
            succession.remove_exited();
            assert_eq!(succession.exit_code(), Some(code));
        }
    }
}
