//! Messages of HTTP as text files (`tests/corpus/`, described in its `README.md`): where a message ends, all agree, and
//! no connection is left with the bytes of another message.
//!
//! Each case is followed by a probe, a request whose response has its own target: on the same connection if that is
//! still open, and over the same pool of connections to the peer.

mod case;
mod client;
mod frames;
mod origin;
mod requests;
mod responses;
mod strict;

use std::env;
use std::thread;

/// The most that is shown of one failure.
const LONGEST: usize = 600;

/// The condition for outcomes that only one carrier of HTTP/1 has.
fn carrier() -> &'static str {
    match env::var("CLOCKWISE_HTTP1").as_deref() {
        Ok("pingora") => "pingora",
        _ => "engine",
    }
}

/// Runs the lanes at once, and panics with all their failures.
fn check_all<T: Sync>(
    kind: &str,
    count: usize,
    lanes: &[T],
    run: impl Fn(&T) -> Vec<String> + Sync,
) {
    let run = &run;
    let failures: Vec<_> = thread::scope(|scope| {
        let lanes = lanes.iter().map(|lane| scope.spawn(move || run(lane)));
        let lanes: Vec<_> = lanes.collect();
        let lanes = lanes.into_iter().map(|lane| lane.join().expect("a lane"));
        let failures = lanes.flatten();
        failures
            .map(|failure| failure.chars().take(LONGEST).collect::<String>())
            .collect()
    });
    eprintln!("{count} {kind}, {} lanes", lanes.len());
    assert!(
        failures.is_empty(),
        "{} failures\n{}",
        failures.len(),
        failures.join("\n")
    );
}
