//! The peers of a name, from its records and from the answer before. Pure.
//!
//! What a name server does not say is not taken for a removal: addresses of a family (IPv4, IPv6) that could not be read
//! stay as they were, and so does the address of a service while its host has none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::records::{AddressSet, ServiceSet};
use crate::config::PeerAddress;
use crate::ring::Weight;

/// The most peers of one name. One answer has at most about 4,000 records: 64 KiB.
pub(super) const MAX_PEERS: usize = 10_000;

/// The longest time for which a name is taken to have no records: it may be about to get some.
const LONGEST_NEGATIVE: Duration = Duration::from_secs(30);

/// A peer that records name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundPeer {
    /// Unique within an answer.
    pub(super) label: String,
    /// A host name: no address of it is known.
    pub(super) address: PeerAddress,
    pub(super) weight: Weight,
    /// The name of the host, if the records tell it.
    pub(super) host: Option<String>,
}

/// The peers of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DnsAnswer {
    /// In an order that does not depend on the name server's.
    pub(super) peers: Vec<FoundPeer>,
    /// The time to live of the records; of a name without any at most [`LONGEST_NEGATIVE`].
    pub(super) valid_for: Duration,
    /// Why peers may be missing or out of date.
    pub(super) gap: Option<String>,
}

/// The addresses of one family, or why they cannot be read.
pub(super) type FamilyResult = Result<AddressSet, String>;

/// The addresses of both families of a name.
#[derive(Clone, Debug)]
pub(super) struct Families {
    pub(super) v4: FamilyResult,
    pub(super) v6: FamilyResult,
}

impl Families {
    /// Addresses of either family, all of which are known.
    pub(super) fn known(set: AddressSet) -> Self {
        Self {
            v4: Ok(set),
            v6: Ok(AddressSet::default()),
        }
    }

    /// These addresses; in a family without any, those that a name server has added to another answer.
    pub(super) fn or_added(self, added: &AddressSet) -> Self {
        let or = |family: FamilyResult, added: Option<AddressSet>| match (family, added) {
            (Ok(set), _) if !set.addresses.is_empty() => Ok(set),
            (_, Some(added)) => Ok(added),
            (family, None) => family,
        };
        Self {
            v4: or(self.v4, added.family(IpAddr::is_ipv4)),
            v6: or(self.v6, added.family(IpAddr::is_ipv6)),
        }
    }

    /// Neither family can be read, for this reason.
    pub(super) fn failed(error: &str) -> Self {
        Self {
            v4: Err(error.to_owned()),
            v6: Err(error.to_owned()),
        }
    }

    /// Whether the name is known to have no address.
    pub(super) fn is_negative(&self) -> bool {
        let is_empty = |family: &FamilyResult| {
            let set = family.as_ref();
            set.is_ok_and(|set| set.addresses.is_empty())
        };
        is_empty(&self.v4) && is_empty(&self.v6)
    }

    /// The addresses that could be read.
    fn known_set(&self) -> AddressSet {
        let sets = [&self.v4, &self.v6].into_iter().flatten();
        let union = sets.cloned().reduce(AddressSet::union);
        union.unwrap_or_default()
    }

    /// The reason if a family could not be read.
    fn failure(&self) -> Option<String> {
        match (&self.v4, &self.v6) {
            (Ok(_), Ok(_)) => None,
            (Ok(_), Err(error)) => Some(format!("AAAA: {error}")),
            (Err(error), Ok(_)) => Some(format!("A: {error}")),
            (Err(v4), Err(v6)) if v4 == v6 => Some(v4.clone()),
            (Err(v4), Err(v6)) => Some(format!("A: {v4}; AAAA: {v6}")),
        }
    }

    /// Whether the family of an address could be read.
    fn knows_family_of(&self, address: &IpAddr) -> bool {
        match address {
            IpAddr::V4(_) => self.v4.is_ok(),
            IpAddr::V6(_) => self.v6.is_ok(),
        }
    }
}

