//! `GET /v1/upstreams/{u}/ring` and `…/owner`: who has which part of the ring, and who has a key.

use http::StatusCode;

use super::change_query::unprocessable;
use super::{AdminResponse, json, query};
use crate::config::PeerConfig;
use crate::predict::{PeerShares, render_svg};
use crate::upstream::Upstream;

/// Peers of a walk that are told where nobody asks for more.
const DEFAULT_WALK: usize = 16;

/// `GET /v1/upstreams/{u}/ring`: points and exact shares, or a picture.
pub(super) fn ring(upstream: &Upstream, drawn: bool) -> AdminResponse {
    let (ring, shares) = (upstream.ring(), upstream.key_space_shares());
    if drawn {
        let placement = upstream.placement();
        return AdminResponse::svg(render_svg(ring, shares, |member| placement.label(member)));
    }
    let parts = PeerShares::new(
        ring,
        shares,
        upstream.config.peers.iter().map(PeerConfig::member),
    );
    AdminResponse::json(StatusCode::OK, &parts.to_json())
}

/// `GET /v1/upstreams/{u}/owner?key=K&down=L&walk=N`: the walk whatever the health, but without those that are
/// taken as down; and who serves the key now.
pub(super) fn owner(upstream: &Upstream, query: &str) -> AdminResponse {
    let answer = || {
        let wrong = |why: &str| AdminResponse::error(StatusCode::BAD_REQUEST, why);
        let question = OwnerQuery::parse(query).map_err(|why| wrong(&why))?;
        let key = question.key.ok_or_else(|| wrong("needs `?key=KEY`"))?;
        if key.is_empty() {
            return Err(wrong("an empty key is none"));
        }
        let down = question.down.iter().map(String::as_str);
        let placement = upstream
            .placement()
            .with_down(down)
            .map_err(unprocessable)?;
        let mut told = placement.key_to_json(&key, question.walk);
        json::add_serving_peer(&mut told, upstream, &key);
        Ok(AdminResponse::json(StatusCode::OK, &told))
    };
    answer().unwrap_or_else(|problem| problem)
}

/// What the query asks about a key.
struct OwnerQuery {
    key: Option<Vec<u8>>,
    down: Vec<String>,
    walk: usize,
}

impl OwnerQuery {
    fn parse(query: &str) -> Result<Self, String> {
        let mut question = Self {
            key: None,
            down: Vec::new(),
            walk: DEFAULT_WALK,
        };
        for (word, value) in query::params(query) {
            let text = String::from_utf8_lossy(&value).into_owned();
            match word {
                "key" => question.key = Some(value),
                "down" => question.down.push(text),
                "walk" => question.walk = parse_walk(&text)?,
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
fn parse_walk(text: &str) -> Result<usize, String> {
    if text == "all" {
        return Ok(usize::MAX);
    }
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("`walk={text}`: a number from 1 on, or `all`"))
}
