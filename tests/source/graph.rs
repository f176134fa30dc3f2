//! Strongly connected components of a small directed graph, and shortest cycles in it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Each node's successors.
pub(crate) type Graph = BTreeMap<usize, BTreeSet<usize>>;

/// The strongly connected components of more than one node.
pub(crate) fn components(graph: &Graph) -> Vec<BTreeSet<usize>> {
    let reach: BTreeMap<_, _> = graph
        .keys()
        .map(|node| (*node, reachable(graph, *node)))
        .collect();
    let mut seen = BTreeSet::new();
    let mut components = Vec::new();
    for (node, reached) in &reach {
        let back = |other: &&usize| reach.get(other).is_some_and(|back| back.contains(node));
        let component: BTreeSet<_> = reached.iter().filter(back).copied().collect();
        if component.len() > 1 && seen.insert(component.clone()) {
            components.push(component);
        }
    }
    components
}

fn reachable(graph: &Graph, from: usize) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(node) = open.pop() {
        for next in graph.get(&node).into_iter().flatten() {
            if reached.insert(*next) {
                open.push(*next);
            }
        }
    }
    reached
}

/// A shortest cycle through nodes of `component`; the first node is at both ends.
pub(crate) fn shortest_cycle(graph: &Graph, component: &BTreeSet<usize>) -> Vec<usize> {
    let cycles = component.iter().filter_map(|node| cycle_at(graph, *node));
    cycles.min_by_key(Vec::len).unwrap_or_default()
}

fn cycle_at(graph: &Graph, start: usize) -> Option<Vec<usize>> {
    let mut before = BTreeMap::new();
    let mut open = VecDeque::from([start]);
    while let Some(node) = open.pop_front() {
        for next in graph.get(&node).into_iter().flatten() {
            if *next == start {
                let mut way = vec![start, node];
                while let Some(node) = way.last().filter(|node| **node != start) {
                    way.push(before[node]);
                }
                way.reverse();
                return Some(way);
            }
            if !before.contains_key(next) {
                before.insert(*next, node);
                open.push_back(*next);
            }
        }
    }
    None
}

mod the_check_itself {
    use super::*;

    #[test]
    fn components_and_their_shortest_cycle() {
        let edges = [
            (0, 1),
            (1, 2),
            (2, 3),
            (3, 0),
            (2, 1),
            (3, 4),
            (5, 6),
            (6, 5),
        ];
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph.entry(from).or_default().insert(to);
        }
        let found = components(&graph);
        assert_eq!(
            found,
            [BTreeSet::from([0, 1, 2, 3]), BTreeSet::from([5, 6])]
        );
        assert_eq!(shortest_cycle(&graph, &found[0]), [1, 2, 1]);
        assert_eq!(shortest_cycle(&graph, &found[1]), [5, 6, 5]);
    }
}
