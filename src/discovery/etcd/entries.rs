//! The keys of a prefix, and the peers that they are.
//!
//! One bad value must not change the list: its key keeps the peer that it had. Of two keys with the same label the older
//! one has it, so that a new key cannot take the points of another.

use std::collections::{BTreeMap, HashMap};

use super::found_keys::FoundKeys;
use crate::config::{self, PeerConfig, PeerListRules};

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyState {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// The revision in which the key was created.
    pub(super) created: i64,
}

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyEvent {
    Put(KeyState),
    Delete(Vec<u8>),
}

/// The keys of one prefix.
pub(super) struct EtcdEntries {
    prefix: String,
    rules: PeerListRules,
    /// The list of the process before, by label, until the first list is complete.
    known: HashMap<String, PeerConfig>,
    keys: BTreeMap<Vec<u8>, EtcdEntry>,
    /// The number of the list that is read now or was read last.
    list: u64,
    has_changed: bool,
}

struct EtcdEntry {
    value: Vec<u8>,
    created: i64,
    /// The last list that had the key.
    list: u64,
    /// The last valid value.
    peer: Option<PeerConfig>,
    /// The problem with the present value.
    problem: Option<String>,
}

impl EtcdEntries {
    /// No keys yet. `known`: the last list, of an earlier process perhaps.
    pub(super) fn new(prefix: String, rules: PeerListRules, known: &[PeerConfig]) -> Self {
        let known = known.iter().map(|peer| (peer.label.clone(), peer.clone()));
        Self {
            prefix,
            rules,
            known: known.collect(),
            keys: BTreeMap::new(),
            list: 0,
            has_changed: true,
        }
    }

    /// The number of keys.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Begins a complete list: the keys follow by [`Self::put`].
    pub(super) fn start_list(&mut self) {
        self.list += 1;
    }

    /// Removes the keys that the list did not have.
    pub(super) fn end_list(&mut self) {
        let (list, before) = (self.list, self.keys.len());
        self.keys.retain(|_, entry| entry.list == list);
        self.has_changed |= self.keys.len() != before;
        self.known.clear();
    }

    /// Takes a change.
    pub(super) fn apply(&mut self, event: KeyEvent) {
        match event {
            KeyEvent::Put(state) => self.put(state),
            KeyEvent::Delete(key) => {
                let removed = self.keys.remove(&key);
                self.has_changed |= removed.is_some();
            }
        }
    }

    /// Takes the present value of a key.
    pub(super) fn put(&mut self, state: KeyState) {
        let KeyState {
            key,
            value,
            created,
        } = state;
        let list = self.list;
        if let Some(entry) = self.keys.get_mut(&key)
            && entry.value == value
        {
            // Another age decides only between two keys with one label.
            self.has_changed |= entry.created != created;
            (entry.created, entry.list) = (created, list);
            return;
        }
        let earlier = self.keys.get(&key).and_then(|entry| entry.peer.clone());
        let (peer, problem) = match self.parse(&key, &value) {
            Ok(peer) => (peer, None),
            Err(problem) => (earlier.or_else(|| self.known_peer(&key)), Some(problem)),
        };
        let entry = EtcdEntry {
            value,
            created,
            list,
            peer,
            problem,
        };
        self.keys.insert(key, entry);
        self.has_changed = true;
    }

    /// Whether the list may have changed since the last call.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    /// The present list.
    pub(super) fn found(&self) -> FoundKeys {
        let mut owners: HashMap<&str, (i64, &[u8])> = HashMap::new();
        for (key, entry) in &self.keys {
            if let Some(peer) = &entry.peer {
                let age = (entry.created, key.as_slice());
                let owner = owners.entry(peer.label.as_str()).or_insert(age);
                *owner = age.min(*owner);
            }
        }
        let mut found = FoundKeys::default();
        for (key, entry) in &self.keys {
            let owner = entry.peer.as_ref().and_then(|peer| {
                let (_, owner) = owners.get(peer.label.as_str())?;
                Some((peer, *owner))
            });
            if let Some(problem) = &entry.problem {
                found.problems.push(match owner {
                    Some(_) => format!("{problem}; the peer that it had before stays"),
                    None => format!("{problem}; it is left out"),
                });
            }
            match owner {
                Some((peer, owner)) if owner == key => found.peers.push(peer.clone()),
                Some((peer, owner)) => found.problems.push(format!(
                    "{}: its label `{}` is that of the older key {}; it is left out",
                    shown(key),
                    peer.label,
                    shown(owner)
                )),
                None => {}
            }
        }
        found
    }

    /// The peer of a key; `None`: the key is only the name of the folder.
    fn parse(&self, key: &[u8], value: &[u8]) -> Result<Option<PeerConfig>, String> {
        let name = self.name(key).ok_or_else(|| {
            let place = shown(key);
            format!("{place}: the name of the key is not UTF-8; give the peer another key")
        })?;
        if name.is_empty() && value.is_empty() {
            return Ok(None);
        }
        let place = shown(key);
        let text = std::str::from_utf8(value)
            .map_err(|_| format!("{place}: the value is not UTF-8; write an address, or JSON"))?;
        config::parse_single_peer(&place, text, name, &self.rules)
            .map(Some)
            .map_err(|error| error.to_string())
    }

