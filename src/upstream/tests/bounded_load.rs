//! What a bound is a share of: the requests that the peers share, and the peers that share them.

use std::task::Waker;

use super::*;
use crate::telemetry::metrics::PeerWaitOutcome;

/// A key that the peer owns.
fn key_of(app: &Upstream, peer: usize) -> u64 {
    (0..10_000).find(|key| owner(app, *key) == peer).unwrap()
}

/// So many requests at a peer, however it came to them.
fn burden(app: &Upstream, peer: usize, requests: usize) -> Vec<PeerPermit> {
    let held = app.peers()[peer].state.in_flight_counter();
    (0..requests)
        .map(|_| app.begin_request().admit_unbounded(held))
        .collect()
}

/// The most that a peer holds when so many requests of one key are in flight.
fn most_of_one_key(app: &Upstream, key: u64, requests: usize, now: Duration) -> u32 {
    let held: Vec<_> = (0..requests).map(|_| served(app, key, now)).collect();
    let most = held
        .iter()
        .map(|admitted| app.peer(admitted.member).unwrap().state.in_flight())
        .max();
    most.unwrap()
}

#[test]
fn bounded_load_ignores_in_flight_of_a_draining_peer() {
    let app = app(10, &[QUARTER]);
    let streams = burden(&app, 0, 300);
    app.peers()[0].set_draining(true, s(1000));
    let key = key_of(&app, 1);
    assert_eq!(most_of_one_key(&app, key, 90, s(1000)), 13);
    app.peers()[0].set_draining(false, s(1001));
    let others = served(&app, key, s(1001));
    assert_eq!(app.in_flight(), 301, "they count again");
    drop((streams, others));
    assert_eq!((app.in_flight(), app.peers()[0].state.in_flight()), (0, 0));
}

#[test]
fn bounded_load_ignores_in_flight_of_a_down_or_ejected_peer() {
    let app = app(10, &[QUARTER, "health: {tcp: true}"]);
    probe_all(&app, s(1000));
    let _streams = [burden(&app, 0, 300), burden(&app, 1, 100)];
    probe(&app.peers()[0], false, s(1001));
    app.peers()[1].on_connect_failure(&EJECT, s(1001));
    let key = key_of(&app, 2);
    assert_eq!(most_of_one_key(&app, key, 80, s(1001)), 13);
    // Nobody writes when the ejection is over.
    drop(served(&app, key, s(1006)));
    assert_eq!(app.in_flight(), 100);
}

#[test]
fn bounded_load_weighs_a_slow_starting_peer_by_its_progress() {
    let app = app(10, &[QUARTER, SLOWLY]);
    for peer in &app.peers()[..5] {
        peer.set_draining(true, s(1000));
        peer.set_draining(false, s(1001));
    }
    let key = key_of(&app, 7);
    let most = |after: u64| most_of_one_key(&app, key, 100, s(1001 + after));
    // Of 100 requests ⌈125 / 5⌉, ⌈125 / 7.5⌉ and ⌈125 / 10⌉; in between, a step of a ramp may be missing.
    assert_eq!((most(0), most(30), most(60)), (25, 17, 13));
}

#[test]
fn bounded_load_ignores_in_flight_of_a_removed_peer() {
    let before = app(10, &[QUARTER]);
    let streams = burden(&before, 0, 300);
    let key = key_of(&before, 5);
    drop(served(&before, key, s(1000)));
    let mut config = before.config.clone();
    config.peers.remove(0);
    let at_home = |peer: &config::PeerConfig| {
        let number: u16 = peer.label[1..].parse().unwrap();
        SocketAddr::from(([127, 0, 0, 1], number + 1))
    };
    let after = placed(&config, |_, peer| at_home(peer), Some(&before), s(1000));
    after.take_over_from(&before);
    assert_eq!(most_of_one_key(&after, key, 90, s(1000)), 13);
    // A request that still has the configuration before does not undo it.
    before.peers()[1].set_draining(true, s(1001));
    before.peers()[1].set_draining(false, s(1002));
    drop(served(&before, key, s(1002)));
    assert_eq!(after.in_flight(), 0);
    drop(streams);
    assert_eq!(after.in_flight(), 0);
}