impl DnsAnswer {
    /// The peers of a name: each of its addresses.
    ///
    /// # Errors
    /// Neither family could be read; or one could not, and no address is known of the other.
    pub(super) fn of_addresses(
        port: u16,
        families: &Families,
        previous: Option<&Self>,
    ) -> Result<Self, String> {
        let kept = previous.map(|previous| previous.kept(families));
        let both_failed = families.v4.is_err() && families.v6.is_err();
        let (mut set, failure) = (families.known_set(), families.failure());
        set.addresses.extend(kept.unwrap_or_default());
        if let Some(error) = failure
            .as_ref()
            .filter(|_| both_failed || set.addresses.is_empty())
        {
            return Err(error.clone());
        }
        let peer = |address: &IpAddr| {
            let address = SocketAddr::new(*address, port);
            FoundPeer {
                label: address.to_string(),
                address: PeerAddress::Ip(address),
                weight: Weight::ONE,
                host: None,
            }
        };
        let gap =
            failure.map(|error| format!("{error}; the addresses of this kind stay as they were"));
        Ok(Self {
            peers: set.addresses.iter().map(peer).collect(),
            valid_for: valid_for(set.ttl, set.addresses.is_empty()),
            gap,
        }
        .limited())
    }

    /// The addresses of the families that could not be read.
    fn kept(&self, families: &Families) -> Vec<IpAddr> {
        let addresses = self.peers.iter().filter_map(FoundPeer::ip);
        addresses
            .filter(|address| !families.knows_family_of(address))
            .collect()
    }

    /// The peers of a name: each of its services. `hosts`: the addresses of their hosts.
    pub(super) fn of_services(
        services: &ServiceSet,
        mut hosts: BTreeMap<String, Families>,
        previous: Option<&Self>,
    ) -> Self {
        let previous: BTreeMap<&str, IpAddr> = previous.map(Self::by_label).unwrap_or_default();
        let known = services.hosts().into_iter().map(|host| {
            let families = hosts.remove(host);
            let families = families.unwrap_or_else(|| Families::failed("its lookup has no result"));
            (host, KnownHost::of(families))
        });
        let mut known: BTreeMap<&str, KnownHost> = known.collect();
        let mut peers = Vec::new();
        for (label, (host, port), weight) in services.labels() {
            let previous = previous.get(&*label).copied();
            let address = known.get_mut(&**host);
            let address = address.and_then(|host| host.choose(previous));
            peers.push(FoundPeer {
                label,
                address: match address {
                    Some(address) => PeerAddress::Ip(SocketAddr::new(address, *port)),
                    None => PeerAddress::Name(host.clone(), *port),
                },
                weight,
                host: Some(host.clone()),
            });
        }
        let sets = known.values().map(|host| &host.set);
        let ttls = sets
            .filter(|set| !set.addresses.is_empty())
            .map(|set| set.ttl);
        let ttl = ttls.chain([services.ttl]).min().unwrap_or_default();
        Self {
            peers,
            valid_for: valid_for(ttl, services.is_empty()),
            gap: service_gap(services, &known),
        }
        .limited()
    }

    fn by_label(&self) -> BTreeMap<&str, IpAddr> {
        let peers = self.peers.iter();
        peers
            .filter_map(|peer| Some((&*peer.label, peer.ip()?)))
            .collect()
    }

    /// The addresses of the hosts of these services.
    pub(super) fn addresses_of_hosts<'a>(
        &self,
        services: &'a ServiceSet,
    ) -> BTreeMap<&'a str, BTreeSet<IpAddr>> {
        let by_label = self.by_label();
        let mut hosts: BTreeMap<&str, BTreeSet<IpAddr>> = BTreeMap::new();
        for (label, (host, _), _) in services.labels() {
            if let Some(address) = by_label.get(&*label) {
                hosts.entry(host).or_default().insert(*address);
            }
        }
        hosts
    }

    fn limited(mut self) -> Self {
        let found = self.peers.len();
        if found > MAX_PEERS {
            self.peers.truncate(MAX_PEERS);
            self.gap = Some(format!(
                "it has {found} peers; only the first {MAX_PEERS} are used"
            ));
        }
        self
    }
}

impl FoundPeer {
    fn ip(&self) -> Option<IpAddr> {
        match &self.address {
            PeerAddress::Ip(address) => Some(address.ip()),
            _ => None,
        }
    }
}

fn valid_for(ttl: u32, is_negative: bool) -> Duration {
    let ttl = Duration::from_secs(ttl.into());
    if is_negative {
        ttl.min(LONGEST_NEGATIVE)
    } else {
        ttl
    }
}

/// What is known of a host of services.
struct KnownHost {
    /// The addresses that could be read.
    set: AddressSet,
    families: Families,
    /// Whether a service keeps an address that is not in the set.
    is_kept: bool,
}

impl KnownHost {
    fn of(families: Families) -> Self {
        Self {
            set: families.known_set(),
            families,
            is_kept: false,
        }
    }

