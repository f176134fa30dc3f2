//! `POST /v1/upstreams/{u}/replay`: the load that the requests of a log would cause at each peer, with the peers
//! that are available now.
//!
//! The body is the log, and is processed as it arrives; its length and the time of the request are bounded. The
//! query describes the change, if there is one ([`change_query`](super::change_query)), `format=clockwise|keys`
//! and `bounded_load=FACTOR`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use pingora::protocols::http::ServerSession;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::change_query::{ChangeQuery, add_down_now, unavailable_peers};
use super::query;
use super::request_body::{BoundedBody, LineDecoder, timed_out};
use super::response::AdminResponse;
use super::worker_pool::{WorkerPool, panicked};
use crate::config;
use crate::policy::bounded_load::BalanceFactor;
use crate::predict::{KeyPlacement, LoadRules, LogReplay, ReplayFormat, ReplayOptions, Simulation};
use crate::ring::Weight;
use crate::upstream::Upstream;

/// The most bytes of a log.
const MAX_LOG: usize = 256 << 20;

/// The most lines of a log. If no request ends before the last one starts, they need 64 MiB.
const MAX_LINES: u64 = 1 << 22;

/// The time limit for the log to arrive and to be simulated.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(60);

/// The most requests that are buffered to sort them by their start: about 4 MB.
const REORDER_WINDOW: usize = 1 << 16;

/// The most chunks of the log that wait for the simulation.
const QUEUED_CHUNKS: usize = 4;

const KNOWN_PARAMS: &str = "`format`, `bounded_load`, `without`, `add`, `weight`, `down`, `up`";

/// The query of a request for a replay.
struct ReplayQuery {
    change: ChangeQuery,
    format: ReplayFormat,
    bounded_load: Option<BalanceFactor>,
}

/// A part of the log. `None` marks the end: a truncated log has no such mark.
type LogChunk = Option<Bytes>;

/// The simulated load of the log.
pub(super) async fn respond(
    upstream: Arc<Upstream>,
    query: &str,
    session: &mut ServerSession,
    workers: &WorkerPool,
) -> Result<AdminResponse, AdminResponse> {
    let query = ReplayQuery::parse(query).map_err(|error| AdminResponse::bad_request(&error))?;
    let permit = workers.acquire_reader()?;
    let mut body = BoundedBody::new(session, MAX_LOG).await?;
    let (sender, mut log) = mpsc::channel(QUEUED_CHUNKS);
    // Not in the worker pool: this thread waits for the client, and would occupy a worker all that time.
    let work = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        query.evaluate(&upstream, &mut log)
    });
    let done = async {
        send_body(&mut body, sender).await?;
        work.await.unwrap_or_else(|error| Err(panicked(&error)))
    };
    let done = tokio::time::timeout(REPLAY_TIMEOUT, done).await;
    done.unwrap_or_else(|_| Err(timed_out(REPLAY_TIMEOUT)))
}

/// Sends the log to the simulation, until the log ends or the simulation has failed.
async fn send_body(body: &mut BoundedBody<'_>, log: Sender<LogChunk>) -> Result<(), AdminResponse> {
    while let Some(chunk) = body.next_chunk().await? {
        if log.send(Some(chunk)).await.is_err() {
            return Ok(());
        }
    }
    // Fails only if the simulation has already ended with an error.
    let _ = log.send(None).await;
    Ok(())
}

impl ReplayQuery {
    fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Self {
            change: ChangeQuery::default(),
            format: ReplayFormat::Clockwise,
            bounded_load: None,
        };
        for (name, value) in query::params(query) {
            let text = String::from_utf8_lossy(&value);
            let wrong_value = |help| format!("`{name}={text}`: write {help}");
            match &*name {
                "format" => {
                    let format = ReplayFormat::from_name(&text);
                    parsed.format = format.ok_or_else(|| wrong_value("`clockwise` or `keys`"))?;
                }
                "bounded_load" | "bounded-load" => {
                    let factor = BalanceFactor::parse(&text);
                    let help = "a factor from 1.01 to 10, with up to three decimals";
                    parsed.bounded_load = Some(factor.ok_or_else(|| wrong_value(help))?);
                }
                _ if parsed.change.parse_param(&name, &value)? => {}
                _ => return Err(query::unknown_param(&name, KNOWN_PARAMS)),
            }
        }
        Ok(parsed)
    }

    fn evaluate(
        &self,
        upstream: &Upstream,
        log: &mut Receiver<LogChunk>,
    ) -> Result<AdminResponse, AdminResponse> {
        let config = &upstream.config;
        let unavailable = unavailable_peers(upstream);
        let before = upstream
            .placement()
            .with_down(unavailable.iter().copied())
            .map_err(AdminResponse::unprocessable)?;
        let has_change = !self.change.is_empty();
        let scenario = has_change
            .then(|| self.change.scenario(upstream, config))
            .transpose()?;
        let after = scenario.as_ref().map(|scenario| {
            let down = self.change.down_after(&unavailable, scenario);
            let placement = scenario.placement(down);
            let placement = placement.map_err(AdminResponse::unprocessable)?;
            let weights = scenario.peers().iter().map(|peer| peer.weight);
            Ok((placement, weights))
        });
        let after = after.transpose()?;
        let weights = upstream.peers().iter().map(|peer| peer.weight);
        let replay = LogReplay::new(
            &upstream.name,
            self.simulation(&before, weights, config),
            after
                .as_ref()
                .map(|(after, weights)| self.simulation(after, weights.clone(), config)),
            ReplayOptions {
                format: self.format,
                reorder_capacity: REORDER_WINDOW,
            },
        );
        let outcome = replay_log(replay, log)?.finish();
        let mut report = outcome.map_err(AdminResponse::unprocessable)?.to_json();
        add_down_now(&mut report, &unavailable);
        Ok(AdminResponse::json(&report))
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

/// Feeds the whole log to the simulation, as it arrives.
fn replay_log<'a>(
    mut replay: LogReplay<'a>,
    log: &mut Receiver<LogChunk>,
) -> Result<LogReplay<'a>, AdminResponse> {
    let (mut lines, mut count) = (LineDecoder::default(), 0);
    while let Some(chunk) = log.blocking_recv() {
        let Some(chunk) = chunk else {
            lines.finish(|line| replay.push_line(line));
            return Ok(replay);
        };
        lines.push(&chunk, |line| {
            count += 1;
            replay.push_line(line);
        });
        if count > MAX_LINES {
            let message = format!(
                "the log has more than {MAX_LINES} lines; use the command `clockwise ring replay`"
            );
            return Err(AdminResponse::error(
                StatusCode::PAYLOAD_TOO_LARGE,
                &message,
            ));
        }
    }
    Err(AdminResponse::bad_request("the log was cut off"))
}
