//! `GET` and `POST /v1/upstreams/{u}/diff`: the keys that a change of an upstream would move, compared with
//! the configuration in force.
//!
//! The query describes the change: see [`change_query`](super::change_query). The body of a `POST` lists keys, one
//! per line: the response also says how many of them move; with `?moved` it lists only the keys that move. With
//! `?to` the body is a whole configuration instead, and its upstream of the same name is compared.
//!
//! Each request builds a ring, on the worker pool. The size of the ring, the number of changes and the
//! number of keys are bounded; `clockwise ring diff` has no such bounds.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use pingora::protocols::http::ServerSession;

use super::change_query::{ChangeQuery, add_down_now, unavailable_peers};
use super::query;
use super::request_body::BoundedBody;
use super::response::AdminResponse;
use super::worker_pool::WorkerPool;
use crate::config::{self, RuntimePeers};
use crate::predict::{Comparison, KeyMoves};
use crate::upstream::Upstream;

/// The most bytes of a body.
const MAX_BODY: usize = 16 << 20;

/// The time limit for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The most keys in one request.
const MAX_KEYS: u64 = 1 << 20;

/// The most keys × peers in one request, in a dialect that computes a score of each peer for each key.
const MAX_SCORES: u64 = 1 << 26;

/// The most keys that one response lists.
const MAX_LISTED: u64 = 1 << 16;

const KNOWN_PARAMS: &str = "`without`, `add`, `weight`, `down`, `up`, `to`, `moved`";

/// The query of a request for a comparison.
#[derive(Debug, Default)]
struct DiffQuery {
    change: ChangeQuery,
    /// `to`: the body is a configuration.
    body_is_config: bool,
    /// `moved`: the response lists the keys that move.
    list_moved: bool,
}

/// The comparison for a request without a body.
pub(super) fn respond(upstream: &Upstream, query: &str) -> Result<AdminResponse, AdminResponse> {
    let query = DiffQuery::parse(query).map_err(|error| AdminResponse::bad_request(&error))?;
    if query.body_is_config || query.list_moved {
        let message = "`to` and `moved` need a body: use POST";
        return Err(AdminResponse::bad_request(message));
    }
    query.evaluate(upstream, None)
}

/// The comparison for a request with a body.
pub(super) async fn respond_with_body(
    upstream: Arc<Upstream>,
    query: &str,
    session: &mut ServerSession,
    workers: &WorkerPool,
) -> Result<AdminResponse, AdminResponse> {
    let query = DiffQuery::parse(query).map_err(|error| AdminResponse::bad_request(&error))?;
    let permit = workers.acquire_reader()?;
    let body = BoundedBody::new(session, MAX_BODY).await?;
    let body = body.read_all(BODY_TIMEOUT).await?;
    let work = move || {
        let _permit = permit;
        query.evaluate(&upstream, Some(&body))
    };
    workers.run(work).await
}

impl DiffQuery {
    fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Self::default();
        for (name, value) in query::params(query) {
            match &*name {
                "to" => parsed.body_is_config = query::flag(&name, &value)?,
                "moved" => parsed.list_moved = query::flag(&name, &value)?,
                _ if parsed.change.parse_param(&name, &value)? => {}
                _ => return Err(query::unknown_param(&name, KNOWN_PARAMS)),
            }
        }
        if parsed.change.is_empty() && !parsed.body_is_config {
            let message = "the change is missing: write `?without=LABEL`, `add=ADDRESS`, `weight=LABEL=WEIGHT`, `down=LABEL`, `up=LABEL` or `to`";
            return Err(message.to_owned());
        }
        Ok(parsed)
    }

    fn evaluate(
        &self,
        upstream: &Upstream,
        body: Option<&[u8]>,
    ) -> Result<AdminResponse, AdminResponse> {
        let candidate = body.filter(|_| self.body_is_config);
        let candidate = candidate
            .map(|body| parse_candidate(upstream, body))
            .transpose()?;
        let to = candidate.as_ref().unwrap_or(&upstream.config);
        let unavailable = unavailable_peers(upstream);
        let before = upstream
            .placement()
            .with_down(unavailable.iter().copied())
            .map_err(AdminResponse::unprocessable)?;
        let scenario = self.change.scenario(upstream, to)?;
        let after = scenario
            .placement(self.change.down_after(&unavailable, &scenario))
            .map_err(AdminResponse::unprocessable)?;
        let comparison = Comparison::new(before, after, upstream.config.hashes_like(to));
        let keys = body.filter(|_| !self.body_is_config);
        let keys = keys
            .map(|body| KeyList::parse(body, upstream))
            .transpose()?;
        match keys {
            Some(keys) if self.list_moved => keys.list_moves(&comparison),
            keys => Ok(diff_response(&comparison, keys.as_ref(), &unavailable)),
        }
    }
}

