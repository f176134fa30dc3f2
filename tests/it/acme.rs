//! Certificates that nobody has to think of: ordered from a real authority, renewed, kept, revoked.

use crate::support::edge::Site;
use crate::support::origin::Origin;
use crate::support::pebble::{Pebble, shown};
use crate::support::tls::ask;

#[test]
fn the_first_certificate_comes_by_http_without_a_restart() {
    let origin = Origin::start();
    let pebble = Pebble::start();
    let edge = pebble
        .site(Site::of([origin.address]), "{acme: a.test}", "")
        .start();
    let client = pebble.client();
    let mut session = pebble.wait_for(&client, "a.test");
    let answer = ask(&mut session, "a.test").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!pebble.has_revoked(&shown(&session)));
    drop(edge);
}
