//! Changes of peers by operators: checked like a configuration, then put in force like the list of a source.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::PeerDiscovery;
use super::change_log::{describe, describe_peer};
use super::peer_states::PeerStates;
use crate::admin::change_to_json;
use crate::clock;
use crate::config::{
    Config, LeftOutPeer, PeerChange, PeerChanges, PeerConfig, UpstreamConfig, parse_peer,
    parse_peer_weight,
};
use crate::lifecycle::{ControlError, ControlResult, PeerChangeRequest, PeerEdit};
use crate::predict::{Movement, percent};
use crate::server::blocking::run_blocking;
use crate::server::data_plane::DataPlane;
use crate::server::peer_lookups::PeerLookups;
use crate::snapshot::{MaxMovedExceeded, movement_by_peers};

impl PeerDiscovery {
    /// Changes a peer for an operator, and reports which keys move. Can be dropped as
    /// [`reload`](crate::server::reload::reload).
    ///
    /// # Errors
    /// The change is invalid, names a peer that does not exist, changes other peers, is refused without `force`, or cannot be
    /// put in force.
    pub(in crate::server) async fn change_peers(
        &mut self,
        request: &PeerChangeRequest,
        data_plane: &mut DataPlane,
        lookups: &mut PeerLookups,
    ) -> ControlResult {
        let snapshot = self.app_state.snapshot.load_full();
        let planned = self.plan_change(request, &snapshot.config)?;
        let movement = planned.judge(request.force).await?;
        let mut warnings = planned.warnings(&snapshot.config, &request.edit);
        if !request.dry_run && planned.is_change() {
            let states = planned.states.clone();
            let unresolved = self
                .put_states_in_force(states, data_plane, lookups)
                .await?;
            warnings.extend(unresolved.into_iter().map(|warning| warning.text));
            self.publish();
            planned.log(&request.edit, &movement);
        }
        let mut report = planned.report(request, &movement);
        let generation = self.app_state.snapshot.load().generation;
        report.insert("generation".to_owned(), generation.into());
        report.insert("warnings".to_owned(), warnings.into());
        Ok(report.into())
    }

    fn plan_change(
        &self,
        request: &PeerChangeRequest,
        config: &Config,
    ) -> Result<PlannedChange, ControlError> {
        let name = &request.upstream;
        let before = config.upstreams.get(name);
        let before = before
            .ok_or_else(|| ControlError::NotFound(format!("there is no upstream `{name}`")))?;
        let mut states = self.states.clone();
        let changes = states.changes.entry(name.clone()).or_default();
        let now = clock::wall().as_second();
        let editor = ChangeEditor { name, before, now };
        let forgotten = editor.edit(changes, &request.edit)?;
        let (mut composed, left_out) = states.compose(config, Some(config));
        let label = label_of(&request.edit);
        let key = (name.clone(), label.unwrap_or_default().to_owned());
        let planned = PlannedChange {
            drains: states.leaving.contains(&key),
            states,
            name: name.clone(),
            label: label.map(str::to_owned),
            forgotten,
            before: without_leaving(before.clone()),
            after: composed.upstreams.remove(name).map(without_leaving),
            left_out: left_out
                .into_iter()
                .filter(|peer| peer.upstream == *name)
                .collect(),
        };
        if let Some(label) = label {
            planned.check_labels(label)?;
        }
        Ok(planned)
    }
}

/// Edits the changes of an upstream.
struct ChangeEditor<'a> {
    name: &'a str,
    /// The upstream in force.
    before: &'a UpstreamConfig,
    /// Seconds since 1970.
    now: i64,
}