/// The upstream of the same name in a configuration, with the peers in force of sources that both have and the changes of
/// operators. Files that the configuration names are not read.
fn parse_candidate(
    upstream: &Upstream,
    body: &[u8],
) -> Result<config::UpstreamConfig, AdminResponse> {
    let text = std::str::from_utf8(body).map_err(AdminResponse::unprocessable)?;
    let config = config::parse("the body", text);
    let config = config.map_err(|report| AdminResponse::unprocessable(report.render(false)))?;
    let (name, mut runtime) = (&*upstream.name, RuntimePeers::default());
    runtime.add_upstream(name, &upstream.config);
    let (mut config, _) = config.with_runtime_peers(&runtime);
    let candidate = config.upstreams.remove(name);
    candidate
        .ok_or_else(|| AdminResponse::unprocessable(format!("the body has no upstream `{name}`")))
}

fn diff_response(
    comparison: &Comparison<'_>,
    keys: Option<&KeyList<'_>>,
    unavailable: &[&str],
) -> AdminResponse {
    let movement = comparison.movement();
    let mut report = match keys {
        Some(keys) => movement.to_json_with_keys(&keys.count_moves(comparison)),
        None => movement.to_json(),
    };
    add_down_now(&mut report, unavailable);
    AdminResponse::json(&report)
}

/// The keys of a body; each has at least one byte.
struct KeyList<'a>(Vec<&'a [u8]>);

impl<'a> KeyList<'a> {
    fn parse(body: &'a [u8], upstream: &Upstream) -> Result<Self, AdminResponse> {
        let keys: Vec<_> = lines(body).collect();
        if let Some(line) = keys.iter().position(|key| key.is_empty()) {
            let message = format!("line {} is empty: write one key per line", line + 1);
            return Err(AdminResponse::unprocessable(message));
        }
        let has_scores = upstream.config.dialect.sample_size().is_some();
        let scores_per_key = if has_scores {
            upstream.peers().len()
        } else {
            0
        };
        let count = keys.len() as u64;
        if count > MAX_KEYS || count * scores_per_key as u64 > MAX_SCORES {
            let message = format!(
                "{count} keys are too many for one request; use the command `clockwise ring diff`"
            );
            return Err(AdminResponse::error(
                StatusCode::PAYLOAD_TOO_LARGE,
                &message,
            ));
        }
        Ok(Self(keys))
    }

    fn count_moves(&self, comparison: &Comparison<'_>) -> KeyMoves {
        let mut moves = KeyMoves::default();
        for key in &self.0 {
            moves.add(comparison, key);
        }
        moves
    }

    /// One line for each key that moves.
    fn list_moves(&self, comparison: &Comparison<'_>) -> Result<AdminResponse, AdminResponse> {
        let (mut moves, mut list) = (KeyMoves::default(), String::new());
        for key in &self.0 {
            if let Some(owners) = moves.add(comparison, key) {
                let _ = writeln!(list, "{}", comparison.key_to_json(key, owners));
            }
            if moves.moved > MAX_LISTED {
                return Err(AdminResponse::unprocessable(format!(
                    "more than {MAX_LISTED} keys move; use the command `clockwise ring diff`"
                )));
            }
        }
        Ok(AdminResponse::ndjson(list))
    }
}

/// The lines of a text, without their line ends.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    lines.map(|line| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    })
}
