//! What the slices of a service mean: its peers. Pure.
//!
//! An endpoint is a peer while it is ready and does not terminate: Kubernetes sends no traffic to another one, and its
//! keys go down their walk as if it were down. Since the ring is placed by labels, an endpoint that returns gets its keys
//! back, and no others have moved. The order of slices and endpoints has no meaning.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::config::ServicePort;

/// The most peers of one service.
pub(super) const MAX_PEERS: usize = 10_000;

/// The part of an `EndpointSlice` that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EndpointSlice {
    /// The endpoints.
    pub(super) endpoints: SliceEndpoints,
    /// The TCP ports that all of them have.
    pub(super) ports: Vec<SlicePort>,
}

/// The name of a slice, and the slice or why it cannot be read.
pub(super) type NamedSlice = (String, Result<EndpointSlice, String>);

/// The endpoints of a slice, by the kind of their addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SliceEndpoints {
    /// IPv4 or IPv6.
    Addresses(Vec<ServiceEndpoint>),
    /// Names (`FQDN`), or a kind that is not known here.
    Other {
        /// The kind.
        address_type: String,
        /// The number of endpoints.
        count: usize,
    },
}

/// A server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServiceEndpoint {
    pub(super) address: IpAddr,
    /// The name that a pod of a `StatefulSet` keeps.
    pub(super) hostname: Option<String>,
    /// The name of the pod.
    pub(super) target: Option<String>,
    pub(super) is_ready: bool,
}

/// A port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlicePort {
    /// Empty: the only port of the service.
    pub(super) name: String,
    /// `None`: all ports.
    pub(super) number: Option<u16>,
}

/// A peer of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServicePeer {
    /// Unique within a service.
    pub(super) label: String,
    pub(super) address: SocketAddr,
}

/// The peers of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServicePeers {
    /// By label.
    pub(super) peers: Vec<ServicePeer>,
    /// What the operator has to know of the slices, one line each.
    pub(super) notes: BTreeSet<String>,
}

/// The slices of a service, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct ServiceSlices {
    slices: BTreeMap<String, EndpointSlice>,
    /// Why the last state of a slice cannot be read; the state before it counts.
    broken: BTreeMap<String, String>,
}

/// The names of a ready endpoint.
#[derive(Clone, Debug, Default)]
struct EndpointNames<'a> {
    hostname: Option<&'a str>,
    target: Option<&'a str>,
}

/// The ready endpoints by address and port.
type ReadyEndpoints<'a> = BTreeMap<SocketAddr, EndpointNames<'a>>;

impl ServiceSlices {
    /// Takes all slices of the service. One that cannot be read keeps its last state.
    pub(super) fn replace(&mut self, found: Vec<NamedSlice>) {
        let names: BTreeSet<_> = found.iter().map(|(name, _)| name.clone()).collect();
        self.slices.retain(|name, _| names.contains(name));
        self.broken.clear();
        for slice in found {
            self.set(slice);
        }
    }

    /// Takes a new or changed slice. If it cannot be read, its last state stays.
    pub(super) fn set(&mut self, (name, slice): NamedSlice) {
        match slice {
            Ok(slice) => {
                self.broken.remove(&name);
                self.slices.insert(name, slice);
            }
            Err(error) => {
                self.broken.insert(name, error);
            }
        }
    }

    /// Removes a slice.
    pub(super) fn remove(&mut self, name: &str) {
        self.slices.remove(name);
        self.broken.remove(name);
    }

    /// The peers on this port.
    pub(super) fn peers(&self, port: &ServicePort) -> ServicePeers {
        let mut notes = self.notes();
        let mut ready = ReadyEndpoints::new();
        for (name, slice) in &self.slices {
            if let Err(note) = slice.add_ready(port, &mut ready) {
                notes.insert(format!("EndpointSlice {name}: {note}"));
            }
        }
        let mut peers = label_endpoints(&ready, &mut notes);
        if peers.len() > MAX_PEERS {
            notes.insert(format!(
                "it has {} peers; only the first {MAX_PEERS} are used",
                peers.len()
            ));
            peers.truncate(MAX_PEERS);
        }
        ServicePeers { peers, notes }
    }

