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

pub mod balancer;
pub mod load;
pub mod memory;
mod peer;
mod rotation;
mod tried;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::predict::Placement;
use crate::ring::{self, Hash, MemberId, Ring};
use crate::telemetry::metrics::{Metrics, UpstreamMetrics};

pub use self::memory::{Memory, PeerMemory};
pub use self::peer::{InFlight, Peer, PeerState, ProbeReport};
pub use self::tried::{MAX_ATTEMPTS, Tried};

use self::rotation::Rotation;

/// A named group of peers, ready to be selected from.
#[derive(Debug)]
pub struct Upstream {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// What the operator wrote of it.
    pub config: config::Upstream,
    /// Where it is counted.
    pub metrics: UpstreamMetrics,
    ring: Ring,
    /// In the ring's member order.
    peers: Box<[Peer]>,
    /// The places of the peers by label.
    places: HashMap<Arc<str>, usize>,
    rotation: Rotation,
}

/// What a request brings to the choice of its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The hash of its key.
    Key(Hash),
    /// It has no key; its turn among the peers is this one.
    Turn(usize),
}

/// A peer and its place in the upstream, as [`Tried`] remembers it.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// The peer's place.
    pub member: MemberId,
    /// The peer.
    pub peer: &'a Peer,
}

/// The peers in the order in which they may be asked; a lower tier serves only when no peer of the
/// one above is left. Draining peers are in none.
const TIERS: [fn(&PeerState, Duration) -> bool; 3] = [
    PeerState::is_available,
    |peer, _| peer.is_up(),
    |peer, _| peer.may_be_up(),
];

/// An operator's order about a peer, on its way to the one that takes the peer's place.
#[derive(Debug)]
pub struct Drain {
    from: Arc<PeerState>,
    to: Arc<PeerState>,
    taken: bool,
}

impl Drain {
    fn take(from: &Arc<PeerState>, to: &Arc<PeerState>) -> Self {
        let taken = from.is_draining();
        to.set_draining(taken);
        Self {
            from: Arc::clone(from),
            to: Arc::clone(to),
            taken,
        }
    }

    /// Takes over an order that came since; orders about the new peer itself stand.
    pub fn settle(self) {
        let draining = self.from.is_draining();
        if draining != self.taken {
            self.to.set_draining(draining);
        }
    }
}

impl Upstream {
    /// Places the peers on a ring. `addresses` are the peers' looked-up addresses, in order; of a
    /// peer that `previous` had with the same label, what is still true is kept.
    ///
    /// # Errors
    /// What [`Ring::new`] says: more points than a ring can hold.
    pub fn new(
        name: &str,
        config: config::Upstream,
        addresses: &[SocketAddr],
        previous: Option<&Self>,
        metrics: &Metrics,
    ) -> Result<Self, ring::Error> {
        let ring = Ring::new(config.dialect, config.members())?;
        let probed = config.health.is_some();
        let written = config.peers.iter().zip(addresses);
        let peers: Box<[Peer]> = written
            .map(|(peer, &address)| {
                let state = state(&peer.label, address, probed, previous);
                Peer::new(peer, address, state, metrics.peer(name, &peer.label))
            })
            .collect();
        let places = peers.iter().enumerate();
        Ok(Self {
            name: name.into(),
            metrics: metrics.upstream(name),
            ring,
            places: places
                .map(|(place, peer)| (Arc::clone(&peer.label), place))
                .collect(),
            rotation: Rotation::new(peers.iter().map(|peer| peer.weight.get())),
            peers,
            config,
        })
    }

    /// The hash of a key, in this upstream's dialect.
    pub fn hash(&self, key: &[u8]) -> Hash {
        self.ring.hash(key)
    }

    /// The target of a request that has no key: the next turn.
    pub fn next_turn(&self) -> Target {
        Target::Turn(self.rotation.next())
    }

    /// The peer that is to serve a request: the first of its walk that is available and untried.
    ///
    /// "No peer" is the answer only when every untried peer is down or draining: when none is
    /// available, ejected ones serve (an ejection is a guess; a request in hand is not), and then
    /// ones that no probe has answered for yet. `now` is [`crate::clock::since_start`].
    pub fn select(&self, target: Target, tried: &Tried, now: Duration) -> Option<Choice<'_>> {
        if let Target::Key(hash) = target
            && let Some(owner) = self.ring.owner(hash)
            && let Some(peer) = self.peer(owner)
            && peer.state.is_available(now)
            && !tried.contains(owner)
        {
            return Some(Choice {
                member: owner,
                peer,
            });
        }
        self.select_past_owner(target, tried, now)
    }

    fn select_past_owner(
        &self,
        target: Target,
        tried: &Tried,
        now: Duration,
    ) -> Option<Choice<'_>> {
        TIERS.iter().find_map(|serves| {
            let may = |member: MemberId| {
                !tried.contains(member)
                    && self
                        .peer(member)
                        .is_some_and(|peer| serves(&peer.state, now))
            };
            let member = match target {
                Target::Key(hash) => self.ring.find(hash, may),
                Target::Turn(turn) => self.rotation.find(turn, may),
            }?;
            self.peer(member).map(|peer| Choice { member, peer })
        })
    }

    /// What another process should know of the peers, by label.
    pub fn memory(&self, now: Duration) -> BTreeMap<String, PeerMemory> {
        let memory = |peer: &Peer| {
            let memory = peer.state.memory(peer.address, self.is_probed(), now);
            (peer.label.to_string(), memory)
        };
        self.peers.iter().map(memory).collect()
    }

    /// Takes over what another process knew of the peers; of one that had another address, only
    /// whether an operator took it out.
    pub fn recall(&self, memory: &BTreeMap<String, PeerMemory>, now: Duration) {
        for peer in &self.peers {
            match memory.get(&*peer.label) {
                Some(known) if known.address == peer.address => {
                    peer.state.recall(known, self.is_probed(), now);
                }
                Some(known) => {
                    peer.state.set_draining(known.draining);
                }
                None => {}
            }
        }
    }

    /// Takes over which peers operators have taken out, by label, and nothing else.
    pub fn recall_drains<'a>(&self, drains: impl IntoIterator<Item = (&'a str, bool)>) {
        for (label, draining) in drains {
            if let Some(peer) = self.peer_named(label) {
                peer.state.set_draining(draining);
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

    /// The labels in clockwise order from a key, owner first, whatever their health.
    pub fn walk(&self, hash: Hash) -> impl Iterator<Item = &Peer> {
        self.ring.walk(hash).filter_map(|member| self.peer(member))
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

/// What is known of a peer at first: what its label had before, as far as that is still true. Another
/// address is another server; what was known while nobody probed is not what probes say, nor the
/// other way round. An operator's order is about the label.
fn state(
    label: &str,
    address: SocketAddr,
    probed: bool,
    previous: Option<&Upstream>,
) -> Arc<PeerState> {
    let before = previous.and_then(|upstream| Some((upstream, upstream.peer_named(label)?)));
    match before {
        Some((upstream, peer)) if peer.address == address => {
            if upstream.is_probed() == probed {
                Arc::clone(&peer.state)
            } else {
                Arc::new(peer.state.judged_anew(!probed))
            }
        }
        Some((_, peer)) => {
            let state = PeerState::new(!probed);
            state.set_draining(peer.state.is_draining());
            Arc::new(state)
        }
        None => Arc::new(PeerState::new(!probed)),
    }
}

/// The places of the first `count` members.
fn member_ids(count: usize) -> impl Iterator<Item = MemberId> {
    (0..u32::try_from(count).unwrap_or(u32::MAX)).map(MemberId)
}
