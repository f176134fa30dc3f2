//! `libmemcached`: the distributions `ketama` and `consistent` of libmemcached, without weights.
//!
//! These are `ketama` of pylibmc and `DISTRIBUTION_CONSISTENT` of PHP's `Memcached`. In spite of the name they are not
//! ketama: each server has 100 points, one hash each, and points and keys are hashed with Bob Jenkins' one-at-a-time
//! function, the library's default `hash`. Point `i` of a server is the hash of `"{name}-{i}"`.
//!
//! Hashed for a member: its id, or what the library makes of its address. That is `host` if the port is 11211, else
//! `host:port`, without the brackets of an IPv6 address; `path:0` for a Unix socket.
//!
//! Weights have no effect. If the distribution is chosen before a server with a weight above 1 is added, as pylibmc does,
//! the library hashes points with MD5 and by weight, but keys as before: dialect `twemproxy` with `one_at_a_time`.
//!
//! With `remove_failed` (`auto_eject`) the library rebuilds the ring without a server that is down, which moves the
//! same keys as here.

use std::borrow::Cow;

use super::numbered_name::NumberedName;
use super::one_at_a_time::one_at_a_time;
use super::placement::{InvalidId, OwnershipRules, Placement};
use crate::ring::hash::Hash;
use crate::ring::member::{Member, Weight};

/// `MEMCACHED_POINTS_PER_SERVER`.
const POINTS_PER_SERVER: u32 = 100;
/// The port that is not part of a name.
const DEFAULT_PORT: &str = "11211";

/// The algorithm; see the module.
pub(super) struct Libmemcached;

impl Placement for Libmemcached {
    fn name(&self) -> &'static str {
        "libmemcached"
    }

    fn hash_names<'a>(&self, members: &[Member<'a>]) -> Result<Vec<Cow<'a, str>>, InvalidId> {
        let name = |member: &Member<'a>| match member.id {
            Some(id) => Cow::Borrowed(id),
            None => server_name(member.label),
        };
        Ok(members.iter().map(name).collect())
    }

    fn point_counts(&self, weights: &[Weight]) -> Vec<u64> {
        vec![POINTS_PER_SERVER.into(); weights.len()]
    }

    fn place(&self, name: &str, points: u32, put: &mut dyn FnMut(u64)) {
        let mut name = NumberedName::new(name);
        (0..points).for_each(|point| put(one_at_a_time(name.with_number(point)).into()));
    }

    fn hash(&self, key: &[u8]) -> Hash {
        Hash(one_at_a_time(key).into())
    }

    fn ownership_rules(&self) -> OwnershipRules {
        OwnershipRules::AT_OR_AFTER_BY_MEMBER_ORDER
    }
}

/// The text that the library hashes for an address; a label of another form as it is.
fn server_name(label: &str) -> Cow<'_, str> {
    if let Some(path) = label.strip_prefix("unix:") {
        return Cow::Owned(format!("{path}:0"));
    }
    match label.rsplit_once(':') {
        Some((host, DEFAULT_PORT)) => Cow::Borrowed(without_brackets(host)),
        Some((host, port)) if host.starts_with('[') => {
            Cow::Owned(format!("{}:{port}", without_brackets(host)))
        }
        _ => Cow::Borrowed(label),
    }
}

fn without_brackets(host: &str) -> &str {
    let inner = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inner.unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{Dialect, Ring};

    /// From libmemcached 1.1.4: `memcached_generate_hash_value` with `MEMCACHED_HASH_DEFAULT`.
    #[test]
    fn libmemcached_key_hashes_match_the_library() {
        for (key, hash) in [
            ("", 0),
            ("a", 3_392_050_242),
            ("user:1", 2_773_942_091),
            ("é", 26_298_542),
        ] {
            assert_eq!(Libmemcached.hash(key.as_bytes()), Hash(hash), "{key}");
        }
    }

    /// From libmemcached 1.1.4: `memcached_generate_hash` with the behaviour `KETAMA`, for `user:0` and so on.
    #[test]
    fn libmemcached_owners_match_the_library() {
        let labels = [
            "10.0.0.1:11211",
            "10.0.0.2:11212",
            "[::1]:11211",
            "[::1]:11212",
            "unix:/run/m.sock",
        ];
        let members = labels.map(|label| (label, Weight::ONE));
        let ring = Ring::new(Dialect::Libmemcached, members).unwrap();
        let owner = |key: &str| ring.owner(&ring.key(key.as_bytes())).unwrap().index();
        let owners = (0..12).map(|number| owner(&format!("user:{number}")));
        assert!(owners.eq([1, 4, 2, 0, 1, 2, 1, 3, 0, 1, 1, 4]));
        assert_eq!((owner("é"), owner("🦀")), (2, 4));
    }

    #[test]
    fn libmemcached_names_are_those_of_the_library() {
        for (label, name) in [
            ("a:11211", "a"),
            ("a:11212", "a:11212"),
            ("[::1]:11211", "::1"),
            ("[::1]:11212", "::1:11212"),
            ("unix:/run/a.sock", "/run/a.sock:0"),
            ("cache-a", "cache-a"),
            ("[x:1", "[x:1"),
            ("", ""),
        ] {
            assert_eq!(server_name(label), name, "{label}");
        }
    }
}
