//! The control socket between users: its default directory, and the process at each end.
//!
//! These tests need root, to start processes of other users, and no directory `/run/clockwise`, which an instance would
//! prefer. [`ran_in_namespaces`] gives them both; none is left out.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::command_dir::CommandDir;
use crate::support::curl::curl;
use crate::support::edge::{BINARY, binary};
use crate::support::process::Process;
use crate::support::wait;

/// The user of the foreign process, and one that is neither it nor root.
const OTHER: u32 = 65534;
const THIRD: u32 = 65533;

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Runs the test `name` of this module with an empty `/run`, and as root of a user namespace with the users of
/// `/etc/subuid`, and returns true; false: it can run here.
fn ran_in_namespaces(name: &str) -> bool {
    if own_uid() == 0 && !Path::new("/run/clockwise").is_dir() {
        return false;
    }
    let (_, module) = module_path!().split_once("::").expect("a module");
    let mut command = Command::new("unshare");
    if own_uid() != 0 {
        command.args(["--user", "--map-root-user", "--map-auto"]);
    }
    command.arg("--mount");
    command.args(["sh", "-c", "mount -t tmpfs none /run && exec \"$@\"", "sh"]);
    command.arg(env::current_exe().expect("this program"));
    command.args(["--exact", &format!("{module}::{name}")]);
    let output = command.output().expect("unshare (util-linux)");
    let has_run = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    assert!(
        output.status.success() && has_run,
        "this test needs root, or user namespaces and a range of users in /etc/subuid (package uidmap): {output:?}"
    );
    true
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("own file");
}

/// A command with the default control socket, and these directories to choose from.
fn default_command(directory: &Path, session: Option<&Path>, command: &str) -> Command {
    let mut program = binary(directory);
    program
        .env_remove("RUNTIME_DIRECTORY")
        .env("TMPDIR", directory);
    match session {
        Some(session) => program.env("XDG_RUNTIME_DIR", session),
        None => program.env_remove("XDG_RUNTIME_DIR"),
    };
    program.args(command.split(' '));
    program
}

#[track_caller]
fn assert_refused(output: &Output, code: i32, reason: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(errors.contains(reason), "{reason:?} in {errors}");
}

#[test]
fn default_control_directory_that_others_can_take_is_refused() {
    if ran_in_namespaces("default_control_directory_that_others_can_take_is_refused") {
        return;
    }
    let dir = CommandDir::new();
    let place = dir.path().join("place");
    let fallback = dir.path().join(format!("clockwise-{}", own_uid()));
    let refused = |session: Option<&Path>, reason: &str| {
        for (command, code) in [("status", 4), ("run -c clockwise.yaml", 1)] {
            let output = default_command(dir.path(), session, command).output();
            assert_refused(&output.unwrap(), code, reason);
        }
    };
    fs::create_dir(&place).unwrap();
    set_mode(&place, 0o777);
    refused(Some(&place), "has mode 0777");
    set_mode(&place, 0o700);
    let link = dir.path().join("link");
    symlink(&place, &link).unwrap();
    refused(Some(&link), "is not a directory");
    chown(&place, Some(OTHER), None).unwrap();
    refused(Some(&place), "belongs to user 65534, not to user 0");
    symlink(&place, &fallback).unwrap();
    refused(None, "is not a directory");
    fs::remove_file(&fallback).unwrap();
    fs::create_dir(&fallback).unwrap();
    set_mode(&fallback, 0o755);
    refused(None, "has mode 0755");
    set_mode(&fallback, 0o700);
    chown(&fallback, Some(OTHER), None).unwrap();
    refused(None, "belongs to user 65534, not to user 0");
}

#[test]
fn default_control_directory_in_the_temporary_one_is_private() {
    if ran_in_namespaces("default_control_directory_in_the_temporary_one_is_private") {
        return;
    }
    let dir = CommandDir::new();
    let mut run = default_command(dir.path(), None, "run -c clockwise.yaml");
    let mut instance = Process::spawn(&mut run);
    wait::until("the instance to answer", || {
        assert!(instance.exited().is_none(), "{}", instance.stderr());
        let status = default_command(dir.path(), None, "status").output();
        status.unwrap().status.success()
    });
    let private = dir.path().join(format!("clockwise-{}", own_uid()));
    let mode = fs::symlink_metadata(private).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o700);
}

