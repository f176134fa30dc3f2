//! Bounded load: the bound, waits at a full peer, and the share of requests away from their owner.

use std::task::Waker;

use super::*;
use crate::telemetry::metrics::PeerWaitOutcome;

/// A key owned by the peer.
fn key_owned_by(app: &Upstream, peer: usize) -> u64 {
    (0..10_000).find(|key| owner(app, *key) == peer).unwrap()
}

/// Puts requests on a peer, regardless of its bound.
fn fill(app: &Upstream, peer: usize, requests: usize) -> Vec<PeerPermit> {
    let counter = app.peers()[peer].state.in_flight_counter();
    (0..requests)
        .map(|_| app.begin_request().admit_unbounded(counter))
        .collect()
}

/// The highest load of a peer with this many requests of one key in flight.
fn max_load_of_key(app: &Upstream, key: u64, requests: usize, now: Duration) -> u32 {
    let admissions: Vec<_> = (0..requests).map(|_| admit(app, key, now)).collect();
    let max = admissions
        .iter()
        .map(|admission| app.peer(admission.member).unwrap().state.in_flight())
        .max();
    max.unwrap()
}

#[test]
fn bounded_load_ignores_in_flight_of_a_draining_peer() {
    let app = app(10, &[BOUNDED]);
    let streams = fill(&app, 0, 300);
    app.peers()[0].set_draining(true, s(1000));
    let key = key_owned_by(&app, 1);
    assert_eq!(max_load_of_key(&app, key, 90, s(1000)), 13);
    app.peers()[0].set_draining(false, s(1001));
    let other = admit(&app, key, s(1001));
    assert_eq!(app.in_flight(), 301, "they count again");
    drop((streams, other));
    assert_eq!((app.in_flight(), app.peers()[0].state.in_flight()), (0, 0));
}

#[test]
fn bounded_load_ignores_in_flight_of_a_down_or_ejected_peer() {
    let app = app(10, &[BOUNDED, "health: {tcp: true}"]);
    probe_all(&app, s(1000));
    let _streams = [fill(&app, 0, 300), fill(&app, 1, 100)];
    probe(&app.peers()[0], false, s(1001));
    fail_connect(&app.peers()[1], s(1001));
    let key = key_owned_by(&app, 2);
    assert_eq!(max_load_of_key(&app, key, 80, s(1001)), 13);
    // No update happens at the end of the ejection.
    drop(admit(&app, key, s(1006)));
    assert_eq!(app.in_flight(), 100);
}

#[test]
fn bounded_load_weighs_a_slow_starting_peer_by_its_progress() {
    let app = app(10, &[BOUNDED, SLOW_START]);
    for peer in &app.peers()[..5] {
        peer.set_draining(true, s(1000));
        peer.set_draining(false, s(1001));
    }
    let key = key_owned_by(&app, 7);
    let max_load = |after: u64| max_load_of_key(&app, key, 100, s(1001 + after));
    // Of 100 requests ⌈125 / 5⌉, ⌈125 / 7.5⌉ and ⌈125 / 10⌉; in between, a step of a slow start may be missing.
    assert_eq!((max_load(0), max_load(30), max_load(60)), (25, 17, 13));
}

#[test]
fn bounded_load_ignores_in_flight_of_a_removed_peer() {
    let before = app(10, &[BOUNDED]);
    let streams = fill(&before, 0, 300);
    let key = key_owned_by(&before, 5);
    drop(admit(&before, key, s(1000)));
    let mut config = before.config.clone();
    config.peers.remove(0);
    let address = |peer: &config::PeerConfig| {
        let number: u16 = peer.label[1..].parse().unwrap();
        SocketAddr::from(([127, 0, 0, 1], number + 1))
    };
    let after = build_at(&config, |_, peer| address(peer), Some(&before), s(1000));
    after.take_over_from(&before);
    assert_eq!(max_load_of_key(&after, key, 90, s(1000)), 13);
    // A request that still uses the previous configuration does not undo this.
    before.peers()[1].set_draining(true, s(1001));
    before.peers()[1].set_draining(false, s(1002));
    drop(admit(&before, key, s(1002)));
    assert_eq!(after.in_flight(), 0);
    drop(streams);
    assert_eq!(after.in_flight(), 0);
}

#[test]
fn retry_uses_free_capacity_before_it_exceeds_the_bound() {
    let app = app(2, &[BOUNDED]);
    let mut tried = Tried::none();
    tried.insert(MemberId(0));
    let at_first = || {
        let counter = app.peers()[0].state.in_flight_counter();
        app.begin_request().admit_unbounded(counter)
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
    let app = app(4, &[BOUNDED]);
    let mut permits = Vec::new();
    for _ in 0..400 {
        let turn = app.next_round_robin();
        permits.push(
            app.admit(&turn, &Tried::none(), s(1000), app.begin_request())
                .unwrap(),
        );
    }
    let most = app.peers().iter().map(|peer| peer.state.in_flight()).max();
    assert!(most <= Some(125), "{most:?}");
    assert_eq!(app.metrics.bounded_load_exceeded.get(), 0);
}

// ── waits in the queue of the assigned peer

const BOUNDED_WITH_WAIT: &str = "bounded_load: {factor: 1.25, wait: 5ms}";

fn admit_or_enqueue<'a>(
    app: &'a Upstream,
    target: &'a HashTarget,
    tried: &'a Tried,
) -> AdmitOutcome<'a> {
    app.admit_or_enqueue(target, tried, s(1000), app.begin_request())
        .unwrap()
}

