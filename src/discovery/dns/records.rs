//! What the records of answers mean: aliases, addresses and services. Pure: nothing here asks a name server.
//!
//! An answer is as current as its shortest-lived record: the time to live of an alias (CNAME) counts for the addresses
//! that it leads to. Records of names that were not asked for are ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record};

use crate::config::{PeerAddress, SrvWeights, parse_peer_address};
use crate::ring::Weight;

/// The most aliases between a name and its records; real chains have one to three.
const MAX_ALIASES: usize = 16;

/// The way from a name to its records.
#[derive(Clone, Debug)]
pub(super) struct AliasChain {
    end: Name,
    /// The names before the end.
    passed: Vec<Name>,
    ttl: u32,
}

/// Why the aliases of a name lead to no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AliasError {
    #[error("the aliases (CNAME) of the name form a loop at `{0}`")]
    Loop(Name),
    #[error("the name has more than {} aliases (CNAME) in a row", MAX_ALIASES)]
    TooMany,
}

impl AliasChain {
    pub(super) fn new(name: Name) -> Self {
        Self {
            end: name,
            passed: Vec::new(),
            ttl: u32::MAX,
        }
    }

    /// The name that the aliases known so far lead to.
    pub(super) fn end(&self) -> &Name {
        &self.end
    }

    /// Follows the aliases in an answer, in any order.
    ///
    /// # Errors
    /// They form a loop, or are too many.
    pub(super) fn follow(&mut self, answer: &[Record]) -> Result<(), AliasError> {
        while let Some((target, ttl)) = alias(&self.end, answer) {
            let passed = std::mem::replace(&mut self.end, target.clone());
            self.passed.push(passed);
            if self.passed.contains(target) {
                return Err(AliasError::Loop(target.clone()));
            }
            if self.passed.len() > MAX_ALIASES {
                return Err(AliasError::TooMany);
            }
            self.ttl = self.ttl.min(ttl);
        }
        Ok(())
    }

    /// The time to live of the records at the end of the chain, in seconds.
    pub(super) fn ttl_of(&self, ttl: u32) -> u32 {
        self.ttl.min(ttl)
    }
}

fn alias<'a>(name: &Name, answer: &'a [Record]) -> Option<(&'a Name, u32)> {
    answer.iter().find_map(|record| match &record.data {
        RData::CNAME(CNAME(target)) if record.name == *name => Some((target, record.ttl)),
        _ => None,
    })
}

/// The addresses of a name, IPv4 before IPv6. The order of a name server has no meaning: it changes with each answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AddressSet {
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Seconds; without addresses, how long the name is known to have none.
    pub(super) ttl: u32,
}

impl AddressSet {
    /// Both sets; an empty one does not shorten the time to live of the other.
    pub(super) fn union(self, other: Self) -> Self {
        let ttl = match (self.addresses.is_empty(), other.addresses.is_empty()) {
            (false, true) => self.ttl,
            (true, false) => other.ttl,
            _ => self.ttl.min(other.ttl),
        };
        let mut addresses = self.addresses;
        addresses.extend(other.addresses);
        Self { addresses, ttl }
    }

    /// Whether it has any addresses, and all that are in use.
    pub(super) fn has_all_of(&self, in_use: Option<&BTreeSet<IpAddr>>) -> bool {
        let has_these = in_use.is_none_or(|in_use| self.addresses.is_superset(in_use));
        !self.addresses.is_empty() && has_these
    }

    /// The addresses of one family; `None`: it has none.
    pub(super) fn family(&self, is_own: fn(&IpAddr) -> bool) -> Option<Self> {
        let own = self.addresses.iter().copied().filter(is_own);
        let addresses: BTreeSet<_> = own.collect();
        let ttl = self.ttl;
        (!addresses.is_empty()).then_some(Self { addresses, ttl })
    }
}

/// The addresses of `name` in an answer, and the shortest time to live among them; `None`: it has none.
pub(super) fn addresses(name: &Name, answer: &[Record]) -> Option<AddressSet> {
    let records = answer.iter().filter(|record| record.name == *name);
    records.filter_map(address_set).reduce(AddressSet::union)
}

/// The addresses of all names in a section of an answer, by the text of the name.
pub(super) fn addresses_by_host(section: &[Record]) -> BTreeMap<String, AddressSet> {
    let mut hosts: BTreeMap<String, AddressSet> = BTreeMap::new();
    for record in section {
        let Some(set) = address_set(record) else {
            continue;
        };
        let known = hosts.entry(host_text(&record.name)).or_default();
        *known = std::mem::take(known).union(set);
    }
    hosts
}

fn address_set(record: &Record) -> Option<AddressSet> {
    let address = match &record.data {
        RData::A(A(address)) => IpAddr::V4(*address),
        RData::AAAA(AAAA(address)) => IpAddr::V6(*address),
        _ => return None,
    };
    Some(AddressSet {
        addresses: BTreeSet::from([address]),
        ttl: record.ttl,
    })
}

