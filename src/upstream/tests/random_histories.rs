//! Random histories of everything that can happen to an upstream, with the invariants of each request.

use std::collections::HashMap;

use super::*;
use crate::policy::bounded_load::BalanceFactor;
use crate::policy::health::HealthStatus;
use crate::policy::heavy_hitters::HotKey;
use crate::policy::slow_start::SlowStartWindow;
use crate::upstream::in_flight::PeerPermit;

/// A key and a peer's label.
type Session = (Arc<str>, u64);

/// A random history, and a model of what its requests may find.
struct History {
    random: StdRng,
    app: Upstream,
    now: Duration,
    permits: Vec<PeerPermit>,
    /// The last time that a peer served a key that may be its own, if it was not lost since.
    maybe_own: HashMap<Session, Duration>,
    /// The same for keys that certainly are its own.
    own: HashMap<Session, Duration>,
    /// The slow start of its owner that admitted a key.
    admitted_in: HashMap<Session, SlowStartWindow>,
    requests: u64,
    at_owner: u64,
}

impl History {
    const KEYS: u64 = 40;

    fn new(seed: u64, template: &config::UpstreamConfig) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let config = random_config(template, &mut random);
        let app = build_fixed(&config, None, s(1000));
        let mut history = Self {
            random,
            app,
            now: s(1000),
            permits: Vec::new(),
            maybe_own: HashMap::new(),
            own: HashMap::new(),
            admitted_in: HashMap::new(),
            requests: 0,
            at_owner: 0,
        };
        history.probe_some();
        history
    }

    /// The first probes: some peers are down, and some were not probed yet.
    fn probe_some(&mut self) {
        for peer in self.app.peers() {
            match self.random.gen_range(0..10) {
                0 => {}
                1 | 2 => probe(peer, false, self.now),
                _ => probe(peer, true, self.now),
            }
        }
    }

    fn run(mut self, template: &config::UpstreamConfig) -> (u64, u64) {
        for _ in 0..25 {
            match self.random.gen_range(0..40) {
                0..=3 => self.reload(template),
                4 => self.upgrade(),
                _ => self.change_peer(),
            }
            for _ in 0..self.random.gen_range(1..12) {
                let pause = self.random.gen_range(0..700);
                self.now += Duration::from_millis(pause);
                self.request();
            }
            let leave = self.random.gen_range(0..=self.permits.len());
            for _ in 0..leave {
                let index = self.random.gen_range(0..self.permits.len());
                self.permits.swap_remove(index);
            }
        }
        (self.requests, self.at_owner)
    }

    /// A probe, a connect, or an operator's command.
    fn change_peer(&mut self) {
        let number = self.random.gen_range(0..self.app.peers().len());
        let peer = &self.app.peers()[number];
        let kept_keys = self.keeps_keys(peer);
        match self.random.gen_range(0..9) {
            0 | 1 => probe(peer, false, self.now),
            2..=4 => probe(peer, true, self.now),
            5 => fail_connect(peer, self.now),
            6 => peer.on_success(self.now, self.now),
            7 => drop(peer.set_draining(true, self.now)),
            _ => drop(peer.set_draining(false, self.now)),
        }
        if self.keeps_keys(peer) != kept_keys {
            let label = Arc::clone(&peer.label);
            self.forget(|other| *other != label);
        }
    }

    /// Reloads with other weights, settings and peers.
    fn reload(&mut self, template: &config::UpstreamConfig) {
        let mut config = self.app.config.clone();
        if self.random.gen_bool(0.5) {
            config.peers = random_config(template, &mut self.random).peers;
        }
        set_random_weights(&mut config, &mut self.random);
        change_settings(&mut config, template, &mut self.random);
        let before = self.slow_starts();
        let after = build_fixed(&config, Some(&self.app), self.now);
        after.take_over_from(&self.app);
        self.app = after;
        self.app.reconcile(self.now);
        self.follow_slow_starts(&before);
        let labels: Vec<_> = self
            .app
            .peers()
            .iter()
            .map(|peer| Arc::clone(&peer.label))
            .collect();
        self.forget(|label| labels.contains(label));
    }

    fn slow_starts(&self) -> HashMap<Arc<str>, SlowStartWindow> {
        let peers = self.app.peers().iter();
        let slow_start =
            |peer: &Peer| Some((Arc::clone(&peer.label), peer.state.slow_start(self.now)?));
        peers.filter_map(slow_start).collect()
    }

    /// A rescaled slow start is still the one that admitted a key.
    fn follow_slow_starts(&mut self, before: &HashMap<Arc<str>, SlowStartWindow>) {
        let after = self.slow_starts();
        for ((label, _), window) in &mut self.admitted_in {
            if before.get(label) == Some(window)
                && let Some(after) = after.get(label)
            {
                *window = *after;
            }
        }
    }

    /// Moves to another process.
    fn upgrade(&mut self) {
        let (mut exported, mut room) = (self.app.export_state(self.now), MAX_EXPORTED_KEYS);
        self.app
            .export_active_keys(&mut exported, &mut room, Duration::MAX, self.now);
        let cold = self.app.export_cold_start(self.now);
        self.app = build_fixed(&self.app.config, None, self.now);
        self.app.restore_cold_start(cold, self.now);
        self.app.restore_state(&exported, self.now);
        self.permits.clear();
    }

    /// Forgets the keys of all peers but these.
    fn forget(&mut self, stays: impl Fn(&Arc<str>) -> bool) {
        self.maybe_own.retain(|(label, _), _| stays(label));
        self.own.retain(|(label, _), _| stays(label));
        self.admitted_in.retain(|(label, _), _| stays(label));
    }

    /// Whether the peer keeps the keys that it served.
    fn keeps_keys(&self, peer: &Peer) -> bool {
        let is_lost = peer.state.health() == HealthStatus::Down
            || peer.state.ejected_until(self.now).is_some();
        let is_past_deadline = |since| {
            let elapsed = self.now.saturating_sub(since);
            self.app
                .config
                .drain
                .is_none_or(|drain| drain.deadline <= elapsed)
        };
        !is_lost && !peer.state.draining_since().is_some_and(is_past_deadline)
    }

    fn request(&mut self) {
        let key = if self.random.gen_bool(0.2) {
            0
        } else {
            self.random.gen_range(0..Self::KEYS)
        };
        let tried = self.some_tried();
        let target = HashTarget::Key(hash(key));
        let selected = self.selected(&target, &tried);
        assert_eq!(
            selected,
            self.selected(&target, &tried),
            "a selection changes nothing"
        );
        let is_hot = self.is_hot(key, &tried);
        let expected = self.required_owner(key, &tried).filter(|_| !is_hot);
        let keeper = self.keeper(key, &tried).filter(|_| !is_hot);
        let exceeded = self.app.metrics.bounded_load_exceeded.get();
        let shared = self.shared() + 1;
        let Ok(admitted) = self
            .app
            .admit(&target, &tried, self.now, self.app.begin_request())
        else {
            assert_eq!(selected, None);
            let mut untried = self.untried(&tried);
            assert!(
                untried.all(|peer| !peer.state.may_be_up()),
                "no peer found, but one could serve"
            );
            return;
        };
        self.requests += 1;
        if let Some(owner) = expected {
            assert_eq!(
                (admitted.member.index(), admitted.overflow_from),
                (owner, None)
            );
            self.at_owner += 1;
        }
        if let Some(keeper) = keeper {
            let assigned = admitted.overflow_from.unwrap_or(admitted.member);
            assert_eq!(assigned.index(), keeper, "a kept key stays");
        }
        self.check(key, &admitted, &tried, (shared, exceeded));
        if tried.is_empty() && admitted.overflow_from.is_none() {
            self.check_slow_start(key, admitted.member, is_hot);
            self.record(key, admitted.member, is_hot);
        }
        self.permits.push(admitted.permit);
    }

    /// Whether the request may be spread to another peer because its key is hot.
    fn is_hot(&self, key: u64, tried: &Tried) -> bool {
        let is_key = |hot: &HotKey| hot.key == hash(key).hash().0;
        let has_key = |hot: &HotKeyTracker| hot.hot_keys(self.now).iter().any(is_key);
        tried.is_empty() && self.app.hot_keys().is_some_and(has_key)
    }

    fn check(
        &mut self,
        key: u64,
        admitted: &Admission,
        tried: &Tried,
        (shared, exceeded): (u32, u64),
    ) {
        let member = admitted.member;
        assert!(!tried.contains(member));
        let peer = self.app.peer(member).unwrap();
        if peer.state.is_draining() {
            let last = self.maybe_own.get(&(Arc::clone(&peer.label), key));
            let pause = last.map(|last| self.now.saturating_sub(*last));
            assert!(
                pause <= Some(s(11)) && pause.is_some(),
                "new key at a draining peer: {pause:?}"
            );
        }
        let exceeds = self.app.metrics.bounded_load_exceeded.get() > exceeded;
        let all_untried = self.untried(tried).count() == self.app.peers().len();
        assert!(!(all_untried && exceeds), "some peer had room");
        if let (Some(load), false) = (self.app.config.bounded_load, exceeds) {
            // The progress of slow starts is recounted in 64 steps.
            let recounted = self.now.saturating_sub(s(11) / 64);
            let capacity = self.capacity(load.factor, peer, shared, recounted);
            assert!(
                peer.state.in_flight() <= capacity,
                "{} of {capacity}",
                peer.state.in_flight()
            );
        }
    }

    /// A key that a slow start of its owner has admitted stays there.
    fn check_slow_start(&mut self, key: u64, member: MemberId, is_hot: bool) {
        let owner = self.app.ring().owner(&hash(key)).unwrap();
        let peer = self.app.peer(owner).unwrap();
        let (true, Some(window)) = (
            peer.state.is_available(self.now),
            peer.state.slow_start(self.now),
        ) else {
            return;
        };
        let session = (Arc::clone(&peer.label), key);
        if member == owner {
            self.admitted_in.insert(session, window);
        } else if !is_hot {
            assert_ne!(
                self.admitted_in.get(&session),
                Some(&window),
                "it was admitted"
            );
        }
    }

    fn record(&mut self, key: u64, member: MemberId, is_hot: bool) {
        let peer = self.app.peer(member).unwrap();
        let session = (Arc::clone(&peer.label), key);
        let may_be_own = peer.state.is_available(self.now) || peer.state.is_draining();
        if may_be_own && !is_hot {
            // A key is one peer's own.
            self.own.retain(|(_, other), _| *other != key);
            self.own.insert(session.clone(), self.now);
        }
        self.maybe_own.insert(session, self.now);
    }

    /// The owner, if the request must go there.
    fn required_owner(&self, key: u64, tried: &Tried) -> Option<usize> {
        let owner = self.app.ring().owner(&hash(key)).unwrap();
        let peer = self.app.peer(owner).unwrap();
        let has_room = self.app.config.bounded_load.is_none_or(|load| {
            let capacity = self.capacity(load.factor, peer, self.shared() + 1, self.now);
            peer.state.in_flight() < capacity
        });
        (takes_all_keys(&peer.state, self.now) && has_room && !tried.contains(owner))
            .then_some(owner.index())
    }

    /// The owner, if it is draining and must keep the key.
    fn keeper(&self, key: u64, tried: &Tried) -> Option<usize> {
        let drain = self.app.config.drain?;
        let owner = self.app.ring().owner(&hash(key)).unwrap();
        let peer = self.app.peer(owner).unwrap();
        let last = self.own.get(&(Arc::clone(&peer.label), key))?;
        // The affinity table has a unit of time of 0.27 s.
        let is_active = self.now.saturating_sub(*last) + Duration::from_millis(300) < drain.idle;
        let has_time = peer.state.draining_for(self.now)? < drain.deadline;
        (is_active && has_time && !tried.contains(owner)).then_some(owner.index())
    }

    /// The most requests that the peer may hold, of `shared`; slow starts as they were at `recounted`.
    fn capacity(
        &self,
        factor: BalanceFactor,
        peer: &Peer,
        shared: u32,
        recounted: Duration,
    ) -> u32 {
        let part = |peer: &Peer, at| match peer.state.slow_start(self.now) {
            _ if !is_available(&peer.state, self.now) => 0,
            Some(window) => window.scale(u32::from(peer.weight.get()) * 64, at),
            None => u32::from(peer.weight.get()) * 64,
        };
        let total_parts = peer.weight.get() * 64;
        let peers = self.app.peers().iter();
        let weight: u32 = peers.map(|peer| part(peer, recounted)).sum();
        let missing = u32::from(total_parts) - part(peer, self.now);
        let total = if is_available(&peer.state, self.now) {
            shared
        } else {
            shared + peer.state.in_flight().saturating_sub(1)
        };
        factor.capacity(total, total_parts, weight + missing)
    }

    /// The requests at available peers.
    fn shared(&self) -> u32 {
        let peers = self.app.peers().iter();
        let available = peers.filter(|peer| is_available(&peer.state, self.now));
        available.map(|peer| peer.state.in_flight()).sum()
    }

    fn selected(&self, target: &HashTarget, tried: &Tried) -> Option<MemberId> {
        self.app
            .select(target, tried, self.now)
            .map(|choice| choice.member)
    }

    fn some_tried(&mut self) -> Tried {
        let mut tried = Tried::none();
        while self.random.gen_bool(0.1) {
            let peers = u32::try_from(self.app.peers().len()).unwrap();
            tried.insert(MemberId(self.random.gen_range(0..peers)));
        }
        tried
    }

    fn untried<'a>(&'a self, tried: &'a Tried) -> impl Iterator<Item = &'a Peer> {
        let members = (0..).map(MemberId).take(self.app.peers().len());
        members
            .filter(|member| !tried.contains(*member))
            .filter_map(|member| self.app.peer(member))
    }
}

