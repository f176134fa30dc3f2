//! Path prefixes, and a map from prefixes to values.
//!
//! A prefix matches whole segments: `/api` matches `/api`, `/api/` and `/api/x`, not `/apix`. A trailing
//! slash is ignored, so `/api/` is the same prefix. Case matters. Nothing is decoded or resolved here: the caller
//! gives the path in its normal form.

use std::collections::BTreeMap;
use std::fmt;
use std::iter;

/// The paths that a route is for.
///
/// Stored without a trailing slash; the root is the empty text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathPrefix(String);

/// Why a path of a route is invalid; the text tells the operator what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathPrefixError {
    /// The path does not begin with a slash.
    #[error("the path must begin with `/`")]
    Start,
    /// The path has a character that cannot be in a request's path.
    #[error("`{0}` cannot be in the path of a request; percent-encode it as clients do")]
    Character(char),
    /// The path has an empty segment, `.` or `..`.
    #[error("the path has {}; remove it", segment_name(.0))]
    Segment(String),
    /// A segment of the path is `*`.
    #[error("every path is a prefix already; remove the `*`")]
    Wildcard,
}

fn segment_name(segment: &str) -> String {
    match segment {
        "" => "an empty segment".to_owned(),
        _ => format!("the segment `{segment}`"),
    }
}

impl PathPrefix {
    /// Matches every path, also the `*` of `OPTIONS *`.
    pub const ROOT: Self = Self(String::new());

    /// Parses `/`, `/api` or `/api/v1/`.
    pub fn parse(text: &str) -> Result<Self, PathPrefixError> {
        let segments = text.strip_prefix('/').ok_or(PathPrefixError::Start)?;
        if let Some(bad) = text.chars().find(|c| !is_path_character(*c)) {
            return Err(PathPrefixError::Character(bad));
        }
        let segments = segments.strip_suffix('/').unwrap_or(segments);
        if segments.is_empty() && text.len() <= 1 {
            return Ok(Self::ROOT);
        }
        segments.split('/').try_for_each(check_segment)?;
        Ok(Self(format!("/{segments}")))
    }

