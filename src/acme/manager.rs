//! Keeps the certificates: one task that knows when each is due, has it ordered, and tells how it went.
//!
//! ```text
//!           ┌────────────────────────────────────────────────────────────┐
//!           ▼                                                            │
//!  configuration ─► lead? ─► wishes, what is due ─► orders begin ─► something happens, or time passes
//!                     │ no: another process orders; what it puts on the disk is shown
//! ```
//!
//! Dropping the [`Keeper`] ends it at once: an order under way is begun anew by whoever leads next, and
//! an authority that has looked already need not look again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::Error;
use super::account::{AcmeClient, AcmeClientConfig, blocking_io};
use super::cert_task::{self, CertState, CertTask, CertTaskResult};
use super::storage::{self, FileStamp, LeaderLock, Storage};
use crate::clock;
use crate::config::{AcmeConfig, Config, DomainNames};
use crate::snapshot::Snapshot;
use crate::telemetry::Telemetry;
use crate::tls::{CertAction, CertRequest, ManagedCert, ManagedCerts};

/// How many orders may be under way at once.
const MAX_CONCURRENT_ORDERS: usize = 4;

/// How long the task sleeps at most: the wall clock may be set.
const MAX_SLEEP: Duration = Duration::from_secs(60);

/// How often a process that does not lead looks whether it may, and what is new on the disk.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait where the storage, or the system's authorities, cannot be read.
const ERROR_RETRY: Duration = Duration::from_secs(10);

/// The task that keeps the certificates; it ends when this is dropped.
#[derive(Debug)]
pub struct CertManager {
    task: AbortHandle,
    managed_certs: Arc<ManagedCerts>,
}

