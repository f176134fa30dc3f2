//! Suppression of flapping peers.

use super::*;

#[test]
fn flap_suppression_ends_when_damping_is_disabled() {
    let damped = config_of(
        2,
        &[
            "health: {tcp: true}",
            "flap_damping: {flips: 2, half_life: 10m}",
        ],
    );
    let before = build(&damped, None, s(1000));
    probe_all(&before, s(1000));
    for second in [1010, 1020] {
        probe(&before.peers()[0], false, s(second));
        probe(&before.peers()[0], true, s(second + 1));
    }
    let undamped = config_of(2, &["health: {tcp: true}"]);
    let after = build(&undamped, Some(&before), s(1030));
    assert!(
        !before.peers()[0].state.is_available(s(1030)),
        "the new configuration is not in force"
    );
    after.reconcile(s(1030));
    assert!(after.peers()[0].state.is_available(s(1030)));
}

#[test]
fn suppressed_peer_serves_only_when_no_other_peer_is_available() {
    let app = app(
        2,
        &[
            "flap_damping: {flips: 3, half_life: 1m, max: 10m}",
            "health: {tcp: true}",
        ],
    );
    probe_all(&app, s(1000));
    for at in [1001, 1003, 1005] {
        probe(&app.peers()[0], false, s(at));
        probe(&app.peers()[0], true, s(at + 1));
    }
    assert!(app.peers()[0].state.suppressed_until(s(1006)).is_some());
    let key = (0..1000).find(|key| owner(&app, *key) == 0).unwrap();
    assert_eq!(selected(&app, key, s(1006)), 1);
    probe(&app.peers()[1], false, s(1007));
    assert_eq!(selected(&app, key, s(1007)), 0);
    probe(&app.peers()[1], true, s(1008));
    assert_eq!(selected(&app, key, s(1008)), 1);
    let reloaded = build(&app.config, Some(&app), s(1009));
    assert_eq!(selected(&reloaded, key, s(1009)), 1);
    let until = app.peers()[0].state.suppressed_until(s(1008)).unwrap();
    assert_eq!(selected(&reloaded, key, until), 0);
}
