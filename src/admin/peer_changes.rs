//! Changes of peers by operators: `PUT` and `DELETE /v1/upstreams/{u}/peers/{label}`, `POST …/reset`, and the changes as JSON.

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use pingora::protocols::http::ServerSession;
use serde_json::{Map, Value, json};

use super::commands::execute;
use super::query::command_params;
use super::request_body::BoundedBody;
use super::response::AdminResponse;
use crate::config::{OperatorChange, PeerChange, PeerConfig, UpstreamConfig};
use crate::lifecycle::{ControlCommand, Lifecycle, PeerChangeRequest, PeerEdit};

/// The most bytes of the body of a `PUT`.
const MAX_BODY: usize = 64 << 10;

/// The time limit for the body of a `PUT` to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// An operator's change of peers, as method and path say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PeerChangeCommand {
    /// `PUT …/peers/{label}`; the peer is the body.
    Put { upstream: String, label: String },
    /// `DELETE …/peers/{label}`
    Remove { upstream: String, label: String },
    /// `POST …/peers/{label}/reset`, and `POST …/reset` for all peers.
    Reset {
        upstream: String,
        label: Option<String>,
    },
}

impl PeerChangeCommand {
    /// Whether the request has no body.
    pub(super) fn has_no_body(&self) -> bool {
        !matches!(self, Self::Put { .. })
    }

    pub(super) fn upstream(&self) -> &str {
        match self {
            Self::Put { upstream, .. }
            | Self::Remove { upstream, .. }
            | Self::Reset { upstream, .. } => upstream,
        }
    }

    /// Changes the peer; 201 if it is new. Query: `dry_run`, `force`; of a `PUT` also `add`: refuse a label that exists.
    pub(super) async fn execute(
        self,
        lifecycle: &Lifecycle,
        query: &str,
        session: &mut ServerSession,
    ) -> Result<AdminResponse, AdminResponse> {
        let bad_request = |error: String| AdminResponse::bad_request(&error);
        let (dry_run, force, add) = match self {
            Self::Put { .. } => {
                let params = command_params(query, ["dry_run", "force", "add"], []);
                let ([dry_run, force, add], []) = params.map_err(bad_request)?;
                (dry_run, force, add)
            }
            Self::Remove { .. } | Self::Reset { .. } => {
                let params = command_params(query, ["dry_run", "force"], []);
                let ([dry_run, force], []) = params.map_err(bad_request)?;
                (dry_run, force, false)
            }
        };
        let upstream = self.upstream().to_owned();
        let edit = match self {
            Self::Put { label, .. } => PeerEdit::Put {
                fields: read_fields(session, &label).await?,
                label,
                must_be_new: add,
            },
            Self::Remove { label, .. } => PeerEdit::Remove { label },
            Self::Reset { label, .. } => PeerEdit::Reset { label },
        };
        let request = PeerChangeRequest {
            upstream,
            edit,
            dry_run,
            force,
        };
        let report = execute(lifecycle, ControlCommand::ChangePeers(request)).await?;
        let is_created = !dry_run && report.get("created") == Some(&Value::Bool(true));
        let status = if is_created {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        Ok(AdminResponse::json_with_status(status, &report))
    }
}

/// The keys of a peer in the body. Their values are checked where the rules of the upstream are known.
async fn read_fields(
    session: &mut ServerSession,
    label: &str,
) -> Result<Map<String, Value>, AdminResponse> {
    let body = BoundedBody::new(session, MAX_BODY).await?;
    let body = body.read_all(BODY_TIMEOUT).await?;
    parse_fields(&body, label).map_err(|error| AdminResponse::bad_request(&error))
}

fn parse_fields(body: &[u8], label: &str) -> Result<Map<String, Value>, String> {
    const EXAMPLE: &str =
        r#"write the peer as JSON, as in `{"address": "10.0.0.1:8080", "weight": 2}`"#;
    let fields: Value = serde_json::from_slice(body)
        .map_err(|error| format!("the body is not JSON: {error}; {EXAMPLE}"))?;
    let Value::Object(mut fields) = fields else {
        return Err(format!("the body is not an object; {EXAMPLE}"));
    };
    match fields.remove("label") {
        Some(other) if other != label => Err(format!(
            "the path names peer `{label}`, and the body {other}: write the label in the path alone"
        )),
        _ => Ok(fields),
    }
}

/// An operator's change of a peer; `None`: the peer is not changed.
pub(crate) fn change_to_json(upstream: &UpstreamConfig, label: &str) -> Option<Value> {
    let operator = upstream.changed.changes.get(label)?;
    Some(one_change(upstream, label, operator))
}

/// All changes of an upstream by operators, by label.
pub(super) fn changes_to_json(upstream: &UpstreamConfig) -> Vec<Value> {
    let changes = upstream.changed.changes.iter();
    changes
        .map(|(label, operator)| one_change(upstream, label, operator))
        .collect()
}

fn one_change(upstream: &UpstreamConfig, label: &str, operator: &OperatorChange) -> Value {
    let (kind, peer, weight) = match &operator.change {
        PeerChange::Set(peer) => ("set", Some(peer), Some(peer.weight)),
        PeerChange::Weight(weight) => ("weight", None, Some(*weight)),
        PeerChange::Remove => ("remove", None, None),
    };
    let listed = upstream.changed.unchanged_peer(label);
    let since = Timestamp::from_second(operator.since).ok();
    json!({
        "label": label,
        "change": kind,
        "since": since.map(|since| since.to_string()),
        "address": peer.map(|peer| peer.address.to_string()),
        "weight": weight,
        "id": peer.and_then(|peer| peer.id.as_deref()),
        "server_name": peer.and_then(|peer| peer.server_name.as_deref()),
        "listed": listed.map(|listed| listed_to_json(upstream, listed)),
        "without_effect": upstream.changed.without_effect.get(label),
    })
}

/// The peer as its configuration or its source says.
fn listed_to_json(upstream: &UpstreamConfig, listed: &PeerConfig) -> Value {
    let source = listed.source.and_then(|index| upstream.sources.get(index));
    json!({
        "address": listed.address.to_string(),
        "weight": listed.weight,
        "id": listed.id,
        "source": source.map(ToString::to_string),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn put_body_is_an_object_without_another_label() {
        for body in [
            "{}",
            r#"{"weight": 2}"#,
            r#"{"label": "a", "address": "x"}"#,
        ] {
            let fields = parse_fields(body.as_bytes(), "a").unwrap();
            assert!(!fields.contains_key("label"), "{body}");
        }
        for (body, part) in [
            ("", "not JSON"),
            ("weight=2", "not JSON"),
            ("{} {}", "not JSON"),
            ("[]", "not an object"),
            ("2", "not an object"),
            (
                r#"{"label": "b"}"#,
                r#"the path names peer `a`, and the body "b""#,
            ),
        ] {
            let error = parse_fields(body.as_bytes(), "a").unwrap_err();
            assert!(error.contains(part), "{body}: {error}");
        }
    }
}
