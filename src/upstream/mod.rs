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
mod select;
mod serving;
mod shares;
mod tried;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::config;
use crate::policy::hot::Hot;
use crate::policy::pace;
use crate::policy::rotation::Rotation;
use crate::predict::Placement;
use crate::ring::{self, Key, MemberId, Ring};
use crate::telemetry::metrics::{Metrics, PeerMetrics, UpstreamMetrics};
use crate::tls;

pub use self::address::Address;
pub use self::memory::{HotMemory, Memory, PeerMemory};
pub use self::peer::{Peer, PeerState, ProbeReport};
pub use self::select::Admitted;
pub use self::tried::{MAX_ATTEMPTS, Tried};

use self::active::{Active, Tenures};
use self::hot::HotKeys;
use self::ledger::{Cold, Ledger, Manners};
use self::load::{Held, Place, Ticket, Total};
use self::serving::Serving;

/// The most keys that another process is told of, of the draining peers of one upstream, and of all other
/// peers together: some 8 MB.
pub const MAX_REMEMBERED: usize = 1 << 18;

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
    /// How many requests without a key there were.
    turns: AtomicUsize,
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
    tenures: Arc<Tenures>,
    /// When they were all equally cold.
    cold: Arc<Cold>,
    /// The [`Debt`](pace::Debt) of the streams that were ended, in nanoseconds.
    ended: Arc<AtomicU64>,
}

impl Shared {
    fn at_start(config: &config::Upstream, now: Duration) -> Self {
        let shared = Self::default();
        if config.slow_start.is_some_and(|slow| slow.at_start) {
            shared.cold.set(now);
        }
        shared
    }
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
    manners: Manners,
    taken: Option<Duration>,
}

impl Drain {
    fn take(from: &Peer, to: &Peer, now: Duration) -> Self {
        let taken = from.state.drain();
        to.take_drain(taken, now);
        Self {
            from: Arc::clone(&from.state),
            to: Arc::clone(&to.state),
            manners: to.manners.clone(),
            taken,
        }
    }

