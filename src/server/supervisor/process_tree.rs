//! Finds the descendants of this process in `/proc`; what a process claims about itself does not count.

use rustix::process::Pid;

use crate::server::process_role::SUCCESSOR_ENV;

/// Whether the process is alive and descends from this one.
pub(super) fn is_descendant(pid: Pid) -> bool {
    let own_pid = rustix::process::getpid();
    let leads_here = || {
        std::iter::successors(Some(pid), |&pid| parent_pid(pid))
            .take(MAX_ANCESTORS)
            .any(|ancestor| ancestor == own_pid)
    };
    (0..MAX_TRIES).any(|_| is_alive(pid) && leads_here())
}

/// The youngest descendant that was started to take over from another process, apart from those that are `known`.
pub(super) fn newest_successor(known: impl Fn(Pid) -> bool) -> Option<Pid> {
    let names = std::fs::read_dir("/proc").ok()?.flatten();
    let pids = names.filter_map(|name| name.file_name().to_str()?.parse().ok());
    let successors = pids
        .filter_map(Pid::from_raw)
        .filter(|&pid| !known(pid) && has_successor_env(pid) && is_descendant(pid));
    successors.max_by_key(|&pid| start_time(pid))
}

/// Reads the environment that the process was started with (`proc_pid_environ(5)`).
fn has_successor_env(pid: Pid) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let assignment = format!("{SUCCESSOR_ENV}=1");
    environment
        .split(|&byte| byte == 0)
        .any(|variable| variable == assignment.as_bytes())
}

/// The fourth field of `proc_pid_stat(5)`. A zombie has this field, too, and may have children: a process is shown as
/// a zombie when its first thread has ended, but its children get another parent only when its last thread has ended.
fn parent_pid(pid: Pid) -> Option<Pid> {
    Pid::from_raw(stat_field(pid, 4)?.parse().ok()?)
}

/// Whether the process exists and is no zombie, by the third field.
fn is_alive(pid: Pid) -> bool {
    stat_field(pid, 3).is_some_and(|state| state != "Z")
}

/// The 22nd field: clock ticks from the boot of the system to the start of the process.
fn start_time(pid: Pid) -> Option<u64> {
    stat_field(pid, 22)?.parse().ok()
}

/// A field of `proc_pid_stat(5)`, from the third on; the second one, in brackets, may contain any character. `None`: there
/// is no such process.
fn stat_field(pid: Pid, number: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let field = fields.split_whitespace().nth(number.checked_sub(3)?)?;
    Some(field.to_owned())
}

/// The most generations between a process and this one.
const MAX_ANCESTORS: usize = 100;

/// How often a line of ancestors is followed. It breaks if one of them exits meanwhile: its children then get another
/// parent.
const MAX_TRIES: usize = 3;

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;
    use crate::clock;

    #[test]
    fn process_tree_contains_our_child_and_not_our_parent() {
        let mut child = Command::new("sleep").arg("10").spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(is_descendant(pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_descendant(pid));
        assert!(!is_descendant(rustix::process::getppid().unwrap()));
    }

    /// Starts a process, prints its id, and ends its own first thread, but not the other one.
    const ENDS_ITS_FIRST_THREAD: &str = "\
import ctypes, platform, subprocess, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print(subprocess.Popen(['sleep', '60']).pid, flush=True)
exit = {'x86_64': 60, 'aarch64': 93}[platform.machine()]
ctypes.CDLL(None).syscall(exit, 0)
";

    #[test]
    fn grandchild_descends_from_us_while_its_parent_is_ending() {
        let mut command = Command::new("python3");
        command.args(["-c", ENDS_ITS_FIRST_THREAD]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let grandchild = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        let start = clock::now();
        while is_alive(Pid::from_child(&child)) {
            assert!(start.elapsed() < Duration::from_secs(20), "it is alive");
            std::thread::yield_now();
        }
        assert_eq!(parent_pid(grandchild), Some(Pid::from_child(&child)));
        assert!(is_descendant(grandchild));
        rustix::process::kill_process(grandchild, rustix::process::Signal::KILL).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn process_tree_finds_the_successor_by_its_environment() {
        let start = |value| {
            let mut command = Command::new("sleep");
            command.arg("10").env(SUCCESSOR_ENV, value);
            command.spawn().unwrap()
        };
        let mut children = [start("1"), start("0")];
        let [successor, other] = children.each_ref().map(Pid::from_child);
        assert_eq!(
            (has_successor_env(successor), has_successor_env(other)),
            (true, false)
        );
        assert_eq!(newest_successor(|_| false), Some(successor));
        assert_eq!(newest_successor(|pid| pid == successor), None);
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