    /// The address of a service: the previous one while the host has it, may have it, or has none at all; another address is
    /// another server without any known state.
    fn choose(&mut self, previous: Option<IpAddr>) -> Option<IpAddr> {
        let Some(previous) = previous else {
            return self.set.addresses.first().copied();
        };
        if self.set.addresses.contains(&previous) {
            return Some(previous);
        }
        let is_known_to_be_gone =
            self.families.knows_family_of(&previous) && !self.set.addresses.is_empty();
        if is_known_to_be_gone {
            return self.set.addresses.first().copied();
        }
        self.is_kept = true;
        Some(previous)
    }
}

fn service_gap(services: &ServiceSet, known: &BTreeMap<&str, KnownHost>) -> Option<String> {
    let without = |host: &KnownHost| host.set.addresses.is_empty();
    let gap = host_gap(known, "have no address", without)
        .or_else(|| host_gap(known, "could be read only in part", |host| host.is_kept));
    let invalid = services.invalid;
    let invalid_gap = || {
        (invalid > 0)
            .then(|| format!("{invalid} of its records name no host and port; they are left out"))
    };
    gap.or_else(invalid_gap)
}

/// How many hosts have a problem, and what it is.
fn host_gap(
    known: &BTreeMap<&str, KnownHost>,
    problem: &str,
    has_it: impl Fn(&KnownHost) -> bool,
) -> Option<String> {
    let mut hosts = known.iter().filter(|(_, known)| has_it(known));
    let (host, first) = hosts.next()?;
    let (count, of) = (hosts.count() + 1, known.len());
    let reason = first.families.failure();
    let reason = reason.as_deref().unwrap_or("the name has none");
    Some(format!(
        "{count} of {of} hosts {problem}, as `{host}`: {reason}; their peers stay as they were"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SrvWeights;
    use crate::discovery::dns::records::tests::{name, records};
    use crate::discovery::dns::records::{addresses, addresses_by_host};

    /// Records of one name, `-` for none, or `!` for a failure.
    fn family(text: &str) -> FamilyResult {
        match text {
            "!" => Err("SERVFAIL".to_owned()),
            "-" => Ok(AddressSet {
                ttl: 30,
                ..AddressSet::default()
            }),
            _ => Ok(addresses(&name("a.test"), &records(text)).unwrap()),
        }
    }

    fn families(v4: &str, v6: &str) -> Families {
        Families {
            v4: family(v4),
            v6: family(v6),
        }
    }

    fn labels(answer: &DnsAnswer) -> Vec<&str> {
        answer.peers.iter().map(|peer| &*peer.label).collect()
    }

    const V4: &str = "a.test 7 A 10.0.0.2; a.test 7 A 10.0.0.1";
    const V6: &str = "a.test 9 AAAA ::1";

    #[test]
    fn each_address_of_a_name_is_a_peer_labelled_by_address_and_port() {
        let answer = DnsAnswer::of_addresses(80, &families(V4, V6), None).unwrap();
        assert_eq!(labels(&answer), ["10.0.0.1:80", "10.0.0.2:80", "[::1]:80"]);
        assert_eq!((answer.valid_for.as_secs(), &answer.gap), (7, &None));
        let only_v6 = DnsAnswer::of_addresses(80, &families("-", V6), None).unwrap();
        assert_eq!(
            (labels(&only_v6), only_v6.valid_for.as_secs()),
            (vec!["[::1]:80"], 9)
        );
        let negative = DnsAnswer::of_addresses(80, &families("-", "-"), Some(&answer)).unwrap();
        assert_eq!(
            (labels(&negative), negative.valid_for.as_secs()),
            (vec![], 30)
        );
    }

    #[test]
    fn addresses_of_a_family_that_cannot_be_read_stay() {
        let before = DnsAnswer::of_addresses(80, &families(V4, V6), None).unwrap();
        for (v4, v6, expected) in [
            ("a.test 7 A 10.0.0.3", "!", &["10.0.0.3:80", "[::1]:80"][..]),
            ("!", "-", &["10.0.0.1:80", "10.0.0.2:80"]),
            ("!", V6, &["10.0.0.1:80", "10.0.0.2:80", "[::1]:80"]),
        ] {
            let answer = DnsAnswer::of_addresses(80, &families(v4, v6), Some(&before)).unwrap();
            assert_eq!(labels(&answer), expected, "{v4} {v6}");
            assert!(answer.gap.unwrap().contains("SERVFAIL"));
        }
    }

    #[test]
    fn name_of_which_too_little_is_known_is_an_error_and_not_an_empty_list() {
        let known = DnsAnswer::of_addresses(80, &families(V4, "-"), None).unwrap();
        for (v4, v6, previous) in [
            ("!", "!", None),
            ("!", "!", Some(&known)),
            ("!", "-", None),
            ("-", "!", None),
            ("-", "!", Some(&known)),
        ] {
            let error = DnsAnswer::of_addresses(80, &families(v4, v6), previous).unwrap_err();
            assert!(error.contains("SERVFAIL"), "{v4} {v6}: {error}");
        }
        let half = DnsAnswer::of_addresses(80, &families(V4, "!"), None).unwrap();
        assert_eq!(labels(&half), ["10.0.0.1:80", "10.0.0.2:80"]);
        assert!(half.gap.unwrap().starts_with("AAAA: SERVFAIL"));
    }

    fn of_services(hosts: &str, previous: Option<&DnsAnswer>) -> DnsAnswer {
        let answer = records("s.test 20 SRV 1 5 80 a.test; s.test 20 SRV 1 5 80 b.test");
        let services = ServiceSet::of(&name("s.test"), &answer, SrvWeights::Ignore);
        let found = addresses_by_host(&records(hosts)).into_iter();
        let no_v6 = || Ok(AddressSet::default());
        let mut found: BTreeMap<_, _> = found
            .map(|(host, set)| {
                (
                    host,
                    Families {
                        v4: Ok(set),
                        v6: no_v6(),
                    },
                )
            })
            .collect();
        found.entry("b.test".to_owned()).or_insert(Families {
            v4: Err("SERVFAIL".to_owned()),
            v6: no_v6(),
        });
        DnsAnswer::of_services(&services, found, previous)
    }

    fn address(answer: &DnsAnswer, index: usize) -> String {
        answer.peers[index].address.to_string()
    }

    #[test]
    fn service_keeps_its_address_while_its_host_has_it() {
        let before = of_services("a.test 9 A 10.0.0.2; b.test 9 A 10.0.0.9", None);
        assert_eq!(labels(&before), ["a.test", "b.test"]);
        assert_eq!((before.valid_for.as_secs(), &before.gap), (9, &None));
        for (hosts, expected) in [
            ("a.test 9 A 10.0.0.1; a.test 9 A 10.0.0.2", "10.0.0.2:80"),
            ("a.test 9 A 10.0.0.4; a.test 9 A 10.0.0.3", "10.0.0.3:80"),
            ("", "10.0.0.2:80"),
        ] {
            let after = of_services(hosts, Some(&before));
            assert_eq!(address(&after, 0), expected, "{hosts}");
            assert_eq!(address(&after, 1), "10.0.0.9:80", "its lookup failed");
            assert!(after.gap.unwrap().contains("b.test") || hosts.is_empty());
        }
    }

    /// The address of a service on `a.test`, and why its source has a gap.
    fn after(previous: &str, v4: &str, v6: &str) -> (String, Option<String>) {
        let answer = records("s.test 20 SRV 1 5 80 a.test");
        let services = ServiceSet::of(&name("s.test"), &answer, SrvWeights::Ignore);
        let of = |families: Families, previous: Option<&DnsAnswer>| {
            let hosts = BTreeMap::from([("a.test".to_owned(), families)]);
            DnsAnswer::of_services(&services, hosts, previous)
        };
        let before = Families::known(family(previous).unwrap());
        let before = of(before, None);
        assert_eq!(before.gap, None);
        let after = of(families(v4, v6), Some(&before));
        (address(&after, 0), after.gap)
    }

    #[test]
    fn service_keeps_an_address_only_while_its_own_family_cannot_be_read() {
        const OLD_V4: &str = "a.test 9 A 10.0.0.2";
        const OLD_V6: &str = "a.test 9 AAAA ::2";
        const V4: &str = "a.test 9 A 10.0.0.9";
        const V6: &str = "a.test 9 AAAA ::9";
        for (previous, v4, v6, expected, is_gap) in [
            (OLD_V4, V4, "!", "10.0.0.9:80", false),
            (OLD_V6, "!", V6, "[::9]:80", false),
            (OLD_V4, "-", V6, "[::9]:80", false),
            (OLD_V4, OLD_V4, "!", "10.0.0.2:80", false),
            (OLD_V4, "!", V6, "10.0.0.2:80", true),
            (OLD_V6, V4, "!", "[::2]:80", true),
            (OLD_V4, "-", "!", "10.0.0.2:80", true),
            (OLD_V4, "-", "-", "10.0.0.2:80", true),
            (OLD_V4, "!", "!", "10.0.0.2:80", true),
        ] {
            let (address, gap) = after(previous, v4, v6);
            assert_eq!(address, expected, "{previous}: {v4} {v6}");
            assert_eq!(gap.is_some(), is_gap, "{previous}: {v4} {v6}: {gap:?}");
        }
        let (_, gap) = after(OLD_V4, "!", V6);
        assert_eq!(
            gap.unwrap(),
            "1 of 1 hosts could be read only in part, as `a.test`: A: SERVFAIL; their peers stay as they were"
        );
    }

    #[test]
    fn added_addresses_are_enough_only_with_the_one_in_use() {
        let answer = records("s.test 20 SRV 1 5 80 a.test; s.test 20 SRV 1 5 81 a.test");
        let services = ServiceSet::of(&name("s.test"), &answer, SrvWeights::Ignore);
        let families = Families::known(family("a.test 9 A 10.0.0.2").unwrap());
        let hosts = BTreeMap::from([("a.test".to_owned(), families)]);
        let before = DnsAnswer::of_services(&services, hosts, None);
        let in_use = before.addresses_of_hosts(&services);
        let is_enough = |added: &str, is_first: bool| {
            let added = addresses_by_host(&records(added)).remove("a.test");
            let in_use = in_use.get("a.test").filter(|_| !is_first);
            added.unwrap_or_default().has_all_of(in_use)
        };
        for (added, at_first, later) in [
            ("a.test 9 A 10.0.0.2; a.test 9 AAAA ::1", true, true),
            ("a.test 9 AAAA ::1", true, false),
            ("a.test 9 A 10.0.0.3", true, false),
            ("b.test 9 A 10.0.0.2", false, false),
            ("", false, false),
        ] {
            assert_eq!(is_enough(added, true), at_first, "{added}");
            assert_eq!(is_enough(added, false), later, "{added}");
        }
    }

    #[test]
    fn added_addresses_fill_only_families_without_addresses() {
        let added = records("a.test 9 A 10.0.0.3; a.test 9 AAAA ::3");
        let added = addresses(&name("a.test"), &added).unwrap();
        for (v4, v6, expected) in [
            (V4, V6, &["10.0.0.1", "10.0.0.2", "::1"][..]),
            (V4, "!", &["10.0.0.1", "10.0.0.2", "::3"]),
            ("-", V6, &["10.0.0.3", "::1"]),
            ("!", "!", &["10.0.0.3", "::3"]),
        ] {
            let filled = families(v4, v6).or_added(&added);
            assert_eq!(filled.failure(), None, "{v4} {v6}");
            let set = filled.known_set();
            let texts: Vec<_> = set.addresses.iter().map(ToString::to_string).collect();
            assert_eq!(texts, expected, "{v4} {v6}");
        }
        let only_v4 = added.family(IpAddr::is_ipv4).unwrap();
        let filled = families("!", "!").or_added(&only_v4);
        assert_eq!(filled.failure().unwrap(), "AAAA: SERVFAIL");
    }

    #[test]
    fn service_on_a_host_without_address_keeps_its_place() {
        let answer = of_services("a.test 9 A 10.0.0.1", None);
        assert_eq!(labels(&answer), ["a.test", "b.test"]);
        assert_eq!(
            answer.peers[1].address,
            PeerAddress::Name("b.test".to_owned(), 80)
        );
        let gap = answer.gap.unwrap();
        assert!(
            gap.starts_with("1 of 2 hosts have no address, as `b.test`: A: SERVFAIL"),
            "{gap}"
        );
    }

    #[test]
    fn peers_beyond_the_limit_are_left_out_and_said() {
        let addresses = (0..10_050_u32).map(|number| IpAddr::V4((0x0a00_0000 + number).into()));
        let v4 = Ok(AddressSet {
            addresses: addresses.collect(),
            ttl: 5,
        });
        let families = Families {
            v4,
            v6: family("-"),
        };
        let answer = DnsAnswer::of_addresses(80, &families, None).unwrap();
        assert_eq!(answer.peers.len(), MAX_PEERS);
        assert!(answer.gap.unwrap().contains("10050 peers"));
    }
}
