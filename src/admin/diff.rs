//! `GET /v1/upstreams/{u}/diff`: what a change of an upstream would move, from what is in force now.
//!
//! The change is in the query: `without=LABEL`, `add=ADDRESS[=WEIGHT]`, `weight=LABEL=WEIGHT`,
//! `down=LABEL`, `up=LABEL`, each as often as needed. Peers that do not serve now are down before
//! and after, unless one of these says otherwise.
//!
//! A ring is built for each question, away from the threads that serve; how large it may be, and how
//! much one question may change, is bounded. Larger ones are for `clockwise ring diff`.

use http::StatusCode;
use serde_json::json;

use super::{Answer, Subject, decode_form, with_upstream};
use crate::clock;
use crate::predict::{Change, Comparison, Peer, Placement};
use crate::ring::Ring;
use crate::upstream::Upstream;

/// Peers that one question may name.
const MAX_CHANGES: usize = 256;

/// Points of the ring before and of that after, together: a second of work, and 64 MiB. Where there
/// are none, each member's score for each key of the sample is as much work as one.
const MAX_POINTS: u64 = 1 << 22;

/// What the query asks.
#[derive(Debug, Default)]
struct Question {
    change: Change,
    down: Vec<String>,
    up: Vec<String>,
}

/// The upstream whose diff a path names, as it stands there.
pub(super) fn upstream(path: &str) -> Option<&str> {
    let name = path.strip_prefix("/v1/upstreams/")?.strip_suffix("/diff")?;
    (!name.contains('/')).then_some(name)
}

/// What the change would move.
pub(super) async fn answer(subject: &Subject, name: &str, query: &str) -> Answer {
    let question = match Question::read(query) {
        Ok(question) => question,
        Err(why) => return Answer::problem(StatusCode::BAD_REQUEST, &why),
    };
    let snapshot = subject.snapshot.load_full();
    let name = super::decode(name);
    let work = move || {
        with_upstream(&snapshot, &name, |upstream| {
            question
                .answer(upstream)
                .unwrap_or_else(|why| Answer::problem(StatusCode::UNPROCESSABLE_ENTITY, &why))
        })
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Answer::problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
    })
}

impl Question {
    fn read(query: &str) -> Result<Self, String> {
        let mut question = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (word, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = String::from_utf8_lossy(&decode_form(value)).into_owned();
            question.add(word, value)?;
        }
        match question.len() {
            0 => {
                Err("say what changes: `?without=`, `add=`, `weight=`, `down=` or `up=`".to_owned())
            }
            1..=MAX_CHANGES => Ok(question),
            more => Err(format!(
                "{more} changes at once, at most {MAX_CHANGES} are possible"
            )),
        }
    }

    fn add(&mut self, word: &str, value: String) -> Result<(), String> {
        let told = |why| format!("`{word}={value}`: {why}");
        match word {
            "add" => self.change.add.push(Peer::new_one(&value).map_err(told)?),
            "weight" => self
                .change
                .weight
                .push(Peer::weighed(&value).map_err(told)?),
            "without" => self.change.without.push(value),
            "down" => self.down.push(value),
            "up" => self.up.push(value),
            _ => {
                return Err(format!(
                    "`{word}` is no change; there are `without`, `add`, `weight`, `down` and `up`"
                ));
            }
        }
        Ok(())
    }

    fn len(&self) -> usize {
        self.change.len() + self.down.len() + self.up.len()
    }

    fn answer(&self, upstream: &Upstream) -> Result<Answer, String> {
        let now = clock::since_start();
        let idle = upstream
            .peers()
            .iter()
            .filter(|peer| !peer.state.is_available(now));
        let idle: Vec<&str> = idle.map(|peer| &*peer.label).collect();
        let before = upstream.placement().with_down(idle.iter().copied());
        let before = before.map_err(|unknown| unknown.to_string())?;

        let peers = self.peers(upstream)?;
        let ring = Ring::new(upstream.config.dialect, peers.iter().map(Peer::member))
            .map_err(|error| error.to_string())?;
        let labels = peers.iter().map(|peer| peer.label.as_str());
        let after = Placement::new(&ring, labels).with_down(self.down_after(&idle, &peers));
        let after = after.map_err(|unknown| unknown.to_string())?;
        let mut report = Comparison::new(before, after, true).movement().report();
        if let Some(report) = report.as_object_mut() {
            report.insert("down_now".to_owned(), json!(idle));
        }
        Ok(Answer::json(StatusCode::OK, &report))
    }

    /// The peers after the change, if they make no ring that is too large to be built here.
    fn peers(&self, upstream: &Upstream) -> Result<Vec<Peer>, String> {
        let before: Vec<_> = upstream.config.members().map(Peer::from).collect();
        let known = |label: &&String| before.iter().any(|peer| peer.label == **label);
        if let Some(unknown) = self.up.iter().find(|label| !known(label)) {
            return Err(format!("there is no peer `{unknown}`"));
        }
        let after = self
            .change
            .apply(&before)
            .map_err(|unknown| unknown.to_string())?;
        let work = work(upstream, &before) + work(upstream, &after);
        if work > MAX_POINTS {
            return Err(format!(
                "{work} points would be looked at, at most {MAX_POINTS} are possible here; use `clockwise ring diff`"
            ));
        }
        Ok(after)
    }

    /// Who is down afterwards: who is told to be, and who does not serve now and stays.
    fn down_after<'a>(&'a self, idle: &[&'a str], peers: &[Peer]) -> Vec<&'a str> {
        let stays = |label: &&str| {
            let is_up = self.up.iter().any(|up| up == label);
            let is_new = self.change.add.iter().any(|peer| peer.label == **label);
            !is_up && !is_new && peers.iter().any(|peer| peer.label == **label)
        };
        let told = self.down.iter().map(String::as_str);
        told.chain(idle.iter().copied().filter(stays)).collect()
    }
}

/// What a ring of these peers costs, in points.
fn work(upstream: &Upstream, peers: &[Peer]) -> u64 {
    if let Some(keys) = upstream.ring().sample() {
        return u64::from(keys) * peers.len() as u64;
    }
    let weights: Vec<_> = peers.iter().map(|peer| peer.weight).collect();
    upstream.config.dialect.total(&weights)
}
