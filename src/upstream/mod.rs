//! An upstream in force: its peers, the ring they are placed on, and who gets a request.
//!
//! ```text
//!   Upstream ── ring        labels and weights only; never changes
//!      │
//!      └────── peers[member] ── Arc<PeerState>   health, drain, ejection, requests in flight
//! ```
//!
//! A peer's state is a cell that the ring looks at while it walks: a flip is one atomic store and
//! needs no rebuild. The state is keyed by the label and survives a new configuration, as far as it
//! is about the same server; the ring and the peers it indexes are made and swapped together.

pub mod active;
mod address;
pub mod balancer;
mod dial;
pub mod hot;
mod ledger;
pub mod load;
pub mod memory;
mod peer;
mod rotation;
mod select;
mod serving;
mod tried;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::config;
use crate::policy::hot::Hot;
use crate::policy::pace;
use crate::predict::Placement;
use crate::ring::{self, Key, MemberId, Ring};
use crate::telemetry::metrics::{Metrics, PeerMetrics, UpstreamMetrics};
use crate::tls;

pub use self::address::Address;
pub use self::memory::{HotMemory, Memory, PeerMemory};
pub use self::peer::{Peer, PeerState, ProbeReport};
pub use self::select::Admitted;
pub use self::tried::{MAX_ATTEMPTS, Tried};

use self::active::{Active, PeerNumber};
use self::hot::HotKeys;
use self::ledger::{Ledger, Manners};
use self::load::{Held, Place, Ticket, Total};
use self::rotation::Rotation;
use self::serving::Serving;

/// The most keys of draining peers that another process is told of, for one upstream: some 8 MB.
const MAX_REMEMBERED: usize = 1 << 18;

/// A named group of peers, ready to be selected from.
#[derive(Debug)]
pub struct Upstream {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// What the operator wrote of it.
    pub config: config::Upstream,
    /// Where it is counted.
    pub metrics: UpstreamMetrics,
    /// What its connections are encrypted with; `None`: they are not.
    pub tls: Option<Arc<tls::Client>>,
    ring: Ring,
    /// In the ring's member order.
    peers: Box<[Peer]>,
    /// The places of the peers by label.
    places: HashMap<Arc<str>, usize>,
    rotation: Rotation,
    shared: Shared,
    serving: Serving,
    /// Where hot keys are to be found.
    hot: Option<Arc<HotKeys>>,
    /// With whom the keys are that were active lately, where drains keep them there.
    active: Option<Arc<Active>>,
}

/// What the peers of an upstream share, in one configuration after the other.
#[derive(Clone, Debug, Default)]
struct Shared {
    /// Its requests in flight.
    total: Arc<Total>,
    /// How often one of its peers may have left the ring or come back.
    changes: Arc<AtomicU32>,
    /// How many servers it has had.
    servers: Arc<AtomicU32>,
    /// The [`Debt`](pace::Debt) of the streams that were ended, in nanoseconds.
    ended: Arc<AtomicU64>,
}

/// What a request brings to the choice of its peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Its key, in the upstream's ring.
    Key(Key),
    /// It has no key; its turn among the peers is this one.
    Turn(usize),
}

/// A peer and its place in the upstream.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// The peer's place.
    pub member: MemberId,
    /// The peer.
    pub peer: &'a Peer,
}

/// What a draining peer keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remains {
    /// Its keys that are still active.
    pub keys: usize,
    /// How much longer it may keep them.
    pub left: Duration,
}

/// An operator's order about a peer, on its way to the one that takes the peer's place.
#[derive(Debug)]
pub struct Drain {
    from: Arc<PeerState>,
    to: Arc<PeerState>,
    taken: Option<Duration>,
}

impl Drain {
    fn take(from: &Arc<PeerState>, to: &Arc<PeerState>) -> Self {
        let taken = from.drain();
        to.take_drain(taken);
        Self {
            from: Arc::clone(from),
            to: Arc::clone(to),
            taken,
        }
    }

    /// Takes over an order that came since; orders about the new peer itself stand.
    pub fn settle(self) {
        let draining = self.from.drain();
        if draining != self.taken {
            self.to.take_drain(draining);
        }
    }
}

impl Upstream {
    /// Places the peers on a ring. `addresses` are the peers' looked-up addresses, in order, `tls` what
    /// their connections are encrypted with; of a peer that `previous` had with the same label, what is still true is kept.
    ///
    /// # Errors
    /// What [`Ring::new`] says: more points than a ring can hold.
    pub fn new(
        name: &str,
        config: config::Upstream,
        (addresses, tls): (&[Address], Option<Arc<tls::Client>>),
        previous: Option<&Self>,
        metrics: &Metrics,
        now: Duration,
    ) -> Result<Self, ring::Error> {
        let ring = Ring::new(config.dialect, config.members())?;
        let shared = previous.map_or_else(Shared::default, |previous| previous.shared.clone());
        let cradle = Cradle {
            config: &config,
            manners: manners(&config),
            shared: &shared,
            previous,
            now,
        };
        let written = config.peers.iter().zip(addresses);
        let peers: Box<[Peer]> = written
            .map(|(peer, address)| cradle.peer(peer, address, metrics.peer(name, &peer.label)))
            .collect();
        let places = peers.iter().enumerate();
        Ok(Self {
            name: name.into(),
            metrics: metrics.upstream(name),
            tls,
            ring,
            places: places
                .map(|(place, peer)| (Arc::clone(&peer.label), place))
                .collect(),
            rotation: Rotation::new(peers.iter().map(|peer| peer.weight.get())),
            peers,
            serving: Serving::default(),
            hot: hot_keys(&config, previous),
            active: active_keys(&config, previous),
            shared,
            config,
        })
    }

