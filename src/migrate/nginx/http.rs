//! `http`: what holds for all, and how its servers and upstreams come together.

use super::proxy_settings::ProxySettings;
use super::server::{self, ServerBlock};
use super::server_merge::ServerMerger;
use super::syntax::Directive;
use super::tls::ServerSsl;
use super::unknown::note_unknown;
use super::{global_settings, real_ip, upstream};
use crate::migrate::draft::ConfigDraft;
use crate::migrate::notes::Notes;

/// Our `pool_size` where none is given.
const DEFAULT_POOL_SIZE: u64 = 512;

/// Translates the directives of all `http` blocks together.
pub(super) fn translate(all: &[&Directive], setup: &mut ConfigDraft, notes: &Notes<'_>) {
    let named = |name: &'static str| {
        all.iter()
            .copied()
            .filter(move |found| found.name.text == name)
    };
    let maps: Vec<_> = named("map").collect();
    for block in named("upstream") {
        setup
            .upstreams
            .push(upstream::upstream(block, &maps, notes));
    }
    let owned: Vec<Directive> = named("proxy_set_header").cloned().collect();
    let mut settings = (
        ProxySettings::default().for_block(&owned),
        ServerSsl::default(),
    );
    for directive in all {
        http_directive(directive, &mut settings, all, setup, notes);
    }
    let (settings, ssl) = settings;
    let blocks = named("server").filter(|found| found.block.is_some());
    let servers: Vec<_> = blocks
        .map(|block| server::server(block, (&settings, &ssl), setup, notes))
        .collect();
    real_ip::note_differences(all, setup, notes);
    set_pool_size(all, setup);
    set_max_body_size(&settings, &servers, setup);
    ServerMerger::new(setup, notes).merge(servers);
    real_ip::set_accept_proxy(setup, notes);
}

fn http_directive(
    directive: &Directive,
    (settings, ssl): &mut (ProxySettings, ServerSsl),
    all: &[&Directive],
    setup: &mut ConfigDraft,
    notes: &Notes<'_>,
) {
    match directive.name.text.as_str() {
        "upstream" => {}
        "server" if directive.block.is_some() => {}
        "map" if is_map_used(directive, all) => {}
        _ if ssl.apply(directive, &mut setup.comments, notes) => {}
        _ if settings.apply(directive, &mut setup.comments, notes) => {}
        _ if global_settings::apply(directive, setup, notes) => {}
        _ => note_unknown(directive, &mut setup.comments, notes),
    }
}

/// Whether a `map` is translated with the `hash` that uses it, or only serves WebSocket.
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

/// nginx keeps idle connections per upstream, we keep them all together.
fn set_pool_size(all: &[&Directive], setup: &mut ConfigDraft) {
    let upstreams = all
        .iter()
        .filter(|found| found.name.text == "upstream")
        .flat_map(|found| found.children());
    let kept = upstreams.filter(|found| found.name.text == "keepalive");
    let sum = kept
        .filter_map(|found| found.argument(0).parse::<u64>().ok())
        .fold(0, u64::saturating_add);
    setup.pool_size = (sum > DEFAULT_POOL_SIZE).then(|| sum.min(65_536));
}

/// The limit of bodies for all; locations with another one say so in their routes.
fn set_max_body_size(settings: &ProxySettings, servers: &[ServerBlock], setup: &mut ConfigDraft) {
    if servers.iter().any(|server| !server.locations.is_empty()) {
        setup.downstream.max_body_size = Some(settings.max_body_size());
    }
}
