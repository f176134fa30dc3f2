//! The simulation of small, hand-made logs.

use proptest::prelude::*;

use super::*;
use crate::policy::heavy_hitters::HotKeyThreshold;
use crate::policy::hot_key_spread::HotKeySpread;
use crate::ring::{Dialect, Ring};

const LABELS: [&str; 3] = ["a", "b", "c"];

fn ring() -> Ring {
    let members = LABELS.map(|label| (label, Weight::ONE));
    Ring::new(Dialect::default(), members).unwrap()
}

fn simulate(
    bound: Option<BalanceFactor>,
    requests: &[ReplayRequest],
) -> (Vec<SimulatedLoad>, Vec<u32>) {
    let ring = ring();
    let placement = KeyPlacement::new(&ring, LABELS);
    let rules = LoadRules {
        bound,
        ..LoadRules::default()
    };
    let mut simulation = Simulation::new(&placement, [Weight::ONE; 3], rules);
    let takers = add_all(&mut simulation, requests);
    (simulation.loads(), takers)
}

/// The peer of each request, in the order of `requests`.
fn add_all(simulation: &mut Simulation<'_>, requests: &[ReplayRequest]) -> Vec<u32> {
    for request in requests {
        simulation.add(*request);
    }
    simulation.finish();
    let mut placed = simulation.take_placed();
    placed.sort_by_key(|placed| placed.number);
    assert_eq!(placed.len(), requests.len());
    placed.iter().map(|placed| placed.peer.unwrap().0).collect()
}

fn request(start: u64, duration: u64, key: &str) -> ReplayRequest {
    let hash = (!key.is_empty()).then(|| ring().key(key.as_bytes()).hash());
    ReplayRequest {
        start,
        duration,
        bytes: 10,
        hash,
    }
}

#[test]
fn simulation_assigns_all_requests_of_a_key_to_one_peer() {
    let all = [
        request(0, 500_000, "k"),
        request(400_000, 200_000, "k"),
        request(500_000, 1, "k"),
        request(1_000_000, 7, "k"),
    ];
    let (loads, takers) = simulate(None, &all);
    assert!(takers.iter().all(|taker| *taker == takers[0]));
    let expected = SimulatedLoad {
        requests: 4,
        peak_rate: 3,
        peak_in_flight: 2,
        busy: 700_008,
        bytes: 40,
        overflow: 0,
    };
    assert_eq!(loads[takers[0] as usize], expected);
    assert_eq!(loads.iter().map(|load| load.requests).sum::<u64>(), 4);
}

#[test]
fn simulation_overflows_from_a_full_owner_to_the_next_peer() {
    let bound = BalanceFactor::new(1250);
    // One request may be anywhere; of the second, the bound is still 1.
    let all = [
        request(0, 100, "k"),
        request(1, 100, "k"),
        request(150, 1, "k"),
    ];
    let (loads, takers) = simulate(bound, &all);
    let ring = ring();
    let walk: Vec<_> = ring.walk(&ring.key(b"k")).map(|m| m.0).collect();
    assert_eq!(takers, [walk[0], walk[1], walk[0]]);
    assert_eq!(loads[walk[0] as usize].overflow, 1);
    assert_eq!(loads[walk[1] as usize].overflow, 0);
}

#[test]
fn simulation_sends_keyless_requests_round_robin() {
    let all: Vec<_> = (0..30).map(|start| request(start, 1, "")).collect();
    let (loads, _) = simulate(None, &all);
    assert_eq!(
        loads.iter().map(|l| l.requests).collect::<Vec<_>>(),
        [10; 3]
    );
}

#[test]
fn simulation_overflows_keyless_requests_from_a_full_peer() {
    let turns = (1..4).map(|start| request(start, 0, ""));
    let all: Vec<_> = [request(0, 1000, "k")].into_iter().chain(turns).collect();
    let (loads, takers) = simulate(BalanceFactor::new(1250), &all);
    let full = takers[0];
    let expected = [0, 1, 2].map(|turn| if turn == full { (turn + 1) % 3 } else { turn });
    assert_eq!(takers[1..], expected);
    assert_eq!(loads[full as usize].overflow, 1);
}

#[test]
fn simulation_spreads_a_hot_key() {
    let key = |number: u64| match number % 2 {
        0 => "hot".to_owned(),
        _ => format!("key-{number}"),
    };
    let all = (0..4000).map(|number| request(number * 1000, 1, &key(number)));
    let ring = ring();
    let placement = KeyPlacement::new(&ring, LABELS);
    let hot_keys = Some((HotKeyThreshold::DEFAULT, HotKeySpread { min_peers: 3 }));
    let rules = LoadRules {
        hot_keys,
        ..LoadRules::default()
    };
    let mut simulation = Simulation::new(&placement, [Weight::ONE; 3], rules);
    let all: Vec<_> = all.collect();
    let mut takers = [0; 3];
    for (request, taker) in all.iter().zip(add_all(&mut simulation, &all)) {
        let is_hot = request.hash == Some(ring.key(b"hot").hash());
        takers[taker as usize] += u32::from(is_hot && request.start >= 1_000_000);
    }
    assert_eq!(simulation.spread, 1500);
    // Half of the requests are of it. Each peer takes as many as its other keys leave room for.
    let room = |hashes: u64| 1.1 / 3.0 - 0.5 * crate::predict::share(hashes);
    for (taken, hashes) in takers.iter().zip(ring.shares()) {
        let expected = 1500.0 * room(hashes) / 0.6;
        assert!(
            (f64::from(*taken) - expected).abs() < 8.0,
            "{takers:?}, {expected}"
        );
    }
}

