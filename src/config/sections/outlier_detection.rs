//! `outlier_detection` of an upstream: ejection of a peer after failures of real requests.

use std::time::Duration;

use crate::config::fields::{
    Fields, SectionOff, choose, collect_until_full, items, items_or_one, parse_or_report,
};
use crate::config::raw::YamlNode;
use crate::config::schema::SectionSchema;
use crate::config::values::{DURATION_BOUNDS, InvalidValue, format_duration, percentage};
use crate::policy::ejection::{EjectedShare, EjectionPolicy, FailureKind, FailureKinds};

const DEFAULT_FAILURES: u32 = 5;
const DEFAULT_EJECT: Duration = Duration::from_secs(10);
const DEFAULT_MAX_EJECT: Duration = Duration::from_secs(5 * 60);
const DEFAULT_MAX_EJECTED: EjectedShare = EjectedShare(5_000);

pub(super) static OUTLIER_DETECTION: SectionSchema = SectionSchema {
    title: "`outlier_detection`",
    path: "upstreams.NAME.outlier_detection",
    example: "{failures: 5, eject: 10s}",
    keys: &["failures", "count", "eject", "max_eject", "max_ejected"],
    ..SectionSchema::EMPTY
};

/// Ejection of a peer after failures of real requests; `None`: off.
pub(super) fn read(upstream: &Fields<'_>) -> Option<EjectionPolicy> {
    match upstream.section_or_off("outlier_detection", &OUTLIER_DETECTION) {
        Err(SectionOff) => None,
        Ok(None) => Some(EjectionPolicy {
            failures: DEFAULT_FAILURES,
            counted: FailureKind::ALL.into_iter().collect(),
            base_ejection: DEFAULT_EJECT,
            max_ejection: DEFAULT_MAX_EJECT,
            max_ejected: DEFAULT_MAX_EJECTED,
        }),
        Ok(Some(fields)) => Some(read_fields(&fields)),
    }
}

fn read_fields(fields: &Fields<'_>) -> EjectionPolicy {
    let eject = fields.duration("eject", DEFAULT_EJECT, DURATION_BOUNDS);
    let max_eject = fields.duration("max_eject", DEFAULT_MAX_EJECT.max(eject), DURATION_BOUNDS);
    if max_eject < eject {
        fields.refuse_key(
            "max_eject",
            "is shorter than `eject`",
            &format!("use at least {}", format_duration(eject)),
        );
    }
    EjectionPolicy {
        failures: fields.number("failures", DEFAULT_FAILURES, 1..=1000),
        counted: counted(fields),
        base_ejection: eject,
        max_ejection: max_eject,
        max_ejected: fields
            .read("max_ejected", ejected_share)
            .unwrap_or(DEFAULT_MAX_EJECTED),
    }
}

/// The kinds of failures in `count`, a list of words; left out: all.
fn counted(fields: &Fields<'_>) -> FailureKinds {
    const HELP: &str = "write words in brackets, as in `[connect, timeout, reset, 5xx]`";
    let all = || FailureKind::ALL.into_iter().collect();
    let Some(node) = fields.get("count") else {
        return all();
    };
    let problems = fields.problems;
    let listed = match node.text() {
        Some(_) => items_or_one(node),
        None => items(node, HELP, problems),
    };
    let words = FailureKind::ALL.map(|kind| (kind.name(), kind));
    let kinds = collect_until_full(listed, problems, |item| {
        parse_or_report(item, problems, |item| choose("count", item, &words))
    });
    if kinds.is_empty() {
        return all();
    }
    kinds.into_iter().collect()
}

fn ejected_share(node: &YamlNode) -> Result<EjectedShare, InvalidValue> {
    let hundredths = percentage(node)? * f64::from(EjectedShare::ALL.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a percentage is 0.0 ..= 1.0"
    )]
    Ok(EjectedShare(hundredths.round() as u16))
}
