//! Runs slow work (long computation, disk I/O) on a blocking thread, so that it does not delay the threads that serve
//! requests.

use tokio::task::spawn_blocking;

use crate::lifecycle::ControlError;

/// Runs `work` on a blocking thread. A panic of `work` becomes [`ControlError::Failed`]. Must be called inside a
/// Tokio runtime.
pub(super) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, ControlError> {
    let joined = spawn_blocking(work).await;
    joined
        .unwrap_or_else(|error| Err(error.to_string()))
        .map_err(ControlError::Failed)
}
