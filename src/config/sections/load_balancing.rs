//! `bounded_load`, `slow_start`, `drain`, `hot_keys`, `flap_damping` and `close_moved_streams` of an
//! upstream: load limits, and the movement of keys while peers come and go. All are off by default.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::fields::{Fields, SectionOff, text};
use crate::config::raw::YamlNode;
use crate::config::report::{Problem, quote};
use crate::config::schema::SectionSchema;
use crate::config::values::{self, DURATION_BOUNDS, InvalidValue};
use crate::policy::bounded_load::BalanceFactor;
use crate::policy::flap_damping;
use crate::policy::heavy_hitters::{HotKeyThreshold, MILLIONTHS};
use crate::policy::hot_key_spread::HotKeySpread;

/// Bound on a peer's requests in flight, relative to its fair share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundedLoadConfig {
    /// The bound as a multiple of the fair share.
    pub factor: BalanceFactor,
    /// How long a request may wait for capacity at its first peer; `None`: it goes to the next one at once.
    pub wait: Option<Duration>,
}

/// Gradual handover of keys to a new or recovered peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowStartConfig {
    /// Time from its first key to its last: 1 s to a day.
    pub duration: Duration,
    /// Whether the peers are cold when the process starts; else they count as warm. If they are cold, a
    /// peer that becomes available N seconds after them reaches its share within N seconds.
    pub at_start: bool,
}

/// Keys that a draining peer keeps, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionDrainConfig {
    /// A key moves after this time without a request.
    pub idle: Duration,
    /// All keys have moved this long after the start of the drain.
    pub deadline: Duration,
    /// Approximate number of active keys that are tracked; 16 bytes each.
    pub max_tracked_keys: u32,
}

/// Distribution of very frequent (hot) keys over several peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotKeysConfig {
    /// The share of the upstream's requests that makes a key hot.
    pub threshold: HotKeyThreshold,
    /// The least number of peers of a hot key.
    pub spread: HotKeySpread,
}

/// Closing of long streams on a peer that no longer owns their key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedStreamsConfig {
    /// How long after the key has moved.
    pub after: Duration,
    /// The most streams that are closed in a second.
    pub per_second: u32,
}

const FACTOR_HELP: &str = "use 1.01 to 10, as in `1.25` (25 % above the fair share)";

/// A longer wait would turn the bound into a queue.
const WAIT_BOUNDS: RangeInclusive<Duration> = Duration::from_millis(1)..=SECOND;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) static BOUNDED_LOAD: SectionSchema = SectionSchema {
    title: "`bounded_load`",
    path: "upstreams.NAME.bounded_load",
    example: "{factor: 1.25, wait: 5ms}",
    keys: &["factor", "wait"],
    ..SectionSchema::EMPTY
};

pub(super) fn bounded_load(upstream: &Fields<'_>) -> Option<BoundedLoadConfig> {
    let is_section = upstream.get("bounded_load").is_some_and(YamlNode::is_map);
    if !is_section {
        let factor = upstream.or_off("bounded_load", None, factor)?;
        return Some(BoundedLoadConfig { factor, wait: None });
    }
    let fields = section_if_on(upstream.section_or_off("bounded_load", &BOUNDED_LOAD))?;
    fields.require("factor", "write `bounded_load: {factor: 1.25}`")?;
    Some(BoundedLoadConfig {
        factor: fields.read("factor", factor)?,
        wait: fields.or_off("wait", None, |node| values::duration(node, &WAIT_BOUNDS)),
    })
}

fn factor(node: &YamlNode) -> Result<BalanceFactor, InvalidValue> {
    let text = text(node, "a factor")?;
    BalanceFactor::parse(text).ok_or_else(|| {
        let message = format!("{} is not a valid factor", quote(text));
        (message, FACTOR_HELP.to_owned())
    })
}

pub(super) static SLOW_START: SectionSchema = SectionSchema {
    title: "`slow_start`",
    path: "upstreams.NAME.slow_start",
    example: "{time: 60s}",
    keys: &["time", "at_start"],
    ..SectionSchema::EMPTY
};

pub(super) fn slow_start(upstream: &Fields<'_>) -> Option<SlowStartConfig> {
    let bounds = SECOND..=DAY;
    let short = upstream
        .get("slow_start")
        .is_some_and(|node| node.text().is_some());
    if short {
        let duration = |node: &YamlNode| values::duration(node, &bounds);
        let duration = upstream.or_off("slow_start", None, duration)?;
        return Some(SlowStartConfig {
            duration,
            at_start: false,
        });
    }
    let fields = section_if_on(upstream.section_or_off("slow_start", &SLOW_START))?;
    fields.require("time", "write `slow_start: {time: 60s}`")?;
    Some(SlowStartConfig {
        duration: fields.duration("time", SECOND, bounds),
        at_start: fields.flag("at_start", false),
    })
}

