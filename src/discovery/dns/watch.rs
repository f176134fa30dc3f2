//! The task that looks up a source's name again and again, and a single lookup.

use super::answer::{DnsAnswer, FoundPeer};
use super::lookup::look_up;
use super::refresh::RefreshSchedule;
use super::resolver::DnsResolver;
use crate::clock;
use crate::config::{DnsQuestion, PeerConfig, PeerListRules, ResolverConfig};
use crate::discovery::update::{FoundList, UpdateSender};

/// A name and its last answer.
pub(in crate::discovery) struct WatchedName {
    question: DnsQuestion,
    rules: PeerListRules,
    resolver: DnsResolver,
    /// `None`: no answer is known yet.
    last: Option<DnsAnswer>,
    schedule: RefreshSchedule,
}

/// Looks up a name once, for a command without an instance.
///
/// # Errors
/// The reason why there is no answer.
pub(crate) async fn look_up_name(
    question: DnsQuestion,
    rules: PeerListRules,
    resolver: ResolverConfig,
) -> Result<Vec<PeerConfig>, String> {
    WatchedName::new(question, rules, resolver, &[])
        .read()
        .await
}

impl WatchedName {
    /// `known`: the peers of the last answer, in an earlier process perhaps; none: it is not known.
    pub(in crate::discovery) fn new(
        question: DnsQuestion,
        rules: PeerListRules,
        resolver: ResolverConfig,
        known: &[PeerConfig],
    ) -> Self {
        let last = (!known.is_empty()).then(|| DnsAnswer {
            peers: known.iter().map(found_peer).collect(),
            ..DnsAnswer::default()
        });
        Self {
            question,
            rules,
            resolver: DnsResolver::new(resolver),
            last,
            schedule: RefreshSchedule::default(),
        }
    }

    /// Looks up the name once.
    ///
    /// # Errors
    /// The reason why there is no answer.
    pub(in crate::discovery) async fn read(mut self) -> Result<Vec<PeerConfig>, String> {
        let answer = look_up(&self.question, &mut self.resolver, self.last.as_ref()).await?;
        if let Some(gap) = &answer.gap {
            log::warn!("`{}`: {gap}", self.question);
        }
        Ok(peers(&answer, &self.rules))
    }

    /// Sends what name servers say, at once and whenever an answer ends its life, until nothing receives it any more.
    pub(in crate::discovery) async fn watch(mut self, updates: UpdateSender) {
        loop {
            let pause = self.schedule.next().saturating_sub(clock::since_start());
            tokio::time::sleep(pause).await;
            let list = self.look_up_again().await;
            if !updates.send(list).await {
                return;
            }
        }
    }

    async fn look_up_again(&mut self) -> FoundList {
        let result = look_up(&self.question, &mut self.resolver, self.last.as_ref()).await;
        let (now, random) = (clock::since_start(), rand::random());
        match result {
            Ok(answer) => {
                match &answer.gap {
                    None => self.schedule.note_answer(answer.valid_for, now, random),
                    Some(_) => self.schedule.note_incomplete(answer.valid_for, now, random),
                }
                self.take(answer)
            }
            Err(error) => {
                self.schedule.note_failure(now, random);
                FoundList::Failed(error)
            }
        }
    }

    /// A changed list is sent first; the gap of its answer is said by the next one, which follows soon.
    fn take(&mut self, answer: DnsAnswer) -> FoundList {
        let last = self.last.as_ref();
        let is_known = last.is_some_and(|last| last.peers == answer.peers);
        let found = match &answer.gap {
            _ if !is_known => FoundList::Peers(peers(&answer, &self.rules)),
            Some(gap) => FoundList::Failed(gap.clone()),
            None => FoundList::Unchanged,
        };
        self.last = Some(answer);
        found
    }
}

fn peers(answer: &DnsAnswer, rules: &PeerListRules) -> Vec<PeerConfig> {
    let peer = |found: &FoundPeer| PeerConfig {
        label: found.label.clone(),
        address: found.address.clone(),
        weight: found.weight,
        id: None,
        server_name: rules.name_of_host(found.host.as_deref()),
        source: None,
        is_leaving: false,
    };
    answer.peers.iter().map(peer).collect()
}

fn found_peer(peer: &PeerConfig) -> FoundPeer {
    FoundPeer {
        label: peer.label.clone(),
        address: peer.address.clone(),
        weight: peer.weight,
        host: None,
    }
}
