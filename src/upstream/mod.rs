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
mod bounded;
mod dial;
pub mod hot;
mod kept;
mod ledger;
pub mod load;
pub mod memory;
mod peer;
mod recall;
mod select;
mod serving;
mod shares;
mod tried;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::config;
use crate::policy::pace;
use crate::policy::rotation::Rotation;
use crate::policy::spread::Part;
use crate::predict::Placement;
use crate::ring::{self, Key, MemberId, Ring};
use crate::telemetry::metrics::{Metrics, PeerMetrics, UpstreamMetrics};
use crate::tls;

pub use self::address::Address;
pub use self::bounded::{Arrival, Wait};
pub use self::kept::{Kept, Remains};
pub use self::memory::{HotMemory, Memory, PeerMemory};
pub use self::peer::{Peer, PeerState, ProbeReport};
pub use self::recall::MAX_REMEMBERED;
pub use self::select::Admitted;
pub use self::tried::{MAX_ATTEMPTS, Tried};

use self::active::{Active, Tenures};
use self::hot::HotKeys;
use self::ledger::{Cold, Ledger, Manners};
use self::load::{Held, Place, Ticket, Total};
use self::serving::{Serving, Weights};
use self::shares::Shares;

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
    shares: Shares,
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
    /// How many requests without a key there were.
    turns: Arc<AtomicUsize>,
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
        let counted = Shares::needed(&config, &ring);
        let written = config.peers.iter().enumerate();
        let written = written.map(|(place, peer)| (peer, counted.part(place, peer.weight)));
        let peers: Box<[Peer]> = written
            .zip(addresses)
            .map(|(peer, address)| cradle.peer(peer, address, metrics.peer(name, &peer.0.label)))
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
            serving: Serving::default(),
            hot: hot_keys(&config, previous, now),
            active: active_keys((&config, &peers), previous, now),
            peers,
            shares: counted,
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

    /// Its requests in flight, but for those that peers hold which do not share its load.
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

    /// The weight of the peers that take all their keys at `now`.
    pub fn serving_weight(&self, now: Duration) -> u32 {
        self.weights(now).home
    }

    fn weights(&self, now: Duration) -> Weights {
        self.serving.weights(&self.peers, &self.shared.changes, now)
    }

    /// A key, in this upstream's ring.
    pub fn key(&self, key: &[u8]) -> Key {
        self.ring.key(key)
    }

    /// The target of a request that has no key: the next turn.
    pub fn next_turn(&self) -> Target {
        Target::Turn(self.shared.turns.fetch_add(1, Relaxed))
    }

    /// It is in force in the place of `previous`: who shares the load is now said here, and those that are gone
    /// do not, whatever they still hold.
    pub fn replace(&self, previous: &Self) {
        previous.serving.replace();
        let held = self.peers.iter().map(|peer| Arc::as_ptr(peer.state.held()));
        let held: HashSet<_> = held.collect();
        let before = previous.peers.iter().map(|peer| peer.state.held());
        let gone = before.filter(|before| !held.contains(&Arc::as_ptr(before)));
        gone.for_each(|gone| gone.set_aside());
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
    fn peer(
        &self,
        written: (&config::Peer, Part),
        address: &Address,
        metrics: PeerMetrics,
    ) -> Peer {
        let before = self
            .previous
            .and_then(|upstream| upstream.peer_named(&written.0.label));
        let state = self.state(before, address);
        let manners = self.manners.clone();
        Peer::new(self.name, written, address.clone(), state, manners, metrics)
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

/// The same as before, or one of another size that goes on with what that has.
fn active_keys(
    (config, peers): (&config::Upstream, &[Peer]),
    previous: Option<&Upstream>,
    now: Duration,
) -> Option<Arc<Active>> {
    let keys = config.drain?.keys as usize;
    let until = recall::active_until(config, peers, now);
    let before = previous.and_then(|previous| previous.active.as_ref());
    Some(before.map_or_else(
        || Arc::new(Active::new(keys)),
        |before| Active::after(before, keys, until),
    ))
}

/// The same as before, or with another share ones that go on with those.
fn hot_keys(
    config: &config::Upstream,
    previous: Option<&Upstream>,
    now: Duration,
) -> Option<Arc<HotKeys>> {
    let threshold = config.hot_keys?.threshold;
    let before = previous.and_then(|previous| previous.hot.as_ref());
    Some(before.map_or_else(
        || Arc::new(HotKeys::new(threshold)),
        |before| HotKeys::after(before, threshold, now),
    ))
}

/// The places of the first `count` members.
fn member_ids(count: usize) -> impl Iterator<Item = MemberId> {
    (0..u32::try_from(count).unwrap_or(u32::MAX)).map(MemberId)
}
