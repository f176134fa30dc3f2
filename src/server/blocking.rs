//! Work that takes long or waits for a disk, on a thread beside those that serve.

use tokio::task::spawn_blocking;

use crate::lifecycle::ControlError;

/// Runs `work` on a blocking thread. Call within the runtime.
pub(super) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, ControlError> {
    let joined = spawn_blocking(work).await;
    joined
        .unwrap_or_else(|error| Err(error.to_string()))
        .map_err(ControlError::Failed)
}
