//! The state of the supervisor's workers: which one leads, which ones drain, and which one leads next.
//!
//! A worker is a process that leads, or has led. The supervisor knows only what a worker reports: a worker that has not
//! reported a drain still serves, and leads again if the one that came after it fails.

use rustix::process::{Pid, Signal as SignalNumber};

use super::process_tree;
use crate::server::sd_notify;

/// The workers, and the exit code of the leader.
#[derive(Debug)]
pub(super) struct Workers {
    leader: Pid,
    /// The leader has reported that it stops.
    leader_stopping: bool,
    /// The workers that have not exited, in the order in which they began to lead.
    running: Vec<Worker>,
    /// The exit code of the leader, once it has exited.
    exit_code: Option<u8>,
}

#[derive(Debug)]
struct Worker {
    pid: Pid,
    /// It has reported that it accepts no more connections.
    draining: bool,
}

impl Workers {
    /// The first worker leads.
    pub(super) fn new(leader: Pid) -> Self {
        Self {
            leader,
            leader_stopping: false,
            running: vec![Worker {
                pid: leader,
                draining: false,
            }],
            exit_code: None,
        }
    }

    /// The exit code of the leader; `None` while a worker leads.
    pub(super) fn exit_code(&self) -> Option<u8> {
        self.exit_code
    }

    /// Applies a message of a worker or of another descendant, and returns the part of it that is forwarded to the
    /// supervisor's own service manager, for which the supervisor stays the main process. Messages of other processes
    /// are ignored.
    pub(super) fn handle_message(&mut self, sender: Pid, message: &str) -> Option<String> {
        if !self.is_worker(sender) && !process_tree::is_descendant(sender) {
            log::debug!(
                "a message of process {sender}, which is not ours, is ignored: {message:?}"
            );
            return None;
        }
        let has_line = |text| message.lines().any(|line| line == text);
        let main_pid = message
            .lines()
            .find_map(|line| line.strip_prefix("MAINPID="))
            .and_then(|pid| Pid::from_raw(pid.parse().ok().filter(|&pid| pid > 0)?));
        if let Some(pid) =
            main_pid.filter(|&pid| self.is_worker(pid) || process_tree::is_descendant(pid))
        {
            self.set_leader(pid);
        }
        let stops = has_line("STOPPING=1");
        self.leader_stopping |= stops && sender == self.leader;
        if stops || has_line(sd_notify::DRAINING_MESSAGE) {
            self.mark_draining(sender);
        }
        Some(self.forwarded_message(sender, message))
    }

    fn forwarded_message(&self, sender: Pid, message: &str) -> String {
        let is_internal = |line: &str| {
            line.starts_with("MAINPID=")
                || line == sd_notify::DRAINING_MESSAGE
                || (line == "STOPPING=1" && sender != self.leader)
        };
        let rest = message.lines().filter(|line| !is_internal(line));
        rest.collect::<Vec<_>>().join("\n")
    }

    /// Makes a process the leader. It serves, even if it has reported a drain before.
    fn set_leader(&mut self, pid: Pid) {
        if pid != self.leader {
            log::info!("process {pid} leads now; it was {}", self.leader);
            self.leader = pid;
            self.leader_stopping = false;
            self.exit_code = None;
        }
        self.running.retain(|worker| worker.pid != pid);
        self.running.push(Worker {
            pid,
            draining: false,
        });
    }

    fn mark_draining(&mut self, pid: Pid) {
        for worker in &mut self.running {
            worker.draining |= worker.pid == pid;
        }
    }

    /// Records the exit of a child.
    pub(super) fn record_exit(&mut self, pid: Pid, code: u8) {
        self.running.retain(|worker| worker.pid != pid);
        if pid == self.leader {
            self.exit_code = Some(code);
        }
    }

    /// Removes the workers that have exited as children of another process, which alone can read their exit codes. Such
    /// a leader counts as failed (1) unless it has reported that it stops (0).
    pub(super) fn remove_exited(&mut self) {
        self.running
            .retain(|worker| process_tree::is_descendant(worker.pid));
        if self.exit_code.is_none() && !self.is_worker(self.leader) {
            self.exit_code = Some(u8::from(!self.leader_stopping));
        }
    }

    /// Chooses another leader if the last one failed: a worker that serves, or a process that is about to. Returns the
    /// exit code once no worker is left.
    ///
    /// If no process serves, those that drain are stopped, so that the service manager can restart the service at once.
    /// After a signal to stop, no process becomes leader.
    pub(super) fn replace_leader(&mut self, stopping: bool) -> Option<u8> {
        let code = self.exit_code?;
        self.remove_exited();
        if code != 0 {
            match self.next_leader().filter(|_| !stopping) {
                Some(next) => {
                    log::warn!("process {} failed (exit code {code})", self.leader);
                    self.set_leader(next);
                    return None;
                }
                None => self.signal_all(SignalNumber::TERM),
            }
        }
        self.running.is_empty().then_some(code)
    }

