//! The task that lists and watches the slices of a service, and a single list.
//!
//! A list has a version, from which a watch starts. The watch is continued from the last version that it has told, after
//! its time is over and after a broken connection. Only if the server no longer has this version (410 Gone), or goes on
//! to refuse it, the list is read again; what it has is compared with what is known.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::api::{ApiClient, ApiError};
use super::event_lines::EventLines;
use super::objects::{ApiStatus, SliceEvent, parse_event, parse_page};
use super::reconnect::ReconnectDelay;
use super::slices::{ServicePeer, ServiceSlices};
use crate::clock;
use crate::config::{KubernetesConfig, KubernetesService, PeerAddress, PeerConfig};
use crate::discovery::update::{FoundList, UpdateSender};
use crate::ring::Weight;

/// The most slices of one page.
const PAGE: usize = 100;

/// The most pages of a list.
const MAX_PAGES: usize = 1_000;

/// The time after which the list is read again: the versions of a store that was restored may be others.
const RELIST_INTERVAL: Duration = Duration::from_secs(1_800);

/// The refusals of a watch in a row, after which the list is read again.
const MAX_REFUSALS: u32 = 5;

/// A watch that has lasted for this time was a success.
const GOOD_WATCH: Duration = Duration::from_secs(1);

/// How long a watch lasts.
#[derive(Clone, Copy, Debug)]
struct WatchDuration {
    /// The shortest time that the server is asked for; at least 1 s.
    shortest: Duration,
    /// At most this time is added at random, so that many watches do not end in step.
    spread: Duration,
    /// How long after that the server may be silent.
    grace: Duration,
}

impl WatchDuration {
    const DEFAULT: Self = Self {
        shortest: Duration::from_secs(240),
        spread: Duration::from_secs(60),
        grace: Duration::from_secs(15),
    };

    /// The seconds for the server.
    fn seconds(self) -> u64 {
        let time = self.shortest + self.spread.mul_f64(rand::random());
        time.as_secs().max(1)
    }
}

/// A service and its slices, as far as they are known.
pub(in crate::discovery) struct WatchedService {
    service: KubernetesService,
    api: ApiClient,
    duration: WatchDuration,
    slices: ServiceSlices,
    /// From which the watch goes on; `None`: the list has to be read.
    version: Option<String>,
    /// When the list was read last.
    listed_at: Duration,
    /// Whether the list is read in pages: not if a page was too late for its list.
    is_paged: bool,
    /// The refusals of the watch in a row.
    refusals: u32,
    delay: ReconnectDelay,
    /// The peers that were sent last.
    sent: Option<Vec<ServicePeer>>,
    /// What was logged of the slices.
    noted: BTreeSet<String>,
}

/// What follows a list or a watch.
#[derive(Debug, PartialEq, Eq)]
enum NextStep {
    /// The next one, at once.
    GoOn,
    /// The next one, after a pause.
    Pause,
    /// The next one, after a pause and a report of this error.
    Report(String),
    /// Nothing: nothing receives the updates any more.
    End,
}

/// Reads the peers of a service once, for a command without an instance.
///
/// # Errors
/// The reason why they cannot be read.
pub(crate) async fn read_service(
    service: KubernetesService,
    config: KubernetesConfig,
) -> Result<Vec<PeerConfig>, String> {
    WatchedService::new(service, config).read().await
}

impl WatchedService {
    pub(in crate::discovery) fn new(service: KubernetesService, config: KubernetesConfig) -> Self {
        Self {
            service,
            api: ApiClient::new(config),
            duration: WatchDuration::DEFAULT,
            slices: ServiceSlices::default(),
            version: None,
            listed_at: Duration::ZERO,
            is_paged: true,
            refusals: 0,
            delay: ReconnectDelay::default(),
            sent: None,
            noted: BTreeSet::new(),
        }
    }

    /// Lists the peers once.
    ///
    /// # Errors
    /// The reason why they cannot be read.
    pub(in crate::discovery) async fn read(mut self) -> Result<Vec<PeerConfig>, String> {
        self.list().await.map_err(|error| error.to_string())?;
        Ok(peer_configs(&self.peers()))
    }

