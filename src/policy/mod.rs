//! Decisions about peers, attempts and certificates: values in, values out; `now` is an argument.
//!
//! Pure functions of their arguments: no shared state, no clock. The caller holds the state and replaces
//! the old value by the new one.

pub(crate) mod bounded_load;
pub(crate) mod cert_renewal;
pub(crate) mod ejection;
pub(crate) mod flap_damping;
pub(crate) mod gcra;
pub(crate) mod hash_mix;
pub(crate) mod health;
pub(crate) mod heavy_hitters;
pub(crate) mod hot_key_spread;
pub(crate) mod lookup_backoff;
pub(crate) mod min_rate;
pub(crate) mod peer_list;
pub(crate) mod retry;
pub(crate) mod selection;
pub(crate) mod slow_start;
pub(crate) mod weighted_round_robin;
