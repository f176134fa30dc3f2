//! Virtual hosts and their routes.

use std::collections::HashMap;

use super::filter_chain::{self, FilterChain};
use super::message_fields::{FieldValue, MessageFields};
use super::{hash_policy, tls_termination};
use crate::migrate::draft::{ConfigDraft, KeySourceDraft, RetryDraft, RouteDraft};
use crate::migrate::notes::Notes;
use crate::migrate::source::SourceSpan;
use crate::migrate::{route_order, unsupported};
use crate::route::{HostPattern, PathPrefix};

const PATHS_END_AT_SLASH: &str =
    "a path matches whole segments only; `/a` matches `/a/b`, but not `/ab`";
const PATHS_ARE_PREFIXES: &str = "a path is a prefix; the paths below it match too";

/// Translates virtual hosts, with the state that they share.
#[derive(Default)]
pub(super) struct RouteTranslator {
    /// Key and retries of a cluster, by its first route.
    first_users: HashMap<String, (Vec<KeySourceDraft>, RetryDraft)>,
}

/// The hosts and routes of one virtual host.
struct VirtualHostRoutes {
    hosts: Vec<HostPattern>,
    routes: Vec<RouteDraft>,
}

impl RouteTranslator {
    /// Adds the routes of a `route_config`.
    pub(super) fn add_routes(
        &mut self,
        config: &MessageFields<'_>,
        chain: &mut FilterChain,
        draft: &mut ConfigDraft,
        notes: &Notes<'_>,
    ) {
        config.ignore(&["validate_clusters"]);
        let tls = chain.tls.termination.as_mut();
        tls_termination::response_headers(config, true, tls, &mut draft.comments, notes);
        let hosts = config.list("virtual_hosts");
        let any = hosts_of_wildcard(&hosts, &chain.server_names);
        let virtual_hosts: Vec<_> = hosts
            .into_iter()
            .map(|host| {
                let span = host.span();
                (span, self.virtual_host(host, &any, chain, draft, notes))
            })
            .collect();
        let any = virtual_hosts
            .iter()
            .any(|(_, host)| host.hosts.contains(&HostPattern::Any));
        for (span, host) in virtual_hosts {
            let has_root = host
                .routes
                .iter()
                .any(|route| route.path == PathPrefix::ROOT);
            if any && !has_root && !host.hosts.contains(&HostPattern::Any) {
                let what = "paths without a route go to the routes of the domain `*`";
                draft
                    .comments
                    .push(notes.remark(span, "virtual_host", what));
            }
            draft.routes.extend(route_order::by_specificity(
                host.routes,
                notes,
                &mut draft.comments,
            ));
        }
        config.note_unread(&mut draft.comments, notes);
    }

    fn virtual_host(
        &mut self,
        element: FieldValue<'_>,
        any: &[HostPattern],
        chain: &mut FilterChain,
        draft: &mut ConfigDraft,
        notes: &Notes<'_>,
    ) -> VirtualHostRoutes {
        let fields = MessageFields::of(element);
        fields.ignore(&["include_request_attempt_count"]);
        let tls = chain.tls.termination.as_mut();
        tls_termination::response_headers(&fields, false, tls, &mut draft.comments, notes);
        if chain.tls.termination.is_none() {
            note_require_tls(&fields, &mut draft.comments, notes);
        } else {
            fields.ignore(&["require_tls"]);
        }
        let mut hosts = Vec::new();
        for domain in fields.list("domains") {
            match domain_pattern(domain.text()) {
                Some(HostPattern::Any) => hosts.extend_from_slice(any),
                Some(host) if hosts.contains(&host) => {}
                Some(host) => hosts.push(host),
                None => {
                    let why = "a host is a name or `*.name`; list the names";
                    draft
                        .comments
                        .push(notes.gap(domain.span(), domain.text(), why));
                }
            }
        }
        let mut routes = Vec::new();
        for item in fields.list("routes") {
            let Some(route) = self.route(item, chain, draft, notes) else {
                continue;
            };
            let mut comments = route.comments.clone();
            routes.extend(hosts.iter().map(|host| RouteDraft {
                host: host.clone(),
                comments: std::mem::take(&mut comments),
                ..route.clone()
            }));
        }
        fields.note_unread(&mut draft.comments, notes);
        VirtualHostRoutes { hosts, routes }
    }

    fn route(
        &mut self,
        element: FieldValue<'_>,
        chain: &mut FilterChain,
        draft: &mut ConfigDraft,
        notes: &Notes<'_>,
    ) -> Option<RouteDraft> {
        let fields = MessageFields::of(element);
        let mut comments = Vec::new();
        let tls = chain.tls.termination.as_mut();
        tls_termination::response_headers(&fields, false, tls, &mut comments, notes);
        fields.ignore(&["decorator", "metadata", "stat_prefix"]);
        let action = fields.message("route");
        let found = fields.message("match").filter(|_| action.is_some());
        let path = found.and_then(|found| path_prefix(&found, &mut comments, notes));
        let name = action.as_ref().and_then(|action| action.text("cluster"));
        let route = match (path, action, name) {
            (Some(path), Some(action), Some(name)) => {
                self.set_key_and_retry(&action, name, element.span(), draft, notes);
                let upgrades = filter_chain::upgrades(&action, &chain.upgrades);
                action.note_unread(&mut comments, notes);
                Some(RouteDraft {
                    path,
                    client_cert: chain.tls.requires_client_cert,
                    upgrade: filter_chain::upgrade_of_route(upgrades),
                    ..RouteDraft::catch_all(name, element.span())
                })
            }
            (_, Some(action), _) => {
                action.ignore(&["cluster"]);
                action.note_unread(&mut comments, notes);
                None
            }
            _ => None,
        };
        fields.note_unread(&mut comments, notes);
        if route.is_none() {
            draft.comments.append(&mut comments);
        }
        route.map(|route| RouteDraft { comments, ..route })
    }