/// An instance of the user [`OTHER`], in a directory of that user.
fn foreign_instance(dir: &CommandDir) -> Process {
    let (path, program) = (dir.path(), dir.path().join("clockwise"));
    let text = fs::read_to_string(path.join("clockwise.yaml")).unwrap();
    let control = path.join("control.sock");
    dir.write(
        "clockwise.yaml",
        &format!("control: {}\n{text}", control.display()),
    );
    // Not a copy by this process: a test that forks at this moment would hold it open for writing (ETXTBSY).
    let copied = Command::new("cp").arg(BINARY).arg(&program).status();
    assert!(copied.unwrap().success());
    set_mode(path, 0o755);
    chown(path, Some(OTHER), Some(OTHER)).unwrap();
    let mut run = Command::new(program);
    run.args(["run", "-c", "clockwise.yaml"]).current_dir(path);
    let mut instance = Process::spawn(run.uid(OTHER).gid(OTHER));
    wait::until("the control socket", || {
        assert!(instance.exited().is_none(), "{}", instance.stderr());
        control.exists()
    });
    instance
}

#[test]
fn command_trusts_a_process_of_another_user_only_in_its_own_directory() {
    if ran_in_namespaces("command_trusts_a_process_of_another_user_only_in_its_own_directory") {
        return;
    }
    let dir = CommandDir::new();
    let _instance = foreign_instance(&dir);
    let commands = ["status", "reload", "drain app a"];
    for command in commands {
        dir.print(&format!("{command} --control control.sock"), "");
    }
    // As in the directory for temporary files: any user can have made the socket.
    chown(dir.path(), Some(0), None).unwrap();
    set_mode(dir.path(), 0o1777);
    for command in commands {
        let errors = dir.fail(&format!("{command} --control control.sock"), 4);
        assert!(errors.contains("belongs to user 65534"), "{errors}");
    }
    let run = dir.fail("run -c clockwise.yaml", 1);
    assert!(run.contains("another process listens"), "{run}");
    set_mode(&dir.path().join("control.sock"), 0o666);
    let mut third = binary(dir.path());
    let output = third
        .args(["status", "--control", "control.sock"])
        .uid(THIRD)
        .output();
    assert_refused(
        &output.unwrap(),
        4,
        "belongs to user 65534, not to user 65533",
    );
}

#[test]
fn control_socket_refuses_a_process_of_another_user_whatever_its_mode_is() {
    if ran_in_namespaces("control_socket_refuses_a_process_of_another_user_whatever_its_mode_is") {
        return;
    }
    let dir = CommandDir::new();
    let _instance = foreign_instance(&dir);
    let control = dir.path().join("control.sock");
    set_mode(&control, 0o666);
    let get = |uid: u32| {
        let mut get = curl();
        get.args(["--write-out", "%{http_code}", "--unix-socket"]);
        get.arg(&control).arg("http://localhost/healthz");
        String::from_utf8(get.uid(uid).output().unwrap().stdout).unwrap()
    };
    for uid in [OTHER, 0] {
        assert!(get(uid).ends_with("200"), "user {uid}: {}", get(uid));
    }
    let refusal = get(THIRD);
    assert!(
        refusal.contains("answers only user 65534 and root") && refusal.ends_with("403"),
        "{refusal}"
    );
}

#[test]
fn socket_that_an_ended_process_of_another_user_left_is_named_as_such() {
    if ran_in_namespaces("socket_that_an_ended_process_of_another_user_left_is_named_as_such") {
        return;
    }
    let dir = CommandDir::new();
    foreign_instance(&dir).kill();
    // In a sticky directory only the owner of a file can remove it.
    chown(dir.path(), Some(0), None).unwrap();
    set_mode(dir.path(), 0o1777);
    set_mode(&dir.path().join("control.sock"), 0o666);
    let mut run = Command::new(dir.path().join("clockwise"));
    run.args(["run", "-c", "clockwise.yaml"])
        .current_dir(dir.path());
    let output = run.uid(THIRD).gid(THIRD).output();
    let reason = "the socket of an ended process cannot be removed";
    assert_refused(&output.unwrap(), 1, reason);
}
