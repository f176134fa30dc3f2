//! `outlier_detection` of an upstream: ejection of a peer after failures of real requests.

use std::time::Duration;

use crate::config::fields::{Fields, SectionOff};
use crate::config::schema::SectionSchema;
use crate::config::values::{DURATION_BOUNDS, format_duration};

/// Ejection of a peer after failures of real requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierDetectionConfig {
    /// Failed connects in a row that eject a peer; at least 1.
    pub failures: u32,
    /// Duration of the first ejection; each repetition doubles it.
    pub eject: Duration,
    /// The longest ejection.
    pub max_eject: Duration,
}

const DEFAULT_EJECT: Duration = Duration::from_secs(10);
const DEFAULT_MAX_EJECT: Duration = Duration::from_secs(5 * 60);

pub(super) static OUTLIER_DETECTION: SectionSchema = SectionSchema {
    title: "`outlier_detection`",
    path: "upstreams.NAME.outlier_detection",
    example: "{failures: 3, eject: 10s}",
    keys: &["failures", "eject", "max_eject"],
    renamed: &[],
};

pub(super) fn read(upstream: &Fields<'_>) -> Option<OutlierDetectionConfig> {
    match upstream.section_or_off("outlier_detection", &OUTLIER_DETECTION) {
        Err(SectionOff) => None,
        Ok(None) => Some(OutlierDetectionConfig {
            failures: 3,
            eject: DEFAULT_EJECT,
            max_eject: DEFAULT_MAX_EJECT,
        }),
        Ok(Some(fields)) => Some(read_fields(&fields)),
    }
}

fn read_fields(fields: &Fields<'_>) -> OutlierDetectionConfig {
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
