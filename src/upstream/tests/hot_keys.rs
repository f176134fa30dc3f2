//! Hot keys.

use super::*;

#[test]
fn hot_key_spreads_without_moving_other_keys() {
    let app = app(10, &["hot_keys: {share: 2%, spread: 3}"]);
    let mut random = StdRng::seed_from_u64(1);
    let mut counts = [0_u32; 10];
    let mut moved = 0;
    for request in 0..60_000_u64 {
        let now = s(1000) + Duration::from_millis(request);
        let is_hot = random.gen_bool(0.3);
        let key = if is_hot {
            0
        } else {
            random.gen_range(1..20_000)
        };
        let member = admit(&app, key, now).member.index();
        moved += u32::from(!is_hot && member != owner(&app, key));
        if request >= 10_000 {
            counts[member] += 1;
        }
    }
    assert_eq!(moved, 0, "other keys than the hot one");
    let cold = app.ring().shares().into_iter().max().unwrap();
    let fullest = counts.iter().max().unwrap();
    // The unevenness of the ring for the other keys is not the hot key's.
    let most = (35_000.0 * share_of(cold) + 15_000.0 / 9.0) * 1.05;
    assert!(f64::from(*fullest) < most, "{counts:?}, {most}");
}

/// Converts a number of hashes into a share of the key space.
#[expect(clippy::cast_precision_loss, reason = "2^32 fits")]
fn share_of(hashes: u64) -> f64 {
    hashes as f64 / 2_f64.powi(32)
}

#[test]
fn retry_does_not_advance_the_round_robin() {
    let app = app(4, &["hot_keys: {share: 2%, spread: 3}"]);
    let hot = |request| admit(&app, 7, s(1000) + ms(request));
    for request in 0..5_000 {
        drop(hot(request));
    }
    let now = s(1005);
    let key = hash(7).hash().0;
    let turn = || {
        app.hot_keys()
            .unwrap()
            .count_request(key, now)
            .unwrap()
            .sequence
    };
    let before = turn();
    let mut tried = Tried::none();
    tried.insert(MemberId(0));
    let retried = app.admit(&HashTarget::Key(hash(7)), &tried, now, app.begin_request());
    assert_ne!(retried.unwrap().member, MemberId(0));
    assert_eq!(turn(), before + 1);
}
