//! `GET` and `POST /v1/upstreams/{u}/diff`: what a change of an upstream would move, from what is in force now.
//!
//! The change is in the query: see [`change`](super::change). The body is a list of keys, one per line, that are
//! counted besides; with `?moved` those that move are listed, and nothing else. With `?to` it is a whole
//! configuration instead, whose upstream of the same name is what is compared.
//!
//! A ring is built for each question, away from the threads that serve; how large it may be, how
//! much one question may change, and how many keys it may bring, is bounded. Larger ones are for `clockwise
//! ring diff`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use pingora::protocols::http::ServerSession;
use serde_json::{Value, json};

use super::change_query::{ChangeQuery, unavailable_peers, unprocessable};
use super::request_body::BoundedBody;
use super::worker_pool::WorkerPool;
use super::{AdminResponse, query};
use crate::config;
use crate::predict::{Comparison, KeyMoves};
use crate::upstream::Upstream;

/// The longest body.
const MAX_BODY: usize = 16 << 20;

/// Until when it must be there.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Keys that one question may bring; where each peer has a score for each key, scores.
const MAX_KEYS: u64 = 1 << 20;
const MAX_SCORES: u64 = 1 << 26;

/// Keys that are listed at most.
const MAX_LISTED: u64 = 1 << 16;

/// What the query asks.
#[derive(Debug, Default)]
struct DiffQuery {
    change: ChangeQuery,
    /// The body is a configuration.
    body_is_config: bool,
    /// The keys that move are to be listed.
    list_moved: bool,
}

/// What would move, if nothing but the query says so.
pub(super) fn respond(upstream: &Upstream, query: &str) -> AdminResponse {
    let answer = || {
        let question = DiffQuery::parse(query)?;
        if question.body_is_config || question.list_moved {
            let why = "`to` and `moved` need a body: use POST";
            return Err(AdminResponse::error(StatusCode::BAD_REQUEST, why));
        }
        question.evaluate(upstream, None)
    };
    answer().unwrap_or_else(|problem| problem)
}

/// What would move, with a body that says more.
pub(super) async fn respond_with_body(
    upstream: Arc<Upstream>,
    query: &str,
    session: &mut ServerSession,
    desk: &WorkerPool,
) -> Result<AdminResponse, AdminResponse> {
    let question = DiffQuery::parse(query)?;
    let place = desk.acquire_reader()?;
    let body = BoundedBody::new(session, MAX_BODY)
        .await?
        .read_all(BODY_TIMEOUT)
        .await?;
    let work = move || {
        let answer = question.evaluate(&upstream, Some(&body));
        drop(place);
        answer.unwrap_or_else(|problem| problem)
    };
    Ok(desk.run(work).await)
}

impl DiffQuery {
    fn parse(query: &str) -> Result<Self, AdminResponse> {
        let mut question = Self::default();
        let wrong = |why: String| AdminResponse::error(StatusCode::BAD_REQUEST, &why);
        for (word, value) in query::params(query) {
            match word {
                "to" => question.body_is_config = true,
                "moved" => question.list_moved = true,
                _ if question.change.parse_param(word, &value).map_err(wrong)? => {}
                _ => {
                    return Err(wrong(format!(
                        "`{word}` is no part of this question; there are `without`, `add`, `weight`, `down`, `up`, `to` and `moved`"
                    )));
                }
            }
        }
        if question.change.is_empty() && !question.body_is_config {
            let why = "say what changes: `?without=`, `add=`, `weight=`, `down=`, `up=` or `to`";
            return Err(wrong(why.to_owned()));
        }
        Ok(question)
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
        let idle = unavailable_peers(upstream);
        let before = upstream.placement().with_down(idle.iter().copied());
        let side = self.change.scenario(upstream, to)?;
        let after = side.placement(self.change.down_after(&idle, &side));
        let comparison = Comparison::new(
            before.map_err(unprocessable)?,
            after.map_err(unprocessable)?,
            upstream.config.hashes_like(to),
        );
        let keys = body.filter(|_| !self.body_is_config);
        let keys = keys
            .map(|body| KeyList::parse(body, upstream))
            .transpose()?;
        match keys {
            Some(keys) if self.list_moved => keys.list_moves(&comparison),
            keys => Ok(diff_response(&comparison, keys.as_ref(), &idle)),
        }
    }
}

/// The upstream of the same name in a configuration. Files that it names are not looked at.
fn parse_candidate(
    upstream: &Upstream,
    body: &[u8],
) -> Result<config::UpstreamConfig, AdminResponse> {
    let text = std::str::from_utf8(body).map_err(unprocessable)?;
    let config = config::parse("the body", text);
    let mut config = config.map_err(|report| unprocessable(report.render(false)))?;
    let name = &*upstream.name;
    let candidate = config.upstreams.remove(name);
    candidate.ok_or_else(|| unprocessable(format!("the body has no upstream `{name}`")))
}

fn diff_response(
    comparison: &Comparison<'_>,
    keys: Option<&KeyList<'_>>,
    idle: &[&str],
) -> AdminResponse {
    let movement = comparison.movement();
    let mut report = match keys {
        Some(keys) => movement.to_json_with_keys(&keys.count_moves(comparison)),
        None => movement.to_json(),
    };
    add_down_now(&mut report, idle);
    AdminResponse::json(StatusCode::OK, &report)
}

/// Says in a report who does not serve now.
pub(super) fn add_down_now(report: &mut Value, idle: &[&str]) {
    if let Some(report) = report.as_object_mut() {
        report.insert("down_now".to_owned(), json!(idle));
    }
}

/// Keys, none of them empty.
struct KeyList<'a>(Vec<&'a [u8]>);

impl<'a> KeyList<'a> {
    fn parse(body: &'a [u8], upstream: &Upstream) -> Result<Self, AdminResponse> {
        let keys: Vec<_> = lines(body).collect();
        if let Some(line) = keys.iter().position(|key| key.is_empty()) {
            let why = format!("line {} is empty, and an empty key is none", line + 1);
            return Err(unprocessable(why));
        }
        let scores = upstream
            .config
            .dialect
            .sample_size()
            .map_or(0, |_| upstream.peers().len());
        let count = keys.len() as u64;
        if count > MAX_KEYS || count * scores as u64 > MAX_SCORES {
            let why = format!("{count} keys are too many here; use `clockwise ring diff`");
            return Err(AdminResponse::error(StatusCode::PAYLOAD_TOO_LARGE, &why));
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

    /// A line for each key that moves.
    fn list_moves(&self, comparison: &Comparison<'_>) -> Result<AdminResponse, AdminResponse> {
        let (mut moves, mut list) = (KeyMoves::default(), String::new());
        for key in &self.0 {
            if let Some(ends) = moves.add(comparison, key) {
                let _ = writeln!(list, "{}", comparison.key_to_json(key, ends));
            }
            if moves.moved > MAX_LISTED {
                let why = format!("more than {MAX_LISTED} keys move; use `clockwise ring diff`");
                return Err(unprocessable(why));
            }
        }
        Ok(AdminResponse::ndjson(list))
    }
}

/// The lines of a text, without their ends.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    lines.map(|line| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    })
}
