//! Envoy: `static_resources`.
//!
//! The syntax is YAML (JSON is YAML), parsed with the same bounds as Clockwise's own configuration. A field
//! that the translation does not read is a gap, unless it is internal to Envoy.

mod address;
mod cluster;
mod filter_chain;
mod hash_policy;
mod listener;
mod message_fields;
mod redirect;
mod rewrites;
mod routes;
mod tls;
mod tls_origination;
mod tls_termination;

use self::message_fields::{FieldValue, MessageFields};
use super::draft::ConfigDraft;
use super::notes::Notes;
use super::source::SourceMap;
use crate::config::{self, Report, YamlNode, YamlValue};

/// The parsed YAML of one file.
pub(super) struct EnvoyBootstrap {
    file: usize,
    node: YamlNode,
}

/// Parses the file, which must have `static_resources`.
pub(super) fn parse(sources: &SourceMap, file: usize) -> Result<EnvoyBootstrap, Report> {
    let text = sources.text(file);
    let has_content = text
        .lines()
        .any(|line| !line.trim().is_empty() && !line.trim().starts_with('#'));
    let missing = || {
        let help = "give a bootstrap configuration; resources from xDS are not in the file";
        sources.file_error(file, "`static_resources` is missing", help)
    };
    if !has_content {
        return Err(missing());
    }
    let node = config::parse_yaml(sources.name(file), text)?;
    match &node.value {
        YamlValue::Map(entries) if entries.iter().any(|entry| entry.key == "static_resources") => {
            Ok(EnvoyBootstrap { file, node })
        }
        _ => Err(missing()),
    }
}

/// Translates the whole tree.
pub(super) fn translate(root: &EnvoyBootstrap, notes: &Notes<'_>) -> ConfigDraft {
    let mut draft = ConfigDraft::default();
    let fields = MessageFields::of(FieldValue::new(&root.node, root.file));
    fields.ignore(&[
        "node",
        "stats_config",
        "stats_sinks",
        "layered_runtime",
        "overload_manager",
        "flags_path",
    ]);
    if let Some(resources) = fields.message("static_resources") {
        for cluster in resources.list("clusters") {
            draft.upstreams.push(cluster::upstream(cluster, notes));
        }
        let mut translator = listener::ListenerTranslator::default();
        for listener in resources.list("listeners") {
            translator.listener(listener, &mut draft, notes);
        }
        hash_policy::note_rings_without_key(&mut draft.upstreams, &resources, notes);
        rewrites::note_differences(&mut draft, &resources, notes);
        resources.note_unread(&mut draft.comments, notes);
    }
    fields.note_unread(&mut draft.comments, notes);
    draft
}