fn waiting(wait: u64) -> LoadRules {
    LoadRules {
        bound: BalanceFactor::new(1250),
        wait: Some(Duration::from_micros(wait)),
        ..LoadRules::default()
    }
}

#[test]
fn simulation_admits_a_waiting_request_when_another_ends() {
    let ring = ring();
    let placement = KeyPlacement::new(&ring, LABELS);
    let mut simulation = Simulation::new(&placement, [Weight::ONE; 3], waiting(60));
    let all = [
        request(0, 50, "k"),
        request(10, 100, "k"),
        request(60, 1, "k"),
    ];
    let takers = add_all(&mut simulation, &all);
    let owner = ring.owner(&ring.key(b"k")).unwrap();
    assert_eq!(takers[..2], [owner.0; 2]);
    assert_eq!(simulation.waited, 2);
    // The second is at the owner from 50 to 150; the third waits until 120.
    assert_ne!(takers[2], owner.0);
    let loads = simulation.loads();
    assert_eq!(loads[owner.index()].overflow, 1);
    assert_eq!(loads[owner.index()].peak_in_flight, 1);
}

#[test]
fn simulation_overflows_the_third_waiting_request() {
    let ring = ring();
    let placement = KeyPlacement::new(&ring, LABELS);
    let mut simulation = Simulation::new(&placement, [Weight::ONE; 3], waiting(1000));
    // The second waits. The third waits after it, and raises the bound, so the second is admitted. The fourth
    // waits after the third, and the fifth finds two in the queue.
    let all: Vec<_> = (0..5).map(|start| request(start, 100, "k")).collect();
    let takers = add_all(&mut simulation, &all);
    let owner = ring.owner(&ring.key(b"k")).unwrap().0;
    assert_eq!(simulation.waited, 3, "{takers:?}");
    assert_eq!(takers[..4], [owner; 4]);
    assert_ne!(takers[4], owner);
}

#[test]
fn simulation_starts_a_new_peer_slowly() {
    let ring = ring();
    let before = KeyPlacement::new(&ring, LABELS).with_down(["b"]).unwrap();
    let placement = KeyPlacement::new(&ring, LABELS);
    let rules = LoadRules {
        slow_start: Some(Duration::from_secs(10)),
        ..LoadRules::default()
    };
    let simulation = Simulation::new(&placement, [Weight::ONE; 3], rules);
    let mut simulation = simulation.with_slow_starts_after(&before);
    let all: Vec<_> = (0..20_000)
        .map(|number| request(number * 1000, 1, &format!("key {}", number % 997)))
        .collect();
    let takers = add_all(&mut simulation, &all);
    let owned = |from: usize, to: usize| {
        let requests = all[from..to].iter().zip(&takers[from..to]);
        let of_new = requests.filter(|(request, _)| {
            let key = ring.key_from_hash(request.hash.unwrap());
            ring.owner(&key) == Some(MemberId(1))
        });
        let (taken, all) = of_new.fold((0, 0), |(taken, all), (_, taker)| {
            (taken + u32::from(*taker == 1), all + 1)
        });
        f64::from(taken) / f64::from(all)
    };
    assert!(owned(0, 1000) < 0.12);
    assert!((owned(4500, 5500) - 0.5).abs() < 0.1);
    assert!((owned(10_000, 20_000) - 1.0).abs() < f64::EPSILON);
    assert!(
        simulation
            .notes()
            .contains(&"slow start from the first request on: b".to_owned())
    );
}

proptest! {
    /// At every moment each peer holds no more than the bound allows for what is in flight.
    #[test]
    fn simulation_never_exceeds_the_load_bound(
        spans in prop::collection::vec((0..40_u64, 0..60_u64, 0..6_u32), 1..120),
    ) {
        let bound = BalanceFactor::new(1250).unwrap();
        let mut at = 0;
        let mut all = Vec::new();
        for (pause, duration, key) in spans {
            at += pause;
            all.push(request(at, duration, &key.to_string()));
        }
        let (loads, takers) = simulate(Some(bound), &all);
        for (number, (one, taker)) in all.iter().zip(&takers).enumerate() {
            let earlier = all.iter().zip(&takers).take(number);
            let open: Vec<_> = earlier.filter(|(other, _)| other.end() > one.start).collect();
            let held = open.iter().filter(|(_, other)| *other == taker).count();
            let total = u32::try_from(open.len() + 1).unwrap();
            prop_assert!(held < bound.capacity(total, 1, 3) as usize);
        }
        prop_assert_eq!(loads.iter().map(|l| l.requests).sum::<u64>(), all.len() as u64);
    }
}
