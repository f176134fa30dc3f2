//! Fuzzing without nightly Rust: `cargo test --test fuzz -- TARGET [SECONDS] [SEED]`, or `make fuzz`.
//!
//! Inputs are mutations of seeds; one that has an outcome not seen before becomes a seed, too. Not part of
//! `cargo test`: a run takes as long as it is given.

mod http1;

use std::collections::HashSet;
use std::env;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

/// The largest input; bytes.
const MAX_LENGTH: usize = 4096;

#[expect(
    clippy::print_stdout,
    clippy::exit,
    clippy::disallowed_methods,
    reason = "a program for developers, which runs for a real time"
)]
fn main() {
    let mut arguments = env::args().skip(1);
    let target = arguments.next().unwrap_or_default();
    let seconds = arguments.next().and_then(|it| it.parse().ok());
    let seed = arguments.next().and_then(|it| it.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    if target != "http1" {
        println!("usage: cargo test --test fuzz -- http1 [SECONDS] [SEED]");
        std::process::exit(2);
    }
    println!("seed {seed}");
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(60));
    let mut fuzzer = Fuzzer::new(http1::SEEDS, http1::PIECES, seed);
    while Instant::now() < end {
        for _ in 0..1000 {
            fuzzer.run(http1::check);
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
    outcomes: HashSet<T>,
    inputs: u64,
}

impl<T: Debug + Eq + Hash> Fuzzer<T> {
    fn new(seeds: &[&[u8]], pieces: &'static [&'static [u8]], seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            seeds: seeds.iter().map(|seed| seed.to_vec()).collect(),
            pieces,
            outcomes: HashSet::new(),
            inputs: 0,
        }
    }

    /// Checks one input; the check panics if a property does not hold.
    fn run(&mut self, check: fn(&[u8], &mut StdRng) -> T) {
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
        input.truncate(MAX_LENGTH);
        input
    }
}
