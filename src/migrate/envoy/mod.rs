//! Envoy: what `static_resources` mean to us.
//!
//! The syntax is YAML (JSON is YAML), read as our own configuration is, with the same bounds. A field
//! that nothing here asks for is a gap, unless it only concerns Envoy itself.

mod beginning;
mod chain;
mod cluster;
mod ending;
mod fields;
mod hash_policy;
mod listener;
mod redirect;
mod tls;

use self::fields::{Element, Fields};
use super::model::Setup;
use super::notes::Notes;
use super::source::Sources;
use crate::config::{self, Report, YamlNode, YamlValue};

/// The tree of one file.
pub(super) struct Root {
    file: usize,
    node: YamlNode,
}

/// Reads the file; it must have `static_resources`.
pub(super) fn parse(sources: &Sources, file: usize) -> Result<Root, Report> {
    let text = sources.text(file);
    let said = text
        .lines()
        .any(|line| !line.trim().is_empty() && !line.trim().starts_with('#'));
    let missing = || {
        let help = "give a bootstrap configuration; what comes by xDS is not in the file";
        sources.whole(file, "there is no `static_resources` here", help)
    };
    if !said {
        return Err(missing());
    }
    let node = config::parse_yaml(sources.name(file), text)?;
    match &node.value {
        YamlValue::Map(entries) if entries.iter().any(|entry| entry.key == "static_resources") => {
            Ok(Root { file, node })
        }
        _ => Err(missing()),
    }
}

/// What the whole tree says.
pub(super) fn translate(root: &Root, notes: &Notes<'_>) -> Setup {
    let mut setup = Setup::default();
    let fields = Fields::of(Element::new(&root.node, root.file));
    fields.leave(&[
        "node",
        "stats_config",
        "stats_sinks",
        "layered_runtime",
        "overload_manager",
        "flags_path",
    ]);
    if let Some(resources) = fields.map("static_resources") {
        for cluster in resources.list("clusters") {
            setup.upstreams.push(cluster::upstream(cluster, notes));
        }
        let mut routing = listener::Routing::default();
        for listener in resources.list("listeners") {
            routing.listener(listener, &mut setup, notes);
        }
        listener::remark_keyless(&mut setup.upstreams, &resources, notes);
        resources.tell_rest(&mut setup.comments, notes);
    }
    fields.tell_rest(&mut setup.comments, notes);
    setup
}
