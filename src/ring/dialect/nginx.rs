//! `nginx`: `hash KEY consistent` of nginx, in `http` and `stream` (1.7.2 and later). The rings of OpenResty and
//! Pingora follow it.
//!
//! Hashed for a member: the argument of `server` as written: `10.0.0.1:8080`, `[::1]:80`,
//! `unix:/run/app.sock`, or a name, with or without a port. Each point is the CRC-32 of host, a zero byte,
//! port and the previous point (0 before the first). Of points with the same hash, only that of the first
//! server is kept.
//!
//! nginx changes to round robin after 20 *points* of servers that are down; Clockwise continues the walk.

use super::placement::{OwnerRule, OwnershipRules, Placement, TieBreak};
use crate::ring::hash::Hash;

const POINTS_PER_WEIGHT: u32 = 160;

/// The algorithm; see the module.
pub(super) struct Nginx;

impl Placement for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn points_per_weight(&self) -> u32 {
        POINTS_PER_WEIGHT
    }

    fn place(&self, name: &str, points: u32, put: &mut dyn FnMut(u64)) {
        let (host, port) = split_host_port(name);
        let mut base = crc32fast::Hasher::new();
        base.update(host.as_bytes());
        base.update(&[0]);
        base.update(port.as_bytes());
        let mut point = 0_u32;
        for _ in 0..points {
            let mut next = base.clone();
            next.update(&point.to_le_bytes());
            point = next.finalize();
            put(point.into());
        }
    }

    fn hash(&self, key: &[u8]) -> Hash {
        Hash(crc32fast::hash(key).into())
    }

    fn ownership_rules(&self) -> OwnershipRules {
        OwnershipRules {
            owner_rule: OwnerRule::AtOrAfter,
            tie_break: TieBreak::KeepFirst,
            is_64_bit: false,
        }
    }
}

/// Splits host and port as nginx does: the port is the digits after the last colon.
fn split_host_port(server: &str) -> (&str, &str) {
    if let Some((scheme, path)) = server.split_at_checked("unix:".len())
        && scheme.eq_ignore_ascii_case("unix:")
    {
        return (path, "");
    }
    match server.trim_end_matches(|c: char| c.is_ascii_digit()) {
        host if host.ends_with(':') => server.rsplit_once(':').unwrap_or((server, "")),
        _ => (server, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{Dialect, Ring, Weight};

    #[test]
    fn nginx_points_match_nginx() {
        let mut points = Vec::new();
        Nginx.place("127.0.0.1:7777", 160, &mut |point| points.push(point));
        points.sort_unstable();
        let mut first = Vec::new();
        Nginx.place("127.0.0.1:7777", 3, &mut |point| first.push(point));
        assert_eq!(first, [842_782_624, 66_278_312, 1_921_422_695]);
        assert_eq!(points.len(), 160);
    }

    #[test]
    fn nginx_keys_are_placed_as_in_nginx() {
        let servers = ["127.0.0.1:7777", "127.0.0.1:7778"];
        let ring = Ring::new(Dialect::Nginx, servers.map(|name| (name, Weight::ONE))).unwrap();
        let cases = [
            ("/some/path", 1),
            ("/some/longer/path", 0),
            ("/g", 0),
            ("/sad/zaidoon", 1),
        ];
        for (key, server) in cases {
            assert_eq!(
                ring.owner(&ring.key(key.as_bytes())).unwrap().0,
                server,
                "{key}"
            );
        }
    }

    #[test]
    fn nginx_server_is_split_into_host_and_port() {
        let cases = [
            ("10.0.0.1:80", ("10.0.0.1", "80")),
            ("example.com", ("example.com", "")),
            ("web1", ("web1", "")),
            ("[::1]:80", ("[::1]", "80")),
            ("[::1]", ("[::1]", "")),
            ("UNIX:/run/a:1", ("/run/a:1", "")),
            ("name:", ("name", "")),
        ];
        for (server, parts) in cases {
            assert_eq!(split_host_port(server), parts, "{server}");
        }
    }
}
