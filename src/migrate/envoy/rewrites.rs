//! Settings that change a request, or the address of its client, before Envoy hashes it.

use std::collections::HashSet;

use super::message_fields::{FieldValue, MessageFields};
use crate::migrate::draft::ConfigDraft;
use crate::migrate::notes::Notes;
use crate::migrate::rewritten_key::{HashedUpstreams, KeyPart, ReachedKeys, RequestChange};

/// They keep the query.
const PATH_REWRITES: [&str; 4] = [
    "prefix_rewrite",
    "regex_rewrite",
    "path_rewrite",
    "path_rewrite_policy",
];
/// Without `auto_host_rewrite`, which takes effect after the choice of the server.
const HOST_REWRITES: [&str; 4] = [
    "host_rewrite_literal",
    "host_rewrite_header",
    "host_rewrite_path_regex",
    "host_rewrite",
];
const HEADER_CHANGES: [&str; 2] = ["request_headers_to_add", "request_headers_to_remove"];

/// Adds a note for each setting that changes a part of a key.
pub(super) fn note_differences(
    draft: &mut ConfigDraft,
    resources: &MessageFields<'_>,
    notes: &Notes<'_>,
) {
    let hashed = HashedUpstreams::from_draft("Envoy", &draft.upstreams);
    for manager in connection_managers(resources) {
        if let Some(config) = manager.message("route_config") {
            note_routes(&config, &hashed, draft, notes);
            note_client_addresses(&manager, &config, draft, notes);
        }
    }
}

fn connection_managers<'a>(resources: &MessageFields<'a>) -> Vec<MessageFields<'a>> {
    let mut managers = Vec::new();
    for listener in resources.list("listeners") {
        let listener = MessageFields::of(listener);
        let mut chains = listener.list("filter_chains");
        chains.extend(listener.get("default_filter_chain"));
        let filters = chains
            .into_iter()
            .flat_map(|chain| MessageFields::of(chain).list("filters"))
            .map(MessageFields::of)
            .filter(|filter| filter.extension_type().contains("httpconnectionmanager"));
        managers.extend(filters.filter_map(|filter| filter.message("typed_config")));
    }
    managers
}

/// A route with a hash policy.
struct HashedRoute<'a> {
    route: MessageFields<'a>,
    action: MessageFields<'a>,
    cluster: &'a str,
}

fn hashed_routes<'a>(host: &MessageFields<'a>) -> Vec<HashedRoute<'a>> {
    let hashed = |route| {
        let route = MessageFields::of(route);
        let action = route.message("route")?;
        action.get("hash_policy")?;
        let cluster = action.text("cluster")?;
        Some(HashedRoute {
            route,
            action,
            cluster,
        })
    };
    host.list("routes").into_iter().filter_map(hashed).collect()
}

/// Notes what a route, its virtual host and the `route_config` change.
fn note_routes(
    config: &MessageFields<'_>,
    hashed: &HashedUpstreams,
    draft: &mut ConfigDraft,
    notes: &Notes<'_>,
) {
    let mut all = HashSet::new();
    for host in config
        .list("virtual_hosts")
        .into_iter()
        .map(MessageFields::of)
    {
        let routes = hashed_routes(&host);
        for HashedRoute {
            route,
            action,
            cluster,
        } in &routes
        {
            let reached = hashed.reached([*cluster]);
            let rewrites = [
                (PATH_REWRITES, KeyPart::Path),
                (HOST_REWRITES, KeyPart::Host),
            ];
            for (names, part) in rewrites {
                for name in names {
                    note_rewrite(action, name, &part, &reached, draft, notes);
                }
            }
            note_headers(route, &reached, draft, notes);
        }
        let clusters: HashSet<_> = routes.iter().map(|route| route.cluster).collect();
        note_headers(
            &host,
            &hashed.reached(clusters.iter().copied()),
            draft,
            notes,
        );
        all.extend(clusters);
    }
    note_headers(config, &hashed.reached(all), draft, notes);
}

fn note_rewrite(
    action: &MessageFields<'_>,
    name: &'static str,
    part: &KeyPart,
    reached: &ReachedKeys,
    draft: &mut ConfigDraft,
    notes: &Notes<'_>,
) {
    if let Some(rewrite) = action.get(name) {
        let change = RequestChange {
            span: rewrite.span(),
            subject: name.to_owned(),
            parts: vec![part.clone()],
        };
        reached.note(&change, draft, notes);
    }
}

fn note_headers(
    fields: &MessageFields<'_>,
    reached: &ReachedKeys,
    draft: &mut ConfigDraft,
    notes: &Notes<'_>,
) {
    for name in HEADER_CHANGES {
        for item in fields.list(name) {
            let added = MessageFields::of(item).message("header");
            let header = added.and_then(|header| header.text("key"));
            let change = RequestChange {
                span: item.span(),
                subject: name.to_owned(),
                parts: vec![KeyPart::of_header(header.unwrap_or(item.text()))],
            };
            reached.note(&change, draft, notes);
        }
    }
}

/// Notes the first `source_ip` of each cluster if Envoy takes that address from a header.
fn note_client_addresses(
    manager: &MessageFields<'_>,
    config: &MessageFields<'_>,
    draft: &mut ConfigDraft,
    notes: &Notes<'_>,
) {
    let Some(source) = address_from_header(manager) else {
        return;
    };
    let what = format!(
        "{source}, and Clockwise the address of the connection; list the proxies in front of Clockwise in `trusted_proxies`, with which it takes the last address of `X-Forwarded-For` that is not one of them, or keys will move"
    );
    let mut seen = HashSet::new();
    let hosts = config.list("virtual_hosts").into_iter();
    for HashedRoute {
        action, cluster, ..
    } in hosts.flat_map(|host| hashed_routes(&MessageFields::of(host)))
    {
        let policies = action.list("hash_policy").into_iter();
        let mut by_address = policies.filter_map(source_ip);
        let Some(field) = by_address.next().filter(|_| seen.insert(cluster)) else {
            continue;
        };
        let mut upstreams = draft.upstreams.iter_mut();
        let named = upstreams.find(|upstream| upstream.name == cluster);
        if let Some(upstream) = named.filter(|upstream| upstream.ring.is_some()) {
            let comment = notes.remark(field.span(), "source_ip", &what);
            upstream.comments.push(comment);
        }
    }
}

fn source_ip(policy: FieldValue<'_>) -> Option<FieldValue<'_>> {
    let connection = MessageFields::of(policy).message("connection_properties")?;
    let source_ip = connection.get("source_ip")?;
    (source_ip.text() == "true").then_some(source_ip)
}

/// The address that Envoy hashes as `source_ip`, if it is not that of the connection.
fn address_from_header(manager: &MessageFields<'_>) -> Option<String> {
    let hops = manager.get("xff_num_trusted_hops");
    let hops = hops.and_then(FieldValue::number).unwrap_or(0);
    let uses_connection = manager.flag("use_remote_address");
    if !manager.list("original_ip_detection_extensions").is_empty() {
        let what = "Envoy hashes the address that `original_ip_detection_extensions` find";
        return Some(what.to_owned());
    }
    match (uses_connection, hops) {
        (true, 0) => None,
        (false, 0) => Some(
            "without `use_remote_address: true`, Envoy hashes the last address of `X-Forwarded-For`"
                .to_owned(),
        ),
        _ => {
            let position = hops.saturating_add(u64::from(!uses_connection));
            Some(format!(
                "with `xff_num_trusted_hops: {hops}`, Envoy hashes address {position} from the end of `X-Forwarded-For`"
            ))
        }
    }
}
