//! Uses Clockwise's ring in another Pingora program: `cargo run --example load_balancer`.
//!
//! Prints the backends of some keys, with all backends and without one: only its keys move.

#![expect(clippy::print_stdout, reason = "prints its table")]

use clockwise::RingSelection;
use clockwise::ring::Dialect;
use pingora::lb::discovery::Static;
use pingora::lb::{Backend, Backends, LoadBalancer};

const BACKENDS: [&str; 4] = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"];
const KEYS: [&str; 8] = [
    "anna", "ben", "cleo", "dora", "emil", "finn", "gita", "hugo",
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let backends = Backends::new(Static::try_from_iter(BACKENDS)?);
    let balancer: LoadBalancer<RingSelection> =
        LoadBalancer::from_backends_with_config(backends, Some(Dialect::default()));
    balancer.update().await?;

    let gone = Backend::new(BACKENDS[0])?;
    println!("key   owner       without {}", gone.addr);
    for key in KEYS {
        // Each backend is tried once at most.
        let max_iterations = BACKENDS.len();
        let owner = balancer
            .select(key.as_bytes(), max_iterations)
            .ok_or("no backend is healthy")?;
        let other = balancer
            .select_with(key.as_bytes(), max_iterations, |backend, healthy| {
                healthy && *backend != gone
            })
            .ok_or("no other backend is healthy")?;
        println!("{key:<5} {} {}", owner.addr, other.addr);
    }
    Ok(())
}