    /// The last leader that does not drain, else the newest process that was started to take over.
    fn next_leader(&self) -> Option<Pid> {
        let mut serving = self.running.iter().filter(|worker| !worker.draining);
        let worker = serving.next_back().map(|worker| worker.pid);
        worker.or_else(|| process_tree::newest_successor(|pid| self.is_worker(pid)))
    }

    fn is_worker(&self, pid: Pid) -> bool {
        self.running.iter().any(|worker| worker.pid == pid)
    }

    /// Sends a signal to the leader.
    pub(super) fn signal_leader(&self, number: SignalNumber) {
        send_signal(self.leader, number);
    }

    /// Sends a signal to every worker.
    pub(super) fn signal_all(&self, number: SignalNumber) {
        let alive = self
            .running
            .iter()
            .filter(|worker| process_tree::is_descendant(worker.pid));
        alive.for_each(|worker| send_signal(worker.pid, number));
    }
}

fn send_signal(worker: Pid, number: SignalNumber) {
    // It may have exited a moment ago; the next event reports that.
    let _ = rustix::process::kill_process(worker, number);
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// Child processes that do nothing.
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
        let mut workers = Workers::new(pids[0]);
        workers.handle_message(pids[1], &leads(pids[1]));
        assert_eq!(workers.leader, pids[1]);
        children.kill(1);
        workers.record_exit(pids[1], 137);
        assert_eq!(workers.replace_leader(false), None);
        assert_eq!((workers.leader, workers.exit_code()), (pids[0], None));
        // It got no signal to stop.
        assert!(process_tree::is_descendant(pids[0]));
    }

    #[test]
    fn workers_leader_failure_with_only_draining_workers_stops_them() {
        let (mut children, pids) = Children::start(2);
        let mut workers = Workers::new(pids[0]);
        workers.handle_message(pids[0], sd_notify::DRAINING_MESSAGE);
        workers.handle_message(pids[1], &leads(pids[1]));
        children.kill(1);
        workers.record_exit(pids[1], 1);
        assert_eq!(workers.replace_leader(false), None);
        let ended = children.0[0].wait().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&ended),
            Some(15)
        );
        assert_eq!(workers.replace_leader(false), Some(1));
    }

    #[test]
    fn workers_leader_failure_during_stop_elects_no_leader() {
        let (mut children, pids) = Children::start(2);
        let mut workers = Workers::new(pids[0]);
        workers.handle_message(pids[1], &leads(pids[1]));
        children.kill(1);
        workers.record_exit(pids[1], 1);
        workers.replace_leader(true);
        assert!(!children.0[0].wait().unwrap().success());
        assert_eq!(workers.replace_leader(true), Some(1));
    }

    #[test]
    fn worker_that_cancels_its_drain_leads_again() {
        let (_children, pids) = Children::start(2);
        let mut workers = Workers::new(pids[0]);
        workers.handle_message(pids[1], &leads(pids[1]));
        workers.handle_message(pids[0], sd_notify::DRAINING_MESSAGE);
        workers.handle_message(pids[0], &leads(pids[0]));
        assert_eq!(workers.next_leader(), Some(pids[0]));
        assert_eq!(workers.running.len(), 2);
    }

    #[test]
    fn notify_message_from_an_unknown_process_is_ignored() {
        let (_children, pids) = Children::start(1);
        let mut workers = Workers::new(pids[0]);
        let outsider = rustix::process::getppid().unwrap();
        let message = format!("STOPPING=1\n{}", leads(outsider));
        assert_eq!(workers.handle_message(outsider, &message), None);
        // A worker cannot make a process that is not ours the leader, either.
        let forwarded = workers.handle_message(pids[0], &leads(outsider));
        assert_eq!(forwarded.as_deref(), Some("READY=1"));
        assert_eq!((workers.leader, workers.leader_stopping), (pids[0], false));
    }

    #[test]
    fn worker_leader_exit_without_stopping_message_counts_as_failure() {
        for (reports_stop, code) in [(true, 0), (false, 1)] {
            let (mut children, pids) = Children::start(1);
            let mut workers = Workers::new(pids[0]);
            if reports_stop {
                workers.handle_message(pids[0], "STOPPING=1");
            }
            children.kill(0);
            workers.remove_exited();
            assert_eq!(workers.exit_code(), Some(code));
        }
    }
}