    fn notes(&self) -> BTreeSet<String> {
        if self.slices.is_empty() && self.broken.is_empty() {
            let note = "the service has no EndpointSlices; check its name and its namespace";
            return BTreeSet::from([note.to_owned()]);
        }
        let broken = self.broken.iter();
        let note = |(name, error): (&String, &String)| {
            format!("EndpointSlice {name} cannot be read: {error}; its last state stays")
        };
        broken.map(note).collect()
    }
}

impl EndpointSlice {
    /// Adds the ready endpoints, with their port.
    ///
    /// # Errors
    /// Why the endpoints of this slice cannot be peers.
    fn add_ready<'a>(
        &'a self,
        port: &ServicePort,
        ready: &mut ReadyEndpoints<'a>,
    ) -> Result<(), String> {
        let endpoints = match &self.endpoints {
            SliceEndpoints::Addresses(endpoints) => endpoints,
            SliceEndpoints::Other { count: 0, .. } => return Ok(()),
            SliceEndpoints::Other { address_type, .. } => {
                return Err(format!("addresses of type {address_type} are ignored"));
            }
        };
        // A service without endpoints has a slice without ports.
        if endpoints.is_empty() {
            return Ok(());
        }
        let port = self.port(port).ok_or_else(|| self.missing(port))?;
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.is_ready) {
            let address = SocketAddr::new(endpoint.address, port);
            ready.entry(address).or_default().add(endpoint);
        }
        Ok(())
    }

    fn port(&self, wanted: &ServicePort) -> Option<u16> {
        let mut ports = self.ports.iter();
        match wanted {
            ServicePort::Name(name) => ports.find(|port| port.name == *name)?.number,
            ServicePort::Number(number) => ports
                .any(|port| port.number.is_none_or(|port| port == *number))
                .then_some(*number),
        }
    }

    fn missing(&self, wanted: &ServicePort) -> String {
        let ports = self.ports.iter().map(|port| match port.number {
            Some(number) if port.name.is_empty() => number.to_string(),
            Some(number) => format!("{} ({number})", port.name),
            None => format!("{} (all)", port.name),
        });
        let ports = ports.collect::<Vec<_>>().join(", ");
        let ports = if ports.is_empty() { "none" } else { &ports };
        format!("no TCP port `{wanted}`, so its endpoints are no peers; it has: {ports}")
    }
}

impl<'a> EndpointNames<'a> {
    /// Of two slices with the same address any may have the names.
    fn add(&mut self, endpoint: &'a ServiceEndpoint) {
        let first = |one: Option<&'a str>, other: Option<&'a str>| match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        self.hostname = first(self.hostname, endpoint.hostname.as_deref());
        self.target = first(self.target, endpoint.target.as_deref());
    }
}

/// One peer for each name: the hostname, else the name of the pod, else the address. A pod has addresses of two families
/// in a dual-stack cluster; IPv4 is preferred. Pods with a common hostname have their own names instead.
fn label_endpoints(ready: &ReadyEndpoints<'_>, notes: &mut BTreeSet<String>) -> Vec<ServicePeer> {
    let mut by_name: BTreeMap<String, Vec<(SocketAddr, String)>> = BTreeMap::new();
    for (address, names) in ready {
        let pod = names
            .target
            .map_or_else(|| address.to_string(), str::to_owned);
        let name = names.hostname.map_or_else(|| pod.clone(), str::to_owned);
        by_name.entry(name).or_default().push((*address, pod));
    }
    let mut peers: BTreeMap<String, SocketAddr> = BTreeMap::new();
    for (name, endpoints) in by_name {
        let is_shared = is_shared(&endpoints);
        if is_shared {
            notes.insert(format!(
                "hostname {name} belongs to several pods; the names of the pods are the labels"
            ));
        }
        // IPv4 comes before IPv6 in this order.
        for (address, pod) in endpoints {
            let label = if is_shared { pod } else { name.clone() };
            peers.entry(label).or_insert(address);
        }
    }
    let peer = |(label, address)| ServicePeer { label, address };
    peers.into_iter().map(peer).collect()
}

/// Whether endpoints with a common name are several pods, and not one with addresses of two families.
fn is_shared(endpoints: &[(SocketAddr, String)]) -> bool {
    [true, false].into_iter().any(|is_ipv4| {
        let of_family = endpoints
            .iter()
            .filter(|(address, _)| address.is_ipv4() == is_ipv4);
        let pods: BTreeSet<_> = of_family.map(|(_, pod)| pod).collect();
        pods.len() > 1
    })
}

#[cfg(test)]
mod tests;
