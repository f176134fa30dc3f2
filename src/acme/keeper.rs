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
use super::account::{Authority, Terms, blocking};
use super::storage::{self, Lock, Stamp, Storage};
use super::work::{self, Done, Known, Work};
use crate::clock;
use crate::config::{Acme, Config, Names};
use crate::issued::{Deed, Issued, Slot, Wish};
use crate::snapshot::Snapshot;
use crate::telemetry::Telemetry;

/// How many orders may be under way at once.
const MOST: usize = 4;

/// How long the task sleeps at most: the wall clock may be set.
const LONGEST: Duration = Duration::from_secs(60);

/// How often a process that does not lead looks whether it may, and what is new on the disk.
const FOLLOW: Duration = Duration::from_secs(1);

/// How long to wait where the storage, or the system's authorities, cannot be read.
const MEND: Duration = Duration::from_secs(10);

/// The task that keeps the certificates; it ends when this is dropped.
#[derive(Debug)]
pub struct Keeper {
    task: AbortHandle,
    issued: Arc<Issued>,
}

impl Keeper {
    /// Begins to keep the certificates of whatever configuration is in force. Call within a runtime.
    pub fn start(snapshot: Arc<ArcSwap<Snapshot>>, telemetry: Arc<Telemetry>) -> Self {
        let issued = Arc::clone(&snapshot.load().issued);
        issued.hear_wishes(true);
        let task = Task {
            snapshot,
            telemetry,
            issued: Arc::clone(&issued),
            office: None,
            orders: JoinSet::new(),
            under_way: HashMap::new(),
            wishes: Vec::new(),
        };
        let task = tokio::spawn(task.run()).abort_handle();
        Self { task, issued }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.issued.hear_wishes(false);
        self.task.abort();
    }
}

struct Task {
    snapshot: Arc<ArcSwap<Snapshot>>,
    telemetry: Arc<Telemetry>,
    issued: Arc<Issued>,
    office: Option<Office>,
    orders: JoinSet<Done>,
    /// Whose orders they are, and who waits for each.
    under_way: HashMap<Id, (Names, Option<Reply>)>,
    /// What is to be done when an order under way has ended.
    wishes: Vec<Wish>,
}

type Reply = oneshot::Sender<Result<(), String>>;

/// All that belongs to one way of ordering.
struct Office {
    authority: Arc<Authority>,
    storage: Storage,
    /// `None`: another process leads.
    lock: Option<Lock>,
    known: BTreeMap<Names, Known>,
    /// What was on the disk when another process led.
    seen: BTreeMap<Names, Option<Stamp>>,
}

impl Office {
    async fn look(&self, slot: Arc<Slot>) {
        let known = work::look(self.storage.clone(), Arc::clone(&slot)).await;
        let before = self.authority.terms.acme.renew_before;
        slot.note(|status| {
            status.elsewhere = true;
            status.next = known.as_ref().ok().map(|known| known.due(before));
        });
    }
}

