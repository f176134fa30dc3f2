//! `POST /v1/upstreams/{u}/replay`: what the traffic of a log would do to each peer's load, from what is in force now.
//!
//! The log is the body, and is worked on as it comes; how long it may be, and how long it may take, is
//! bounded. The query has the change, if there is one ([`change`](super::change)), `format=clockwise|keys` and
//! `bounded_load=FACTOR`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use pingora::protocols::http::ServerSession;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::change_query::{ChangeQuery, unavailable_peers, unprocessable};
use super::diff::add_down_now;
use super::request_body::{BoundedBody, LineDecoder, timed_out};
use super::worker_pool::WorkerPool;
use super::{AdminResponse, query};
use crate::config;
use crate::policy::bounded_load::BalanceFactor;
use crate::predict::{KeyPlacement, LoadRules, LogReplay, ReplayFormat, ReplayOptions, Simulation};
use crate::ring::Weight;
use crate::upstream::Upstream;

/// The longest log, in bytes and in lines: 64 MiB of requests in flight, where none ever ends.
const MAX_LOG: usize = 256 << 20;
const MAX_LINES: u64 = 1 << 22;

/// Until when all must be done.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(60);

/// Requests that are held back to put them in the order of their start: some 4 MB.
const REORDER_WINDOW: usize = 1 << 16;

/// Parts of the log that wait to be worked on.
const QUEUED_CHUNKS: usize = 4;

const FACTOR_HELP: &str = "a factor from 1.01 to 10, with up to three decimals";

/// What the query asks.
struct ReplayQuery {
    change: ChangeQuery,
    format: ReplayFormat,
    bounded_load: Option<BalanceFactor>,
}

/// A part of the log; `None` after the last, so that a log that was cut off is told apart.
type LogChunk = Option<Bytes>;

/// What the log would do.
pub(super) async fn respond(
    upstream: Arc<Upstream>,
    query: &str,
    session: &mut ServerSession,
    desk: &WorkerPool,
) -> Result<AdminResponse, AdminResponse> {
    let question = ReplayQuery::parse(query)?;
    let place = desk.acquire_reader()?;
    let mut body = BoundedBody::new(session, MAX_LOG).await?;
    let (sender, mut log) = mpsc::channel(QUEUED_CHUNKS);
    let work = tokio::task::spawn_blocking(move || {
        let answer = question.evaluate(&upstream, &mut log);
        drop(place);
        answer.unwrap_or_else(|problem| problem)
    });
    let done = async {
        send_body(&mut body, sender).await?;
        work.await.map_err(|error| {
            AdminResponse::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
        })
    };
    let done = tokio::time::timeout(REPLAY_TIMEOUT, done).await;
    done.unwrap_or_else(|_| Err(timed_out(REPLAY_TIMEOUT)))
}

/// Passes the log on, until its end or until nobody wants it.
async fn send_body(body: &mut BoundedBody<'_>, log: Sender<LogChunk>) -> Result<(), AdminResponse> {
    while let Some(part) = body.next_chunk().await? {
        if log.send(Some(part)).await.is_err() {
            return Ok(());
        }
    }
    // Whoever has gone has an answer already.
    let _ = log.send(None).await;
    Ok(())
}

impl ReplayQuery {
    fn parse(query: &str) -> Result<Self, AdminResponse> {
        let mut question = Self {
            change: ChangeQuery::default(),
            format: ReplayFormat::Clockwise,
            bounded_load: None,
        };
        let wrong = |why: String| AdminResponse::error(StatusCode::BAD_REQUEST, &why);
        for (word, value) in query::params(query) {
            let text = String::from_utf8_lossy(&value);
            let told = |why| wrong(format!("`{word}={text}`: {why}"));
            match word {
                "format" => {
                    let format = ReplayFormat::from_name(&text);
                    question.format = format.ok_or_else(|| told("it is `clockwise` or `keys`"))?;
                }
                "bounded_load" | "bounded-load" => {
                    let bound = BalanceFactor::parse(&text).ok_or_else(|| told(FACTOR_HELP))?;
                    question.bounded_load = Some(bound);
                }
                _ if question.change.parse_param(word, &value).map_err(wrong)? => {}
                _ => {
                    return Err(wrong(format!(
                        "`{word}` is no part of this question; there are `format`, `bounded_load`, `without`, `add`, `weight`, `down` and `up`"
                    )));
                }
            }
        }
        Ok(question)
    }

    fn evaluate(
        &self,
        upstream: &Upstream,
        log: &mut Receiver<LogChunk>,
    ) -> Result<AdminResponse, AdminResponse> {
        let config = &upstream.config;
        let idle = unavailable_peers(upstream);
        let here = upstream.placement().with_down(idle.iter().copied());
        let here = here.map_err(unprocessable)?;
        let changes = !self.change.is_empty();
        let side = changes
            .then(|| self.change.scenario(upstream, config))
            .transpose()?;
        let there = side.as_ref().map(|side| {
            let down = self.change.down_after(&idle, side);
            let placement = side.placement(down).map_err(unprocessable)?;
            Ok((placement, side.peers().iter().map(|peer| peer.weight)))
        });
        let there = there.transpose()?;
        let weights = upstream.peers().iter().map(|peer| peer.weight);
        let after = there.as_ref();
        let replay = LogReplay::new(
            &upstream.name,
            self.simulation(&here, weights, config),
            after.map(|(there, weights)| self.simulation(there, weights.clone(), config)),
            ReplayOptions {
                format: self.format,
                reorder_capacity: REORDER_WINDOW,
                ignores_slow_start: changes && config.slow_start.is_some(),
            },
        );
        let outcome = replay_log(replay, log)?.finish().map_err(unprocessable)?;
        let mut report = outcome.to_json();
        add_down_now(&mut report, &idle);
        Ok(AdminResponse::json(StatusCode::OK, &report))
    }

    fn simulation<'a>(
        &self,
        placement: &'a KeyPlacement<'a>,
        weights: impl Iterator<Item = Weight>,
        config: &config::UpstreamConfig,
    ) -> Simulation<'a> {
        let configured = config.rules();
        let rules = LoadRules {
            bound: self.bounded_load.or(configured.bound),
            ..configured
        };
        Simulation::new(placement, weights, rules)
    }
}

/// Takes the whole log in, as it comes.
fn replay_log<'a>(
    mut replay: LogReplay<'a>,
    log: &mut Receiver<LogChunk>,
) -> Result<LogReplay<'a>, AdminResponse> {
    let (mut lines, mut count) = (LineDecoder::default(), 0);
    while let Some(part) = log.blocking_recv() {
        let Some(part) = part else {
            lines.finish(|line| replay.push_line(line));
            return Ok(replay);
        };
        lines.push(&part, |line| {
            count += 1;
            replay.push_line(line);
        });
        if count > MAX_LINES {
            let why =
                format!("the log has more than {MAX_LINES} lines; use `clockwise ring replay`");
            return Err(AdminResponse::error(StatusCode::PAYLOAD_TOO_LARGE, &why));
        }
    }
    Err(AdminResponse::error(
        StatusCode::BAD_REQUEST,
        "the log was cut off",
    ))
}
