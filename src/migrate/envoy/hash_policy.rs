//! `hash_policy` becomes a key.
//!
//! Envoy combines the hashes of all policies that find a value, and stops after a `terminal` one that found
//! one. In Clockwise that is a list of choices, the last of which may be a combination.

use super::message_fields::{FieldValue, MessageFields};
use crate::migrate::draft::{KeySourceDraft, UpstreamDraft};
use crate::migrate::notes::Notes;

/// The key of a route; empty if it has no policy that can be translated.
pub(super) fn key(
    policies: &[FieldValue<'_>],
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Vec<KeySourceDraft> {
    let mut choices = Vec::new();
    let mut combined = Vec::new();
    for (index, element) in policies.iter().enumerate() {
        let fields = MessageFields::of(*element);
        let terminal = fields.text("terminal") == Some("true");
        let source = source(&fields, comments, notes).filter(KeySourceDraft::is_valid);
        fields.note_unread(comments, notes);
        let Some(source) = source else {
            let why = "a key comes from a header, a cookie, a query parameter or the client's address; keys will move";
            comments.push(notes.gap(element.span(), "hash_policy", why));
            continue;
        };
        let last = index + 1 == policies.len();
        if terminal && combined.is_empty() && !last {
            choices.push(source);
            continue;
        }
        if terminal && !last {
            let why = "only the first policies can be `terminal`; keys will move";
            comments.push(notes.gap(element.span(), "terminal", why));
        }
        combined.push(source);
    }
    choices.extend(match combined.len() {
        0 | 1 => combined.pop(),
        _ => Some(KeySourceDraft::Any(combined, None)),
    });
    choices
}

fn source(
    fields: &MessageFields<'_>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Option<KeySourceDraft> {
    if let Some(header) = fields.message("header") {
        let name = header.text("header_name").filter(|name| !name.is_empty())?;
        header.note_unread(comments, notes);
        return Some(match name.to_ascii_lowercase().as_str() {
            ":path" => KeySourceDraft::PathAndQuery,
            ":authority" | "host" => KeySourceDraft::Header("host".to_owned()),
            name if name.starts_with(':') => return None,
            name => KeySourceDraft::HeaderLines(name.to_owned(), "sorted"),
        });
    }
    if let Some(cookie) = fields.message("cookie") {
        let name = cookie.text("name").filter(|name| !name.is_empty())?;
        if let Some(ttl) = cookie.get("ttl") {
            let why = format!(
                "Clockwise sets no cookie by default; write `{{cookie: {{name: {name}, generate: true}}}}` to set one"
            );
            comments.push(notes.gap(ttl.span(), "cookie.ttl", &why));
        }
        cookie.ignore(&["path", "attributes"]);
        cookie.note_unread(comments, notes);
        return Some(KeySourceDraft::Cookie(name.to_owned()));
    }
    if let Some(query) = fields.message("query_parameter") {
        return query
            .text("name")
            .filter(|name| !name.is_empty())
            .map(|name| KeySourceDraft::QueryOrEmpty(name.to_owned()));
    }
    let connection = fields.message("connection_properties")?;
    (connection.text("source_ip") == Some("true")).then_some(KeySourceDraft::ClientIp)
}

/// Notes the rings without a key: Envoy chooses at random there.
pub(super) fn note_rings_without_key(
    upstreams: &mut [UpstreamDraft],
    resources: &MessageFields<'_>,
    notes: &Notes<'_>,
) {
    for upstream in upstreams
        .iter_mut()
        .filter(|upstream| upstream.ring.is_some() && upstream.key.is_empty())
    {
        let what = "without `hash_policy`, Envoy chooses at random; Clockwise uses the client's address as the key";
        let clusters = resources.list("clusters");
        let cluster = clusters
            .into_iter()
            .find(|found| MessageFields::of(*found).text("name") == Some(&upstream.name));
        let span = cluster.map_or_else(|| resources.span(), FieldValue::span);
        upstream
            .comments
            .push(notes.remark(span, &upstream.name, what));
    }
}
