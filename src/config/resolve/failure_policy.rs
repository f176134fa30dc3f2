//! `outlier_detection`, `retry` and `timeouts` of an upstream.

use std::time::Duration;

use crate::config::fields::{Fields, SectionOff};
use crate::config::schema;
use crate::config::settings::{
    OutlierDetectionConfig, RetryConfig, TimeoutsConfig, TunnelTimeoutsConfig,
};
use crate::config::values::{self, DURATION_BOUNDS, format_duration};

const DEFAULT_EJECT: Duration = Duration::from_secs(10);
const DEFAULT_MAX_EJECT: Duration = Duration::from_secs(5 * 60);

pub(super) fn outlier_detection(upstream: &Fields<'_>) -> Option<OutlierDetectionConfig> {
    match upstream.section_or_off("outlier_detection", &schema::OUTLIER_DETECTION) {
        Err(SectionOff) => None,
        Ok(None) => Some(OutlierDetectionConfig {
            failures: 3,
            eject: DEFAULT_EJECT,
            max_eject: DEFAULT_MAX_EJECT,
        }),
        Ok(Some(fields)) => Some(read_outlier_detection(&fields)),
    }
}

fn read_outlier_detection(fields: &Fields<'_>) -> OutlierDetectionConfig {
    let eject = fields.duration("eject", DEFAULT_EJECT, DURATION_BOUNDS);
    let max_eject = fields.duration("max_eject", DEFAULT_MAX_EJECT.max(eject), DURATION_BOUNDS);
    if max_eject < eject {
        fields.refuse_key(
            "max_eject",
            "is shorter than `eject`",
            &format!("use at least {}", format_duration(eject)),
        );
    }
    OutlierDetectionConfig {
        failures: fields.number("failures", 3, 1..=1000),
        eject,
        max_eject,
    }
}

pub(super) fn retry(upstream: &Fields<'_>) -> RetryConfig {
    let timeout = Duration::from_secs(10);
    match upstream.section_or_off("retry", &schema::RETRY) {
        Err(SectionOff) => RetryConfig {
            attempts: 1,
            timeout,
        },
        Ok(None) => RetryConfig {
            attempts: 3,
            timeout,
        },
        Ok(Some(fields)) => RetryConfig {
            attempts: fields.number("attempts", 3, 1..=16),
            timeout: fields.duration("timeout", timeout, DURATION_BOUNDS),
        },
    }
}

pub(super) fn timeouts(upstream: &Fields<'_>) -> TimeoutsConfig {
    let fields = upstream.section("timeouts", &schema::TIMEOUTS);
    let read = |key, seconds| {
        let default = Duration::from_secs(seconds);
        fields.as_ref().map_or(default, |fields| {
            fields.duration(key, default, DURATION_BOUNDS)
        })
    };
    TimeoutsConfig {
        connect: read("connect", 1),
        first_byte: read("first_byte", 60),
        read: read("read", 60),
        stream: read("stream", 3600),
        write: read("write", 60),
        idle: read("idle", 50),
        tunnel: tunnel_timeouts(fields.as_ref()),
    }
}

/// A map, or in short form the idle time: `tunnel: 1h`.
fn tunnel_timeouts(timeouts: Option<&Fields<'_>>) -> TunnelTimeoutsConfig {
    let default = TunnelTimeoutsConfig {
        idle: Duration::from_secs(3600),
        total: None,
    };
    let Some(timeouts) = timeouts else {
        return default;
    };
    let node = timeouts.get("tunnel");
    if node.is_some_and(|node| node.text().is_some()) {
        let idle = timeouts.duration("tunnel", default.idle, DURATION_BOUNDS);
        return TunnelTimeoutsConfig { idle, ..default };
    }
    let fields = timeouts.section("tunnel", &schema::TUNNEL);
    fields.map_or(default, |fields| TunnelTimeoutsConfig {
        idle: fields.duration("idle", default.idle, DURATION_BOUNDS),
        total: fields.or_off("total", None, |node| {
            values::duration(node, &DURATION_BOUNDS)
        }),
    })
}