    /// Sends the peers, at once and after each change, until nothing receives them any more.
    pub(in crate::discovery) async fn watch(mut self, updates: UpdateSender) {
        loop {
            let step = match self.version.clone() {
                None => self.list_and_send(&updates).await,
                Some(version) => self.watch_from(&version, &updates).await,
            };
            match step {
                NextStep::GoOn => continue,
                NextStep::Pause => {}
                NextStep::Report(error) => {
                    if !updates.send(FoundList::Failed(error)).await {
                        return;
                    }
                }
                NextStep::End => return,
            }
            let pause = self.delay.after_failure(rand::random());
            tokio::time::sleep(pause).await;
        }
    }

    async fn list_and_send(&mut self, updates: &UpdateSender) -> NextStep {
        match self.list().await {
            Ok(()) if self.send(updates).await => NextStep::GoOn,
            Ok(()) => NextStep::End,
            Err(ApiError::Refused(status)) if status.is_expired() && self.is_paged => {
                self.is_paged = false;
                NextStep::Pause
            }
            Err(error) => NextStep::Report(error.to_string()),
        }
    }

    /// Reads all pages of the list.
    async fn list(&mut self) -> Result<(), ApiError> {
        let invalid = |error| {
            ApiError::Unreachable(format!("the list of the API server is invalid: {error}"))
        };
        let mut connection = self.api.connect().await?;
        let (mut found, mut token) = (Vec::new(), None);
        for _ in 0..MAX_PAGES {
            let target = self.list_target(token.as_deref());
            let text = connection.get_page(&target).await?;
            let page = parse_page(&text).map_err(invalid)?;
            found.extend(page.slices);
            token = page.next;
            if token.is_none() {
                self.slices.replace(found);
                self.version = Some(page.version);
                self.listed_at = clock::since_start();
                (self.is_paged, self.refusals) = (true, 0);
                return Ok(());
            }
        }
        Err(invalid(format!("it has more than {MAX_PAGES} pages")))
    }

    async fn watch_from(&mut self, version: &str, updates: &UpdateSender) -> NextStep {
        let seconds = self.duration.seconds();
        let target = self.watch_target(version, seconds);
        let mut connection = match self.api.connect().await {
            Ok(connection) => connection,
            Err(error) => return self.after_error(error),
        };
        let body = match connection.get(&target).await {
            Ok(body) => body,
            Err(error) => return self.after_error(error),
        };
        if !self.send(updates).await {
            return NextStep::End;
        }
        let started = clock::since_start();
        let limit = Duration::from_secs(seconds) + self.duration.grace;
        let followed = tokio::time::timeout(limit, self.follow(body, updates)).await;
        // A server that is silent beyond the time is gone.
        let step = followed.unwrap_or(NextStep::Pause);
        let now = clock::since_start();
        if now.saturating_sub(started) >= GOOD_WATCH {
            self.note_success();
        }
        if now.saturating_sub(self.listed_at) >= RELIST_INTERVAL {
            self.version = None;
        }
        step
    }

    /// The watch works.
    fn note_success(&mut self) {
        self.delay.reset();
        self.refusals = 0;
    }

    fn after_error(&mut self, error: ApiError) -> NextStep {
        match error {
            ApiError::Refused(status) => self.after_refusal(status),
            ApiError::Unreachable(_) => NextStep::Report(error.to_string()),
        }
    }

    fn after_refusal(&mut self, status: ApiStatus) -> NextStep {
        if status.is_expired() {
            log::debug!(
                "`{}`: {}; the list is read again",
                self.service,
                status.message
            );
            self.version = None;
            return NextStep::Pause;
        }
        self.refusals += 1;
        if self.refusals >= MAX_REFUSALS {
            self.version = None;
        }
        NextStep::Report(ApiError::Refused(status).to_string())
    }

