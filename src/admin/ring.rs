//! `GET /v1/upstreams/{u}/ring` and `…/owner`: the peers' shares of the ring, and the owner of a key.

use super::response::AdminResponse;
use super::{json, query};
use crate::config::PeerConfig;
use crate::predict::{PeerShares, render_svg};
use crate::upstream::Upstream;

/// The number of peers of a walk that are listed if the query has no `walk`.
const DEFAULT_WALK: usize = 16;

/// `GET /v1/upstreams/{u}/ring`: points and exact shares as JSON, or a drawing.
pub(super) fn ring(upstream: &Upstream, wants_svg: bool) -> AdminResponse {
    let (ring, shares) = (upstream.ring(), upstream.key_space_shares());
    if wants_svg {
        let placement = upstream.placement();
        return AdminResponse::svg(render_svg(ring, shares, |member| placement.label(member)));
    }
    let members = upstream.config.peers.iter().map(PeerConfig::member);
    AdminResponse::json(&PeerShares::new(ring, shares, members).to_json())
}

/// `GET /v1/upstreams/{u}/owner?key=K&down=L&walk=N`: the walk of a key, and the peer that serves the key now.
/// The walk leaves out the peers in `down`, and ignores health.
pub(super) fn owner(upstream: &Upstream, query: &str) -> Result<AdminResponse, AdminResponse> {
    let query = OwnerQuery::parse(query).map_err(|error| AdminResponse::bad_request(&error))?;
    let down = query.down.iter().map(String::as_str);
    let placement = upstream.placement().with_down(down);
    let placement = placement.map_err(AdminResponse::unprocessable)?;
    let mut report = placement.key_to_json(&query.key, query.walk);
    json::add_serving_peer(&mut report, upstream, &query.key);
    Ok(AdminResponse::json(&report))
}

/// The query of a request for an owner.
struct OwnerQuery {
    key: Vec<u8>,
    down: Vec<String>,
    /// The most peers to list.
    walk: usize,
}

impl OwnerQuery {
    fn parse(query: &str) -> Result<Self, String> {
        let (mut key, mut down, mut walk) = (None, Vec::new(), DEFAULT_WALK);
        for (name, value) in query::params(query) {
            let text = String::from_utf8_lossy(&value).into_owned();
            match &*name {
                "key" => key = Some(value),
                "down" => down.push(text),
                "walk" => walk = parse_walk(&text)?,
                _ => return Err(query::unknown_param(&name, "`key`, `down`, `walk`")),
            }
        }
        let key = key.ok_or("the parameter `key` is missing: write `?key=KEY`")?;
        if key.is_empty() {
            return Err("the parameter `key` is empty: write `?key=KEY`".to_owned());
        }
        Ok(Self { key, down, walk })
    }
}

fn parse_walk(text: &str) -> Result<usize, String> {
    if text == "all" {
        return Ok(usize::MAX);
    }
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("`walk={text}`: write a number, at least 1, or `all`"))
}