    fn known_peer(&self, key: &[u8]) -> Option<PeerConfig> {
        self.known.get(self.name(key)?).cloned()
    }

    /// The part of a key after the prefix; `None`: it is not UTF-8.
    fn name<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        let name = key.strip_prefix(self.prefix.as_bytes()).unwrap_or(key);
        std::str::from_utf8(name).ok()
    }
}

fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(key).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries(upstream: &str, known: &[PeerConfig]) -> EtcdEntries {
        let yaml = format!(
            "listeners: [{{address: 127.0.0.1:1}}]\nroutes: [{{upstream: app}}]\nupstreams: {{app: {{{upstream}, peers: [{{file: a}}]}}}}\n"
        );
        let config = config::parse("test.yaml", &yaml).unwrap();
        let rules = config.upstreams["app"].peer_list_rules();
        EtcdEntries::new("/app/".to_owned(), rules, known)
    }

    fn put(entries: &mut EtcdEntries, name: &str, value: &str, created: i64) {
        entries.put(KeyState {
            key: format!("/app/{name}").into_bytes(),
            value: value.as_bytes().to_vec(),
            created,
        });
    }

    /// `LABEL=ADDRESS*WEIGHT` of each peer.
    fn shown_peers(entries: &EtcdEntries) -> String {
        let found = entries.found();
        let peers = found.peers.iter();
        let peers = peers.map(|peer| format!("{}={}*{}", peer.label, peer.address, peer.weight));
        peers.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn value_of_a_key_is_an_address_or_json() {
        for (name, value, expected) in [
            ("a", "10.0.0.1:80", "a=10.0.0.1:80*1"),
            ("a", " 10.0.0.1:80\n", "a=10.0.0.1:80*1"),
            ("a", "\"10.0.0.1:80\"", "a=10.0.0.1:80*1"),
            ("a", "[2001:db8::1]:80", "a=[2001:db8::1]:80*1"),
            ("a", "App.internal:80", "a=app.internal:80*1"),
            ("rack1/a", "10.0.0.1:80", "rack1/a=10.0.0.1:80*1"),
            ("a", "{\"address\": \"10.0.0.1:80\"}", "a=10.0.0.1:80*1"),
            (
                "a",
                " {\"address\":\"10.0.0.1:80\",\"weight\":3,\"label\":\"b\"}",
                "b=10.0.0.1:80*3",
            ),
            (
                "",
                "{\"address\": \"10.0.0.1:80\", \"label\": \"b\"}",
                "b=10.0.0.1:80*1",
            ),
            ("", "", ""),
        ] {
            let mut entries = entries("health: off", &[]);
            put(&mut entries, name, value, 1);
            assert_eq!(shown_peers(&entries), expected, "{name} {value}");
            assert_eq!(entries.found().problems, [""; 0], "{name} {value}");
        }
    }

    #[test]
    fn bad_value_of_a_key_is_a_problem_with_its_place() {
        for (upstream, name, value, problem) in [
            ("drain: off", "a", "", "/app/a: the value is empty"),
            (
                "drain: off",
                "a",
                "10.0.0.1",
                "/app/a:1:1: `10.0.0.1` is not the address",
            ),
            (
                "drain: off",
                "a",
                "{\"adress\": \"10.0.0.1:1\"}",
                "did you mean `address`",
            ),
            (
                "drain: off",
                "a",
                "{\"address\": \"10.0.0.1:1\", \"weight\": 0}",
                "/app/a:1:37: ",
            ),
            ("drain: off", "a", "{\"address\": ", "/app/a:1"),
            ("drain: off", "a b", "10.0.0.1:1", "cannot be a label"),
            ("drain: off", "", "10.0.0.1:1", "cannot be a label"),
            ("ring: haproxy", "a", "10.0.0.1:1", "add an `id`"),
            ("tls: true", "a", "10.0.0.1:1", "no server name to verify"),
        ] {
            let mut entries = entries(upstream, &[]);
            put(&mut entries, name, value, 1);
            let FoundKeys { peers, problems } = entries.found();
            assert_eq!((peers.len(), problems.len()), (0, 1), "{value}");
            assert!(problems[0].contains(problem), "{problems:?}");
            assert!(problems[0].ends_with("; it is left out"), "{problems:?}");
        }
        let mut entries = entries("drain: off", &[]);
        entries.put(KeyState {
            key: b"/app/\xff".to_vec(),
            value: b"\xff".to_vec(),
            created: 1,
        });
        let problems = entries.found().problems;
        assert!(problems[0].contains("not UTF-8"), "{problems:?}");
    }

    #[test]
    fn key_with_a_bad_value_keeps_its_last_peer() {
        let mut entries = entries("drain: off", &[]);
        put(&mut entries, "a", "10.0.0.1:1", 1);
        put(&mut entries, "b", "10.0.0.2:1", 2);
        assert!(entries.take_changed());
        put(&mut entries, "a", "nonsense", 1);
        assert_eq!(shown_peers(&entries), "a=10.0.0.1:1*1 b=10.0.0.2:1*1");
        let problems = entries.found().problems;
        assert!(
            problems[0].ends_with("the peer that it had before stays"),
            "{problems:?}"
        );
        // Also over a new list, until the value is right or the key goes.
        entries.start_list();
        put(&mut entries, "a", "more nonsense", 1);
        put(&mut entries, "b", "10.0.0.2:1", 2);
        entries.end_list();
        assert_eq!(shown_peers(&entries), "a=10.0.0.1:1*1 b=10.0.0.2:1*1");
        put(&mut entries, "a", "10.0.0.9:1", 1);
        assert_eq!(shown_peers(&entries), "a=10.0.0.9:1*1 b=10.0.0.2:1*1");
        put(&mut entries, "a", "nonsense", 1);
        entries.apply(KeyEvent::Delete(b"/app/a".to_vec()));
        put(&mut entries, "a", "nonsense", 5);
        assert_eq!(shown_peers(&entries), "b=10.0.0.2:1*1");
    }

    #[test]
    fn peers_of_the_process_before_stand_in_for_bad_values_of_the_first_list_only() {
        let mut before = entries("drain: off", &[]);
        put(&mut before, "a", "10.0.0.1:1", 1);
        put(&mut before, "b", "10.0.0.2:1", 1);
        let known = before.found().peers;
        let mut entries = entries("drain: off", &known);
        entries.start_list();
        put(&mut entries, "a", "nonsense", 1);
        entries.end_list();
        assert_eq!(shown_peers(&entries), "a=10.0.0.1:1*1");
        put(&mut entries, "b", "nonsense", 1);
        assert_eq!(shown_peers(&entries), "a=10.0.0.1:1*1");
    }

    #[test]
    fn label_of_two_keys_belongs_to_the_older_one() {
        let value = "{\"address\": \"10.0.0.1:1\", \"label\": \"x\"}";
        let mut entries = entries("drain: off", &[]);
        put(
            &mut entries,
            "b",
            "{\"address\": \"10.0.0.2:1\", \"label\": \"x\"}",
            1,
        );
        put(&mut entries, "a", value, 2);
        assert_eq!(shown_peers(&entries), "x=10.0.0.2:1*1");
        let problems = entries.found().problems;
        assert_eq!(
            problems,
            ["/app/a: its label `x` is that of the older key /app/b; it is left out"]
        );
        entries.apply(KeyEvent::Delete(b"/app/b".to_vec()));
        assert_eq!(shown_peers(&entries), "x=10.0.0.1:1*1");
        assert_eq!(entries.found().problems, [""; 0]);
    }

    #[test]
    fn list_without_a_change_is_known() {
        let mut entries = entries("drain: off", &[]);
        assert!(entries.take_changed(), "the first list may be empty");
        let list = |entries: &mut EtcdEntries, names: &[&str]| {
            entries.start_list();
            for name in names {
                put(entries, name, "10.0.0.1:1", 1);
            }
            entries.end_list();
            entries.take_changed()
        };
        assert!(list(&mut entries, &["a", "b"]));
        assert!(!list(&mut entries, &["b", "a"]));
        assert!(list(&mut entries, &["a"]));
        entries.apply(KeyEvent::Delete(b"/app/unknown".to_vec()));
        assert!(!entries.take_changed());
    }

    proptest! {
        /// Events lead to the list that a complete list has, and a bad value never removes a peer.
        #[test]
        fn events_and_lists_agree(events in proptest::collection::vec((0_u8..6, 0_u8..8), 0..60)) {
            let mut watched = entries("drain: off", &[]);
            let mut store = BTreeMap::new();
            for (revision, (key, what)) in (1_i64..).zip(events) {
                let name = format!("/app/{key}").into_bytes();
                let before = watched.found().peers.len();
                match what {
                    0 => {
                        store.remove(&name);
                        watched.apply(KeyEvent::Delete(name));
                    }
                    1 => {
                        let entry = store.get(&name).map_or(revision, |(created, _): &(i64, _)| *created);
                        let bad = KeyState { key: name, value: b"x".to_vec(), created: entry };
                        watched.apply(KeyEvent::Put(bad));
                        prop_assert_eq!(watched.found().peers.len(), before);
                    }
                    host => {
                        let label = if host > 5 { ",\"label\":\"same\"" } else { "" };
                        let value = format!("{{\"address\":\"10.0.0.{host}:1\"{label}}}").into_bytes();
                        let created = store.get(&name).map_or(revision, |(created, _)| *created);
                        store.insert(name.clone(), (created, value.clone()));
                        watched.apply(KeyEvent::Put(KeyState { key: name, value, created }));
                    }
                }
            }
            let mut listed = entries("drain: off", &[]);
            listed.start_list();
            for (key, (created, value)) in store {
                listed.put(KeyState { key, value, created });
            }
            listed.end_list();
            prop_assert_eq!(listed.found().peers, watched.found().peers);
        }
    }
}