    /// Counts a request in that has no peer yet.
    pub fn enter(&self) -> Ticket<'_> {
        Ticket::enter(&self.shared.total)
    }

    /// Takes a request from the peer that failed it, one of this upstream's: it has none again.
    pub fn reenter(&self, place: Place) -> Ticket<'_> {
        place.leave(&self.shared.total)
    }

    /// Its requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.shared.total.get()
    }

    /// Its hot keys, where they are to be found.
    pub fn hot(&self) -> Option<&HotKeys> {
        self.hot.as_deref()
    }

    /// Whether one more stream may be ended at `now` because its key has moved; counts it.
    pub fn may_end_stream(&self, now: Duration) -> bool {
        let rate = self
            .config
            .close_moved_streams
            .map_or(0, |rules| rules.per_second);
        let take = |debt| {
            let debt = pace::take(Duration::from_nanos(debt), now, rate)?;
            u64::try_from(debt.as_nanos()).ok()
        };
        self.shared
            .ended
            .fetch_update(Relaxed, Relaxed, take)
            .is_ok()
    }

    /// The weight of the peers that can serve at `now`.
    pub fn serving_weight(&self, now: Duration) -> u32 {
        self.serving.weight(&self.peers, &self.shared.changes, now)
    }

    /// A key, in this upstream's ring.
    pub fn key(&self, key: &[u8]) -> Key {
        self.ring.key(key)
    }

    /// The target of a request that has no key: the next turn.
    pub fn next_turn(&self) -> Target {
        Target::Turn(self.rotation.next())
    }

    /// What another process should know of the peers, by label.
    pub fn memory(&self, now: Duration) -> BTreeMap<String, PeerMemory> {
        let mut room = MAX_REMEMBERED;
        let memory = |peer: &Peer| {
            let mut memory = peer
                .state
                .memory(peer.address.clone(), self.is_probed(), now);
            memory.active = self.kept_keys(peer, now, room);
            room -= memory.active.len();
            (peer.label.to_string(), memory)
        };
        self.peers.iter().map(memory).collect()
    }

    /// The keys that a draining peer keeps.
    fn kept_keys(&self, peer: &Peer, now: Duration, most: usize) -> Vec<(u64, u64)> {
        match (&self.active, &self.config.drain) {
            (Some(active), Some(drain)) if peer.state.is_draining() => {
                active.remember(peer.number, now, drain.idle, most)
            }
            _ => Vec::new(),
        }
    }

    /// What another process should know of its hot keys.
    pub fn hot_memory(&self, now: Duration) -> Vec<HotMemory> {
        let hot = self.hot.iter().flat_map(|hot| hot.hot(now));
        let memory = hot.map(|hot| HotMemory {
            key: hot.key,
            share: hot.share,
            for_ms: ledger::millis(now.saturating_sub(hot.since)),
        });
        memory.collect()
    }

    /// Takes over the keys that were hot in another process.
    pub fn recall_hot(&self, memory: &[HotMemory], now: Duration) {
        let known = memory.iter().map(|known| Hot {
            key: known.key,
            share: known.share,
            since: now.saturating_sub(Duration::from_millis(known.for_ms)),
        });
        if let Some(hot) = &self.hot {
            hot.recall(&known.collect::<Vec<_>>(), now);
        }
    }

    /// Takes over what another process knew of the peers; of one that had another address, only
    /// whether an operator took it out. One that it did not have is new, and begins slowly.
    pub fn recall(&self, memory: &BTreeMap<String, PeerMemory>, now: Duration) {
        for peer in &self.peers {
            match memory.get(&*peer.label) {
                Some(known) if known.address == peer.address => {
                    peer.state.recall(known, self.is_probed(), now);
                    if let (Some(active), Some(drain)) = (&self.active, &self.config.drain) {
                        active.recall(&known.active, peer.number, now, drain.idle);
                    }
                }
                Some(known) => {
                    let ago = Duration::from_millis(known.draining_for_ms);
                    let since = known.draining.then(|| now.saturating_sub(ago));
                    peer.state.take_drain(since);
                }
                None => peer.begin_slowly(now),
            }
        }
    }

    /// Takes over which peers operators have taken out, by label, and nothing else.
    pub fn recall_drains<'a>(
        &self,
        drains: impl IntoIterator<Item = (&'a str, bool)>,
        now: Duration,
    ) {
        for (label, draining) in drains {
            if let Some(peer) = self.peer_named(label) {
                peer.set_draining(draining, now);
            }
        }
    }

    /// Takes over the orders about peers that are not the same in `previous`, by label.
    pub fn take_drains(&self, previous: &Self) -> impl Iterator<Item = Drain> {
        let pairs = self
            .peers
            .iter()
            .filter_map(|now| Some((previous.peer_named(&now.label)?, now)));
        pairs
            .filter(|(before, now)| !Arc::ptr_eq(&before.state, &now.state))
            .map(|(before, now)| Drain::take(&before.state, &now.state))
    }

    /// Every peer, in the order of the configuration.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// The peer with this label.
    pub fn peer_named(&self, label: &str) -> Option<&Peer> {
        self.peers.get(*self.places.get(label)?)
    }

    /// What a draining peer keeps; `None`: nothing, or it is not draining.
    pub fn remains(&self, peer: &Peer, now: Duration) -> Option<Remains> {
        let (drain, active) = (self.config.drain?, self.active.as_ref()?);
        let left = drain.deadline.checked_sub(peer.state.drains_for(now)?)?;
        (!left.is_zero()).then(|| Remains {
            keys: active.held(peer.number, now, drain.idle),
            left,
        })
    }

    /// The labels in clockwise order from a key, owner first, whatever their health.
    pub fn walk(&self, key: &Key) -> impl Iterator<Item = &Peer> {
        self.ring.walk(key).filter_map(|member| self.peer(member))
    }

    /// The ring, for reports.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Who has which keys when all peers are up.
    pub fn placement(&self) -> Placement<'_> {
        Placement::new(&self.ring, self.peers.iter().map(|peer| &*peer.label))
    }

    /// The peer at a place in the ring's member order.
    pub fn peer(&self, member: MemberId) -> Option<&Peer> {
        self.peers.get(member.index())
    }

    fn is_probed(&self) -> bool {
        self.config.health.is_some()
    }
}

