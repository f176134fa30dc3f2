//! Finds the client's address: that of the connection, or the one that trusted proxies name.
//!
//! Any client can send `X-Forwarded-For`, but each proxy on the way appends the address that connected
//! to it. So the field is read from its right end, for as long as the address at hand is a trusted
//! proxy. The first other address is the client; the entries to its left are unverified and
//! ignored. `Forwarded` (RFC 7239) is not read.

use std::net::{IpAddr, SocketAddr};

use http::HeaderName;
use ipnet::{IpNet, Ipv4Net};

use crate::header::HeaderRead;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Finds the address of the client of a connection from `remote`.
///
/// An entry that is not an address (`unknown`, a name, a truncated one) ends the search with the address
/// to its right. If all entries are trusted proxies, the leftmost is the client. IPv4-mapped IPv6
/// addresses are returned as IPv4.
pub(crate) fn resolve(
    remote: IpAddr,
    headers: &impl HeaderRead,
    trusted: &TrustedProxies,
) -> IpAddr {
    let mut client = remote.to_canonical();
    let mut entries = None;
    while trusted.contains(client) {
        let entries = entries.get_or_insert_with(|| entries_from_right(headers));
        match entries.next().and_then(parse_entry) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// The networks of the proxies that are trusted to send a correct `X-Forwarded-For`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Sorted; no network contains another.
    networks: Vec<IpNet>,
}

impl TrustedProxies {
    /// Takes networks in any order; they may overlap. A network of IPv4-mapped IPv6 addresses becomes
    /// IPv4; a wider IPv6 network, such as `::/0`, contains no IPv4 address.
    pub fn new(networks: Vec<IpNet>) -> Self {
        let networks = networks.into_iter().map(canonical_network).collect();
        let mut networks = IpNet::aggregate(&networks);
        networks.sort_unstable();
        Self { networks }
    }

    /// Whether one of the networks contains this address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        // As the networks do not overlap, only the last one that starts at or before it can match.
        let first_greater = self
            .networks
            .partition_point(|network| network.network() <= address);
        let nearest = first_greater
            .checked_sub(1)
            .and_then(|index| self.networks.get(index));
        nearest.is_some_and(|network| network.contains(&address))
    }
}

fn canonical_network(network: IpNet) -> IpNet {
    let mapped_bits = network.prefix_len().checked_sub(96);
    match (network.addr().to_canonical(), network, mapped_bits) {
        (IpAddr::V4(address), IpNet::V6(_), Some(bits)) => {
            Ipv4Net::new(address, bits).map_or(network, IpNet::V4)
        }
        _ => network,
    }
}

/// The entries of all field lines, without empty ones (RFC 9110 §5.6.1.2).
fn entries_from_right(headers: &impl HeaderRead) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(&X_FORWARDED_FOR).rev();
    lines
        .flat_map(|line| line.rsplit(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|entry| !entry.is_empty())
}

/// Parses `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn parse_entry(entry: &[u8]) -> Option<IpAddr> {
    let entry = str::from_utf8(entry).ok()?;
    let address = entry
        .parse()
        .or_else(|_| entry.parse().map(|socket: SocketAddr| socket.ip()));
    let address = address.ok().or_else(|| parse_bracketed(entry))?;
    Some(address.to_canonical())
}