fn is_admitted(outcome: &AdmitOutcome<'_>) -> bool {
    matches!(outcome, AdmitOutcome::Admitted(_))
}

/// Two peers, and a key of the first; `requests`, more than the bound, at that one, and two at the other.
fn full(settings: &[&str], requests: usize) -> (Upstream, HashTarget, Vec<PeerPermit>) {
    let app = app(2, settings);
    let key = key_owned_by(&app, 0);
    let mut permits = fill(&app, 0, requests);
    permits.extend(fill(&app, 1, 2));
    (app, HashTarget::Key(hash(key)), permits)
}

fn waits(app: &Upstream, outcome: PeerWaitOutcome) -> u64 {
    app.peers()[0].metrics.waits.get(outcome).unwrap().get()
}

#[test]
fn queued_request_gets_the_next_free_place_on_its_owner() {
    let (app, target, mut permits) = full(&[BOUNDED_WITH_WAIT, DRAIN], 6);
    let tried = Tried::none();
    let AdmitOutcome::Queued(mut wait) = admit_or_enqueue(&app, &target, &tried) else {
        panic!("admitted")
    };
    assert_eq!(wait.timeout(), ms(5));
    assert!(wait.poll(Waker::noop(), s(1000)).is_pending());
    assert_eq!((app.in_flight(), app.peers()[0].state.in_flight()), (9, 6));
    permits.drain(..2);
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
    drop((admitted, permits));
    assert_eq!(app.in_flight(), 0);
}

#[test]
fn queued_request_that_times_out_overflows_to_the_next_peer() {
    let (app, target, permits) = full(&[BOUNDED_WITH_WAIT], 20);
    let tried = Tried::none();
    let arrivals: Vec<_> = (0..3)
        .map(|_| admit_or_enqueue(&app, &target, &tried))
        .collect();
    let mut queued = Vec::new();
    for arrival in arrivals {
        match arrival {
            AdmitOutcome::Queued(wait) => queued.push(wait),
            AdmitOutcome::Admitted(third) => assert_eq!(third.overflow_from, Some(MemberId(0))),
        }
    }
    assert_eq!(queued.len(), 2, "not the third");
    let mut first = queued.remove(0);
    assert!(first.poll(Waker::noop(), s(1000) + ms(5)).is_pending());
    let admitted = first.finish(s(1000) + ms(5)).unwrap();
    assert_eq!(
        (admitted.member, admitted.overflow_from),
        (MemberId(1), Some(MemberId(0)))
    );
    drop(queued);
    assert_eq!(
        [
            PeerWaitOutcome::Placed,
            PeerWaitOutcome::Timeout,
            PeerWaitOutcome::Cancelled
        ]
        .map(|outcome| waits(&app, outcome)),
        [0, 1, 1]
    );
    drop((admitted, permits));
    assert_eq!(app.in_flight(), 0);
}