    /// The first route of a cluster sets its key and its retries.
    fn set_key_and_retry(
        &mut self,
        action: &MessageFields<'_>,
        name: &str,
        span: SourceSpan,
        draft: &mut ConfigDraft,
        notes: &Notes<'_>,
    ) {
        let Some(upstream) = draft
            .upstreams
            .iter_mut()
            .find(|upstream| upstream.name == name)
        else {
            return;
        };
        let policies = action.list("hash_policy");
        let key = hash_policy::key(&policies, &mut upstream.comments, notes);
        let retry = retry(action, &mut upstream.comments, notes);
        match self.first_users.get(name) {
            Some((first, _)) if key.is_empty() && !first.is_empty() => {}
            // Without a policy, Envoy chooses at random, so a later route with a policy sets the key.
            first if first.is_none_or(|(first, _)| first.is_empty()) => {
                (upstream.key, upstream.retry) = (key.clone(), retry);
                self.first_users.insert(name.to_owned(), (key, retry));
            }
            Some(first) if *first == (key, retry) => {}
            _ => {
                let why = "an upstream has one `key` and one `retry`, those of its first route; give this route an upstream of its own";
                upstream.comments.push(notes.gap(span, "hash_policy", why));
            }
        }
    }
}

/// Notes a virtual host that redirects to HTTPS on a listener that also serves requests.
fn note_require_tls(host: &MessageFields<'_>, comments: &mut Vec<String>, notes: &Notes<'_>) {
    if let Some(required) = host.get("require_tls").filter(|one| one.text() != "NONE") {
        let subject = format!("require_tls: {}", required.text());
        let why = unsupported::envoy::reason("require_tls");
        comments.push(notes.wider_access(required.span(), &subject, why));
    }
}

/// The hosts of the domain `*`: the SNI names that no other virtual host has, or any host.
fn hosts_of_wildcard(hosts: &[FieldValue<'_>], names: &[HostPattern]) -> Vec<HostPattern> {
    let domains = hosts
        .iter()
        .flat_map(|host| MessageFields::of(*host).list("domains"));
    let taken: Vec<_> = domains
        .filter_map(|domain| domain_pattern(domain.text()))
        .collect();
    let left = names.iter().filter(|name| !taken.contains(name));
    let left: Vec<_> = left.cloned().collect();
    if left.is_empty() {
        vec![HostPattern::Any]
    } else {
        left
    }
}

fn retry(action: &MessageFields<'_>, comments: &mut Vec<String>, notes: &Notes<'_>) -> RetryDraft {
    let Some(policy) = action.message("retry_policy") else {
        return RetryDraft::default();
    };
    policy.ignore(&[
        "retry_on",
        "retry_back_off",
        "host_selection_retry_max_attempts",
        "retry_host_predicate",
    ]);
    let retries = policy
        .get("num_retries")
        .and_then(FieldValue::number)
        .unwrap_or(1);
    policy.note_unread(comments, notes);
    RetryDraft {
        attempts: Some(retries.saturating_add(1).clamp(1, 16)),
        timeout: None,
    }
}

fn domain_pattern(domain: &str) -> Option<HostPattern> {
    let port = domain
        .rsplit_once(':')
        .filter(|(_, port)| port.parse::<u16>().is_ok());
    HostPattern::parse(port.map_or(domain, |(name, _)| name)).ok()
}

fn path_prefix(
    fields: &MessageFields<'_>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Option<PathPrefix> {
    fields.ignore(&["runtime_fraction"]);
    let (prefix, exact, segments) = (
        fields.get("prefix"),
        fields.get("path"),
        fields.get("path_separated_prefix"),
    );
    let element = prefix.or(exact).or(segments);
    let parsed = element.and_then(|element| PathPrefix::parse(element.text()).ok());
    let parsed = parsed.filter(|path| exact.is_none() || *path != PathPrefix::ROOT);
    for name in [
        "headers",
        "query_parameters",
        "safe_regex",
        "grpc",
        "path_match_policy",
        "connect_matcher",
    ] {
        if let Some(condition) = fields.get(name) {
            let why = "a route matches host, path and method only; this route is left out";
            comments.push(notes.gap(condition.span(), name, why));
            return None;
        }
    }
    let Some((path, element)) = parsed.clone().zip(element) else {
        let why = "a path is a prefix that begins with `/` and has no empty segment";
        comments.push(notes.gap(fields.span(), "match", why));
        return None;
    };
    let text = element.text();
    if exact.is_some() {
        comments.push(notes.remark(element.span(), text, PATHS_ARE_PREFIXES));
    } else if segments.is_none() && path != PathPrefix::ROOT && !text.ends_with('/') {
        comments.push(notes.remark(element.span(), text, PATHS_END_AT_SLASH));
    }
    fields.note_unread(comments, notes);
    parsed
}
