//! Envoy: what `static_resources` mean to us.
//!
//! The syntax is YAML (JSON is YAML), read as our own configuration is, with the same bounds. A field
//! that nothing here asks for is a gap, unless it only concerns Envoy itself.

mod address;
mod cluster;
mod filter_chain;
mod hash_policy;
mod listener;
mod message_fields;
mod redirect;
mod routes;
mod tls;
mod tls_origination;
mod tls_termination;

use self::message_fields::{FieldValue, MessageFields};
use super::draft::ConfigDraft;
use super::notes::Notes;
use super::source::SourceMap;
use crate::config::{self, Report, YamlNode, YamlValue};

/// The tree of one file.
pub(super) struct EnvoyBootstrap {
    file: usize,
    node: YamlNode,
}

/// Reads the file; it must have `static_resources`.
pub(super) fn parse(sources: &SourceMap, file: usize) -> Result<EnvoyBootstrap, Report> {
    let text = sources.text(file);
    let said = text
        .lines()
        .any(|line| !line.trim().is_empty() && !line.trim().starts_with('#'));
    let missing = || {
        let help = "give a bootstrap configuration; what comes by xDS is not in the file";
        sources.file_error(file, "there is no `static_resources` here", help)
    };
    if !said {
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

/// What the whole tree says.
pub(super) fn translate(root: &EnvoyBootstrap, notes: &Notes<'_>) -> ConfigDraft {
    let mut setup = ConfigDraft::default();
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
            setup.upstreams.push(cluster::upstream(cluster, notes));
        }
        let mut routing = listener::ListenerTranslator::default();
        for listener in resources.list("listeners") {
            routing.listener(listener, &mut setup, notes);
        }
        hash_policy::note_rings_without_key(&mut setup.upstreams, &resources, notes);
        resources.note_unread(&mut setup.comments, notes);
    }
    fields.note_unread(&mut setup.comments, notes);
    setup
}
