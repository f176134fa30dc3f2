//! From members to sorted points.

use std::borrow::Cow;
use std::collections::HashSet;

use super::dialect::{Rules, Ties};
use super::{Dialect, Error, Member, Ring, Weight, lower, upper};

/// Points, ascending.
#[derive(Debug, Default)]
pub(super) struct Arcs {
    /// Each a hash, or the upper half of one, and its owner.
    pub(super) ends: Vec<(u32, u16)>,
    /// The lower halves, where hashes have 64 bits.
    pub(super) low: Box<[u32]>,
}

impl Arcs {
    /// The points of all members.
    pub(super) fn new(
        dialect: Dialect,
        names: &[Cow<'_, str>],
        weights: &[Weight],
    ) -> Result<Self, Error> {
        let counts = counts(dialect, weights)?;
        let rules = dialect.with(|placement| placement.rules());
        let total = counts.iter().map(|count| *count as usize).sum();
        if rules.wide {
            let mut points = Vec::with_capacity(total);
            place(dialect, names, &counts, |hash, member| {
                points.push((hash, member));
            });
            return Ok(Self::wide(names, rules, points));
        }
        let mut points = Vec::with_capacity(total);
        place(dialect, names, &counts, |hash, member| {
            points.push((lower(hash), member));
        });
        Ok(Self::narrow(names, rules, points))
    }

    /// Points that are hashes of 32 bits.
    ///
    /// Each is packed into one word, hash above rank of the member, which sorts several times faster
    /// than pairs with a name to compare.
    pub(super) fn narrow<S: AsRef<str>>(
        names: &[S],
        rules: Rules,
        points: Vec<(u32, u16)>,
    ) -> Self {
        let order = Ranks::new(names, rules.ties);
        let pack = |(hash, member)| u64::from(hash) << 32 | u64::from(order.rank(member));
        let mut packed: Vec<_> = points.into_iter().map(pack).collect();
        packed.sort_unstable();
        if rules.ties == Ties::First {
            packed.dedup_by_key(|word| upper(*word));
        }
        let unpack = |word| (upper(word), order.member(lower(word)));
        Self {
            ends: packed.into_iter().map(unpack).collect(),
            low: Box::default(),
        }
    }

    /// Points that are hashes of 64 bits.
    fn wide<S: AsRef<str>>(names: &[S], rules: Rules, mut points: Vec<(u64, u16)>) -> Self {
        let order = Ranks::new(names, rules.ties);
        points.sort_unstable_by_key(|(hash, member)| (*hash, order.rank(*member)));
        if rules.ties == Ties::First {
            points.dedup_by_key(|(hash, _)| *hash);
        }
        Self {
            ends: points
                .iter()
                .map(|(hash, member)| (upper(*hash), *member))
                .collect(),
            low: points.iter().map(|(hash, _)| lower(*hash)).collect(),
        }
    }
}

/// What is hashed for each member; two of one name would have the same points.
pub(super) fn names<'a>(
    dialect: Dialect,
    members: &[Member<'a>],
) -> Result<Vec<Cow<'a, str>>, Error> {
    if members.len() > Ring::MAX_MEMBERS {
        return Err(Error::TooManyMembers(members.len()));
    }
    if !dialect.is_valid() {
        return Err(Error::Dialect(dialect));
    }
    let names = dialect.names(members)?;
    let mut seen = HashSet::with_capacity(names.len());
    match names.iter().find(|name| !seen.insert(&***name)) {
        Some(twin) => Err(Error::Duplicate(twin.to_string())),
        None => Ok(names),
    }
}

/// Above the last point the hashes are its own.
pub(super) fn last_keeps(mut ends: Vec<(u32, u16)>) -> Vec<(u32, u16)> {
    if let Some((end, _)) = ends.last_mut() {
        *end = u32::MAX;
    }
    ends
}

/// The number of points of each member.
fn counts(dialect: Dialect, weights: &[Weight]) -> Result<Vec<u32>, Error> {
    let counts = dialect.with(|placement| placement.counts(weights));
    let total = counts.iter().sum();
    if total > u64::from(Ring::MAX_POINTS) {
        return Err(Error::TooManyPoints(total));
    }
    Ok(counts.into_iter().map(lower).collect())
}

fn place(dialect: Dialect, names: &[Cow<'_, str>], counts: &[u32], mut put: impl FnMut(u64, u16)) {
    dialect.with(|placement| {
        for ((name, count), member) in names.iter().zip(counts).zip(0..=u16::MAX) {
            placement.place(name, *count, &mut |hash| put(hash, member));
        }
    });
}

/// The order in which members come on one hash.
struct Ranks {
    /// By member; empty where it is the members' own order.
    ranks: Vec<u16>,
    /// By rank.
    members: Vec<u16>,
}

impl Ranks {
    fn new<S: AsRef<str>>(names: &[S], ties: Ties) -> Self {
        let mut members: Vec<u16> = (0..=u16::MAX)
            .zip(names)
            .map(|(member, _)| member)
            .collect();
        if ties == Ties::ByName {
            members
                .sort_unstable_by_key(|member| names.get(usize::from(*member)).map(AsRef::as_ref));
        }
        let mut ranks = vec![0; members.len()];
        for (rank, member) in (0..=u16::MAX).zip(&members) {
            if let Some(place) = ranks.get_mut(usize::from(*member)) {
                *place = rank;
            }
        }
        Self { ranks, members }
    }

    fn rank(&self, member: u16) -> u16 {
        self.ranks
            .get(usize::from(member))
            .copied()
            .unwrap_or(member)
    }

    fn member(&self, rank: u32) -> u16 {
        self.members.get(rank as usize).copied().unwrap_or_default()
    }
}