fn parse_bracketed(entry: &str) -> Option<IpAddr> {
    let inner = entry.strip_prefix('[')?.strip_suffix(']')?;
    inner.parse().ok().map(IpAddr::V6)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn trusted(networks: &[&str]) -> TrustedProxies {
        TrustedProxies::new(networks.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn client(remote: &str, lines: &[&str]) -> String {
        let trusted = trusted(&["10.0.0.0/8", "fd00::/8"]);
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&X_FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        }
        resolve(remote.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn x_forwarded_for_from_an_untrusted_address_is_ignored() {
        assert_eq!(client("192.0.2.9", &["198.51.100.1"]), "192.0.2.9");
        assert_eq!(client("::ffff:192.0.2.9", &["198.51.100.1"]), "192.0.2.9");
    }

    #[test]
    fn trusted_proxy_without_x_forwarded_for_is_the_client() {
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["", " , "]), "10.0.0.1");
    }

    #[test]
    fn x_forwarded_for_is_read_up_to_the_first_untrusted_address() {
        assert_eq!(client("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(
            client("10.0.0.1", &["10.9.9.9, 198.51.100.1, 10.0.0.2"]),
            "198.51.100.1"
        );
        assert_eq!(
            client("10.0.0.1", &["1.1.1.1", "198.51.100.1,", "10.0.0.2"]),
            "198.51.100.1"
        );
        assert_eq!(
            client("::ffff:10.0.0.1", &["1.1.1.1, ::ffff:2.2.2.2"]),
            "2.2.2.2"
        );
    }

    #[test]
    fn x_forwarded_for_with_only_trusted_addresses_gives_the_leftmost() {
        assert_eq!(
            client("10.0.0.1", &["10.0.0.4", "fd00::1, 10.0.0.2"]),
            "10.0.0.4"
        );
    }

    #[test]
    fn x_forwarded_for_is_read_up_to_a_malformed_entry() {
        for bad in [
            "unknown",
            "_hidden",
            "1.2.3",
            "1.2.3.4:99999",
            "[::1",
            "fe80::1%eth0",
            "1.2.3.4 5",
        ] {
            assert_eq!(
                client("10.0.0.1", &[&format!("1.1.1.1, {bad}, 10.0.0.2")]),
                "10.0.0.2"
            );
            assert_eq!(client("10.0.0.1", &["1.1.1.1", bad]), "10.0.0.1");
        }
        let mut headers = HeaderMap::new();
        headers.append(
            &X_FORWARDED_FOR,
            HeaderValue::from_bytes(b"1.1.1.1, \xff").unwrap(),
        );
        let remote = "10.0.0.1".parse().unwrap();
        assert_eq!(resolve(remote, &headers, &trusted(&["10.0.0.0/8"])), remote);
    }

    #[test]
    fn x_forwarded_for_entry_may_have_port_brackets_and_spaces() {
        for (entry, expected) in [
            ("192.0.2.1:4711", "192.0.2.1"),
            ("  192.0.2.1\t", "192.0.2.1"),
            ("2001:DB8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
        ] {
            assert_eq!(client("10.0.0.1", &[entry]), expected, "{entry}");
        }
    }

    #[test]
    fn trusted_networks_may_overlap_and_match_mapped_ipv4() {
        let trusted = trusted(&["10.1.0.0/16", "::ffff:10.0.0.0/104", "192.0.2.7/32", "::/0"]);
        let contains = |text: &str| trusted.contains(text.parse().unwrap());
        assert!(contains("10.255.0.1") && contains("::ffff:10.255.0.1") && contains("192.0.2.7"));
        assert!(contains("2001:db8::1") && !contains("192.0.2.8") && !contains("::ffff:192.0.2.8"));
    }

    fn some_address() -> impl Strategy<Value = IpAddr> {
        // Few bits vary, so that random networks often contain random addresses.
        let v4 = (0..4u32, 0..4u32).prop_map(|(top, low)| Ipv4Addr::from(top << 30 | low).into());
        let v6 =
            (0..4u128, 0..4u128).prop_map(|(top, low)| Ipv6Addr::from(top << 126 | low).into());
        let mapped = (0..4u32).prop_map(|top| Ipv4Addr::from(top << 30).to_ipv6_mapped().into());
        prop_oneof![v4, v6, mapped]
    }

    fn some_network() -> impl Strategy<Value = IpNet> {
        (some_address(), 0..=128u8).prop_map(|(address, bits)| {
            let bits = if address.is_ipv4() { bits % 33 } else { bits };
            IpNet::new(address, bits).unwrap()
        })
    }

    proptest! {
        #[test]
        fn trusted_proxies_lookup_equals_a_linear_scan(
            networks in prop::collection::vec(some_network(), 0..12),
            address in some_address(),
        ) {
            let address = address.to_canonical();
            let expected = networks.iter().any(|network| canonical_network(*network).contains(&address));
            prop_assert_eq!(TrustedProxies::new(networks).contains(address), expected);
        }

        #[test]
        fn x_forwarded_for_with_random_bytes_does_not_panic(value in prop::collection::vec(32u8..=255, 0..40)) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.append(&X_FORWARDED_FOR, value);
            }
            resolve(Ipv4Addr::LOCALHOST.into(), &headers, &trusted(&["0.0.0.0/0"]));
        }
    }
}