pub(super) static DRAIN: SectionSchema = SectionSchema {
    title: "`drain`",
    path: "upstreams.NAME.drain",
    example: "{idle: 10m, deadline: 1h}",
    keys: &["idle", "deadline", "keys"],
    ..SectionSchema::EMPTY
};

pub(super) fn drain(upstream: &Fields<'_>) -> Option<SessionDrainConfig> {
    let fields = section_if_on(upstream.section_or_off("drain", &DRAIN))?;
    let idle = fields.duration("idle", Duration::from_secs(600), SECOND..=DAY);
    let default = Duration::from_secs(3600).max(idle);
    let deadline = fields.duration("deadline", default, SECOND..=7 * DAY);
    if deadline < idle {
        let why = "is shorter than `idle`: all keys move before one can be idle that long";
        warn_too_short(&fields, "deadline", why, idle);
    }
    Some(SessionDrainConfig {
        idle,
        deadline,
        max_tracked_keys: fields.number("keys", 65_536, 1024..=16_777_216),
    })
}

pub(super) static HOT_KEYS: SectionSchema = SectionSchema {
    title: "`hot_keys`",
    path: "upstreams.NAME.hot_keys",
    example: "{share: 2%, spread: 3}",
    keys: &["share", "spread"],
    ..SectionSchema::EMPTY
};

pub(super) fn hot_keys(upstream: &Fields<'_>) -> Option<HotKeysConfig> {
    let fields = section_if_on(upstream.section_or_off("hot_keys", &HOT_KEYS))?;
    let threshold = fields.read("share", share);
    Some(HotKeysConfig {
        threshold: threshold.unwrap_or(HotKeyThreshold::DEFAULT),
        spread: HotKeySpread {
            min_peers: fields.number("spread", 3, 1..=1000),
        },
    })
}

fn share(node: &YamlNode) -> Result<HotKeyThreshold, InvalidValue> {
    let share = values::percentage_within(node, (0.5, 50.0))? * f64::from(MILLIONTHS);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a percentage is 0.0 ..= 1.0"
    )]
    let threshold = HotKeyThreshold::new(share.round() as u32);
    threshold.ok_or_else(|| {
        (
            "the share is out of range".to_owned(),
            "use `0.5%` to `50%`".to_owned(),
        )
    })
}

pub(super) static FLAP_DAMPING: SectionSchema = SectionSchema {
    title: "`flap_damping`",
    path: "upstreams.NAME.flap_damping",
    example: "{flips: 3, half_life: 1m}",
    keys: &["flips", "half_life", "max"],
    ..SectionSchema::EMPTY
};

pub(super) fn flap_damping(upstream: &Fields<'_>) -> Option<flap_damping::FlapDampingPolicy> {
    let fields = section_if_on(upstream.section_or_off("flap_damping", &FLAP_DAMPING))?;
    let default = flap_damping::FlapDampingPolicy::DEFAULT;
    let half_life = fields.duration("half_life", default.half_life, SECOND..=DAY);
    let max = fields.duration("max", default.max_suppression.max(half_life), SECOND..=DAY);
    if max < half_life {
        let why = "is shorter than `half_life`: it ends almost every suppression early";
        warn_too_short(&fields, "max", why, half_life);
    }
    Some(flap_damping::FlapDampingPolicy {
        flips: fields.number("flips", default.flips, 2..=100),
        half_life,
        max_suppression: max,
    })
}

/// Warns of a duration that is valid, but probably a mistake.
fn warn_too_short(fields: &Fields<'_>, key: &'static str, why: &str, least: Duration) {
    if let Some(node) = fields.get(key) {
        let problem = Problem::warning(format!("`{key}` {why}"), node.error_span());
        let help = format!("use at least {}", values::format_duration(least));
        fields.problems.add(problem.help(help));
    }
}

pub(super) static CLOSE_MOVED_STREAMS: SectionSchema = SectionSchema {
    title: "`close_moved_streams`",
    path: "upstreams.NAME.close_moved_streams",
    example: "{after: 1m, per_second: 10}",
    keys: &["after", "per_second"],
    ..SectionSchema::EMPTY
};

pub(super) fn close_moved_streams(upstream: &Fields<'_>) -> Option<MovedStreamsConfig> {
    let section = upstream.section_or_off("close_moved_streams", &CLOSE_MOVED_STREAMS);
    let fields = section_if_on(section)?;
    Some(MovedStreamsConfig {
        after: fields.duration(
            "after",
            Duration::from_secs(60),
            *DURATION_BOUNDS.start()..=DAY,
        ),
        per_second: fields.number("per_second", 10, 1..=100_000),
    })
}

/// Absent and `off` are the same.
fn section_if_on(section: Result<Option<Fields<'_>>, SectionOff>) -> Option<Fields<'_>> {
    section.ok().flatten()
}
