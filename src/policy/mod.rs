//! Decisions about peers and attempts: values in, values out; `now` is an argument.
//!
//! Nothing here selects a peer, shares a counter or reads a clock. The caller holds the state, and
//! swaps the old value for the new one.

pub mod bound;
pub mod ejection;
pub mod flap;
pub mod health;
pub mod hot;
pub mod mix;
pub mod pace;
pub mod ramp;
pub mod renewal;
pub mod retry;
pub mod rotation;
pub mod spread;
