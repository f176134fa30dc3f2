//! `GET /v1/upstreams/{u}/ring` and `…/owner`: who has which part of the ring, and who has a key.

use http::StatusCode;

use super::change::refused;
use super::{Answer, query, report};
use crate::config::PeerConfig;
use crate::predict::{Parts, picture};
use crate::upstream::Upstream;

/// Peers of a walk that are told where nobody asks for more.
const WALK: usize = 16;

/// `GET /v1/upstreams/{u}/ring`: points and exact shares, or a picture.
pub(super) fn ring(upstream: &Upstream, drawn: bool) -> Answer {
    let (ring, shares) = (upstream.ring(), upstream.key_space_shares());
    if drawn {
        let placement = upstream.placement();
        return Answer::picture(picture(ring, shares, |member| placement.label(member)));
    }
    let parts = Parts::new(
        ring,
        shares,
        upstream.config.peers.iter().map(PeerConfig::member),
    );
    Answer::json(StatusCode::OK, &parts.report())
}

/// `GET /v1/upstreams/{u}/owner?key=K&down=L&walk=N`: the walk whatever the health, but without those that are
/// taken as down; and who serves the key now.
pub(super) fn owner(upstream: &Upstream, query: &str) -> Answer {
    let answer = || {
        let wrong = |why: &str| Answer::problem(StatusCode::BAD_REQUEST, why);
        let question = Question::read(query).map_err(|why| wrong(&why))?;
        let key = question.key.ok_or_else(|| wrong("needs `?key=KEY`"))?;
        if key.is_empty() {
            return Err(wrong("an empty key is none"));
        }
        let down = question.down.iter().map(String::as_str);
        let placement = upstream.placement().with_down(down).map_err(refused)?;
        let mut told = placement.report(&key, question.walk);
        report::serves(&mut told, upstream, &key);
        Ok(Answer::json(StatusCode::OK, &told))
    };
    answer().unwrap_or_else(|problem| problem)
}

/// What the query asks about a key.
struct Question {
    key: Option<Vec<u8>>,
    down: Vec<String>,
    walk: usize,
}

impl Question {
    fn read(query: &str) -> Result<Self, String> {
        let mut question = Self {
            key: None,
            down: Vec::new(),
            walk: WALK,
        };
        for (word, value) in query::words(query) {
            let text = String::from_utf8_lossy(&value).into_owned();
            match word {
                "key" => question.key = Some(value),
                "down" => question.down.push(text),
                "walk" => question.walk = walk(&text)?,
                _ => {
                    return Err(format!(
                        "`{word}` is no part of this question; there are `key`, `down` and `walk`"
                    ));
                }
            }
        }
        Ok(question)
    }
}

/// How many peers of a walk.
fn walk(text: &str) -> Result<usize, String> {
    if text == "all" {
        return Ok(usize::MAX);
    }
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("`walk={text}`: a number from 1 on, or `all`"))
}