    /// Takes the events of a watch until it ends.
    async fn follow(&mut self, mut body: Incoming, updates: &UpdateSender) -> NextStep {
        let mut lines = EventLines::default();
        while let Some(frame) = body.frame().await {
            let piece = match frame.map(hyper::body::Frame::into_data) {
                Ok(Ok(piece)) => piece,
                Ok(Err(_)) => continue,
                Err(error) => {
                    log::debug!("`{}`: the watch has broken: {error}", self.service);
                    break;
                }
            };
            lines.push(&piece);
            match self.take_lines(&mut lines) {
                Ok(TakenLines::None) => {}
                Ok(TakenLines::Bookmarks) => {
                    if !updates.send(FoundList::Unchanged).await {
                        return NextStep::End;
                    }
                }
                Ok(TakenLines::Changes) => {
                    if !self.send(updates).await {
                        return NextStep::End;
                    }
                }
                Err(step) => return step,
            }
        }
        NextStep::Pause
    }

    /// Takes the whole lines that have arrived.
    fn take_lines(&mut self, lines: &mut EventLines) -> Result<TakenLines, NextStep> {
        let mut taken = TakenLines::None;
        loop {
            let line = match lines.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(taken),
                Err(_) => return Err(self.after_invalid_event("a line has more than 8 MiB")),
            };
            if line.trim_ascii().is_empty() {
                continue;
            }
            let event = parse_event(&line);
            let event = event.map_err(|error| self.after_invalid_event(&error))?;
            taken = taken.max(self.take_event(event)?);
        }
    }

    fn take_event(&mut self, event: SliceEvent) -> Result<TakenLines, NextStep> {
        let (taken, version) = match event {
            SliceEvent::Changed { slice, version } => {
                self.slices.set(slice);
                (TakenLines::Changes, version)
            }
            SliceEvent::Removed { name, version } => {
                self.slices.remove(&name);
                (TakenLines::Changes, version)
            }
            SliceEvent::Bookmark { version } => (TakenLines::Bookmarks, version),
            SliceEvent::Error(status) => return Err(self.after_refusal(status)),
        };
        self.note_success();
        if version.is_some() {
            self.version = version;
        }
        Ok(taken)
    }

    /// What the event has said is lost, so the list is read again.
    fn after_invalid_event(&mut self, error: &str) -> NextStep {
        self.version = None;
        NextStep::Report(format!("an event of the API server is invalid: {error}"))
    }

    /// Sends the present peers; false: nothing receives them any more.
    async fn send(&mut self, updates: &UpdateSender) -> bool {
        let peers = self.peers();
        if self.sent.as_ref() == Some(&peers) {
            return updates.send(FoundList::Unchanged).await;
        }
        let is_sent = updates.send(FoundList::Peers(peer_configs(&peers))).await;
        // Not before: the time of the watch may be over while the receiver is busy.
        self.sent = Some(peers);
        is_sent
    }

    /// The present peers. Logs what is new to know of the slices.
    fn peers(&mut self) -> Vec<ServicePeer> {
        let found = self.slices.peers(&self.service.port);
        for note in found.notes.difference(&self.noted) {
            log::warn!("`{}`: {note}", self.service);
        }
        self.noted = found.notes;
        found.peers
    }

    fn list_target(&self, token: Option<&str>) -> String {
        let mut target = self.slices_target();
        if self.is_paged {
            let _ = write!(target, "&limit={PAGE}");
        }
        if let Some(token) = token {
            let _ = write!(target, "&continue={}", escaped(token));
        }
        target
    }

    fn watch_target(&self, version: &str, seconds: u64) -> String {
        format!(
            "{}&watch=1&allowWatchBookmarks=true&resourceVersion={}&timeoutSeconds={seconds}",
            self.slices_target(),
            escaped(version)
        )
    }

    fn slices_target(&self) -> String {
        let KubernetesService {
            namespace, service, ..
        } = &self.service;
        format!(
            "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{service}"
        )
    }
}

/// What lines of a watch have said; the greater one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TakenLines {
    None,
    Bookmarks,
    Changes,
}

/// A value in a query, without any character that could end it.
fn escaped(value: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    value.bytes().map(byte).collect()
}

fn peer_configs(peers: &[ServicePeer]) -> Vec<PeerConfig> {
    let peer = |peer: &ServicePeer| PeerConfig {
        label: peer.label.clone(),
        address: PeerAddress::Ip(peer.address),
        weight: Weight::ONE,
        id: None,
        server_name: None,
        source: None,
        is_leaving: false,
    };
    peers.iter().map(peer).collect()
}

#[cfg(test)]
mod tests;
