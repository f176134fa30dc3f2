//! The cached weight of serving peers.

use super::*;

#[test]
fn serving_weight_equals_the_sum_over_available_peers() {
    let app = app(
        8,
        &[
            SLOW_START,
            "health: {tcp: true}",
            "flap_damping: {flips: 2, half_life: 5s, max: 30s}",
        ],
    );
    probe_all(&app, s(1000));
    let mut random = StdRng::seed_from_u64(7);
    let mut now = s(1000);
    for _ in 0..20_000 {
        now += Duration::from_millis(random.gen_range(0..900));
        let peer = &app.peers()[random.gen_range(0..8)];
        match random.gen_range(0..12) {
            0 => probe(peer, false, now),
            1..=4 => probe(peer, true, now),
            5 => fail_connect(peer, now),
            6 => drop(peer.set_draining(random.gen_bool(0.3), now)),
            _ => {}
        }
        let serving = app
            .peers()
            .iter()
            .filter(|peer| takes_all_keys(&peer.state, now));
        let weight: u32 = serving.map(|peer| u32::from(peer.weight.get())).sum();
        assert_eq!(app.serving_weight(now), weight);
    }
}

#[test]
fn serving_weight_of_an_earlier_moment_does_not_replace_a_later_one() {
    let app = app(2, &[]);
    fail_connect(&app.peers()[0], s(1000));
    let changes = app.shared.changes.load(Relaxed);
    let counted = |now| app.weights.recount(&app.peers, changes, now).full;
    // Two requests read the clock, one of them before the ejection ends, and recount in the opposite order.
    assert_eq!(counted(s(1005)), 2);
    assert_eq!(counted(s(1004)), 1);
    assert_eq!(app.serving_weight(s(1005)), 2);
    assert_eq!(app.serving_weight(s(1004)), 2, "the later count stands");
}

#[test]
fn serving_weight_is_not_recomputed_for_an_unchanged_probe_result() {
    let app = app(2, &["health: {tcp: true}"]);
    probe_all(&app, s(1000));
    let changes = || app.shared.changes.load(Relaxed);
    let before = changes();
    for at in 1001..1100 {
        probe(&app.peers()[0], true, s(at));
    }
    assert_eq!(changes(), before);
    probe(&app.peers()[0], false, s(1100));
    assert_eq!(changes(), before + 1);
}
