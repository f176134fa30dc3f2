//! The background task that orders and renews certificates.
//!
//! ```text
//!           ┌─────────────────────────────────────────────────────────┐
//!           ▼                                                         │
//!  configuration ─► leader? ─► requests, due orders ─► start tasks ─► wait: task done, request, timer
//!                     │ no: another process orders; load its certificates
//! ```
//!
//! Dropping the [`CertManager`] aborts all orders. Little is lost: the next leader orders again, and the
//! authority can reuse its earlier validations. A write in progress ends before the lock is released.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::Error;
use super::account::{AcmeClient, AcmeClientConfig};
use super::authority::{AuthorityState, record_error};
use super::cert_task::{CertTask, CertTaskResult};
use super::storage::Storage;
use crate::clock;
use crate::config::{AcmeConfig, Config, DomainNames};
use crate::snapshot::Snapshot;
use crate::telemetry::Telemetry;
use crate::tls::{CertAction, CertRequest, ManagedCerts};

/// The limit of concurrent tasks, also of those that operators request.
const MAX_CONCURRENT_TASKS: usize = 4;

/// The longest sleep: renewals follow the wall clock, which may be set in the meantime.
const MAX_SLEEP: Duration = Duration::from_secs(60);

/// The interval at which a follower tries to become leader and looks for new certificates on the disk.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

/// The longest sleep while the storage or the root certificates cannot be read.
const ERROR_RETRY: Duration = Duration::from_secs(10);

/// Handle to the background task; dropping it ends the task.
#[derive(Debug)]
pub(crate) struct CertManager {
    task: AbortHandle,
    managed_certs: Arc<ManagedCerts>,
}

impl CertManager {
    /// Starts the task, which follows the current configuration in `snapshot`. Must be called within a runtime.
    pub(crate) fn start(snapshot: Arc<ArcSwap<Snapshot>>, telemetry: Arc<Telemetry>) -> Self {
        let managed_certs = Arc::clone(&snapshot.load().managed_certs);
        managed_certs.accept_requests(true);
        let task = ManagerTask {
            telemetry,
            managed_certs: Arc::clone(&managed_certs),
            authority: None,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            deferred_requests: Vec::new(),
        };
        let task = tokio::spawn(task.run(snapshot)).abort_handle();
        Self {
            task,
            managed_certs,
        }
    }
}

impl Drop for CertManager {
    fn drop(&mut self) {
        self.managed_certs.accept_requests(false);
        self.task.abort();
    }
}

struct ManagerTask {
    telemetry: Arc<Telemetry>,
    managed_certs: Arc<ManagedCerts>,
    authority: Option<AuthorityState>,
    tasks: JoinSet<CertTaskResult>,
    /// The certificate of each task, and the channel of the operator who requested it.
    running: HashMap<Id, (DomainNames, Option<RequestReply>)>,
    /// Requests that wait until another task has ended: one for their certificate, or any of [`MAX_CONCURRENT_TASKS`].
    deferred_requests: Vec<CertRequest>,
}

type RequestReply = oneshot::Sender<Result<(), String>>;

