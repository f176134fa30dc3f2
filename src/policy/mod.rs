//! Decisions about peers, attempts and certificates: values in, values out; `now` is an argument.
//!
//! Pure functions of their arguments: no shared state, no clock. The caller holds the state and replaces
//! the old value by the new one.

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
pub mod selection;
pub mod slow_start;
pub mod weighted_round_robin;
