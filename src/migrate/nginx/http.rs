//! The directives of `http`.

use super::proxy_settings::ProxySettings;
use super::server::{self, ServerBlock};
use super::server_merge::ServerMerger;
use super::syntax::Directive;
use super::tls::ServerSsl;
use super::unknown::note_unknown;
use super::{global_settings, real_ip, rewrites, upstream};
use crate::migrate::draft::ConfigDraft;
use crate::migrate::notes::Notes;

/// The default of `pool_size`.
const DEFAULT_POOL_SIZE: u64 = 512;

/// Translates the directives of all `http` blocks.
pub(super) fn translate(all: &[&Directive], draft: &mut ConfigDraft, notes: &Notes<'_>) {
    let named = |name: &'static str| {
        all.iter()
            .copied()
            .filter(move |found| found.name.text == name)
    };
    let maps: Vec<_> = named("map").collect();
    for block in named("upstream") {
        draft
            .upstreams
            .push(upstream::upstream(block, &maps, notes));
    }
    let owned: Vec<Directive> = named("proxy_set_header").cloned().collect();
    let mut settings = (
        ProxySettings::default().for_block(&owned),
        ServerSsl::default(),
    );
    for directive in all {
        http_directive(directive, &mut settings, all, draft, notes);
    }
    let (settings, ssl) = settings;
    let blocks = named("server").filter(|found| found.block.is_some());
    let servers: Vec<_> = blocks
        .map(|block| server::server(block, (&settings, &ssl), draft, notes))
        .collect();
    real_ip::note_differences(all, draft, notes);
    rewrites::note_differences(all, draft, notes);
    set_pool_size(all, draft);
    set_max_body_size(&settings, &servers, draft);
    ServerMerger::new(draft, notes).merge(servers);
    real_ip::set_accept_proxy(draft, notes);
}

fn http_directive(
    directive: &Directive,
    (settings, ssl): &mut (ProxySettings, ServerSsl),
    all: &[&Directive],
    draft: &mut ConfigDraft,
    notes: &Notes<'_>,
) {
    match directive.name.text.as_str() {
        "upstream" => {}
        "server" if directive.block.is_some() => {}
        "map" if is_map_used(directive, all) => {}
        _ if ssl.apply(directive, &mut draft.comments, notes) => {}
        _ if settings.apply(directive, &mut draft.comments, notes) => {}
        _ if global_settings::apply(directive, draft, notes) => {}
        _ => note_unknown(directive, &mut draft.comments, notes),
    }
}

/// Whether a `map` is translated with the `hash` that uses it, or is the usual one for WebSocket.
fn is_map_used(map: &Directive, all: &[&Directive]) -> bool {
    let name = map.argument(1);
    let hashes = all
        .iter()
        .filter(|found| found.name.text == "upstream")
        .flat_map(|found| found.children());
    let mut keys = hashes
        .filter(|found| found.name.text == "hash")
        .map(|found| found.argument(0));
    map.argument(0) == "$http_upgrade" || keys.any(|key| key == name)
}

/// nginx limits idle connections per upstream, Clockwise all together.
fn set_pool_size(all: &[&Directive], draft: &mut ConfigDraft) {
    let upstreams = all
        .iter()
        .filter(|found| found.name.text == "upstream")
        .flat_map(|found| found.children());
    let with_keepalive = upstreams.filter(|found| found.name.text == "keepalive");
    let sum = with_keepalive
        .filter_map(|found| found.argument(0).parse::<u64>().ok())
        .fold(0, u64::saturating_add);
    draft.pool_size = (sum > DEFAULT_POOL_SIZE).then(|| sum.min(65_536));
}

/// Sets the body limit of `http`; routes carry the limits of locations that differ.
fn set_max_body_size(settings: &ProxySettings, servers: &[ServerBlock], draft: &mut ConfigDraft) {
    if servers.iter().any(|server| !server.locations.is_empty()) {
        draft.downstream.max_body_size = Some(settings.max_body_size());
    }
}