impl ManagerTask {
    async fn run(mut self, snapshot: Arc<ArcSwap<Snapshot>>) {
        loop {
            let current = snapshot.load_full();
            let pause = self.step(&current.config).await;
            drop(current);
            tokio::select! {
                Some(done) = self.tasks.join_next_with_id() => self.finish_task(done),
                () = self.managed_certs.wait_changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Starts the due tasks as the leader, or loads certificates as a follower; returns how long to sleep.
    async fn step(&mut self, config: &Config) -> Duration {
        let Some(acme) = &config.acme else {
            self.close_authority().await;
            self.reject_requests(
                "the configuration has no `acme` section, so no certificate can be ordered",
            );
            return MAX_SLEEP;
        };
        let is_leader = match self.open_authority(acme, config).await {
            Ok(()) => self.try_lead(config).await,
            Err(error) => Err(error),
        };
        match is_leader {
            Ok(true) => {
                self.handle_requests();
                self.start_due(config);
                self.publish_next_orders();
                self.until_next_due()
            }
            Ok(false) => {
                self.load_from_leader(config).await;
                FOLLOW_INTERVAL
            }
            Err(error) => {
                self.report_error(config, &error);
                ERROR_RETRY
            }
        }
    }

    /// Handles an error that prevents all orders: sets it in the status of every certificate, and logs it once.
    fn report_error(&mut self, config: &Config, error: &Error) {
        let message = error.to_string();
        let mut is_new = false;
        for names in config.acme_certificate_names() {
            is_new |= record_error(&self.managed_certs.get_or_insert(names), &message);
        }
        if is_new {
            log::error!("acme: no certificate can be ordered: {message}");
        }
        self.reject_requests(&message);
    }

    /// Aborts the orders in progress, waits for their operations on the storage, and releases the lock, so that another
    /// process can order.
    async fn close_authority(&mut self) {
        self.tasks.shutdown().await;
        for (names, _) in std::mem::take(&mut self.running).into_values() {
            self.managed_certs
                .get_or_insert(&names)
                .update_status(|status| status.order_in_progress = false);
        }
        self.managed_certs.set_shared_challenges(None);
        if let Some(authority) = self.authority.take() {
            drop(authority.client);
            authority.storage.release().await;
        }
    }

    /// Creates the client and the storage for the configured authority, if its configuration has changed.
    async fn open_authority(&mut self, acme: &AcmeConfig, config: &Config) -> Result<(), Error> {
        let ca = acme.ca.as_ref();
        let client_config = AcmeClientConfig {
            acme: acme.clone(),
            root_certs: ca
                .and_then(|ca| config.credentials.issuers.get(ca))
                .cloned(),
            eab_key: config.credentials.external_account.clone(),
        };
        if let Some(authority) = &self.authority
            && authority.client.config == client_config
        {
            return Ok(());
        }
        self.close_authority().await;
        let client = AcmeClient::new(client_config).await?;
        let challenges = client.storage.challenge_store();
        self.managed_certs
            .set_shared_challenges(Some(Arc::new(challenges)));
        self.authority = Some(AuthorityState::new(client));
        Ok(())
    }

    /// Tries to become the leader, the only process that orders; returns whether this process is the leader. A leader
    /// also loads the state of new certificates.
    async fn try_lead(&mut self, config: &Config) -> Result<bool, Error> {
        let Some(authority) = &mut self.authority else {
            return Ok(false);
        };
        if !authority.storage.is_locked() {
            // Another leader may have ordered certificates since these states were loaded.
            authority.certs.clear();
            if !authority.storage.run_blocking(Storage::try_lock).await? {
                return Ok(false);
            }
        }
        let configured = config.acme_certificate_names();
        authority.load_new(&configured, &self.managed_certs).await;
        Ok(true)
    }

    /// Loads the certificates that the leader has stored.
    async fn load_from_leader(&mut self, config: &Config) {
        self.reject_requests(
            "another process orders the certificates; send the request to that process",
        );
        let Some(authority) = &mut self.authority else {
            return;
        };
        for names in config.acme_certificate_names() {
            let cert_names = names.clone();
            let stamp = move |storage: &Storage| Ok(storage.stamp(&cert_names));
            let stamp = authority.storage.run_blocking(stamp).await;
            let stamp = stamp.unwrap_or_default();
            let cert = self.managed_certs.get_or_insert(names);
            if authority.file_stamps.get(names) != Some(&stamp)
                && authority.load_from_leader(cert).await
            {
                authority.file_stamps.insert(names.clone(), stamp);
            }
        }
    }

    /// Starts a task for each request, as far as the limit allows; the other requests wait.
    fn handle_requests(&mut self) {
        for request in self.take_requests() {
            let found = match &self.authority {
                Some(authority) => authority.find_by_name(&request.name),
                None => Err("this process orders no certificates".to_owned()),
            };
            match found {
                Ok(names) if self.is_full() || self.has_running_task(&names) => {
                    self.deferred_requests.push(request);
                }
                Ok(names) => self.start_task(&names, Some(request.action), Some(request.reply)),
                Err(message) => send_result(request.reply, Err(message)),
            }
        }
    }

    /// All waiting requests, the oldest first. Of those that had to wait, the ones of clients that have gone are dropped, so
    /// that repeated commands do not pile up.
    fn take_requests(&mut self) -> Vec<CertRequest> {
        let deferred = std::mem::take(&mut self.deferred_requests).into_iter();
        let deferred = deferred.filter(|request| !request.reply.is_closed());
        let new = std::iter::from_fn(|| self.managed_certs.next_request());
        deferred.chain(new).collect()
    }

    fn reject_requests(&mut self, message: &str) {
        for request in self.take_requests() {
            send_result(request.reply, Err(message.to_owned()));
        }
    }

    fn is_full(&self) -> bool {
        self.running.len() >= MAX_CONCURRENT_TASKS
    }

    /// Whether a task for one of these names is running. Two orders for one name would conflict: they would
    /// overwrite its TLS-ALPN-01 certificate, and authorities give both the same authorization.
    fn has_running_task(&self, names: &DomainNames) -> bool {
        let overlaps = |running: &DomainNames| {
            running
                .as_slice()
                .iter()
                .any(|name| names.as_slice().contains(name))
        };
        self.running.values().any(|(running, _)| overlaps(running))
    }

    fn start_due(&mut self, config: &Config) {
        let now = clock::wall().as_second();
        for names in config.acme_certificate_names() {
            if !self.is_full() && self.next_task(names).is_some_and(|next| next <= now) {
                self.start_task(names, None, None);
            }
        }
    }

    /// The time of the next task for a certificate, in seconds since 1970; `None`: one is running, or the state is
    /// not loaded.
    fn next_task(&self, names: &DomainNames) -> Option<i64> {
        let authority = self.authority.as_ref()?;
        let state = authority.certs.get(names)?;
        let next = authority.next_order(state).min(state.check_at);
        (!self.has_running_task(names)).then_some(next)
    }

    /// Sets the time of the next order in the status of each certificate without a running task.
    fn publish_next_orders(&self) {
        let Some(authority) = &self.authority else {
            return;
        };
        for (names, state) in &authority.certs {
            if !self.has_running_task(names) {
                let next = authority.next_order(state);
                let cert = self.managed_certs.get_or_insert(names);
                cert.update_status(|status| status.next_order = Some(next));
            }
        }
    }

    fn start_task(
        &mut self,
        names: &DomainNames,
        action: Option<CertAction>,
        reply: Option<RequestReply>,
    ) {
        let Some(authority) = &self.authority else {
            return;
        };
        let Some(state) = authority.certs.get(names).cloned() else {
            return;
        };
        let task = CertTask {
            client: Arc::clone(&authority.client),
            managed_certs: Arc::clone(&self.managed_certs),
            cert: self.managed_certs.get_or_insert(names),
            action,
        };
        let id = self.tasks.spawn(task.run(state)).id();
        self.running.insert(id, (names.clone(), reply));
    }

    fn finish_task(&mut self, ended: Result<(Id, CertTaskResult), JoinError>) {
        let (id, done) = match ended {
            Ok((id, done)) => (id, Some(done)),
            Err(error) => (error.id(), None),
        };
        // Always there: a task stays in `running` until it ends here, or its authority is closed.
        let Some((names, reply)) = self.running.remove(&id) else {
            return;
        };
        self.managed_certs
            .get_or_insert(&names)
            .update_status(|status| status.order_in_progress = false);
        let Some(authority) = &mut self.authority else {
            return;
        };
        let done = done.unwrap_or_else(|| CertTaskResult::panicked(authority.certs.get(&names)));
        if let Some(outcome) = done.order_outcome {
            let metrics = self.telemetry.metrics.orders(names.primary());
            metrics.orders.inc(outcome);
        }
        if let Some(reply) = reply {
            send_result(reply, done.result);
        }
        authority.certs.insert(names, done.state);
    }

    /// How long to sleep if no task ends and no request comes.
    fn until_next_due(&self) -> Duration {
        let now = clock::wall().as_second();
        let names = self
            .authority
            .iter()
            .flat_map(|authority| authority.certs.keys());
        let next = names.filter_map(|names| self.next_task(names)).min();
        let left = next.map_or(i64::MAX, |next| next.saturating_sub(now));
        let is_loaded = |authority: &AuthorityState| authority.load_errors.is_empty();
        let longest = if self.authority.iter().all(is_loaded) {
            MAX_SLEEP
        } else {
            ERROR_RETRY
        };
        if self.is_full() {
            // No due task can start before another task ends, which also ends the sleep.
            longest
        } else {
            Duration::from_secs(left.max(0).unsigned_abs()).min(longest)
        }
    }
}

fn send_result(reply: RequestReply, result: Result<(), String>) {
    // Fails if the operator's request was cancelled in the meantime.
    let _ = reply.send(result);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config;

    /// A configuration with certificates of these names, from an authority that refuses connections.
    fn config(directory: &std::path::Path, names: &[String]) -> Config {
        let made = rcgen::generate_simple_self_signed(["ca.test".to_owned()]).unwrap();
        fs::write(directory.join("ca.pem"), made.cert.pem()).unwrap();
        let certificates: Vec<_> = names
            .iter()
            .map(|name| format!("{{acme: {name}}}"))
            .collect();
        let yaml = format!(
            "acme: {{directory: \"https://127.0.0.1:1/dir\", storage: {0}/acme, ca: {0}/ca.pem, challenge: tls-alpn-01}}\n\
             listeners: [{{address: 127.0.0.1:443, tls: {{certificates: [{1}]}}}}]\n\
             routes: [{{upstream: app}}]\nupstreams: {{app: {{peers: [127.0.0.1:9001]}}}}\n",
            directory.display(),
            certificates.join(", ")
        );
        let path = directory.join("clockwise.yaml");
        fs::write(&path, yaml).unwrap();
        config::load(&path).unwrap()
    }

    #[tokio::test]
    async fn requests_above_the_limit_of_tasks_wait_for_a_task_to_end() {
        let directory = tempfile::tempdir().unwrap();
        let names: Vec<_> = (0..3 * MAX_CONCURRENT_TASKS)
            .map(|number| format!("n{number}.test"))
            .collect();
        let config = config(directory.path(), &names);
        let managed_certs = Arc::new(ManagedCerts::default());
        managed_certs.accept_requests(true);
        let mut manager = ManagerTask {
            telemetry: Arc::new(Telemetry::open(&config).unwrap()),
            managed_certs: Arc::clone(&managed_certs),
            authority: None,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            deferred_requests: Vec::new(),
        };
        let mut requests = JoinSet::new();
        for name in names.clone() {
            let managed_certs = Arc::clone(&managed_certs);
            requests.spawn(async move { managed_certs.request(&name, CertAction::Renew).await });
        }
        // This thread polls each of them once.
        tokio::task::yield_now().await;
        manager.step(&config).await;
        assert_eq!(manager.running.len(), MAX_CONCURRENT_TASKS);
        assert_eq!(manager.deferred_requests.len(), 2 * MAX_CONCURRENT_TASKS);
        while manager.running.values().any(|(_, reply)| reply.is_some()) {
            let done = manager.tasks.join_next_with_id().await.unwrap();
            manager.finish_task(done);
            manager.step(&config).await;
            assert!(manager.running.len() <= MAX_CONCURRENT_TASKS);
        }
        let results = requests.join_all().await;
        assert_eq!(results.len(), names.len());
        assert!(results.iter().all(Result::is_err), "{results:?}");
    }
}
