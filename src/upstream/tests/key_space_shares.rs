//! Reported shares of the key space.

use super::*;

#[test]
fn available_shares_follow_the_available_peers() {
    let app = app(3, &[SLOW_START, "health: {tcp: true}"]);
    let now = s(2000);
    assert_eq!(
        app.current_key_space_shares(now).iter().sum::<u64>(),
        1 << 32,
        "a last resort"
    );
    probe_all(&app, now);
    let all = app.ring().shares();
    assert_eq!(app.current_key_space_shares(now), all);
    probe(&app.peers()[0], false, now);
    let without = app.current_key_space_shares(now);
    assert_eq!((without[0], without.iter().sum::<u64>()), (0, 1 << 32));
    probe(&app.peers()[0], true, now);
    let half = app.current_key_space_shares(now + s(30));
    assert!(
        half[0].abs_diff(all[0] / 2) <= 1
            && half[1].abs_diff(u64::midpoint(all[1], without[1])) <= 1
    );
}

#[test]
fn available_shares_equal_cached_ring_shares_while_all_are_available() {
    let app = app(3, &["health: {tcp: true}"]);
    probe_all(&app, s(1000));
    assert!(std::ptr::eq(app.key_space_shares(), app.key_space_shares()));
    assert_eq!(app.key_space_shares(), app.ring().shares());
    let of = |now| app.current_key_space_shares(now);
    assert_eq!(of(s(1000)), app.key_space_shares());
    for at in [1001, 1003] {
        probe(&app.peers()[0], false, s(at));
        let without = of(s(at));
        assert_eq!((without[0], without.iter().sum::<u64>()), (0, 1 << 32));
        probe(&app.peers()[0], true, s(at + 1));
        assert_eq!(of(s(at + 1)), app.key_space_shares());
    }
}