    /// Takes over an order that came since; orders about the new peer itself stand.
    pub fn settle(self, now: Duration) {
        let draining = self.from.drain();
        if draining != self.taken {
            self.to.take_drain(draining, now, &self.manners);
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
        let shared = previous.map_or_else(
            || Shared::at_start(&config, now),
            |previous| previous.shared.clone(),
        );
        let cradle = Cradle {
            name,
            config: &config,
            manners: manners(&config, &shared),
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
            turns: AtomicUsize::new(0),
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
        Target::Turn(self.turns.fetch_add(1, Relaxed))
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

    /// Adds to a [`Self::memory`] what a drain to come would need: the keys of all other peers, at most as
    /// many as there is `room` for, which gets less by that. Too much to be written down all the time.
    pub fn remember_keys(
        &self,
        memory: &mut BTreeMap<String, PeerMemory>,
        room: &mut usize,
        now: Duration,
    ) {
        let (Some(active), Some(drain)) = (&self.active, &self.config.drain) else {
            return;
        };
        let is_open = |peer: &&Peer| {
            let known = memory.get(&*peer.label);
            known.is_some_and(|known| known.active.is_empty())
        };
        let open = self.peers.iter().filter(is_open);
        let open: HashMap<_, _> = open.map(|peer| (peer.state.tenure(), peer)).collect();
        let keys = active.remember(|tenure| open.contains_key(&tenure), now, drain.idle, *room);
        *room -= keys.len();
        for (tenure, key) in keys {
            let label = open.get(&tenure).map(|peer| &*peer.label);
            if let Some(known) = label.and_then(|label| memory.get_mut(label)) {
                known.active.push(key);
            }
        }
    }

    /// The keys that a peer keeps while it drains, or that it was left when that was called off.
    fn kept_keys(&self, peer: &Peer, now: Duration, most: usize) -> Vec<(u64, u64)> {
        if peer.state.is_draining() || peer.state.ramp(now).is_some() {
            self.active_keys(peer, now, most)
        } else {
            Vec::new()
        }
    }

    fn active_keys(&self, peer: &Peer, now: Duration, most: usize) -> Vec<(u64, u64)> {
        let (Some(active), Some(drain)) = (&self.active, &self.config.drain) else {
            return Vec::new();
        };
        let idle = drain.idle.saturating_add(peer.state.ramps_for(now));
        let own = peer.state.tenure();
        let keys = active.remember(|tenure| tenure == own, now, idle, most);
        keys.into_iter().map(|(_, key)| key).collect()
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

    /// How long ago all peers were equally cold, in milliseconds, where that still matters.
    pub fn cold_memory(&self, now: Duration) -> Option<u64> {
        let length = self.config.slow_start?.length;
        let ago = now.saturating_sub(self.shared.cold.since());
        (ago < length).then(|| ledger::millis(ago))
    }

    /// Takes over when that was in another process; `None`: so long ago that it does not matter.
    pub fn recall_cold(&self, ago: Option<u64>, now: Duration) {
        let since = |ms| now.saturating_sub(Duration::from_millis(ms));
        self.shared.cold.set(ago.map_or(Duration::ZERO, since));
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
    /// whether an operator took it out. That one, and one that it did not have, is new, and begins slowly.
    pub fn recall(&self, memory: &BTreeMap<String, PeerMemory>, now: Duration) {
        for peer in &self.peers {
            match memory.get(&*peer.label) {
                Some(known) if known.address == peer.address => {
                    peer.state.recall(known, self.is_probed(), now);
                    if let (Some(active), Some(drain)) = (&self.active, &self.config.drain) {
                        let idle = drain.idle.saturating_add(peer.state.ramps_for(now));
                        active.recall(&known.active, peer.state.tenure(), now, idle);
                    }
                }
                Some(known) => {
                    let ago = Duration::from_millis(known.draining_for_ms);
                    let since = known.draining.then(|| now.saturating_sub(ago));
                    peer.begin_slowly(now);
                    peer.take_drain(since, now);
                }
                None => peer.begin_slowly(now),
            }
        }
        self.settle_flaps(now);
    }

    /// Ends what suppresses peers where flapping is not damped: another configuration, or process, did. Once
    /// this one is in force, since the peers are those of the one before.
    pub fn settle_flaps(&self, now: Duration) {
        if self.config.flap_damping.is_none() {
            self.peers
                .iter()
                .for_each(|peer| peer.lift_suppression(now));
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
    pub fn take_drains(&self, previous: &Self, now: Duration) -> impl Iterator<Item = Drain> {
        let pairs = self
            .peers
            .iter()
            .filter_map(|after| Some((previous.peer_named(&after.label)?, after)));
        pairs
            .filter(|(before, after)| !Arc::ptr_eq(&before.state, &after.state))
            .map(move |(before, after)| Drain::take(before, after, now))
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
            keys: active.held(peer.state.tenure(), now, drain.idle),
            left,
        })
    }

    /// Whether a draining peer has nothing left: no request, and no key that it keeps.
    pub fn is_drained(&self, peer: &Peer, now: Duration) -> bool {
        let state = &peer.state;
        state.is_draining()
            && state.in_flight() == 0
            && self.remains(peer, now).is_none_or(|kept| kept.keys == 0)
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
    name: &'a str,
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
        let manners = self.manners.clone();
        Peer::new(self.name, peer, address.clone(), state, manners, metrics)
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
                    Arc::new(peer.state.judged_anew(!probed, self.now, &self.manners))
                }
            }
            Some(peer) => {
                let state = self.unknown();
                state.take_drain(peer.state.drain(), self.now, &self.manners);
                Arc::new(state)
            }
            None => Arc::new(self.unknown()),
        }
    }

    /// A peer that comes to an upstream which serves already begins slowly. One that is there from the
    /// start is warm, or as cold as all others, as it is asked for.
    fn unknown(&self) -> PeerState {
        let at_start = self.config.slow_start.is_some_and(|slow| slow.at_start);
        let slowly = at_start || self.previous.is_some();
        let up = self.config.health.is_none();
        let ledger = Ledger::new(up, slowly, self.now, &self.manners);
        PeerState::new(ledger, Held::new(&self.shared.total), &self.shared.changes)
    }
}

fn manners(config: &config::Upstream, shared: &Shared) -> Manners {
    Manners {
        cold: Arc::clone(&shared.cold),
        tenures: Arc::clone(&shared.tenures),
        slow_start: config.slow_start.map(|slow| slow.length),
        flap: config.flap_damping,
        deadline: config.drain.map(|drain| drain.deadline),
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
