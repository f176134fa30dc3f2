//! The task that looks up a source's name again and again, and a single lookup.

use super::answer::{DnsAnswer, FoundPeer};
use super::lookup::DnsQuestion;
use super::refresh::RefreshSchedule;
use super::resolver::DnsResolver;
use crate::clock;
use crate::config::{PeerConfig, PeerListRules, ResolverConfig};
use crate::discovery::update::{FoundList, UpdateSender};

/// Looks up a name once.
///
/// # Errors
/// The reason why there is no answer.
pub(in crate::discovery) async fn read(
    question: &DnsQuestion,
    rules: &PeerListRules,
    resolver: &ResolverConfig,
) -> Result<Vec<PeerConfig>, String> {
    let mut resolver = DnsResolver::new(resolver.clone());
    let answer = question.look_up(&mut resolver, None).await?;
    if let Some(gap) = &answer.gap {
        log::warn!("{question}: {gap}");
    }
    Ok(peers(&answer, rules))
}

/// Sends what name servers say, at once and whenever an answer ends its life, until nothing receives it any more.
pub(in crate::discovery) async fn watch(
    question: DnsQuestion,
    rules: PeerListRules,
    resolver: ResolverConfig,
    updates: UpdateSender,
) {
    let mut watched = WatchedName {
        question,
        resolver: DnsResolver::new(resolver),
        last: None,
        schedule: RefreshSchedule::default(),
    };
    loop {
        let pause = watched.schedule.next().saturating_sub(clock::since_start());
        tokio::time::sleep(pause).await;
        if !updates.send(watched.look_up(&rules).await).await {
            return;
        }
    }
}

/// A name and its last answer.
struct WatchedName {
    question: DnsQuestion,
    resolver: DnsResolver,
    last: Option<DnsAnswer>,
    schedule: RefreshSchedule,
}

impl WatchedName {
    async fn look_up(&mut self, rules: &PeerListRules) -> FoundList {
        let last = self.last.as_ref();
        let result = self.question.look_up(&mut self.resolver, last).await;
        let (now, random) = (clock::since_start(), rand::random());
        match result {
            Ok(answer) => {
                match &answer.gap {
                    None => self.schedule.note_answer(answer.valid_for, now, random),
                    Some(_) => self.schedule.note_incomplete(answer.valid_for, now, random),
                }
                self.take(answer, rules)
            }
            Err(error) => {
                self.schedule.note_failure(now, random);
                FoundList::Failed(error)
            }
        }
    }

    /// A changed list is sent first; the gap of its answer is said by the next one, which follows soon.
    fn take(&mut self, answer: DnsAnswer, rules: &PeerListRules) -> FoundList {
        let is_known = self.last.as_ref().is_some_and(|last| last.peers == answer.peers);
        let list = match &answer.gap {
            _ if !is_known => FoundList::Peers(peers(&answer, rules)),
            Some(gap) => FoundList::Failed(gap.clone()),
            None => FoundList::Unchanged,
        };
        self.last = Some(answer);
        list
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