/// The services of a name: those of the lowest priority, which RFC 2782 prefers to all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServiceSet {
    /// The weight of each host and port.
    pub(super) services: BTreeMap<(String, u16), Weight>,
    /// Seconds.
    pub(super) ttl: u32,
    /// Records without a host name or a port.
    pub(super) invalid: usize,
}

impl ServiceSet {
    /// The services of `name` in an answer; of two records for one host and port the larger weight counts.
    pub(super) fn of(name: &Name, answer: &[Record], weights: SrvWeights) -> Self {
        let records = answer.iter().filter(|record| record.name == *name);
        let records = records.filter_map(|record| match &record.data {
            // RFC 2782: the target `.` says that the service is not available.
            RData::SRV(srv) if !srv.target.is_root() => Some((srv, record.ttl)),
            _ => None,
        });
        let lowest = records.clone().map(|(srv, _)| srv.priority).min();
        let mut set = Self {
            ttl: u32::MAX,
            ..Self::default()
        };
        for (srv, ttl) in records.filter(|(srv, _)| Some(srv.priority) == lowest) {
            set.ttl = set.ttl.min(ttl);
            match service(srv) {
                Some(service) => {
                    let weight = weight(srv.weight, weights);
                    let known = set.services.entry(service).or_insert(weight);
                    *known = weight.max(*known);
                }
                None => set.invalid += 1,
            }
        }
        set
    }

    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// The host names of the services.
    pub(super) fn hosts(&self) -> BTreeSet<&str> {
        self.services.keys().map(|(host, _)| &**host).collect()
    }

    /// The label of each service: its host, with the port where a host has two.
    pub(super) fn labels(&self) -> impl Iterator<Item = (String, &(String, u16), Weight)> {
        let mut ports: BTreeMap<&str, usize> = BTreeMap::new();
        for (host, _) in self.services.keys() {
            *ports.entry(host).or_default() += 1;
        }
        self.services.iter().map(move |(service, weight)| {
            let (host, port) = service;
            let label = match ports.get(&**host) {
                Some(1) => host.clone(),
                _ => format!("{host}:{port}"),
            };
            (label, service, *weight)
        })
    }
}

/// The host and port of a record; `None`: not those of a peer.
fn service(srv: &SRV) -> Option<(String, u16)> {
    let text = format!("{}:{}", host_text(&srv.target), srv.port);
    match parse_peer_address(&text) {
        Ok(PeerAddress::Name(host, port)) => Some((host, port)),
        _ => None,
    }
}

/// 0 is the smallest weight in use (RFC 2782: "a very small chance of being selected").
fn weight(recorded: u16, weights: SrvWeights) -> Weight {
    match weights {
        SrvWeights::Ignore => Weight::ONE,
        SrvWeights::Record => {
            Weight::new(recorded.clamp(1, Weight::MAX.get())).unwrap_or(Weight::MAX)
        }
    }
}

/// A name as in the address of a peer: in lower case, without the last dot.
pub(super) fn host_text(name: &Name) -> String {
    let text = name.to_lowercase().to_ascii();
    text.strip_suffix('.').map(str::to_owned).unwrap_or(text)
}

#[cfg(test)]
pub(super) mod tests {
    use hickory_resolver::proto::rr::rdata::{NS, SOA};

    use super::*;

    /// `app.test 5 A 10.0.0.1`, separated by `;`.
    pub(in crate::discovery::dns) fn records(text: &str) -> Vec<Record> {
        let record = |text: &str| {
            let words: Vec<_> = text.split_whitespace().collect();
            let number = |index: usize| words[index].parse().unwrap();
            let data = match words[2] {
                "A" => RData::A(A(words[3].parse().unwrap())),
                "AAAA" => RData::AAAA(AAAA(words[3].parse().unwrap())),
                "CNAME" => RData::CNAME(CNAME(name(words[3]))),
                "NS" => RData::NS(NS(name(words[3]))),
                "SOA" => RData::SOA(SOA::new(name("ns"), name("host"), 1, 2, 3, 4, 30)),
                "SRV" => RData::SRV(SRV::new(number(3), number(4), number(5), name(words[6]))),
                other => panic!("{other}"),
            };
            Record::from_rdata(name(words[0]), words[1].parse().unwrap(), data)
        };
        let texts = text.split(';').map(str::trim);
        texts.filter(|text| !text.is_empty()).map(record).collect()
    }

    pub(in crate::discovery::dns) fn name(text: &str) -> Name {
        let mut name = Name::from_ascii(text).unwrap();
        name.set_fqdn(true);
        name
    }

    fn chain(answer: &str) -> Result<(Name, u32), AliasError> {
        let mut chain = AliasChain::new(name("a.test"));
        chain.follow(&records(answer))?;
        Ok((chain.end().clone(), chain.ttl_of(100)))
    }

