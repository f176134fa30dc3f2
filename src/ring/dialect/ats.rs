//! `ats`: `round_robin=consistent_hash` of Apache Traffic Server's parent selection.
//!
//! Hashed for a member: the parent's `hash_string`, which is the id, or its host *without* the port. Two
//! parents with one host have the same points in Traffic Server, and the first owns them; here this is an error.
//! Point `i` is the SipHash, with a key of zeros, of `"{i}-{name}"`; there are `replicas` points per unit of weight,
//! which may have a fraction. A parent that is down is skipped clockwise.

use std::borrow::Cow;
use std::hash::Hasher as _;

use siphasher::sip::{SipHasher13, SipHasher24};

use super::placement::{
    DialectOptionValue, InvalidId, OwnerRule, OwnershipRules, Placement, TieBreak,
    is_valid_points_per_weight, option_name,
};
use crate::ring::hash::Hash;
use crate::ring::member::{Member, Weight};

/// The options of dialect `ats`, as configured in Traffic Server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ats {
    /// `proxy.config.http.parent_proxy.consistent_hash_algorithm`.
    pub function: AtsHash,
    /// Points per unit of weight.
    pub replicas: u32,
}

/// The function that places parents and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtsHash {
    /// SipHash-2-4, the only function before Traffic Server 10.2.
    Siphash24,
    /// SipHash-1-3.
    Siphash13,
}

impl AtsHash {
    /// The names in the configuration.
    pub const NAMES: &[(&str, Self)] = &[
        ("siphash24", Self::Siphash24),
        ("siphash13", Self::Siphash13),
    ];

    fn hash(self, text: &[u8]) -> u64 {
        match self {
            Self::Siphash24 => {
                let mut hasher = SipHasher24::new();
                hasher.write(text);
                hasher.finish()
            }
            Self::Siphash13 => {
                let mut hasher = SipHasher13::new();
                hasher.write(text);
                hasher.finish()
            }
        }
    }
}

impl Ats {
    /// Default points per unit of weight.
    pub const DEFAULT_REPLICAS: u32 = 1024;
}

impl Default for Ats {
    fn default() -> Self {
        Self {
            function: AtsHash::Siphash24,
            replicas: Self::DEFAULT_REPLICAS,
        }
    }
}

impl Placement for Ats {
    fn name(&self) -> &'static str {
        "ats"
    }

    fn options(&self) -> Vec<(&'static str, DialectOptionValue)> {
        vec![
            ("hash", option_name(AtsHash::NAMES, &self.function)),
            ("replicas", DialectOptionValue::Number(self.replicas.into())),
        ]
    }

    fn is_valid(&self) -> bool {
        is_valid_points_per_weight(self.replicas)
    }

    fn hash_names<'a>(&self, members: &[Member<'a>]) -> Result<Vec<Cow<'a, str>>, InvalidId> {
        let name = |member: &Member<'a>| member.id.unwrap_or_else(|| without_port(member.label));
        Ok(members
            .iter()
            .map(|member| Cow::Borrowed(name(member)))
            .collect())
    }

    fn points_per_weight(&self) -> u32 {
        self.replicas
    }

    /// Product and rounding are in single precision, as in Traffic Server.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "at most 4096 × 256, and not negative"
    )]
    fn point_counts(&self, weights: &[Weight]) -> Vec<u64> {
        // Exact as a single, so the quotient is the single nearest to the written number, as in C.
        let weights = weights
            .iter()
            .map(|weight| weight.thousandths() as f32 / 1000.0);
        weights
            .map(|weight| (self.replicas as f32 * weight).round() as u64)
            .collect()
    }

    /// One with half a point, which is rounded up.
    fn least_weight(&self) -> Weight {
        let least = 500_u32.div_ceil(self.replicas.max(1));
        Weight::from_thousandths(least).unwrap_or(Weight::ONE)
    }

    fn place(&self, name: &str, points: u32, put: &mut dyn FnMut(u64)) {
        (0..points).for_each(|point| put(self.function.hash(format!("{point}-{name}").as_bytes())));
    }

    fn hash(&self, key: &[u8]) -> Hash {
        Hash(self.function.hash(key))
    }

    fn ownership_rules(&self) -> OwnershipRules {
        OwnershipRules {
            owner_rule: OwnerRule::AtOrAfter,
            tie_break: TieBreak::KeepFirst,
            is_64_bit: true,
        }
    }
}

/// `host` of `host:port`; a label of another form as it is.
fn without_port(label: &str) -> &str {
    match label.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() && !host.is_empty() => host,
        _ => label,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the reference code with a key of zeros; the published vectors use another key.
    #[test]
    fn ats_siphash_uses_a_zero_key() {
        assert_eq!(AtsHash::Siphash24.hash(b""), 0x1e92_4b9d_7377_00d7);
    }

    /// As `roundf(1024 * weight)` in C, with the weight as `sscanf` reads it.
    #[test]
    fn ats_points_follow_a_weight_with_a_fraction() {
        for (thousandths, points) in [
            (1, 1),
            (500, 512),
            (999, 1023),
            (3700, 3789),
            (255_999, 262_143),
        ] {
            let weight = Weight::from_thousandths(thousandths).unwrap();
            assert_eq!(Ats::default().point_counts(&[weight]), [points], "{weight}");
        }
    }

    #[test]
    fn ats_least_weight_is_the_least_that_has_a_point() {
        for replicas in 1..=4096 {
            let ats = Ats {
                replicas,
                ..Ats::default()
            };
            let least = ats.least_weight();
            assert_ne!(ats.point_counts(&[least]), [0], "{replicas}");
            let lighter = Weight::from_thousandths(least.thousandths() - 1);
            let points = lighter.map(|weight| ats.point_counts(&[weight]));
            assert!(points.is_none_or(|points| points == [0]), "{replicas}");
        }
    }

    #[test]
    fn ats_member_without_id_is_hashed_by_its_host_alone() {
        let member = |label, id| Member {
            label,
            id,
            weight: Weight::ONE,
        };
        let members = [
            member("10.0.0.1:8080", None),
            member("a.example:80", None),
            member("[::1]:80", None),
            member("cache-b", None),
            member("unix:/run/a", None),
            member(":80", None),
            member("10.0.0.2:80", Some("c:81")),
        ];
        let names = Ats::default().hash_names(&members).unwrap();
        let hosts = ["10.0.0.1", "a.example", "[::1]", "cache-b", "unix:/run/a"];
        assert_eq!(names[..5], hosts);
        assert_eq!(names[5..], [":80", "c:81"]);
    }
}