#[test]
fn queued_request_leaves_when_its_peer_is_lost() {
    let (app, target, _permits) = full(&[BOUNDED_WITH_WAIT], 20);
    let tried = Tried::none();
    let AdmitOutcome::Queued(mut wait) = admit_or_enqueue(&app, &target, &tried) else {
        panic!("admitted")
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
    let (without_wait, target, _permits) = full(&[BOUNDED], 20);
    assert!(is_admitted(&admit_or_enqueue(
        &without_wait,
        &target,
        &Tried::none()
    )));
    let (app, target, _permits) =
        full(&[BOUNDED_WITH_WAIT, "hot_keys: {share: 2%, spread: 2}"], 20);
    let mut tried = Tried::none();
    tried.insert(MemberId(1));
    assert!(is_admitted(&admit_or_enqueue(&app, &target, &tried)));
    let turns = [HashTarget::RoundRobin(0), HashTarget::RoundRobin(1)];
    assert!(
        turns
            .iter()
            .all(|turn| is_admitted(&admit_or_enqueue(&app, turn, &Tried::none())))
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
        assert!(is_admitted(&admit_or_enqueue(
            &app,
            &target,
            &Tried::none()
        )));
    }
}

// ── requests away from their owner, on a virtual clock

const CLIENTS: usize = 100;
const SERVICE: Duration = ms(20);

/// A request in flight.
enum Request<'a> {
    Waiting(QueuedRequest<'a>),
    InService(PeerPermit),
}

/// Clients that always have a request in flight, on ten peers; each request takes the same time.
struct ClosedLoop<'a> {
    app: &'a Upstream,
    targets: &'a [HashTarget],
    tried: &'a Tried,
    random: StdRng,
    /// Cumulative sums of the keys' popularity.
    sums: Vec<f64>,
    now: Duration,
    /// By client: the owner, the request, and when its wait or service ends.
    in_flight: Vec<(usize, Option<Request<'a>>, Duration)>,
    requests: usize,
    /// Requests served by another peer than their owner.
    off_owner: usize,
    /// Sum over all requests of the requests above their owners' bounds at that time.
    above_bound: usize,
}

impl<'a> ClosedLoop<'a> {
    fn new(app: &'a Upstream, targets: &'a [HashTarget], tried: &'a Tried) -> Self {
        let mut random = StdRng::seed_from_u64(5);
        let weights = (1..=2000).map(|rank| f64::from(rank).powf(-1.1));
        let sums = weights.scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        // The clients do not start all at once.
        let start = |_| (usize::MAX, None, s(1000) + SERVICE.mul_f64(random.r#gen()));
        Self {
            app,
            targets,
            tried,
            in_flight: (0..CLIENTS).map(start).collect(),
            random: StdRng::seed_from_u64(6),
            sums: sums.collect(),
            now: s(1000),
            requests: 0,
            off_owner: 0,
            above_bound: 0,
        }
    }

    fn run(mut self, requests: usize) -> (usize, usize) {
        while self.requests < requests {
            let ends = self.in_flight.iter().enumerate();
            let (client, (_, _, end)) = ends.min_by_key(|(_, (_, _, end))| *end).unwrap();
            self.now = *end;
            match self.in_flight[client].1.take() {
                Some(Request::Waiting(wait)) => self.serve(client, wait),
                Some(Request::InService(permit)) => {
                    drop(permit);
                    self.send(client);
                }
                None => self.send(client),
            }
            self.poll_waiting();
            let loads = self.app.peers().iter().map(|peer| peer.state.in_flight());
            assert!(loads.max() <= Some(13));
        }
        (self.off_owner, self.above_bound / CLIENTS)
    }

    fn send(&mut self, client: usize) {
        let point = self.random.gen_range(0.0..self.sums[1999]);
        let key = self.sums.partition_point(|sum| *sum < point);
        let target = &self.targets[key];
        let HashTarget::Key(hashed) = target else {
            panic!("a key")
        };
        let owner = self.app.ring().owner(hashed).unwrap().index();
        self.requests += 1;
        let outcome = self
            .app
            .admit_or_enqueue(target, self.tried, self.now, self.app.begin_request())
            .unwrap();
        self.in_flight[client].0 = owner;
        match outcome {
            AdmitOutcome::Admitted(admitted) => self.begin(client, admitted),
            AdmitOutcome::Queued(wait) => {
                let end = self.now + wait.timeout();
                self.in_flight[client] = (owner, Some(Request::Waiting(wait)), end);
            }
        }
        let mut held = [0_usize; 10];
        let running = self
            .in_flight
            .iter()
            .filter(|(_, request, _)| request.is_some());
        running.for_each(|(owner, _, _)| held[*owner] += 1);
        self.above_bound += held
            .iter()
            .map(|held| held.saturating_sub(13))
            .sum::<usize>();
    }

    fn begin(&mut self, client: usize, admitted: Admission) {
        let owner = self.in_flight[client].0;
        self.off_owner += usize::from(admitted.member.index() != owner);
        self.in_flight[client] = (
            owner,
            Some(Request::InService(admitted.permit)),
            self.now + SERVICE,
        );
    }

    fn serve(&mut self, client: usize, wait: QueuedRequest<'a>) {
        let admitted = wait.finish(self.now).unwrap();
        self.begin(client, admitted);
    }

    fn poll_waiting(&mut self) {
        for client in 0..CLIENTS {
            let now = self.now;
            let ready = match &mut self.in_flight[client].1 {
                Some(Request::Waiting(wait)) => wait.poll(Waker::noop(), now).is_ready(),
                _ => false,
            };
            if let (true, Some(Request::Waiting(wait))) =
                (ready, self.in_flight[client].1.take_if(|_| ready))
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
    let shares = [BOUNDED, BOUNDED_WITH_WAIT].map(|setting| {
        let app = app(10, &[setting]);
        let (off_owner, least) = ClosedLoop::new(&app, &targets, &tried).run(REQUESTS);
        assert_eq!(
            (app.metrics.bounded_load_exceeded.get(), app.in_flight()),
            (0, 0)
        );
        off_owner * 100 / least
    });
    let [without_wait, with_wait] = shares;
    assert!(
        with_wait <= 110 && without_wait > with_wait,
        "{shares:?} % of the least possible"
    );
}
