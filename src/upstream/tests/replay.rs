//! A replay places requests where an upstream with the same history places them.

use proptest::prelude::*;

use super::*;
use crate::predict::{KeyPlacement, ReplayRequest, Simulation};

const START: Duration = s(1000);

/// One request of a random history.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    /// Since the request before.
    pause: Duration,
    duration: Duration,
    /// `None`: the request has no key.
    key: Option<u64>,
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    // Every second request is of key 0, so that it is hot all the time.
    let key = prop_oneof![5 => Just(Some(0)), 4 => (1..300_u64).prop_map(Some), 1 => Just(None)];
    // An upstream counts the weight of a slow start in 64 steps, here of 78 ms; a replay counts it at each request.
    let pause = prop_oneof![2 => Just(0), 1 => Just(80), 1 => Just(240)];
    let one = (pause, 0..2000_u64, key).prop_map(|(pause, duration, key)| Arrival {
        pause: ms(pause),
        duration: ms(duration),
        key,
    });
    prop::collection::vec(one, 1..600)
}

/// The peers that serve the requests; the peers after the first `before` are new at [`START`].
fn served(
    config: &config::UpstreamConfig,
    before: usize,
    arrivals: &[Arrival],
) -> Vec<Option<usize>> {
    let mut old = config.clone();
    old.peers.truncate(before);
    let old = build(&old, None, s(0));
    let app = build(config, Some(&old), START);
    let mut now = START;
    let mut open: Vec<(Duration, Admission)> = Vec::new();
    let place = |arrival: &Arrival| {
        now += arrival.pause;
        open.retain(|(end, _)| *end > now);
        let target = match arrival.key {
            Some(key) => HashTarget::Key(hash(key)),
            None => app.next_round_robin(),
        };
        let admitted = app.admit(&target, &Tried::none(), now, app.begin_request());
        let admitted = admitted.ok()?;
        let member = admitted.member.index();
        open.push((now + arrival.duration, admitted));
        Some(member)
    };
    arrivals.iter().map(place).collect()
}

/// The peers that the requests of the same history have in a simulation.
fn simulated(
    config: &config::UpstreamConfig,
    before: usize,
    arrivals: &[Arrival],
) -> Vec<Option<usize>> {
    let app = build(config, None, START);
    let mut old = config.clone();
    old.peers.truncate(before);
    let old = build(&old, None, START);
    let labels = |app: &Upstream| {
        app.peers()
            .iter()
            .map(|peer| peer.label.clone())
            .collect::<Vec<_>>()
    };
    let (old_labels, new_labels) = (labels(&old), labels(&app));
    let placement_before = KeyPlacement::new(old.ring(), old_labels.iter().map(|label| &**label));
    let placement = KeyPlacement::new(app.ring(), new_labels.iter().map(|label| &**label));
    let weights = config.peers.iter().map(|peer| peer.weight);
    let simulation = Simulation::new(&placement, weights, config.rules());
    let mut simulation = simulation.with_slow_starts_after(&placement_before);
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap();
    let mut now = START;
    for arrival in arrivals {
        now += arrival.pause;
        simulation.add(ReplayRequest {
            start: micros(now),
            duration: micros(arrival.duration),
            bytes: 0,
            hash: arrival.key.map(|key| hash(key).hash()),
        });
    }
    simulation.finish();
    let mut placed = simulation.take_placed();
    placed.sort_by_key(|placed| placed.number);
    let members = placed.iter().map(|placed| placed.peer.map(MemberId::index));
    members.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Bound, hot keys and slow start together; two of five peers are new.
    #[test]
    fn replay_chooses_the_peers_that_serve(mut arrivals in arrivals()) {
        // A replay's slow starts begin with its first request.
        arrivals[0].pause = Duration::ZERO;
        for settings in [
            &[][..],
            &[BOUNDED],
            &["slow_start: 5s"],
            &["hot_keys: {share: 5%, spread: 3}"],
            &[BOUNDED, "slow_start: 5s"],
            &[BOUNDED, "slow_start: 5s", "hot_keys: {share: 5%, spread: 3}"],
        ] {
            let config = config_of(5, settings);
            prop_assert_eq!(
                served(&config, 3, &arrivals),
                simulated(&config, 3, &arrivals),
                "{:?}", settings
            );
        }
    }
}
