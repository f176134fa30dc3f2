//! Fuzzing without nightly Rust: `cargo test --test fuzz -- TARGET [SECONDS] [SEED]`, or `make fuzz`,
//! `make fuzz-http2`, `make fuzz-config`.
//!
//! Inputs are mutations of seeds; one that has an outcome not seen before becomes a seed, too. Not part of
//! `cargo test`: a run takes as long as it is given.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program for developers: it fails by panicking, prints, and runs for a real time"
)]

mod config;
mod differential;
mod edge;
mod http1;
mod http2;

use std::collections::HashSet;
use std::env;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

fn main() {
    let mut arguments = env::args().skip(1);
    let target = arguments.next().unwrap_or_default();
    let seconds = arguments.next().and_then(|it| it.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(60));
    let seed = arguments.next().unwrap_or_default();
    let (seed, case) = match seed.split_once('/') {
        Some((seed, case)) => (seed.parse().ok(), case.parse().ok()),
        None => (seed.parse().ok(), None),
    };
    let seed = seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    match &*target {
        "http1" => {
            let seeds = http1::SEEDS.iter().map(|seed| seed.to_vec()).collect();
            let fuzzer = Fuzzer::new(seeds, http1::PIECES, 4096, seed);
            fuzz("http1", time, fuzzer, http1::check);
        }
        "config" => {
            let fuzzer = Fuzzer::new(config::seeds(), config::PIECES, 128 << 10, seed);
            let loader = config::Loader::new();
            fuzz("config", time, fuzzer, |input, _| loader.check(input));
        }
        "http2" => {
            let is_right = http2::run(http2::Settings { time, seed, case });
            std::process::exit(i32::from(!is_right));
        }
        "differential" => {
            let differences = arguments.next().and_then(|it| it.parse().ok());
            let is_alike = differential::run(differential::Settings {
                time,
                seed,
                case,
                differences: differences.unwrap_or(1),
            });
            std::process::exit(i32::from(!is_alike));
        }
        _ => {
            println!("usage: cargo test --test fuzz -- http1|config [SECONDS] [SEED]");
            println!("       cargo test --test fuzz -- http2 [SECONDS] [SEED[/CASE]]");
            println!(
                "       cargo test --test fuzz -- differential [SECONDS] [SEED[/CASE]] [DIFFERENCES]"
            );
            std::process::exit(2);
        }
    }
}

fn fuzz<T: Debug + Eq + Hash>(
    target: &str,
    time: Duration,
    mut fuzzer: Fuzzer<T>,
    mut check: impl FnMut(&[u8], &mut StdRng) -> T,
) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        for _ in 0..100 {
            fuzzer.run(&mut check);
        }
    }
    println!(
        "{target}: {} inputs, {} outcomes",
        fuzzer.inputs,
        fuzzer.outcomes.len()
    );
}

/// Makes inputs for one target.
struct Fuzzer<T> {
    random: StdRng,
    seeds: Vec<Vec<u8>>,
    pieces: &'static [&'static [u8]],
    /// The largest input; bytes.
    max_length: usize,
    outcomes: HashSet<T>,
    inputs: u64,
}

impl<T: Debug + Eq + Hash> Fuzzer<T> {
    fn new(
        seeds: Vec<Vec<u8>>,
        pieces: &'static [&'static [u8]],
        max_length: usize,
        seed: u64,
    ) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            seeds,
            pieces,
            max_length,
            outcomes: HashSet::new(),
            inputs: 0,
        }
    }

    /// Checks one input; the check panics if a property does not hold.
    fn run(&mut self, check: &mut impl FnMut(&[u8], &mut StdRng) -> T) {
        let input = self.mutate();
        let outcome = check(&input, &mut self.random);
        self.inputs += 1;
        if self.outcomes.insert(outcome) {
            self.seeds.push(input);
        }
    }

    fn mutate(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let mut input = self.seeds.choose(random).cloned().unwrap_or_default();
        for _ in 0..random.gen_range(1..5) {
            let at = random.gen_range(0..=input.len());
            let end = (at + random.gen_range(0..8)).min(input.len());
            let replacement = match random.gen_range(0..6) {
                0 => vec![random.r#gen()],
                1 => Vec::new(),
                2 => self
                    .seeds
                    .choose(random)
                    .map(|other| other[..other.len() / 2].to_vec())
                    .unwrap_or_default(),
                3 => input[at..end].repeat(2),
                _ => self
                    .pieces
                    .choose(random)
                    .map(|piece| piece.to_vec())
                    .unwrap_or_default(),
            };
            input.splice(at..end, replacement);
        }
        input.truncate(self.max_length);
        input
    }
}
