//! Answers that take a while: away from the threads that serve, and only so many of them at once.

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::AdminResponse;

/// Answers that are worked out at once; others wait.
const MAX_WORKERS: usize = 2;

/// Questions with a body that are looked into at once; others are refused.
const MAX_BODY_READERS: usize = 2;

/// Where answers are worked out; each door has its own, so that nobody on the network keeps the control
/// socket waiting.
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
    /// Works an answer out when it is its turn.
    pub(super) async fn run(
        &self,
        work: impl FnOnce() -> AdminResponse + Send + 'static,
    ) -> AdminResponse {
        let workers = Arc::clone(&self.workers);
        let done = async move {
            // Its place is kept until the work is done, whoever still waits for it.
            let place = workers.acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                let answer = work();
                drop(place);
                answer
            })
            .await
        };
        done.await.unwrap_or_else(|error| {
            AdminResponse::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
        })
    }

    /// A place for a question with a body; it is free again when it is dropped.
    ///
    /// # Errors
    /// There is none: the answer says so.
    pub(super) fn acquire_reader(&self) -> Result<OwnedSemaphorePermit, AdminResponse> {
        let place = Arc::clone(&self.body_readers).try_acquire_owned();
        place.map_err(|_| {
            let why =
                format!("{MAX_BODY_READERS} such questions are being looked into; ask again later");
            AdminResponse::error(StatusCode::TOO_MANY_REQUESTS, &why)
        })
    }
}