impl Task {
    async fn run(mut self) {
        loop {
            let snapshot = self.snapshot.load_full();
            let pause = self.attend(&snapshot.config).await;
            drop(snapshot);
            tokio::select! {
                Some(done) = self.orders.join_next_with_id() => self.finish(done),
                () = self.issued.news() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Does what there is to do; how long there will be nothing, as far as is known.
    async fn attend(&mut self, config: &Config) -> Duration {
        let Some(acme) = &config.acme else {
            self.close_office();
            self.refuse("nothing is ordered here: the configuration has no `acme`");
            return LONGEST;
        };
        let leads = match self.open_office(acme, config).await {
            Ok(()) => self.lead(config).await,
            Err(error) => Err(error),
        };
        match leads {
            Ok(true) => {
                self.hear_wishes();
                self.begin_due(config);
                self.pause()
            }
            Ok(false) => {
                self.follow(config).await;
                FOLLOW
            }
            Err(error) => {
                self.complain(config, &error);
                MEND
            }
        }
    }

    /// Nothing can be ordered: whoever looks is told why.
    fn complain(&mut self, config: &Config, error: &Error) {
        let (now, why) = (clock::wall().as_second(), error.to_string());
        let mut known = true;
        for names in config.ordered() {
            let slot = self.issued.slot(names);
            known &= slot
                .status
                .load()
                .error
                .as_ref()
                .is_some_and(|(_, said)| *said == why);
            slot.note(|status| status.error = Some((now, why.clone())));
        }
        if !known {
            log::error!("acme: nothing can be ordered: {why}");
        }
        self.refuse(&why);
    }

    /// Orders under way are given up: they are somebody else's now.
    fn close_office(&mut self) {
        self.orders.abort_all();
        for (names, _) in std::mem::take(&mut self.under_way).into_values() {
            self.issued.slot(&names).note(|status| status.busy = false);
        }
        self.office = None;
        self.issued.ask_others(None);
    }

    async fn open_office(&mut self, acme: &Acme, config: &Config) -> Result<(), Error> {
        let ca = acme.ca.as_ref();
        let terms = Terms {
            acme: acme.clone(),
            authorities: ca
                .and_then(|ca| config.credentials.issuers.get(ca))
                .cloned(),
            external: config.credentials.external_account.clone(),
        };
        if let Some(office) = &self.office
            && office.authority.terms == terms
        {
            return Ok(());
        }
        self.close_office();
        let authority = Authority::new(terms).await?;
        let answers = authority.storage.answers();
        self.issued.ask_others(Some(Arc::new(answers)));
        self.office = Some(Office {
            storage: authority.storage.clone(),
            authority: Arc::new(authority),
            lock: None,
            known: BTreeMap::new(),
            seen: BTreeMap::new(),
        });
        Ok(())
    }

    /// Whether this process orders; what is on the disk is known then.
    async fn lead(&mut self, config: &Config) -> Result<bool, Error> {
        let Some(office) = &mut self.office else {
            return Ok(false);
        };
        if office.lock.is_none() {
            let storage = office.storage.clone();
            office.lock = blocking(move || take_over(&storage)).await?;
            // Whoever led before may have ordered since.
            office.known.clear();
        }
        if office.lock.is_none() {
            return Ok(false);
        }
        let wanted = config.ordered();
        office.known.retain(|names, _| wanted.contains(names));
        for names in wanted {
            if !office.known.contains_key(names) {
                let slot = self.issued.slot(names);
                slot.note(|status| status.elsewhere = false);
                let known = work::look(office.storage.clone(), slot).await?;
                office.known.insert(names.clone(), known);
            }
        }
        Ok(true)
    }

    /// Shows what another process has put on the disk.
    async fn follow(&mut self, config: &Config) {
        self.refuse("another process orders the certificates; ask that one");
        let Some(office) = &mut self.office else {
            return;
        };
        for names in config.ordered() {
            let (storage, wanted) = (office.storage.clone(), names.clone());
            let stamp = blocking(move || Ok(storage.stamp(&wanted))).await;
            let stamp = stamp.unwrap_or_default();
            if office.seen.get(names) != Some(&stamp) {
                office.seen.insert(names.clone(), stamp);
                office.look(self.issued.slot(names)).await;
            }
        }
    }

    fn hear_wishes(&mut self) {
        for wish in self.heard() {
            let Some(names) = self.called(&wish.name) else {
                let message = format!("no certificate that is ordered is called `{}`", wish.name);
                answer(wish.reply, Err(message));
                continue;
            };
            if self.is_busy(&names) {
                self.wishes.push(wish);
            } else {
                self.begin(&names, Some(wish.what), Some(wish.reply));
            }
        }
    }

    /// The wishes that wait, the oldest first.
    fn heard(&mut self) -> Vec<Wish> {
        let new = std::iter::from_fn(|| self.issued.next_wish());
        std::mem::take(&mut self.wishes)
            .into_iter()
            .chain(new)
            .collect()
    }

    fn refuse(&mut self, why: &str) {
        for wish in self.heard() {
            answer(wish.reply, Err(why.to_owned()));
        }
    }

    fn called(&self, name: &str) -> Option<Names> {
        let mut known = self.office.as_ref()?.known.keys();
        known.find(|names| names.first() == name).cloned()
    }

    /// Whether an order is under way for one of these names. Two for one name would be in each other's way:
    /// there is one place for an answer, and authorities ask the same of both.
    fn is_busy(&self, names: &Names) -> bool {
        let shares = |busy: &Names| busy.all().iter().any(|name| names.all().contains(name));
        self.under_way.values().any(|(busy, _)| shares(busy))
    }

    fn begin_due(&mut self, config: &Config) {
        let now = clock::wall().as_second();
        for names in config.ordered() {
            if self.under_way.len() < MOST && self.next(names).is_some_and(|next| next <= now) {
                self.begin(names, None, None);
            }
        }
    }

    /// When there is something to do for a certificate; `None`: it is being done.
    fn next(&self, names: &Names) -> Option<i64> {
        let office = self.office.as_ref().filter(|_| !self.is_busy(names))?;
        let known = office.known.get(names)?;
        let due = known.due(office.authority.terms.acme.renew_before);
        let slot = self.issued.slot(names);
        slot.note(|status| status.next = Some(due));
        Some(due.min(known.look_at))
    }

    fn begin(&mut self, names: &Names, wish: Option<Deed>, reply: Option<Reply>) {
        let Some(office) = &self.office else { return };
        let Some(known) = office.known.get(names).cloned() else {
            return;
        };
        let slot = self.issued.slot(names);
        let work = Work {
            authority: Arc::clone(&office.authority),
            issued: Arc::clone(&self.issued),
            slot,
            wish,
        };
        let id = self.orders.spawn(work.run(known)).id();
        self.under_way.insert(id, (names.clone(), reply));
    }

    fn finish(&mut self, ended: Result<(Id, Done), JoinError>) {
        let (id, done) = match ended {
            Ok((id, done)) => (id, Some(done)),
            Err(error) => (error.id(), None),
        };
        // What belongs to an office that is closed is nobody's.
        let Some((names, reply)) = self.under_way.remove(&id) else {
            return;
        };
        self.issued.slot(&names).note(|status| status.busy = false);
        let Some(office) = &mut self.office else {
            return;
        };
        let done = done.unwrap_or_else(|| Done::panicked(office.known.get(&names)));
        if let Some(outcome) = done.ordered {
            let metrics = self.telemetry.metrics.orders(names.first());
            metrics.orders.inc(outcome);
        }
        if let Some(reply) = reply {
            answer(reply, done.result);
        }
        office.known.insert(names, done.known);
    }

    fn pause(&self) -> Duration {
        let now = clock::wall().as_second();
        let known = self.office.iter().flat_map(|office| office.known.keys());
        let next = known.filter_map(|names| self.next(names)).min();
        let left = next.map_or(i64::MAX, |next| next.saturating_sub(now));
        if self.under_way.len() < MOST {
            Duration::from_secs(left.max(0).unsigned_abs()).min(LONGEST)
        } else {
            // What is due has no place until an order ends, which is heard of.
            LONGEST
        }
    }
}

/// Begins to lead, if nobody else does. `None`: another process does.
fn take_over(storage: &Storage) -> Result<Option<Lock>, storage::Error> {
    storage.prepare()?;
    let lock = storage.lock()?;
    if lock.is_some() {
        storage.answers().clear()?;
    }
    Ok(lock)
}

/// Who asked may have left meanwhile.
fn answer(reply: Reply, result: Result<(), String>) {
    let _ = reply.send(result);
}