    #[test]
    fn aliases_are_followed_in_any_order_with_the_shortest_time_to_live() {
        for (answer, end, ttl) in [
            ("a.test 9 A 10.0.0.1", "a.test", 100),
            ("a.test 9 CNAME b.test; b.test 99 A 10.0.0.1", "b.test", 9),
            ("b.test 3 CNAME c.test; a.test 9 CNAME b.test", "c.test", 3),
            ("A.Test 9 CNAME b.test", "b.test", 9),
            ("x.test 1 CNAME y.test", "a.test", 100),
        ] {
            assert_eq!(chain(answer), Ok((name(end), ttl)), "{answer}");
        }
    }

    #[test]
    fn aliases_in_a_loop_or_in_a_long_chain_are_an_error() {
        for answer in [
            "a.test 1 CNAME a.test",
            "a.test 1 CNAME b.test; b.test 1 CNAME c.test; c.test 1 CNAME a.test",
        ] {
            assert_eq!(
                chain(answer),
                Err(AliasError::Loop(name("a.test"))),
                "{answer}"
            );
        }
        let links = |count: u32| {
            let link = |index: u32| format!("n{index}.test 1 CNAME n{}.test;", index + 1);
            let links: String = (1..count).map(link).collect();
            format!("a.test 1 CNAME n1.test; {links}")
        };
        assert_eq!(chain(&links(16)), Ok((name("n16.test"), 1)));
        assert_eq!(chain(&links(17)), Err(AliasError::TooMany));
    }

    #[test]
    fn addresses_are_those_of_the_name_each_once_with_ipv4_first() {
        let answer = records(
            "a.test 7 AAAA ::1; a.test 5 A 10.0.0.2; a.test 9 A 10.0.0.1; a.test 9 A 10.0.0.2; b.test 1 A 10.0.0.9",
        );
        let set = addresses(&name("a.test"), &answer).unwrap();
        let texts: Vec<_> = set.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.0.0.1", "10.0.0.2", "::1"]);
        assert_eq!(set.ttl, 5);
        assert_eq!(addresses(&name("c.test"), &answer), None);
    }

    fn services(answer: &str, weights: SrvWeights) -> Vec<(String, u16)> {
        let set = ServiceSet::of(&name("s.test"), &records(answer), weights);
        let labels = set.labels();
        labels
            .map(|(label, _, weight)| (label, weight.get()))
            .collect()
    }

    #[test]
    fn services_of_the_lowest_priority_have_their_host_as_label() {
        for (answer, expected) in [
            (
                "s.test 1 SRV 10 5 80 B.test; s.test 1 SRV 20 5 80 a.test",
                &["b.test"][..],
            ),
            (
                "s.test 1 SRV 10 5 80 a.test; s.test 1 SRV 10 5 80 a.test",
                &["a.test"],
            ),
            (
                "s.test 1 SRV 1 5 81 a.test; s.test 1 SRV 1 5 80 a.test; s.test 1 SRV 1 5 80 b.test",
                &["a.test:80", "a.test:81", "b.test"],
            ),
            ("s.test 1 SRV 0 0 0 .", &[]),
            (
                "s.test 1 SRV 0 0 0 .; s.test 1 SRV 9 0 80 a.test",
                &["a.test"],
            ),
            ("other.test 1 SRV 0 0 80 a.test", &[]),
        ] {
            let found = services(answer, SrvWeights::Ignore);
            let labels: Vec<_> = found.iter().map(|(label, _)| &**label).collect();
            assert_eq!(labels, expected, "{answer}");
        }
    }

    #[test]
    fn services_have_the_weight_of_their_record_only_if_it_is_asked_for() {
        for (recorded, expected) in [(0, 1), (1, 1), (50, 50), (256, 256), (65_535, 256)] {
            let answer = format!("s.test 1 SRV 10 {recorded} 80 a.test");
            let weight = |weights| services(&answer, weights)[0].1;
            assert_eq!(weight(SrvWeights::Record), expected, "{recorded}");
            assert_eq!(weight(SrvWeights::Ignore), 1, "{recorded}");
        }
        let twice = "s.test 1 SRV 1 7 80 a.test; s.test 1 SRV 1 9 80 a.test";
        assert_eq!(
            services(twice, SrvWeights::Record),
            [("a.test".to_owned(), 9)]
        );
    }

    #[test]
    fn services_without_host_name_or_port_are_counted_and_left_out() {
        let answer = records(
            "s.test 1 SRV 1 1 0 a.test; s.test 1 SRV 1 1 80 10.0.0.1; s.test 1 SRV 1 1 80 b.test",
        );
        let set = ServiceSet::of(&name("s.test"), &answer, SrvWeights::Ignore);
        assert_eq!((set.hosts(), set.invalid), (BTreeSet::from(["b.test"]), 2));
    }
}
