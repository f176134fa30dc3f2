//! Everything at once: random histories, and what each of their requests must have found.

use std::collections::HashMap;

use super::*;
use crate::policy::bounded_load::BalanceFactor;
use crate::policy::health::HealthStatus;
use crate::policy::heavy_hitters::HotKey;
use crate::policy::slow_start::SlowStartWindow;
use crate::upstream::in_flight::PeerPermit;

/// A key and a peer's label.
type Session = (Arc<str>, u64);

/// One random history, and what its requests must have found.
struct History {
    random: StdRng,
    app: Upstream,
    now: Duration,
    held: Vec<PeerPermit>,
    /// When a peer served a key last that may have been at home with it, and has not been lost since.
    served: HashMap<Session, Duration>,
    /// The same of a key that certainly was.
    at_home: HashMap<Session, Duration>,
    /// In which slow start of its owner a key has come home.
    came_home: HashMap<Session, SlowStartWindow>,
    requests: u64,
    at_owner: u64,
}

impl History {
    const KEYS: u64 = 40;

    fn new(seed: u64, template: &config::UpstreamConfig) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let config = some_of(template, &mut random);
        let app = at_home(&config, None, s(1000));
        let mut history = Self {
            random,
            app,
            now: s(1000),
            held: Vec::new(),
            served: HashMap::new(),
            at_home: HashMap::new(),
            came_home: HashMap::new(),
            requests: 0,
            at_owner: 0,
        };
        history.ask_all();
        history
    }

    /// The first probes. Some peers are down, and some do not answer yet.
    fn ask_all(&mut self) {
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
                _ => self.happen(),
            }
            for _ in 0..self.random.gen_range(1..12) {
                let pause = self.random.gen_range(0..700);
                self.now += Duration::from_millis(pause);
                self.request();
            }
            let leave = self.random.gen_range(0..=self.held.len());
            for _ in 0..leave {
                let place = self.random.gen_range(0..self.held.len());
                self.held.swap_remove(place);
            }
        }
        (self.requests, self.at_owner)
    }

    fn happen(&mut self) {
        let number = self.random.gen_range(0..self.app.peers().len());
        let peer = &self.app.peers()[number];
        let kept = self.keeps_keys(peer);
        match self.random.gen_range(0..9) {
            0 | 1 => probe(peer, false, self.now),
            2..=4 => probe(peer, true, self.now),
            5 => drop(peer.on_connect_failure(&EJECT, self.now)),
            6 => peer.on_connect_success(self.now),
            7 => drop(peer.set_draining(true, self.now)),
            _ => drop(peer.set_draining(false, self.now)),
        }
        if self.keeps_keys(peer) != kept {
            let label = Arc::clone(&peer.label);
            self.forget(|other| *other != label);
        }
    }

    /// Other weights and settings, and peers that come and go.
    fn reload(&mut self, template: &config::UpstreamConfig) {
        let mut config = self.app.config.clone();
        if self.random.gen_bool(0.5) {
            config.peers = some_of(template, &mut self.random).peers;
        }
        weigh(&mut config, &mut self.random);
        set_anew(&mut config, template, &mut self.random);
        let ramps = self.ramps();
        let after = at_home(&config, Some(&self.app), self.now);
        after.take_over_from(&self.app);
        self.app = after;
        self.app.reconcile(self.now);
        self.follow(&ramps);
        let labels: Vec<_> = self
            .app
            .peers()
            .iter()
            .map(|peer| Arc::clone(&peer.label))
            .collect();
        self.forget(|label| labels.contains(label));
    }

    fn ramps(&self) -> HashMap<Arc<str>, SlowStartWindow> {
        let peers = self.app.peers().iter();
        let ramp = |peer: &Peer| Some((Arc::clone(&peer.label), peer.state.slow_start(self.now)?));
        peers.filter_map(ramp).collect()
    }

    /// One of another length is still the slow start in which a key has come home.
    fn follow(&mut self, before: &HashMap<Arc<str>, SlowStartWindow>) {
        let after = self.ramps();
        for ((label, _), ramp) in &mut self.came_home {
            if before.get(label) == Some(ramp)
                && let Some(after) = after.get(label)
            {
                *ramp = *after;
            }
        }
    }

    /// Another process, which knows what this one knew.
    fn upgrade(&mut self) {
        let (mut memory, mut room) = (self.app.export_state(self.now), MAX_EXPORTED_KEYS);
        self.app
            .export_active_keys(&mut memory, &mut room, Duration::MAX, self.now);
        let cold = self.app.export_cold_start(self.now);
        self.app = at_home(&self.app.config, None, self.now);
        self.app.restore_cold_start(cold, self.now);
        self.app.restore_state(&memory, self.now);
        self.held.clear();
    }

    fn forget(&mut self, stays: impl Fn(&Arc<str>) -> bool) {
        self.served.retain(|(label, _), _| stays(label));
        self.at_home.retain(|(label, _), _| stays(label));
        self.came_home.retain(|(label, _), _| stays(label));
    }

    /// Whether the peer still has the keys that it served lately.
    fn keeps_keys(&self, peer: &Peer) -> bool {
        let is_lost = peer.state.health() == HealthStatus::Down
            || peer.state.ejected_until(self.now).is_some();
        let is_late = |since| {
            let drains_for = self.now.saturating_sub(since);
            self.app
                .config
                .drain
                .is_none_or(|drain| drain.deadline <= drains_for)
        };
        !is_lost && !peer.state.draining_since().is_some_and(is_late)
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
            "to ask changes nothing"
        );
        let spreads = self.spreads(key, &tried);
        let expected = self.at_owner_by_law(key, &tried).filter(|_| !spreads);
        let was_kept = self.kept(key, &tried).filter(|_| !spreads);
        let over_bound = self.app.metrics.bounded_load_exceeded.get();
        let shared = self.shared() + 1;
        let Ok(admitted) = self
            .app
            .admit(&target, &tried, self.now, self.app.begin_request())
        else {
            assert_eq!(selected, None);
            let mut untried = self.untried(&tried);
            assert!(
                untried.all(|peer| !peer.state.may_be_up()),
                "no peer, but one may serve"
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
        if let Some(keeper) = was_kept {
            let home = admitted.overflow_from.unwrap_or(admitted.member);
            assert_eq!(home.index(), keeper, "a kept key stays");
        }
        self.judge(key, &admitted, &tried, (shared, over_bound));
        if tried.is_empty() && admitted.overflow_from.is_none() {
            self.judge_moves(key, admitted.member, spreads);
            self.note(key, admitted.member, spreads);
        }
        self.held.push(admitted.permit);
    }

    /// Whether the request may go to another peer than the key is at home with, as the key is hot.
    fn spreads(&self, key: u64, tried: &Tried) -> bool {
        let is_it = |hot: &HotKey| hot.key == hash(key).hash().0;
        let is_hot = |hot: &HotKeyTracker| hot.hot_keys(self.now).iter().any(is_it);
        tried.is_empty() && self.app.hot_keys().is_some_and(is_hot)
    }

    fn judge(
        &mut self,
        key: u64,
        admitted: &Admission,
        tried: &Tried,
        (shared, over_bound): (u32, u64),
    ) {
        let member = admitted.member;
        assert!(!tried.contains(member));
        let peer = self.app.peer(member).unwrap();
        if peer.state.is_draining() {
            let last = self.served.get(&(Arc::clone(&peer.label), key));
            let pause = last.map(|last| self.now.saturating_sub(*last));
            assert!(
                pause <= Some(s(11)) && pause.is_some(),
                "new at a draining peer: {pause:?}"
            );
        }
        let goes_over = self.app.metrics.bounded_load_exceeded.get() > over_bound;
        let has_all = self.untried(tried).count() == self.app.peers().len();
        assert!(!(has_all && goes_over), "there was room somewhere");
        if let (Some(load), false) = (self.app.config.bounded_load, goes_over) {
            // How far slow starts have come is looked at 64 times in their course.
            let looked = self.now.saturating_sub(s(11) / 64);
            let most = self.capacity(load.factor, peer, shared, looked);
            assert!(
                peer.state.in_flight() <= most,
                "{} of {most}",
                peer.state.in_flight()
            );
        }
    }

    /// A key that has come home in a slow start of its owner stays there.
    fn judge_moves(&mut self, key: u64, member: MemberId, spreads: bool) {
        let owner = self.app.ring().owner(&hash(key)).unwrap();
        let peer = self.app.peer(owner).unwrap();
        let (true, Some(ramp)) = (
            peer.state.is_available(self.now),
            peer.state.slow_start(self.now),
        ) else {
            return;
        };
        let session = (Arc::clone(&peer.label), key);
        if member == owner {
            self.came_home.insert(session, ramp);
        } else if !spreads {
            assert_ne!(self.came_home.get(&session), Some(&ramp), "it was home");
        }
    }

    fn note(&mut self, key: u64, member: MemberId, spreads: bool) {
        let peer = self.app.peer(member).unwrap();
        let session = (Arc::clone(&peer.label), key);
        let may_be_home = peer.state.is_available(self.now) || peer.state.is_draining();
        if may_be_home && !spreads {
            // With one peer at a time.
            self.at_home.retain(|(_, other), _| *other != key);
            self.at_home.insert(session.clone(), self.now);
        }
        self.served.insert(session, self.now);
    }

    /// The owner, where the law says that the request goes there.
    fn at_owner_by_law(&self, key: u64, tried: &Tried) -> Option<usize> {
        let owner = self.app.ring().owner(&hash(key)).unwrap();
        let peer = self.app.peer(owner).unwrap();
        let has_room = self.app.config.bounded_load.is_none_or(|load| {
            let most = self.capacity(load.factor, peer, self.shared() + 1, self.now);
            peer.state.in_flight() < most
        });
        (is_home(&peer.state, self.now) && has_room && !tried.contains(owner))
            .then_some(owner.index())
    }

    /// The owner, where it drains and must keep the key.
    fn kept(&self, key: u64, tried: &Tried) -> Option<usize> {
        let drain = self.app.config.drain?;
        let owner = self.app.ring().owner(&hash(key)).unwrap();
        let peer = self.app.peer(owner).unwrap();
        let last = self.at_home.get(&(Arc::clone(&peer.label), key))?;
        // The clock of the keys' table ticks a few times a second.
        let is_active = self.now.saturating_sub(*last) + Duration::from_millis(300) < drain.idle;
        let drains = peer.state.draining_for(self.now)? < drain.deadline;
        (is_active && drains && !tried.contains(owner)).then_some(owner.index())
    }

    /// The most that the peer may hold of those that are shared; slow starts as they were at `looked`.
    fn capacity(&self, bound: BalanceFactor, peer: &Peer, shared: u32, looked: Duration) -> u32 {
        let part = |peer: &Peer, at| match peer.state.slow_start(self.now) {
            _ if !is_available(&peer.state, self.now) => 0,
            Some(ramp) => ramp.scale(u32::from(peer.weight.get()) * 64, at),
            None => u32::from(peer.weight.get()) * 64,
        };
        let whole = peer.weight.get() * 64;
        let peers = self.app.peers().iter();
        let weight: u32 = peers.map(|peer| part(peer, looked)).sum();
        let missing = u32::from(whole) - part(peer, self.now);
        let total = if is_available(&peer.state, self.now) {
            shared
        } else {
            shared + peer.state.in_flight().saturating_sub(1)
        };
        bound.capacity(total, whole, weight + missing)
    }

    /// The requests that peers hold which share the load.
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

/// Some of the peers, with some of the settings.
fn some_of(template: &config::UpstreamConfig, random: &mut StdRng) -> config::UpstreamConfig {
    let mut config = template.clone();
    let stays: Vec<bool> = config.peers.iter().map(|_| random.gen_bool(0.6)).collect();
    let mut stays = stays.into_iter();
    config
        .peers
        .retain(|peer| stays.next() == Some(true) || peer.label == "p0");
    weigh(&mut config, random);
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

/// The peers where they always are.
fn at_home(
    config: &config::UpstreamConfig,
    previous: Option<&Upstream>,
    now: Duration,
) -> Upstream {
    let port = |peer: &config::PeerConfig| peer.label[1..].parse::<u16>().unwrap() + 1;
    let address = |_, peer: &_| SocketAddr::from(([127, 0, 0, 1], port(peer)));
    placed(config, address, previous, now)
}

/// Slow starts of other lengths or none, and another table of active keys.
fn set_anew(
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

fn weigh(config: &mut config::UpstreamConfig, random: &mut StdRng) {
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
        QUARTER,
        KEEPING,
    ];
    let slow_start = ["slow_start: 5s", "slow_start: {time: 5s, at_start: true}"];
    let templates = slow_start.map(|slow| written(8, &[&settings[..], &[slow]].concat()));
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
