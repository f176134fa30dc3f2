//! `POST /v1/upstreams/{u}/replay`: what the traffic of a log would do to each peer's load, from what is in force now.
//!
//! The log is the body, and is worked on as it comes; how long it may be, and how long it may take, is
//! bounded. The query has the change, if there is one ([`change`](super::change)), `format=clockwise|keys` and
//! `bounded_load=FACTOR`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use pingora_core::protocols::http::ServerSession;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::body::{Body, Lines, too_slow};
use super::change::{Asked, idle, refused};
use super::desk::Desk;
use super::diff::down_now;
use super::{Answer, query};
use crate::config;
use crate::policy::bounded_load::BalanceFactor;
use crate::predict::{Format, Manner, Placement, Replay, Rules, Simulation};
use crate::ring::Weight;
use crate::upstream::Upstream;

/// The longest log, in bytes and in lines: 64 MiB of requests in flight, where none ever ends.
const MAX_LOG: usize = 256 << 20;
const MAX_LINES: u64 = 1 << 22;

/// Until when all must be done.
const MAX_TIME: Duration = Duration::from_secs(60);

/// Requests that are held back to put them in the order of their start: some 4 MB.
const WINDOW: usize = 1 << 16;

/// Parts of the log that wait to be worked on.
const AHEAD: usize = 4;

const FACTOR: &str = "a factor from 1.01 to 10, with up to three decimals";

/// What the query asks.
struct Question {
    change: Asked,
    format: Format,
    bounded_load: Option<BalanceFactor>,
}

/// A part of the log; `None` after the last, so that a log that was cut off is told apart.
type Part = Option<Bytes>;

/// What the log would do.
pub(super) async fn answer(
    upstream: Arc<Upstream>,
    query: &str,
    session: &mut ServerSession,
    desk: &Desk,
) -> Result<Answer, Answer> {
    let question = Question::read(query)?;
    let place = desk.reader()?;
    let mut body = Body::begin(session, MAX_LOG).await?;
    let (sender, mut log) = mpsc::channel(AHEAD);
    let work = tokio::task::spawn_blocking(move || {
        let answer = question.answer(&upstream, &mut log);
        drop(place);
        answer.unwrap_or_else(|problem| problem)
    });
    let done = async {
        feed(&mut body, sender).await?;
        work.await
            .map_err(|error| Answer::problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()))
    };
    let done = tokio::time::timeout(MAX_TIME, done).await;
    done.unwrap_or_else(|_| Err(too_slow(MAX_TIME)))
}

/// Passes the log on, until its end or until nobody wants it.
async fn feed(body: &mut Body<'_>, log: Sender<Part>) -> Result<(), Answer> {
    while let Some(part) = body.next().await? {
        if log.send(Some(part)).await.is_err() {
            return Ok(());
        }
    }
    // Whoever has gone has an answer already.
    let _ = log.send(None).await;
    Ok(())
}

impl Question {
    fn read(query: &str) -> Result<Self, Answer> {
        let mut question = Self {
            change: Asked::default(),
            format: Format::Clockwise,
            bounded_load: None,
        };
        let wrong = |why: String| Answer::problem(StatusCode::BAD_REQUEST, &why);
        for (word, value) in query::words(query) {
            let text = String::from_utf8_lossy(&value);
            let told = |why| wrong(format!("`{word}={text}`: {why}"));
            match word {
                "format" => {
                    let format = Format::named(&text);
                    question.format = format.ok_or_else(|| told("it is `clockwise` or `keys`"))?;
                }
                "bounded_load" | "bounded-load" => {
                    let bound = BalanceFactor::parse(&text).ok_or_else(|| told(FACTOR))?;
                    question.bounded_load = Some(bound);
                }
                _ if question.change.add(word, &value).map_err(wrong)? => {}
                _ => {
                    return Err(wrong(format!(
                        "`{word}` is no part of this question; there are `format`, `bounded_load`, `without`, `add`, `weight`, `down` and `up`"
                    )));
                }
            }
        }
        Ok(question)
    }

    fn answer(&self, upstream: &Upstream, log: &mut Receiver<Part>) -> Result<Answer, Answer> {
        let config = &upstream.config;
        let idle = idle(upstream);
        let here = upstream.placement().with_down(idle.iter().copied());
        let here = here.map_err(refused)?;
        let changes = !self.change.is_nothing();
        let side = changes
            .then(|| self.change.side(upstream, config))
            .transpose()?;
        let there = side.as_ref().map(|side| {
            let down = self.change.down_after(&idle, side);
            let placement = side.placement(down).map_err(refused)?;
            Ok((placement, side.peers().iter().map(|peer| peer.weight)))
        });
        let there = there.transpose()?;
        let weights = upstream.peers().iter().map(|peer| peer.weight);
        let after = there.as_ref();
        let replay = Replay::new(
            &upstream.name,
            self.simulation(&here, weights, config),
            after.map(|(there, weights)| self.simulation(there, weights.clone(), config)),
            Manner {
                format: self.format,
                window: WINDOW,
                starts_slowly: changes && config.slow_start.is_some(),
            },
        );
        let outcome = run(replay, log)?.end().map_err(refused)?;
        let mut report = outcome.report();
        down_now(&mut report, &idle);
        Ok(Answer::json(StatusCode::OK, &report))
    }

    fn simulation<'a>(
        &self,
        placement: &'a Placement<'a>,
        weights: impl Iterator<Item = Weight>,
        config: &config::UpstreamConfig,
    ) -> Simulation<'a> {
        let configured = config.rules();
        let rules = Rules {
            bound: self.bounded_load.or(configured.bound),
            ..configured
        };
        Simulation::new(placement, weights, rules)
    }
}

/// Takes the whole log in, as it comes.
fn run<'a>(mut replay: Replay<'a>, log: &mut Receiver<Part>) -> Result<Replay<'a>, Answer> {
    let (mut lines, mut count) = (Lines::default(), 0);
    while let Some(part) = log.blocking_recv() {
        let Some(part) = part else {
            lines.end(|line| replay.line(line));
            return Ok(replay);
        };
        lines.add(&part, |line| {
            count += 1;
            replay.line(line);
        });
        if count > MAX_LINES {
            let why =
                format!("the log has more than {MAX_LINES} lines; use `clockwise ring replay`");
            return Err(Answer::problem(StatusCode::PAYLOAD_TOO_LARGE, &why));
        }
    }
    Err(Answer::problem(
        StatusCode::BAD_REQUEST,
        "the log was cut off",
    ))
}