    /// Whether the path, without its query, is this prefix or continues it with a new segment.
    pub fn matches(&self, path: &str) -> bool {
        let rest = path.strip_prefix(self.0.as_str());
        rest.is_some_and(|rest| self.0.is_empty() || rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

fn is_path_character(c: char) -> bool {
    c.is_ascii_graphic() && !matches!(c, '?' | '#')
}

fn check_segment(segment: &str) -> Result<(), PathPrefixError> {
    match segment {
        "*" => Err(PathPrefixError::Wildcard),
        "" | "." | ".." => Err(PathPrefixError::Segment(segment.to_owned())),
        _ => Ok(()),
    }
}

/// A map from prefixes to values.
///
/// The nodes are sorted by the bytes of their prefix, and each links to its parent: the longest other
/// prefix with which its own text begins. All prefixes of a path are found from the last node that is
/// not greater than the path: they are this node and its ancestors, because a text between `p` and
/// `p…` begins with `p`.
///
/// Parents go by bytes, not by segments, because `-` sorts before `/`: between `/api` and `/api/x` may
/// stand `/api-z`. A lookup of `/api/a` starts at that node, and must reach `/api` from there.
#[derive(Debug)]
pub(super) struct PathMap<V> {
    nodes: Vec<PrefixNode<V>>,
}

#[derive(Debug)]
struct PrefixNode<V> {
    prefix: PathPrefix,
    parent: Option<usize>,
    value: V,
}

impl<V> PathMap<V> {
    pub(super) fn new(entries: BTreeMap<PathPrefix, V>) -> Self {
        let mut map = Self {
            nodes: Vec::with_capacity(entries.len()),
        };
        for (prefix, value) in entries {
            let previous = map.nodes.len().checked_sub(1);
            let parent = map
                .ancestors(previous)
                .find(|(_, node)| prefix.0.starts_with(&node.prefix.0));
            let parent = parent.map(|(index, _)| index);
            map.nodes.push(PrefixNode {
                prefix,
                parent,
                value,
            });
        }
        map
    }

    /// The values of the matching prefixes, the longest first.
    pub(super) fn matches<'map>(&'map self, path: &str) -> impl Iterator<Item = &'map V> {
        let first_greater = self
            .nodes
            .partition_point(|node| node.prefix.0.as_str() <= path);
        self.ancestors(first_greater.checked_sub(1))
            .filter(|(_, node)| node.prefix.matches(path))
            .map(|(_, node)| &node.value)
    }

    /// The node at this index and its ancestors, from child to parent.
    fn ancestors(&self, from: Option<usize>) -> impl Iterator<Item = (usize, &PrefixNode<V>)> {
        let at = |index: usize| Some((index, self.nodes.get(index)?));
        iter::successors(from.and_then(at), move |(_, node)| node.parent.and_then(at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> PathPrefix {
        PathPrefix::parse(text).unwrap()
    }

    #[test]
    fn path_prefix_matches_at_segment_boundaries() {
        for (text, path, matches) in [
            ("/api", "/api", true),
            ("/api", "/api/", true),
            ("/api", "/api/x", true),
            ("/api", "/apix", false),
            ("/api", "/ap", false),
            ("/api", "/API", false),
            ("/api", "/%61pi", false),
            ("/api", "//api", false),
            ("/api", "", false),
            ("/api/", "/api", true),
            ("/a/b", "/a/b//c", true),
            ("/a/b", "/a//b", false),
            ("/", "/", true),
            ("/", "//x", true),
            ("/", "*", true),
            ("/", "", true),
        ] {
            assert_eq!(prefix(text).matches(path), matches, "{text} on {path}");
        }
    }

    #[test]
    fn path_prefix_ignores_a_trailing_slash() {
        assert_eq!(prefix("/api/"), prefix("/api"));
        assert_eq!(prefix("/api/").to_string(), "/api");
        assert_eq!(prefix("/").to_string(), "/");
        assert_eq!(prefix("/"), PathPrefix::ROOT);
    }

    #[test]
    fn path_prefix_error_names_the_invalid_part() {
        let error = |text: &str| PathPrefix::parse(text).unwrap_err();
        let segment = |text: &str| PathPrefixError::Segment(text.to_owned());
        assert_eq!(error(""), PathPrefixError::Start);
        assert_eq!(error("api"), PathPrefixError::Start);
        assert_eq!(error("/a b"), PathPrefixError::Character(' '));
        assert_eq!(error("/a?b"), PathPrefixError::Character('?'));
        assert_eq!(error("/ä"), PathPrefixError::Character('ä'));
        assert_eq!(error("//"), segment(""));
        assert_eq!(error("/a//b"), segment(""));
        assert_eq!(error("/a//"), segment(""));
        assert_eq!(error("/a/../b"), segment(".."));
        assert_eq!(error("/."), segment("."));
        assert_eq!(error("/api/*"), PathPrefixError::Wildcard);
    }

    #[test]
    fn path_map_finds_a_prefix_after_another_in_sort_order() {
        let map = PathMap::new(
            ["/api", "/api-z"]
                .map(prefix)
                .into_iter()
                .zip(0..)
                .collect(),
        );
        assert_eq!(map.matches("/api/x").collect::<Vec<_>>(), [&0]);
        assert_eq!(map.matches("/api-z/x").collect::<Vec<_>>(), [&1]);
    }

    proptest! {
        #[test]
        fn path_map_yields_the_longest_prefix_first(
            texts in prop::collection::btree_set("(/[a-]{1,2}){0,3}", 0..20),
            path in "(/[ab-]{0,2}){0,4}",
        ) {
            let prefixes: Vec<_> = texts.iter().map(|text| PathPrefix(text.clone())).collect();
            let map = PathMap::new(prefixes.iter().map(|p| (p.clone(), p.clone())).collect());
            let mut naive: Vec<_> = prefixes.iter().filter(|p| p.matches(&path)).collect();
            naive.sort_by_key(|p| std::cmp::Reverse(p.0.len()));
            prop_assert_eq!(map.matches(&path).collect::<Vec<_>>(), naive);
        }

        #[test]
        fn path_prefix_display_can_be_parsed_again(text in "(/[a-z.*]{0,3}){0,3}/?") {
            if let Ok(prefix) = PathPrefix::parse(&text) {
                prop_assert_eq!(PathPrefix::parse(&prefix.to_string()), Ok(prefix));
            }
        }
    }
}