impl CertManager {
    /// Begins to keep the certificates of whatever configuration is in force. Call within a runtime.
    pub fn start(snapshot: Arc<ArcSwap<Snapshot>>, telemetry: Arc<Telemetry>) -> Self {
        let issued = Arc::clone(&snapshot.load().managed_certs);
        issued.accept_requests(true);
        let task = ManagerTask {
            snapshot,
            telemetry,
            managed_certs: Arc::clone(&issued),
            authority: None,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            deferred_requests: Vec::new(),
        };
        let task = tokio::spawn(task.run()).abort_handle();
        Self {
            task,
            managed_certs: issued,
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
    snapshot: Arc<ArcSwap<Snapshot>>,
    telemetry: Arc<Telemetry>,
    managed_certs: Arc<ManagedCerts>,
    authority: Option<AuthorityState>,
    tasks: JoinSet<CertTaskResult>,
    /// Whose orders they are, and who waits for each.
    running: HashMap<Id, (DomainNames, Option<RequestReply>)>,
    /// What is to be done when an order under way has ended.
    deferred_requests: Vec<CertRequest>,
}

type RequestReply = oneshot::Sender<Result<(), String>>;

/// All that belongs to one way of ordering.
struct AuthorityState {
    client: Arc<AcmeClient>,
    storage: Storage,
    /// `None`: another process leads.
    lock: Option<LeaderLock>,
    certs: BTreeMap<DomainNames, CertState>,
    /// What was on the disk when another process led.
    file_stamps: BTreeMap<DomainNames, Option<FileStamp>>,
}

impl AuthorityState {
    async fn reload_from_disk(&self, slot: Arc<ManagedCert>) {
        let known = cert_task::load_state(self.storage.clone(), Arc::clone(&slot)).await;
        let before = self.client.config.acme.renew_before;
        slot.update_status(|status| {
            status.ordered_elsewhere = true;
            status.next_order = known.as_ref().ok().map(|known| known.due(before));
        });
    }
}

impl ManagerTask {
    async fn run(mut self) {
        loop {
            let snapshot = self.snapshot.load_full();
            let pause = self.step(&snapshot.config).await;
            drop(snapshot);
            tokio::select! {
                Some(done) = self.tasks.join_next_with_id() => self.finish_task(done),
                () = self.managed_certs.wait_changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Does what there is to do; how long there will be nothing, as far as is known.
    async fn step(&mut self, config: &Config) -> Duration {
        let Some(acme) = &config.acme else {
            self.close_authority();
            self.reject_requests("nothing is ordered here: the configuration has no `acme`");
            return MAX_SLEEP;
        };
        let leads = match self.open_authority(acme, config).await {
            Ok(()) => self.try_lead(config).await,
            Err(error) => Err(error),
        };
        match leads {
            Ok(true) => {
                self.handle_requests();
                self.start_due(config);
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

    /// Nothing can be ordered: whoever looks is told why.
    fn report_error(&mut self, config: &Config, error: &Error) {
        let (now, why) = (clock::wall().as_second(), error.to_string());
        let mut known = true;
        for names in config.acme_certificate_names() {
            let slot = self.managed_certs.get_or_insert(names);
            known &= slot
                .status
                .load()
                .error
                .as_ref()
                .is_some_and(|(_, said)| *said == why);
            slot.update_status(|status| status.error = Some((now, why.clone())));
        }
        if !known {
            log::error!("acme: nothing can be ordered: {why}");
        }
        self.reject_requests(&why);
    }

    /// Orders under way are given up: they are somebody else's now.
    fn close_authority(&mut self) {
        self.tasks.abort_all();
        for (names, _) in std::mem::take(&mut self.running).into_values() {
            self.managed_certs
                .get_or_insert(&names)
                .update_status(|status| status.order_in_progress = false);
        }
        self.authority = None;
        self.managed_certs.set_shared_challenges(None);
    }

    async fn open_authority(&mut self, acme: &AcmeConfig, config: &Config) -> Result<(), Error> {
        let ca = acme.ca.as_ref();
        let terms = AcmeClientConfig {
            acme: acme.clone(),
            root_certs: ca
                .and_then(|ca| config.credentials.issuers.get(ca))
                .cloned(),
            eab_key: config.credentials.external_account.clone(),
        };
        if let Some(office) = &self.authority
            && office.client.config == terms
        {
            return Ok(());
        }
        self.close_authority();
        let authority = AcmeClient::new(terms).await?;
        let answers = authority.storage.challenge_store();
        self.managed_certs
            .set_shared_challenges(Some(Arc::new(answers)));
        self.authority = Some(AuthorityState {
            storage: authority.storage.clone(),
            client: Arc::new(authority),
            lock: None,
            certs: BTreeMap::new(),
            file_stamps: BTreeMap::new(),
        });
        Ok(())
    }

    /// Whether this process orders; what is on the disk is known then.
    async fn try_lead(&mut self, config: &Config) -> Result<bool, Error> {
        let Some(office) = &mut self.authority else {
            return Ok(false);
        };
        if office.lock.is_none() {
            let storage = office.storage.clone();
            office.lock = blocking_io(move || try_lock(&storage)).await?;
            // Whoever led before may have ordered since.
            office.certs.clear();
        }
        if office.lock.is_none() {
            return Ok(false);
        }
        let wanted = config.acme_certificate_names();
        office.certs.retain(|names, _| wanted.contains(names));
        for names in wanted {
            if !office.certs.contains_key(names) {
                let slot = self.managed_certs.get_or_insert(names);
                slot.update_status(|status| status.ordered_elsewhere = false);
                let known = cert_task::load_state(office.storage.clone(), slot).await?;
                office.certs.insert(names.clone(), known);
            }
        }
        Ok(true)
    }

    /// Shows what another process has put on the disk.
    async fn load_from_leader(&mut self, config: &Config) {
        self.reject_requests("another process orders the certificates; ask that one");
        let Some(office) = &mut self.authority else {
            return;
        };
        for names in config.acme_certificate_names() {
            let (storage, wanted) = (office.storage.clone(), names.clone());
            let stamp = blocking_io(move || Ok(storage.stamp(&wanted))).await;
            let stamp = stamp.unwrap_or_default();
            if office.file_stamps.get(names) != Some(&stamp) {
                office.file_stamps.insert(names.clone(), stamp);
                office
                    .reload_from_disk(self.managed_certs.get_or_insert(names))
                    .await;
            }
        }
    }

    fn handle_requests(&mut self) {
        for wish in self.take_requests() {
            let Some(names) = self.find_by_name(&wish.name) else {
                let message = format!("no certificate that is ordered is called `{}`", wish.name);
                send_result(wish.reply, Err(message));
                continue;
            };
            if self.has_running_order(&names) {
                self.deferred_requests.push(wish);
            } else {
                self.start_task(&names, Some(wish.action), Some(wish.reply));
            }
        }
    }

    /// The wishes that wait, the oldest first.
    fn take_requests(&mut self) -> Vec<CertRequest> {
        let new = std::iter::from_fn(|| self.managed_certs.next_request());
        std::mem::take(&mut self.deferred_requests)
            .into_iter()
            .chain(new)
            .collect()
    }

    fn reject_requests(&mut self, why: &str) {
        for wish in self.take_requests() {
            send_result(wish.reply, Err(why.to_owned()));
        }
    }

    fn find_by_name(&self, name: &str) -> Option<DomainNames> {
        let mut known = self.authority.as_ref()?.certs.keys();
        known.find(|names| names.primary() == name).cloned()
    }

    /// Whether an order is under way for one of these names. Two for one name would be in each other's way:
    /// there is one place for an answer, and authorities ask the same of both.
    fn has_running_order(&self, names: &DomainNames) -> bool {
        let shares = |busy: &DomainNames| {
            busy.as_slice()
                .iter()
                .any(|name| names.as_slice().contains(name))
        };
        self.running.values().any(|(busy, _)| shares(busy))
    }

    fn start_due(&mut self, config: &Config) {
        let now = clock::wall().as_second();
        for names in config.acme_certificate_names() {
            if self.running.len() < MAX_CONCURRENT_ORDERS
                && self.next_due(names).is_some_and(|next| next <= now)
            {
                self.start_task(names, None, None);
            }
        }
    }

    /// When there is something to do for a certificate; `None`: it is being done.
    fn next_due(&self, names: &DomainNames) -> Option<i64> {
        let office = self
            .authority
            .as_ref()
            .filter(|_| !self.has_running_order(names))?;
        let known = office.certs.get(names)?;
        let due = known.due(office.client.config.acme.renew_before);
        let slot = self.managed_certs.get_or_insert(names);
        slot.update_status(|status| status.next_order = Some(due));
        Some(due.min(known.check_at))
    }

    fn start_task(
        &mut self,
        names: &DomainNames,
        wish: Option<CertAction>,
        reply: Option<RequestReply>,
    ) {
        let Some(office) = &self.authority else {
            return;
        };
        let Some(known) = office.certs.get(names).cloned() else {
            return;
        };
        let slot = self.managed_certs.get_or_insert(names);
        let work = CertTask {
            client: Arc::clone(&office.client),
            managed_certs: Arc::clone(&self.managed_certs),
            cert: slot,
            action: wish,
        };
        let id = self.tasks.spawn(work.run(known)).id();
        self.running.insert(id, (names.clone(), reply));
    }

    fn finish_task(&mut self, ended: Result<(Id, CertTaskResult), JoinError>) {
        let (id, done) = match ended {
            Ok((id, done)) => (id, Some(done)),
            Err(error) => (error.id(), None),
        };
        // What belongs to an office that is closed is nobody's.
        let Some((names, reply)) = self.running.remove(&id) else {
            return;
        };
        self.managed_certs
            .get_or_insert(&names)
            .update_status(|status| status.order_in_progress = false);
        let Some(office) = &mut self.authority else {
            return;
        };
        let done = done.unwrap_or_else(|| CertTaskResult::panicked(office.certs.get(&names)));
        if let Some(outcome) = done.order_outcome {
            let metrics = self.telemetry.metrics.orders(names.primary());
            metrics.orders.inc(outcome);
        }
        if let Some(reply) = reply {
            send_result(reply, done.result);
        }
        office.certs.insert(names, done.state);
    }

    fn until_next_due(&self) -> Duration {
        let now = clock::wall().as_second();
        let known = self.authority.iter().flat_map(|office| office.certs.keys());
        let next = known.filter_map(|names| self.next_due(names)).min();
        let left = next.map_or(i64::MAX, |next| next.saturating_sub(now));
        if self.running.len() < MAX_CONCURRENT_ORDERS {
            Duration::from_secs(left.max(0).unsigned_abs()).min(MAX_SLEEP)
        } else {
            // What is due has no place until an order ends, which is heard of.
            MAX_SLEEP
        }
    }
}

/// Begins to lead, if nobody else does. `None`: another process does.
fn try_lock(storage: &Storage) -> Result<Option<LeaderLock>, storage::Error> {
    storage.create_directories()?;
    let lock = storage.try_lock()?;
    if lock.is_some() {
        storage.challenge_store().clear()?;
    }
    Ok(lock)
}

/// Who asked may have left meanwhile.
fn send_result(reply: RequestReply, result: Result<(), String>) {
    let _ = reply.send(result);
}
