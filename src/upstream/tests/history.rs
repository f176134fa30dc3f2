//! Everything at once: random histories, and what each of their requests must have found.

use std::collections::HashMap;

use super::*;
use crate::policy::bound::Bound;
use crate::upstream::load::Place;

/// One random history, and what its requests must have found.
struct History {
    random: StdRng,
    app: Upstream,
    now: Duration,
    held: Vec<Place>,
    /// When a key was last at home with a peer: for what a drain keeps.
    at_home: HashMap<(usize, u64), Duration>,
    requests: u64,
    at_owner: u64,
}

impl History {
    const KEYS: u64 = 40;

    fn new(seed: u64, templates: &[config::Upstream]) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut config = templates[random.gen_range(0..templates.len())].clone();
        weigh(&mut config, &mut random);
        if random.gen_bool(0.3) {
            config.bounded_load = None;
        }
        if random.gen_bool(0.3) {
            config.slow_start = None;
        }
        if random.gen_bool(0.5) {
            config.drain = None;
        }
        let app = build(&config, None, s(1000));
        probe_all(&app, s(1000));
        Self {
            random,
            app,
            now: s(1000),
            held: Vec::new(),
            at_home: HashMap::new(),
            requests: 0,
            at_owner: 0,
        }
    }

    fn run(mut self) -> (u64, u64) {
        for _ in 0..25 {
            self.happen();
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
        match self.random.gen_range(0..10) {
            0 | 1 => probe(peer, false, self.now),
            2..=4 => probe(peer, true, self.now),
            5 => drop(peer.on_connect_failure(&EJECT, self.now)),
            6 => peer.on_connect_success(self.now),
            7 => drop(peer.set_draining(true, self.now)),
            8 => drop(peer.set_draining(false, self.now)),
            _ => {
                let mut config = self.app.config.clone();
                weigh(&mut config, &mut self.random);
                self.app = build(&config, Some(&self.app), self.now);
            }
        }
    }

    fn request(&mut self) {
        let key = self.random.gen_range(0..Self::KEYS);
        let tried = self.some_tried();
        let target = Target::Key(hash(key));
        let selected = self.selected(&target, &tried);
        assert_eq!(
            selected,
            self.selected(&target, &tried),
            "to ask changes nothing"
        );
        let expected = self.at_owner_by_law(key, &tried);
        let was_kept = self.kept(key, &tried);
        let over_bound = self.app.metrics.over_bound.get();
        let Ok(admitted) = self.app.admit(&target, &tried, self.now, self.app.enter()) else {
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
            assert_eq!((admitted.member.index(), admitted.overflow), (owner, None));
            self.at_owner += 1;
        }
        if let Some(keeper) = was_kept {
            let home = admitted.overflow.unwrap_or(admitted.member);
            assert_eq!(home.index(), keeper, "a kept key stays");
        }
        self.judge(key, &admitted, &tried, over_bound);
        self.held.push(admitted.place);
    }

    fn judge(&mut self, key: u64, admitted: &Admitted, tried: &Tried, over_bound: u64) {
        let member = admitted.member;
        assert!(!tried.contains(member));
        let peer = self.app.peer(member).unwrap();
        if peer.state.is_draining() {
            let last = self.at_home.get(&(member.index(), key));
            let pause = last.map(|last| self.now.saturating_sub(*last));
            assert!(
                pause <= Some(s(11)) && pause.is_some(),
                "new at a draining peer: {pause:?}"
            );
        }
        let goes_over = self.app.metrics.over_bound.get() > over_bound;
        let has_all = self.untried(tried).count() == self.app.peers().len();
        assert!(!(has_all && goes_over), "there was room somewhere");
        if let (Some(bound), false) = (self.app.config.bounded_load, goes_over) {
            let most = self.capacity(bound, peer);
            assert!(
                peer.state.in_flight() <= most,
                "{} of {most}",
                peer.state.in_flight()
            );
        }
        if admitted.overflow.is_none() {
            self.at_home.insert((member.index(), key), self.now);
        }
    }

    /// The owner, where the law says that the request goes there.
    fn at_owner_by_law(&self, key: u64, tried: &Tried) -> Option<usize> {
        let owner = self.app.ring().owner(&hash(key)).unwrap();
        let peer = self.app.peer(owner).unwrap();
        let has_room = self.app.config.bounded_load.is_none_or(|bound| {
            let total = self.app.in_flight() + 1;
            let most = bound.capacity(total, peer.weight.get(), self.home_weight());
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
        let last = self.at_home.get(&(owner.index(), key))?;
        // The clock of the keys' table ticks every 134 ms.
        let is_active = self.now.saturating_sub(*last) + Duration::from_millis(300) < drain.idle;
        let drains = peer.state.drains_for(self.now)? < drain.deadline;
        (is_active && drains && !tried.contains(owner)).then_some(owner.index())
    }

    fn capacity(&self, bound: Bound, peer: &Peer) -> u32 {
        let extra = if is_home(&peer.state, self.now) {
            0
        } else {
            u32::from(peer.weight.get())
        };
        let weight = self.home_weight() + extra;
        bound.capacity(self.app.in_flight(), peer.weight.get(), weight)
    }

    fn home_weight(&self) -> u32 {
        let home = self
            .app
            .peers()
            .iter()
            .filter(|peer| is_home(&peer.state, self.now));
        home.map(|peer| u32::from(peer.weight.get())).sum()
    }

    fn selected(&self, target: &Target, tried: &Tried) -> Option<MemberId> {
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
        let members = member_ids(self.app.peers().len());
        members
            .filter(|member| !tried.contains(*member))
            .filter_map(|member| self.app.peer(member))
    }
}

fn weigh(config: &mut config::Upstream, random: &mut StdRng) {
    for peer in &mut config.peers {
        peer.weight = Weight::new(random.gen_range(1..=4)).unwrap();
    }
}

#[test]
fn a_request_whose_owner_is_home_and_has_room_never_goes_elsewhere() {
    let settings = [
        "ring: {dialect: ketama, points: 8}",
        "health: {tcp: true}",
        "flap_damping: {flips: 3, half_life: 10s, max: 30s}",
        "slow_start: 5s",
        QUARTER,
        KEEPING,
    ];
    let templates: Vec<_> = (1..=6).map(|peers| written(peers, &settings)).collect();
    let runs = (0..10_000).map(|seed| History::new(seed, &templates).run());
    let (requests, at_owner) = runs.fold((0, 0), |sum, run| (sum.0 + run.0, sum.1 + run.1));
    assert!(
        requests > 1_000_000 && at_owner > requests / 3,
        "{at_owner} of {requests}"
    );
}
