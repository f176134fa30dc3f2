//! Decisions about peers and attempts: values in, values out; `now` is an argument.
//!
//! Nothing here selects a peer, shares a counter or reads a clock. The caller holds the state, and
//! swaps the old value for the new one.

pub mod bounded_load;
pub mod cert_renewal;
pub mod ejection;
pub mod flap_damping;
pub mod gcra;
pub mod hash_mix;
pub mod health;
pub mod heavy_hitters;
pub mod hot_key_spread;
pub mod retry;
pub mod slow_start;
pub mod weighted_round_robin;
