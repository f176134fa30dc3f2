//! The task that watches a prefix of keys, and a single read of it.
//!
//! A lost connection is followed by a complete list, never by a watch from where the last one ended: after a restore from
//! a backup such a watch waits for ever, and after a compaction it fails. The list is compared with the one before.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::sleep;

use super::connection::{EtcdConnection, EtcdWatch, WatchMessage};
use super::entries::EtcdEntries;
use super::found_keys::FoundKeys;
use super::position::StorePosition;
use super::reconnect::Reconnect;
use crate::clock;
use crate::config::{EtcdAccess, PeerConfig, PeerListRules};
use crate::discovery::update::{FoundList, SourceId, UpdateSender};

/// How long a lost cluster is not reported: the time for another member, an election or a restart.
const LOSS_GRACE: Duration = Duration::from_secs(3);

/// How long changes are gathered before they are sent as one list. The list waits for `settle` then.
const GATHER: Duration = Duration::from_millis(10);

/// The time between two checks that the watch has lost nothing, without the spread.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The largest deviation of that time, as a share of it, in either direction.
const CHECK_SPREAD: f64 = 0.1;

/// The most keys of a prefix: as many peers as an upstream can have.
const MAX_KEYS: usize = 10_000;

/// Keys that are parsed before other tasks of the thread run.
const KEYS_AT_ONCE: usize = 100;

/// A prefix and what is known of its keys.
pub(in crate::discovery) struct WatchedPrefix {
    prefix: String,
    access: EtcdAccess,
    entries: EtcdEntries,
    /// The position of the last list or message; `None`: there was none yet.
    position: Option<StorePosition>,
    /// All changes up to this revision are in `entries`.
    applied: i64,
    reconnect: Reconnect,
}

/// Why a session with a member has ended.
enum SessionEnd {
    /// Nothing receives the lists any more.
    NoReceiver,
    /// The connection or the watch is lost, for this reason.
    Lost(String),
}

impl From<String> for SessionEnd {
    fn from(reason: String) -> Self {
        Self::Lost(reason)
    }
}

async fn sleep_until(at: Duration) {
    sleep(at.saturating_sub(clock::since_start())).await;
}

fn elapsed_since(at: Duration) -> Duration {
    clock::since_start().saturating_sub(at)
}

/// Reads the keys of a prefix once, for a command without an instance.
///
/// # Errors
/// The reason why no member has yielded a list.
pub(crate) async fn read_etcd_keys(
    prefix: String,
    rules: PeerListRules,
    access: Option<EtcdAccess>,
) -> Result<FoundKeys, String> {
    WatchedPrefix::new(prefix, rules, access, &[])?.read().await
}

impl WatchedPrefix {
    /// `known`: the last list, of an earlier process perhaps.
    ///
    /// # Errors
    /// `etcd` is not configured.
    pub(in crate::discovery) fn new(
        prefix: String,
        rules: PeerListRules,
        access: Option<EtcdAccess>,
        known: &[PeerConfig],
    ) -> Result<Self, String> {
        let access = access.ok_or("`etcd` is not configured")?;
        Ok(Self {
            entries: EtcdEntries::new(prefix.clone(), rules, known),
            prefix,
            position: None,
            applied: 0,
            reconnect: Reconnect::new(access.endpoints.len(), rand::random()),
            access,
        })
    }

    /// Reads the keys once, from the first member that answers.
    ///
    /// # Errors
    /// The reason of the last member.
    pub(in crate::discovery) async fn read(mut self) -> Result<FoundKeys, String> {
        let mut reason = "`etcd` has no endpoints".to_owned();
        for _ in 0..self.access.endpoints.len() {
            let listed = match self.connect().await {
                Ok(mut connection) => self.list(&mut connection).await,
                Err(error) => Err(error),
            };
            match listed {
                Ok(_) => return Ok(self.entries.found()),
                Err(error) => reason = error,
            }
            self.reconnect.note_end(None, rand::random());
        }
        Err(reason)
    }

    /// Sends what the keys say, at once and after each change, until nothing receives it any more.
    pub(in crate::discovery) async fn watch(mut self, updates: UpdateSender) {
        let mut lost_at: Option<Duration> = None;
        loop {
            let mut listed_at = None;
            let Err(end) = self.run_session(&updates, &mut listed_at).await;
            let reason = match end {
                SessionEnd::NoReceiver => return,
                SessionEnd::Lost(reason) => reason,
            };
            let listed_for = listed_at.map(elapsed_since);
            if listed_for.is_some() {
                lost_at = Some(clock::since_start());
            }
            let pause = self.reconnect.note_end(listed_for, rand::random());
            let SourceId { upstream, source } = updates.id();
            log::debug!("upstream {upstream}: `{source}`: {reason}; next attempt in {pause:?}");
            let is_late = lost_at.is_none_or(|at| elapsed_since(at) >= LOSS_GRACE);
            let is_lost = is_late && self.reconnect.all_failed();
            if is_lost && !updates.send(FoundList::Failed(reason)).await {
                return;
            }
            sleep(pause).await;
        }
    }

