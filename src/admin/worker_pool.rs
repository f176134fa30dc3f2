//! Long answers: computed away from the threads that serve requests, and only a few at once.

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;

use super::response::AdminResponse;

/// Answers that are computed at once; further ones wait.
const MAX_WORKERS: usize = 2;

/// Requests with a body that are read at once; further ones get 429.
const MAX_BODY_READERS: usize = 2;

/// Limits how much the admin API computes at once. Each admin listener has its own pool, so that load
/// on the admin address never keeps the control socket waiting.
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
            // The work goes on when its client has gone, so the permit belongs to the work.
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