#[test]
fn retry_uses_free_capacity_before_it_exceeds_the_bound() {
    let app = app(2, &[QUARTER]);
    let mut tried = Tried::none();
    tried.insert(MemberId(0));
    let at_first = || {
        let held = app.peers()[0].state.in_flight_counter();
        app.begin_request().admit_unbounded(held)
    };
    let _first: Vec<_> = (0..20).map(|_| at_first()).collect();
    let on_second = |_| {
        let admitted = app.admit(
            &HashTarget::Key(hash(7)),
            &tried,
            s(1000),
            app.begin_request(),
        );
        admitted.unwrap()
    };
    let _second: Vec<_> = (0..30).map(on_second).collect();
    // 30 of 50 in flight are above the fair share, and within the bound of 32.
    assert_eq!(app.metrics.bounded_load_exceeded.get(), 0);
}

#[test]
fn keyless_requests_stay_within_the_bound() {
    let app = app(4, &[QUARTER]);
    let mut held = Vec::new();
    for _ in 0..400 {
        let turn = app.next_round_robin();
        held.push(
            app.admit(&turn, &Tried::none(), s(1000), app.begin_request())
                .unwrap(),
        );
    }
    let most = app.peers().iter().map(|peer| peer.state.in_flight()).max();
    assert!(most <= Some(125), "{most:?}");
    assert_eq!(app.metrics.bounded_load_exceeded.get(), 0);
}

// ── waits

const PATIENT: &str = "bounded_load: {factor: 1.25, wait: 5ms}";

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// What comes of a request.
fn arrives<'a>(app: &'a Upstream, target: &'a HashTarget, tried: &'a Tried) -> AdmitOutcome<'a> {
    app.admit_or_enqueue(target, tried, s(1000), app.begin_request())
        .unwrap()
}

fn is_placed(arrival: &AdmitOutcome<'_>) -> bool {
    matches!(arrival, AdmitOutcome::Admitted(_))
}

/// Two peers; a key of the first; and so many requests there, which is more than it may hold, and two at the other.
fn full(settings: &[&str], requests: usize) -> (Upstream, HashTarget, Vec<PeerPermit>) {
    let app = app(2, settings);
    let key = key_of(&app, 0);
    let mut held = burden(&app, 0, requests);
    held.extend(burden(&app, 1, 2));
    (app, HashTarget::Key(hash(key)), held)
}

fn waits(app: &Upstream, outcome: PeerWaitOutcome) -> u64 {
    app.peers()[0].metrics.waits.get(outcome).unwrap().get()
}

#[test]
fn queued_request_gets_the_next_free_place_on_its_owner() {
    let (app, target, mut held) = full(&[PATIENT, KEEPING], 6);
    let tried = Tried::none();
    let AdmitOutcome::Queued(mut wait) = arrives(&app, &target, &tried) else {
        panic!("it has a place")
    };
    assert_eq!(wait.timeout(), ms(5));
    assert!(wait.poll(Waker::noop(), s(1000)).is_pending());
    assert_eq!((app.in_flight(), app.peers()[0].state.in_flight()), (9, 6));
    held.drain(..2);
    assert_eq!((app.in_flight(), app.peers()[0].state.in_flight()), (7, 5));
    let now = s(1000) + ms(3);
    assert!(wait.poll(Waker::noop(), now).is_ready());
    let admitted = wait.finish(now).unwrap();
    assert_eq!(
        (admitted.member, admitted.overflow_from),
        (MemberId(0), None)
    );
    assert_eq!(
        (
            waits(&app, PeerWaitOutcome::Placed),
            app.metrics.waits.sum()
        ),
        (1, ms(3))
    );
    assert_eq!(admitted.epoch, Some(app.peers()[0].state.epoch()));
    drop((admitted, held));
    assert_eq!(app.in_flight(), 0);
}

