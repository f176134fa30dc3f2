//! Names of peers to addresses, when a configuration is loaded.
//!
//! A name is looked up once, and its first address taken; the label stays the name, so a changed
//! address moves no key.

use std::net::SocketAddr;

use tokio::task::JoinSet;

use crate::config::{Config, PeerAddress};
use crate::snapshot::Addresses;

/// A peer's name has no address.
#[derive(Debug, thiserror::Error)]
#[error("peer `{address}`: {reason}; check the name, or write its IP address")]
pub struct Error {
    address: PeerAddress,
    reason: String,
}

/// The addresses of all peers that are written as names.
pub(super) async fn addresses(config: &Config) -> Result<Addresses, Error> {
    let mut lookups = JoinSet::new();
    let peers = config
        .upstreams
        .values()
        .flat_map(|upstream| &upstream.peers);
    let mut names: Vec<_> = peers
        .map(|peer| &peer.address)
        .filter(|address| is_name(address))
        .collect();
    names.sort();
    names.dedup();
    for name in names {
        lookups.spawn(lookup(name.clone()));
    }
    let mut found = Addresses::new();
    while let Some(done) = lookups.join_next().await {
        // A lookup that panicked leaves its name without an address, which the snapshot reports.
        let Ok(result) = done else { continue };
        let (name, address) = result?;
        found.insert(name, address);
    }
    Ok(found)
}

async fn lookup(name: PeerAddress) -> Result<(PeerAddress, SocketAddr), Error> {
    let found = tokio::net::lookup_host(name.to_string())
        .await
        .map(|mut addresses| addresses.next());
    match found {
        Ok(Some(address)) => Ok((name, address)),
        Ok(None) => Err(Error {
            address: name,
            reason: "the name has no address".to_owned(),
        }),
        Err(error) => Err(Error {
            address: name,
            reason: error.to_string(),
        }),
    }
}

fn is_name(address: &PeerAddress) -> bool {
    matches!(address, PeerAddress::Name(..))
}