/// Some of the template's peers and settings.
fn random_config(template: &config::UpstreamConfig, random: &mut StdRng) -> config::UpstreamConfig {
    let mut config = template.clone();
    let stays: Vec<bool> = config.peers.iter().map(|_| random.gen_bool(0.6)).collect();
    let mut stays = stays.into_iter();
    config
        .peers
        .retain(|peer| stays.next() == Some(true) || peer.label == "p0");
    set_random_weights(&mut config, random);
    if random.gen_bool(0.3) {
        config.bounded_load = None;
    }
    if random.gen_bool(0.3) {
        config.slow_start = None;
    }
    if random.gen_bool(0.5) {
        config.drain = None;
    }
    if random.gen_bool(0.7) {
        config.hot_keys = None;
    }
    config
}

/// An upstream with each peer at its own address, whatever its position.
fn build_fixed(
    config: &config::UpstreamConfig,
    previous: Option<&Upstream>,
    now: Duration,
) -> Upstream {
    let port = |peer: &config::PeerConfig| peer.label[1..].parse::<u16>().unwrap() + 1;
    let address = |_, peer: &_| SocketAddr::from(([127, 0, 0, 1], port(peer)));
    build_at(config, address, previous, now)
}

/// Changes the slow start and the size of the affinity table.
fn change_settings(
    config: &mut config::UpstreamConfig,
    template: &config::UpstreamConfig,
    random: &mut StdRng,
) {
    if random.gen_bool(0.5) {
        let length = [0, 2, 5, 11][random.gen_range(0..4)];
        config.slow_start = template.slow_start.filter(|_| length > 0);
        if let Some(slow_start) = &mut config.slow_start {
            slow_start.duration = s(length);
        }
    }
    if let (Some(drain), true) = (&mut config.drain, random.gen_bool(0.5)) {
        drain.max_tracked_keys = [256, 1024, 4096][random.gen_range(0..3)];
    }
}

fn set_random_weights(config: &mut config::UpstreamConfig, random: &mut StdRng) {
    for peer in &mut config.peers {
        peer.weight = Weight::new(random.gen_range(1..=4)).unwrap();
    }
}

#[test]
fn request_with_an_available_owner_below_its_bound_goes_to_it() {
    let settings = [
        "ring: {dialect: ketama, points: 8}",
        "health: {tcp: true}",
        "flap_damping: {flips: 3, half_life: 10s, max: 30s}",
        "hot_keys: {share: 15%, spread: 2}",
        BOUNDED,
        DRAIN,
    ];
    let slow_start = ["slow_start: 5s", "slow_start: {time: 5s, at_start: true}"];
    let templates = slow_start.map(|setting| config_of(8, &[&settings[..], &[setting]].concat()));
    let runs = (0..10_000).map(|seed| {
        let template = &templates[usize::from(seed % 4 == 0)];
        History::new(seed, template).run(template)
    });
    let (requests, at_owner) = runs.fold((0, 0), |sum, run| (sum.0 + run.0, sum.1 + run.1));
    assert!(
        requests > 1_000_000 && at_owner > requests / 3,
        "{at_owner} of {requests}"
    );
}
