//! `POST /v1/reload`, `/v1/upgrade` and `/v1/upstreams/{u}/accept`: their queries, and the commands to the server.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use http::StatusCode;
use serde_json::Value;

use super::query::command_params;
use super::response::AdminResponse;
use crate::lifecycle::{ControlCommand, ControlError, Lifecycle};

/// Query: `dry_run`, `force`, `config=FILE`.
pub(super) async fn reload(
    lifecycle: &Lifecycle,
    query: &str,
) -> Result<AdminResponse, AdminResponse> {
    let params = command_params(query, ["dry_run", "force"], ["config"]);
    let ([dry_run, force], [config]) =
        params.map_err(|error| AdminResponse::bad_request(&error))?;
    expect_config(lifecycle, config).await?;
    let report = execute(lifecycle, ControlCommand::Reload { dry_run, force }).await?;
    Ok(AdminResponse::json(&report))
}

/// Query: `force`, `config=FILE`.
pub(super) async fn upgrade(
    lifecycle: &Lifecycle,
    query: &str,
) -> Result<AdminResponse, AdminResponse> {
    let params = command_params(query, ["force"], ["config"]);
    let ([force], [config]) = params.map_err(|error| AdminResponse::bad_request(&error))?;
    expect_config(lifecycle, config).await?;
    let report = execute(lifecycle, ControlCommand::Upgrade { force }).await?;
    Ok(AdminResponse::json(&report))
}

/// Without a query.
pub(super) async fn accept(
    lifecycle: &Lifecycle,
    upstream: String,
    query: &str,
) -> Result<AdminResponse, AdminResponse> {
    let params = command_params(query, [], []);
    let ([], []) = params.map_err(|error| AdminResponse::bad_request(&error))?;
    let report = execute(lifecycle, ControlCommand::AcceptPeers { upstream }).await?;
    Ok(AdminResponse::json(&report))
}

/// Checks that the instance runs the file that the client means; `None`: any file.
///
/// # Errors
/// 400: the path is relative. 409: the instance runs another file.
async fn expect_config(
    lifecycle: &Lifecycle,
    expected: Option<Vec<u8>>,
) -> Result<(), AdminResponse> {
    let Some(expected) = expected else {
        return Ok(());
    };
    let expected = PathBuf::from(OsString::from_vec(expected));
    if !expected.is_absolute() {
        let message = format!("`config={}`: write an absolute path", expected.display());
        return Err(AdminResponse::bad_request(&message));
    }
    let running = lifecycle.config_path().map(Path::to_owned);
    let message = match &running {
        Some(running) => format!(
            "the instance runs `{}`, not `{}`: nothing was changed; to run another file, restart the instance with it",
            running.display(),
            expected.display()
        ),
        None => "the instance has no configuration file: nothing was changed".to_owned(),
    };
    // Not on this thread, which serves requests: a file system may take long to answer.
    let is_running = move || running.is_some_and(|running| is_same_file(&running, &expected));
    let is_running = tokio::task::spawn_blocking(is_running).await;
    if is_running.unwrap_or(false) {
        Ok(())
    } else {
        Err(AdminResponse::error(StatusCode::CONFLICT, &message))
    }
}

/// Whether two paths lead to the same file, now: a symbolic link may be replaced while the instance runs.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    canonical(one) == canonical(other)
}

/// Sends a command to the server; returns its report.
pub(super) async fn execute(
    lifecycle: &Lifecycle,
    command: ControlCommand,
) -> Result<Value, AdminResponse> {
    let report = lifecycle.execute(command).await;
    report.map_err(|error| {
        let status = match error {
            ControlError::Failed(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ControlError::LimitExceeded(_) => StatusCode::PRECONDITION_FAILED,
            ControlError::NotFound(_) => StatusCode::NOT_FOUND,
            ControlError::Exists(_) | ControlError::Busy(_) => StatusCode::CONFLICT,
            ControlError::NeedsForce(_) => {
                return AdminResponse::needs_force(&error.to_string());
            }
        };
        AdminResponse::error(status, &error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbolic_link_is_the_same_file_and_a_copy_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("file"), "").unwrap();
        std::fs::copy(at("file"), at("copy")).unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        assert!(is_same_file(&at("link"), &at("file")));
        assert!(!is_same_file(&at("copy"), &at("file")));
        assert!(is_same_file(&at("gone"), &at("gone")));
    }
}