/// What new peers are made of.
struct Cradle<'a> {
    config: &'a config::Upstream,
    manners: Manners,
    shared: &'a Shared,
    previous: Option<&'a Upstream>,
    now: Duration,
}

impl Cradle<'_> {
    fn peer(&self, peer: &config::Peer, address: &Address, metrics: PeerMetrics) -> Peer {
        let before = self
            .previous
            .and_then(|upstream| upstream.peer_named(&peer.label));
        let state = self.state(before, address);
        let same = before.filter(|before| before.address == *address);
        let number = same.map_or_else(|| self.number(), |before| before.number);
        Peer::new(peer, address.clone(), state, number, self.manners, metrics)
    }

    /// What is known of a peer at first: what its label had before, as far as that is still true.
    /// Another address is another server; what was known while nobody probed is not what probes say,
    /// nor the other way round. An operator's order is about the label.
    fn state(&self, before: Option<&Peer>, address: &Address) -> Arc<PeerState> {
        let probed = self.config.health.is_some();
        match before {
            Some(peer) if peer.address == *address => {
                if self.previous.is_some_and(Upstream::is_probed) == probed {
                    Arc::clone(&peer.state)
                } else {
                    Arc::new(peer.state.judged_anew(!probed))
                }
            }
            Some(peer) => {
                let state = self.unknown();
                state.take_drain(peer.state.drain());
                Arc::new(state)
            }
            None => Arc::new(self.unknown()),
        }
    }

    /// A peer that comes to an upstream which serves already begins slowly, and else where that is asked
    /// for.
    fn unknown(&self) -> PeerState {
        let at_start = self.config.slow_start.is_some_and(|slow| slow.at_start);
        let slowly = at_start || self.previous.is_some();
        let up = self.config.health.is_none();
        let ledger = Ledger::new(up, slowly, self.now, &self.manners);
        PeerState::new(ledger, Held::new(&self.shared.total), &self.shared.changes)
    }

    fn number(&self) -> PeerNumber {
        let servers = self.shared.servers.fetch_add(1, Relaxed);
        PeerNumber((servers & 0xffff) as u16)
    }
}

fn manners(config: &config::Upstream) -> Manners {
    Manners {
        slow_start: config.slow_start.map(|slow| slow.length),
        flap: config.flap_damping,
    }
}

/// The same as before, if it is of the right size.
fn active_keys(config: &config::Upstream, previous: Option<&Upstream>) -> Option<Arc<Active>> {
    let keys = config.drain?.keys;
    let kept = previous.and_then(|previous| {
        let before = previous.config.drain?.keys;
        previous.active.clone().filter(|_| before == keys)
    });
    kept.or_else(|| Some(Arc::new(Active::new(keys as usize))))
}

/// The same as before, if the same keys are hot.
fn hot_keys(config: &config::Upstream, previous: Option<&Upstream>) -> Option<Arc<HotKeys>> {
    let threshold = config.hot_keys?.threshold;
    let kept = previous.and_then(|previous| {
        let before = previous.config.hot_keys?.threshold;
        previous.hot.clone().filter(|_| before == threshold)
    });
    kept.or_else(|| Some(Arc::new(HotKeys::new(threshold))))
}

/// The places of the first `count` members.
fn member_ids(count: usize) -> impl Iterator<Item = MemberId> {
    (0..u32::try_from(count).unwrap_or(u32::MAX)).map(MemberId)
}
