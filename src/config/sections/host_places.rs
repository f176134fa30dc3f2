//! The places of the values that depend on the machine: a port can be in use, a name without an address, a directory
//! missing. The configuration alone cannot tell.

use std::collections::BTreeMap;

use super::upstreams::Upstreams;
use super::{ListenerConfig, PeerAddress};
use crate::config::fields::{Fields, entries_in_order};
use crate::config::raw::YamlNode;
use crate::config::span::Span;

/// Where these values stand in the file; `None`: the file does not have the value.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostPlaces {
    /// Of each listener, in their order.
    pub(crate) listeners: Vec<Span>,
    /// Of the first peer with each address.
    pub(crate) peers: BTreeMap<PeerAddress, Span>,
    /// Of each upstream's sources, in their order.
    pub(crate) sources: BTreeMap<String, Vec<Span>>,
    /// Of the address of `admin`.
    pub(crate) admin: Option<Span>,
    /// Of the path of the access log.
    pub(crate) access_log: Option<Span>,
    /// Of the path of the control socket.
    pub(crate) control: Option<Span>,
    /// Of the path of the state file.
    pub(crate) state_file: Option<Span>,
}

pub(super) fn read(
    root: &Fields<'_>,
    listeners: &[(ListenerConfig, Span)],
    upstreams: &Upstreams<'_>,
) -> HostPlaces {
    let mut peers = BTreeMap::new();
    for (peer, span) in &upstreams.peers {
        peers.entry(peer.address.clone()).or_insert(*span);
    }
    HostPlaces {
        listeners: listeners.iter().map(|(_, span)| *span).collect(),
        peers,
        sources: upstreams.sources.clone(),
        admin: place(root, "admin", "address"),
        access_log: place(root, "access_log", "path"),
        control: root.get("control").map(YamlNode::error_span),
        state_file: place(root, "state_file", "path"),
    }
}

/// The place of a key of a section, else that of the section, which may be the value itself.
fn place(root: &Fields<'_>, section: &'static str, key: &str) -> Option<Span> {
    let section = root.get(section)?;
    let mut entries = entries_in_order(section).iter();
    let value = entries.find(|entry| entry.key == key);
    Some(value.map_or(section, |entry| &entry.value).error_span())
}