impl ChangeEditor<'_> {
    /// Returns the labels with changes that are forgotten.
    fn edit(
        &self,
        changes: &mut PeerChanges,
        edit: &PeerEdit,
    ) -> Result<Vec<String>, ControlError> {
        match edit {
            PeerEdit::Put {
                label,
                fields,
                must_be_new,
            } => self.put(changes, label, fields, *must_be_new)?,
            PeerEdit::Remove { label } => {
                self.require(label)?;
                let mut listed = self.before.listed_peers();
                let is_listed = listed.any(|peer| peer.label == *label);
                changes.remove(label, is_listed, self.now);
            }
            PeerEdit::Reset { label } => {
                if let Some(label) = label.as_ref().filter(|label| changes.get(label).is_none()) {
                    let name = self.name;
                    return Err(ControlError::NotFound(format!(
                        "no operator has changed peer `{label}` of upstream `{name}`"
                    )));
                }
                return Ok(changes.reset(label.as_deref()));
            }
        }
        Ok(Vec::new())
    }

    fn put(
        &self,
        changes: &mut PeerChanges,
        label: &str,
        fields: &Map<String, Value>,
        must_be_new: bool,
    ) -> Result<(), ControlError> {
        let rules = self.before.peer_list_rules();
        if let (Some(weight), 1, false) = (fields.get("weight"), fields.len(), must_be_new) {
            self.require(label)?;
            let weight = parse_peer_weight(weight, &rules).map_err(ControlError::Failed)?;
            changes.set_weight(label, weight, self.now);
            return Ok(());
        }
        if must_be_new && self.find(label).is_some() {
            let name = self.name;
            return Err(ControlError::Exists(format!(
                "upstream `{name}` has a peer `{label}`: use `set` to replace it, or another label"
            )));
        }
        let mut fields = fields.clone();
        fields.insert("label".to_owned(), label.into());
        let peer = parse_peer(&fields, &rules).map_err(ControlError::Failed)?;
        changes.set(peer, self.now);
        Ok(())
    }

    fn find(&self, label: &str) -> Option<&PeerConfig> {
        self.before.staying_peers().find(|peer| peer.label == label)
    }

    fn require(&self, label: &str) -> Result<(), ControlError> {
        if self.find(label).is_some() {
            return Ok(());
        }
        let labels = self.before.staying_peers().map(|peer| peer.label.as_str());
        let labels: Vec<_> = labels.take(MAX_LISTED_LABELS).collect();
        Err(ControlError::NotFound(format!(
            "upstream `{}` has no peer `{label}`; it has: {}",
            self.name,
            labels.join(", ")
        )))
    }
}

/// A change that is not in force yet.
struct PlannedChange {
    name: String,
    /// The label of the changed peer; `None`: all changes are forgotten.
    label: Option<String>,
    /// The labels with changes that are forgotten.
    forgotten: Vec<String>,
    /// The states with the change.
    states: PeerStates,
    /// The upstream in force, without leaving peers.
    before: UpstreamConfig,
    /// The upstream with the change, without leaving peers.
    after: Option<UpstreamConfig>,
    /// Whether the changed peer drains before it is forgotten.
    drains: bool,
    /// The peers of sources that cannot be members, with the reason.
    left_out: Vec<LeftOutPeer>,
}

impl PlannedChange {
    fn is_change(&self) -> bool {
        self.after.as_ref() != Some(&self.before)
    }

    /// Whether the label is a new one.
    fn is_new(&self) -> bool {
        let has = |upstream: &UpstreamConfig| {
            let mut peers = upstream.peers.iter();
            peers.any(|peer| Some(&peer.label) == self.label.as_ref())
        };
        !has(&self.before) && self.after.as_ref().is_some_and(has)
    }

    /// Checks that the change has an effect, and that every other peer stays as it is.
    fn check_labels(&self, label: &str) -> Result<(), ControlError> {
        let Some(after) = &self.after else {
            return Ok(());
        };
        let without_effect = &after.changed.without_effect;
        if let Some(reason) = without_effect.get(label) {
            let text = format!("peer `{label}` cannot be changed: {reason}");
            return Err(ControlError::Failed(text));
        }
        let kept: HashMap<&str, &PeerConfig> = after
            .peers
            .iter()
            .map(|peer| (peer.label.as_str(), peer))
            .collect();
        let others = self.before.peers.iter();
        let mut others = others.filter(|peer| peer.label != label);
        let Some(other) = others.find(|peer| kept.get(peer.label.as_str()) != Some(peer)) else {
            return Ok(());
        };
        let mut left_out = self.left_out.iter();
        let left_out = left_out.find(|one| one.label == other.label);
        let reason = match (left_out, without_effect.get(&other.label)) {
            (Some(left_out), _) => left_out.to_string(),
            (None, Some(reason)) => reason.clone(),
            (None, None) => "it would not stay as it is".to_owned(),
        };
        Err(ControlError::Failed(format!(
            "the change would also change peer `{}`: {reason}",
            other.label
        )))
    }

    /// The keys that move, if the change may move them.
    async fn judge(&self, force: bool) -> Result<Movement, ControlError> {
        let after = self.after.clone().unwrap_or_else(|| self.before.clone());
        if !force && after.peers.is_empty() && !self.before.peers.is_empty() {
            return Err(ControlError::NeedsForce(format!(
                "upstream `{}` would have no peers, and requests would get 503: use --force (`?force`) to do it all the same",
                self.name
            )));
        }
        let (before, allowed) = (self.before.clone(), after.max_moved);
        let movement =
            run_blocking(move || movement_by_peers(&before, &after).map_err(|e| e.to_string()));
        let movement = movement.await?;
        // Without peers before, no key had an owner.
        if !force && !self.before.peers.is_empty() {
            MaxMovedExceeded::check(&self.name, movement.moved, allowed)
                .map_err(|exceeded| ControlError::LimitExceeded(exceeded.to_string()))?;
        }
        Ok(movement)
    }