#[test]
fn queued_request_that_times_out_overflows_to_the_next_peer() {
    let (app, target, held) = full(&[PATIENT], 20);
    let tried = Tried::none();
    let arrivals: Vec<_> = (0..3).map(|_| arrives(&app, &target, &tried)).collect();
    let mut waits_in_line = Vec::new();
    for arrival in arrivals {
        match arrival {
            AdmitOutcome::Queued(wait) => waits_in_line.push(wait),
            AdmitOutcome::Admitted(third) => assert_eq!(third.overflow_from, Some(MemberId(0))),
        }
    }
    assert_eq!(waits_in_line.len(), 2, "not the third");
    let mut first = waits_in_line.remove(0);
    assert!(first.poll(Waker::noop(), s(1000) + ms(5)).is_pending());
    let admitted = first.finish(s(1000) + ms(5)).unwrap();
    assert_eq!(
        (admitted.member, admitted.overflow_from),
        (MemberId(1), Some(MemberId(0)))
    );
    drop(waits_in_line);
    assert_eq!(
        [
            PeerWaitOutcome::Placed,
            PeerWaitOutcome::Timeout,
            PeerWaitOutcome::Cancelled
        ]
        .map(|outcome| waits(&app, outcome)),
        [0, 1, 1]
    );
    drop((admitted, held));
    assert_eq!(app.in_flight(), 0);
}

#[test]
fn queued_request_leaves_when_its_peer_is_lost() {
    let (app, target, _held) = full(&[PATIENT], 20);
    let tried = Tried::none();
    let AdmitOutcome::Queued(mut wait) = arrives(&app, &target, &tried) else {
        panic!("it has a place")
    };
    app.peers()[0].set_draining(true, s(1000));
    assert!(wait.poll(Waker::noop(), s(1000)).is_ready());
    let admitted = wait.finish(s(1000)).unwrap();
    assert_eq!(
        (admitted.member, admitted.overflow_from),
        (MemberId(1), None)
    );
}

#[test]
fn queue_is_skipped_by_retries_hot_keys_and_keyless_requests() {
    let (without, target, _held) = full(&[QUARTER], 20);
    assert!(is_placed(&arrives(&without, &target, &Tried::none())));
    let (app, target, _held) = full(&[PATIENT, "hot_keys: {share: 2%, spread: 2}"], 20);
    let mut tried = Tried::none();
    tried.insert(MemberId(1));
    assert!(is_placed(&arrives(&app, &target, &tried)));
    let turns = [HashTarget::RoundRobin(0), HashTarget::RoundRobin(1)];
    assert!(
        turns
            .iter()
            .all(|turn| is_placed(&arrives(&app, turn, &Tried::none())))
    );
    let HashTarget::Key(key) = &target else {
        panic!("a key")
    };
    let hot = PersistedHotKey {
        key: key.hash().0,
        share: 500_000,
        hot_for_ms: 1000,
    };
    app.restore_hot_keys(&[hot], s(1000));
    for _ in 0..2 {
        assert!(is_placed(&arrives(&app, &target, &Tried::none())));
    }
}

// ── how many are away from home, on a virtual clock

const CLIENTS: usize = 100;
const SERVICE: Duration = ms(20);

/// A request in flight of the keys' popularity.
enum Request<'a> {
    Waits(QueuedRequest<'a>),
    Served(PeerPermit),
}

/// Clients without pause, each with a request in flight, on ten peers that take the same time for each.
struct Crowd<'a> {
    app: &'a Upstream,
    targets: &'a [HashTarget],
    tried: &'a Tried,
    random: StdRng,
    /// Ascending sums of the keys' popularity.
    sums: Vec<f64>,
    now: Duration,
    /// By client: the home, what there is, and when that is over.
    flying: Vec<(usize, Option<Request<'a>>, Duration)>,
    requests: usize,
    away: usize,
    above: usize,
}

