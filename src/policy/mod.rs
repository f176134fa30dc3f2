//! Decisions about peers and attempts: values in, values out; `now` is an argument.
//!
//! Nothing here selects a peer, keeps a counter or reads a clock. The caller holds the state, and
//! swaps the old value for the new one.

pub mod ejection;
pub mod health;
pub mod retry;