    fn warnings(&self, config: &Config, edit: &PeerEdit) -> Vec<String> {
        let is_reset = matches!(edit, PeerEdit::Reset { .. });
        let is_forgotten = |peer: &&LeftOutPeer| self.forgotten.contains(&peer.label);
        let left_out = self.left_out.iter().filter(is_forgotten);
        let mut warnings: Vec<_> = left_out.map(ToString::to_string).collect();
        if config.state_file.is_none() && !is_reset {
            let text = "no `state_file` is configured: the change does not outlive a restart";
            warnings.push(text.to_owned());
        }
        warnings
    }

    fn log(&self, edit: &PeerEdit, movement: &Movement) {
        let label = self.label.as_deref().unwrap_or_default();
        let what = match (edit, self.change()) {
            (PeerEdit::Reset { .. }, _) => {
                format!(
                    "the changes of these peers are forgotten: {}",
                    self.forgotten.join(" ")
                )
            }
            (_, Some(change)) => format!("peer {label} {}", describe(change)),
            (_, None) => format!("peer {label}, which an operator had added, is removed"),
        };
        log::info!(
            "upstream {}: by the operator: {what}; {} % of the keys move",
            self.name,
            percent(movement.moved)
        );
    }

    fn change(&self) -> Option<&PeerChange> {
        let operator = self
            .after
            .as_ref()?
            .changed
            .changes
            .get(self.label.as_ref()?)?;
        Some(&operator.change)
    }

    fn report(&self, request: &PeerChangeRequest, movement: &Movement) -> Map<String, Value> {
        let changed = self.after.as_ref().zip(self.label.as_ref());
        let change = changed.and_then(|(after, label)| change_to_json(after, label));
        let mut movement = movement.to_json();
        if let Some(movement) = movement.as_object_mut() {
            // As long as the list of all peers.
            movement.remove("peers");
        }
        let report = json!({
            "upstream": self.name,
            "label": self.label,
            "dry_run": request.dry_run,
            "changed": self.is_change(),
            "created": self.is_new(),
            "change": change,
            "forgotten": self.forgotten,
            "drains": self.drains,
            "peers": self.after.as_ref().map(|after| after.peers.len()),
            "movement": movement,
        });
        match report {
            Value::Object(report) => report,
            _ => Map::new(),
        }
    }
}

fn label_of(edit: &PeerEdit) -> Option<&str> {
    match edit {
        PeerEdit::Put { label, .. } | PeerEdit::Remove { label } => Some(label),
        PeerEdit::Reset { label } => label.as_deref(),
    }
}

fn without_leaving(mut upstream: UpstreamConfig) -> UpstreamConfig {
    upstream.peers.retain(|peer| !peer.is_leaving);
    upstream
}

/// One line for each change that hides what the file says, or that is without effect.
pub(super) fn hiding_changes(config: &Config) -> Vec<String> {
    let upstreams = config.upstreams.iter();
    upstreams
        .flat_map(|(name, upstream)| {
            let changes = upstream.changed.changes.iter();
            changes.filter_map(move |(label, operator)| {
                let consequence = hidden(upstream, label, &operator.change)?;
                let since = Timestamp::from_second(operator.since).unwrap_or_default();
                Some(format!(
                    "upstream {name}: {consequence} (since {since}); to forget the change, run `clockwise peers reset {name} {label}`"
                ))
            })
        })
        .collect()
}

/// What a change hides of the file, or why it is without effect.
fn hidden(upstream: &UpstreamConfig, label: &str, change: &PeerChange) -> Option<String> {
    if let Some(reason) = upstream.changed.without_effect.get(label) {
        return Some(format!(
            "an operator's change of peer {label} is without effect: {reason}"
        ));
    }
    let listed = upstream.changed.unchanged_peer(label)?;
    let is_in_file = listed.source.is_none();
    is_in_file.then(|| {
        let (described, file) = (describe(change), describe_peer(listed));
        format!("peer {label} {described}, by an operator; in the file it is {file}")
    })
}

/// The most peers that an error message lists.
const MAX_LISTED_LABELS: usize = 20;