impl<'a> Crowd<'a> {
    fn new(app: &'a Upstream, targets: &'a [HashTarget], tried: &'a Tried) -> Self {
        let mut random = StdRng::seed_from_u64(5);
        let weights = (1..=2000).map(|rank| f64::from(rank).powf(-1.1));
        let sums = weights.scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        // They do not begin at once.
        let start = |_| (usize::MAX, None, s(1000) + SERVICE.mul_f64(random.r#gen()));
        Self {
            app,
            targets,
            tried,
            flying: (0..CLIENTS).map(start).collect(),
            random: StdRng::seed_from_u64(6),
            sums: sums.collect(),
            now: s(1000),
            requests: 0,
            away: 0,
            above: 0,
        }
    }

    fn run(mut self, requests: usize) -> (usize, usize) {
        while self.requests < requests {
            let ends = self.flying.iter().enumerate();
            let (client, (_, _, end)) = ends.min_by_key(|(_, (_, _, end))| *end).unwrap();
            self.now = *end;
            match self.flying[client].1.take() {
                Some(Request::Waits(wait)) => self.serve(client, wait),
                Some(Request::Served(place)) => {
                    drop(place);
                    self.ask(client);
                }
                None => self.ask(client),
            }
            self.look();
            let held = self.app.peers().iter().map(|peer| peer.state.in_flight());
            assert!(held.max() <= Some(13));
        }
        (self.away, self.above / CLIENTS)
    }

    fn ask(&mut self, client: usize) {
        let point = self.random.gen_range(0.0..self.sums[1999]);
        let key = self.sums.partition_point(|sum| *sum < point);
        let target = &self.targets[key];
        let HashTarget::Key(place) = target else {
            panic!("a key")
        };
        let home = self.app.ring().owner(place).unwrap().index();
        self.requests += 1;
        let arrival = self
            .app
            .admit_or_enqueue(target, self.tried, self.now, self.app.begin_request())
            .unwrap();
        self.flying[client].0 = home;
        match arrival {
            AdmitOutcome::Admitted(admitted) => self.begin(client, admitted),
            AdmitOutcome::Queued(wait) => {
                let end = self.now + wait.timeout();
                self.flying[client] = (home, Some(Request::Waits(wait)), end);
            }
        }
        let mut asked = [0_usize; 10];
        let homes = self
            .flying
            .iter()
            .filter(|(_, request, _)| request.is_some());
        homes.for_each(|(home, _, _)| asked[*home] += 1);
        self.above += asked
            .iter()
            .map(|asked| asked.saturating_sub(13))
            .sum::<usize>();
    }

    fn begin(&mut self, client: usize, admitted: Admission) {
        let home = self.flying[client].0;
        self.away += usize::from(admitted.member.index() != home);
        self.flying[client] = (
            home,
            Some(Request::Served(admitted.permit)),
            self.now + SERVICE,
        );
    }

    fn serve(&mut self, client: usize, wait: QueuedRequest<'a>) {
        let admitted = wait.finish(self.now).unwrap();
        self.begin(client, admitted);
    }

    /// Those that wait.
    fn look(&mut self) {
        for client in 0..CLIENTS {
            let now = self.now;
            let ready = match &mut self.flying[client].1 {
                Some(Request::Waits(wait)) => wait.poll(Waker::noop(), now).is_ready(),
                _ => false,
            };
            if let (true, Some(Request::Waits(wait))) =
                (ready, self.flying[client].1.take_if(|_| ready))
            {
                self.serve(client, wait);
            }
        }
    }
}

#[test]
fn queue_wait_keeps_more_requests_on_their_owner() {
    const REQUESTS: usize = 20_000;
    let targets: Vec<_> = (0..2000).map(|key| HashTarget::Key(hash(key))).collect();
    let tried = Tried::none();
    let shares = [QUARTER, PATIENT].map(|setting| {
        let app = app(10, &[setting]);
        let (away, least) = Crowd::new(&app, &targets, &tried).run(REQUESTS);
        assert_eq!(
            (app.metrics.bounded_load_exceeded.get(), app.in_flight()),
            (0, 0)
        );
        away * 100 / least
    });
    let [at_once, patient] = shares;
    assert!(
        patient <= 110 && at_once > patient,
        "{shares:?} % of the least"
    );
}
