//! Which file to start in place of this process.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

/// The file that the name this process was started by leads to now, so that a link to a new version is followed;
/// without such a name, the file this process runs from.
pub(in crate::server) fn program_path() -> io::Result<PathBuf> {
    let by_name = std::env::args_os()
        .next()
        .and_then(|name| find_in_path(&name));
    by_name.map_or_else(current_program, Ok)
}

/// Looks a name up as a shell does. A path is returned as it is: if it cannot be run, that is an error to report, not a
/// reason to run another file.
fn find_in_path(name: &OsStr) -> Option<PathBuf> {
    if name.as_encoded_bytes().contains(&b'/') {
        return Some(PathBuf::from(name));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| is_executable(program))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok()
}

/// The file this process was started from. Once an update has replaced it, the kernel adds " (deleted)" to its path;
/// the file that is there now is the one to start.
fn current_program() -> io::Result<PathBuf> {
    let running = std::env::current_exe()?;
    let name = running.to_string_lossy();
    Ok(name
        .strip_suffix(" (deleted)")
        .map_or_else(|| running.clone(), PathBuf::from))
}