    /// Lists the keys of one member, and follows their changes. `listed_at` becomes the time of the list.
    async fn run_session(
        &mut self,
        updates: &UpdateSender,
        listed_at: &mut Option<Duration>,
    ) -> Result<Infallible, SessionEnd> {
        let mut connection = self.connect().await?;
        let position = self.list(&mut connection).await?;
        self.note_listed(position, updates.id());
        *listed_at = Some(clock::since_start());
        let from = position.revision.saturating_add(1);
        let watch = connection.watch(&self.prefix, from).await;
        if !updates.send(self.found_list()).await {
            return Err(SessionEnd::NoReceiver);
        }
        self.follow(&mut connection, watch?, updates).await
    }

    async fn connect(&self) -> Result<EtcdConnection, String> {
        let url = self.access.endpoints.get(self.reconnect.member());
        let url = url.ok_or("`etcd` has no endpoints")?;
        // Of 16 KiB, so not a part of the task.
        Box::pin(EtcdConnection::open(url, &self.access)).await
    }

    /// Reads all keys, as they were at one revision.
    async fn list(&mut self, connection: &mut EtcdConnection) -> Result<StorePosition, String> {
        self.entries.start_list();
        let (mut start, mut at) = (None, None);
        loop {
            let page = connection.list_page(&self.prefix, start, at).await?;
            check_count(page.total)?;
            let mut keys = page.keys.into_iter();
            while keys.len() > 0 {
                for state in keys.by_ref().take(KEYS_AT_ONCE) {
                    self.entries.put(state);
                }
                tokio::task::yield_now().await;
            }
            if page.next.is_none() {
                self.entries.end_list();
                return Ok(page.position);
            }
            (start, at) = (page.next, Some(page.position));
        }
    }

    /// A list counts also if it is from another history: whether it is plausible is judged like any change.
    fn note_listed(&mut self, position: StorePosition, id: &SourceId) {
        let followed = self.position.map(|last| last.follow(position));
        if let Some(Err(problem)) = followed {
            let SourceId { upstream, source } = id;
            log::warn!("upstream {upstream}: `{source}`: {problem}; all keys were read again");
        }
        (self.position, self.applied) = (Some(position), position.revision);
    }

    /// Sends a list after each change, until the watch ends or what it says is doubtful.
    async fn follow(
        &mut self,
        connection: &mut EtcdConnection,
        mut watch: EtcdWatch,
        updates: &UpdateSender,
    ) -> Result<Infallible, SessionEnd> {
        let mut send_at = None;
        let mut check_at = next_check();
        loop {
            let gathered = async move {
                match send_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let is_check = tokio::select! {
                message = watch.next() => {
                    if self.take_message(message?)? {
                        send_at.get_or_insert_with(|| clock::since_start().saturating_add(GATHER));
                    }
                    continue;
                }
                () = gathered => false,
                () = sleep_until(check_at) => true,
            };
            if is_check {
                self.check(connection, updates.id()).await?;
                check_at = next_check();
            }
            send_at = None;
            if !updates.send(self.found_list()).await {
                return Err(SessionEnd::NoReceiver);
            }
        }
    }

    /// Applies the events of a message; whether there are any.
    fn take_message(&mut self, message: WatchMessage) -> Result<bool, String> {
        if let (Some(last), Some(position)) = (self.position, message.position) {
            let followed = last.follow(position);
            // The position stays the last one: the next list says what has happened.
            self.position = Some(followed.map_err(|problem| problem.to_string())?);
        }
        let has_events = !message.events.is_empty();
        for event in message.events {
            self.entries.apply(event);
        }
        check_count(self.entries.len())?;
        self.applied = self.applied.max(message.revision.unwrap_or_default());
        Ok(has_events)
    }

    /// Asks whether the watch has lost a change. Events that are still on their way look lost, too: then all keys are read
    /// again without need.
    async fn check(
        &mut self,
        connection: &mut EtcdConnection,
        id: &SourceId,
    ) -> Result<(), String> {
        let check = connection.check(&self.prefix, self.applied).await?;
        if let Some(last) = self.position {
            last.follow(check.position)
                .map_err(|problem| problem.to_string())?;
        }
        if check.has_changed || check.total != self.entries.len() {
            let SourceId { upstream, source } = id;
            log::info!(
                "upstream {upstream}: `{source}`: the watch lacks changes; all keys are read again"
            );
            return Err("the watch lacks changes".to_owned());
        }
        self.applied = self.applied.max(check.position.revision);
        Ok(())
    }

    fn found_list(&mut self) -> FoundList {
        let found = self.entries.found();
        let has_changed = self.entries.take_changed();
        match (describe_problems(&found.problems), has_changed) {
            (Some(problem), _) => FoundList::Incomplete(found.peers, problem),
            (None, true) => FoundList::Peers(found.peers),
            (None, false) => FoundList::Unchanged,
        }
    }
}

/// The first of several problems, for one line.
fn describe_problems(problems: &[String]) -> Option<String> {
    let first = problems.first()?;
    Some(match problems.len() {
        1 => first.clone(),
        count => format!("{first} (the first of {count} problems; `clockwise check` lists all)"),
    })
}

fn check_count(keys: usize) -> Result<(), String> {
    if keys > MAX_KEYS {
        return Err(format!(
            "the prefix has {keys} keys, at most {MAX_KEYS} can be peers; check the prefix"
        ));
    }
    Ok(())
}

fn next_check() -> Duration {
    let spread = 1.0 + CHECK_SPREAD * (2.0 * rand::random::<f64>() - 1.0);
    clock::since_start().saturating_add(CHECK_INTERVAL.mul_f64(spread))
}
