//! Runs long computations on blocking threads, so that the threads that serve requests stay free.

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;

use super::response::AdminResponse;

/// The most computations that run at the same time; further ones wait.
const MAX_WORKERS: usize = 2;

/// The most requests with a body that are processed at the same time; further ones get 429.
const MAX_BODY_READERS: usize = 2;

/// Limits how many computations of the admin API run at the same time. Each admin listener has its own pool, so
/// that load on the admin address does not delay the control socket.
#[derive(Debug)]
pub(super) struct WorkerPool {
    workers: Arc<Semaphore>,
    body_readers: Arc<Semaphore>,
}

impl Default for WorkerPool {
    fn default() -> Self {
        Self {
            workers: Arc::new(Semaphore::new(MAX_WORKERS)),
            body_readers: Arc::new(Semaphore::new(MAX_BODY_READERS)),
        }
    }
}

impl WorkerPool {
    /// Runs `work` on a blocking thread as soon as a permit is free.
    pub(super) async fn run(
        &self,
        work: impl FnOnce() -> Result<AdminResponse, AdminResponse> + Send + 'static,
    ) -> Result<AdminResponse, AdminResponse> {
        let permit = Arc::clone(&self.workers).acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            // The work continues if its client disconnects, so the permit moves into it.
            let _permit = permit;
            work()
        });
        done.await.unwrap_or_else(|error| Err(panicked(&error)))
    }

    /// The permit for a request with a body; released when dropped.
    ///
    /// # Errors
    /// 429: all permits are in use.
    pub(super) fn acquire_reader(&self) -> Result<OwnedSemaphorePermit, AdminResponse> {
        let permit = Arc::clone(&self.body_readers).try_acquire_owned();
        permit.map_err(|_| {
            let message = format!(
                "{MAX_BODY_READERS} requests with a body are being processed; try again later"
            );
            AdminResponse::error(StatusCode::TOO_MANY_REQUESTS, &message)
        })
    }
}

/// 500: the work panicked.
pub(super) fn panicked(error: &JoinError) -> AdminResponse {
    AdminResponse::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
}
