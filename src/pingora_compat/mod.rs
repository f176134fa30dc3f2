//! Work-arounds for Pingora 0.9.1, one per file. Each says what is missing in Pingora, what fails without the
//! work-around, and when it can be removed.
//! README.md in this directory has the requests to Pingora.

pub(crate) mod body_queue;

pub(crate) mod body_sender;

pub(crate) mod fresh_connection;

pub(crate) mod http_proxy;

pub(crate) mod in_transit;

pub(crate) mod interim_responses;

pub(crate) mod proxy_header;

pub(crate) mod tunnel;

pub(crate) mod upstream_h2;

pub(crate) mod user_data;
