//! Parsers of single values: numbers, flags, durations, percentages, sizes.
//!
//! Each returns the value, or a message and a help text. Spans are added by the caller.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::fmt::friendly::SpanParser;

use super::raw::{YamlNode, YamlValue};
use super::report::quote;

/// A message (what is wrong) and a help text (what to write instead).
pub(super) type InvalidValue = (String, String);

/// The usual bounds. Zero is excluded: it could mean "do not wait" or "wait forever". A year is
/// forever.
pub(super) const DURATION_BOUNDS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(365 * 24 * 3600);

const PERCENTAGE_HELP: &str = "write a number and `%`, as in `15%` or `2.5%`";
const KIB: u64 = 1024;
const SIZE_UNITS: &[(&str, u64)] = &[("KiB", KIB), ("MiB", KIB * KIB), ("GiB", KIB * KIB * KIB)];

/// The value at `node` in the words of a message, for "found …".
pub(super) fn describe_node(node: &YamlNode) -> String {
    match &node.value {
        _ if node.is_null() => "nothing".to_owned(),
        YamlValue::Scalar(scalar) if scalar.plain => quote(&scalar.text),
        YamlValue::Scalar(scalar) => format!("the text {}", quote(&scalar.text)),
        YamlValue::List(_) => "a list".to_owned(),
        YamlValue::Map(_) => "a map".to_owned(),
    }
}

/// A whole number without quotes; `what` is the key in messages.
pub(super) fn number(
    what: &str,
    node: &YamlNode,
    bounds: &RangeInclusive<u64>,
) -> Result<u64, InvalidValue> {
    let range = format!("{} to {}", bounds.start(), bounds.end());
    let not_a_number = || {
        let quoted = node.scalar().is_some_and(|scalar| !scalar.plain);
        let help = if quoted {
            "remove the quotes".to_owned()
        } else {
            format!("use {range}")
        };
        (
            format!(
                "`{what}` must be a whole number, found {}",
                describe_node(node)
            ),
            help,
        )
    };
    let text = node.plain().ok_or_else(not_a_number)?;
    let too_long = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u64>() {
        Ok(number) if bounds.contains(&number) => Ok(number),
        Err(_) if !too_long && !is_negative(text) => Err(not_a_number()),
        _ => Err((
            format!("{} is out of range for `{what}`", quote(text)),
            format!("use {range}"),
        )),
    }
}

fn is_negative(text: &str) -> bool {
    text.strip_prefix('-')
        .is_some_and(|digits| digits.parse::<u64>().is_ok())
}

/// `true` or `false`. Not `yes` or `on`: YAML 1.1 and 1.2 disagree about their meaning.
pub(super) fn flag(node: &YamlNode) -> Result<bool, InvalidValue> {
    match node.plain() {
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        _ => Err((
            format!("expected `true` or `false`, found {}", describe_node(node)),
            "write `true` or `false`, without quotes".to_owned(),
        )),
    }
}

/// A duration with its unit: `250ms`, `1m30s`.
pub(super) fn duration(
    node: &YamlNode,
    bounds: &RangeInclusive<Duration>,
) -> Result<Duration, InvalidValue> {
    let example = || format!("write a number and a unit, as in {}", duration_examples());
    let Some(text) = node.text() else {
        return Err((
            format!("expected a duration, found {}", describe_node(node)),
            example(),
        ));
    };
    if text.parse::<f64>().is_ok() {
        let help = format!("write `{text}s` for seconds, `{text}ms` for milliseconds");
        return Err((format!("duration {} has no unit", quote(text)), help));
    }
    let value = SpanParser::new().parse_unsigned_duration(text);
    let value = value.map_err(|_| (format!("{} is not a duration", quote(text)), example()))?;
    if bounds.contains(&value) {
        return Ok(value);
    }
    let help = format!(
        "use {} to {}",
        format_duration(*bounds.start()),
        format_duration(*bounds.end())
    );
    Err((format!("duration {} is out of range", quote(text)), help))
}

fn duration_examples() -> &'static str {
    "`250ms`, `10s`, `1m30s` or `2h`"
}

/// A duration in the form of the configuration, in backticks.
pub(super) fn format_duration(duration: Duration) -> String {
    let printed = SignedDuration::try_from(duration).map(|duration| format!("{duration:#}"));
    quote(
        &printed
            .unwrap_or_else(|_| format!("{}s", duration.as_secs()))
            .replace(' ', ""),
    )
}

/// A percentage such as `15%` or `2.5%`, as 0.0 ..= 1.0.
pub(super) fn percentage(node: &YamlNode) -> Result<f64, InvalidValue> {
    percentage_within(node, (0.0, 100.0))
}

/// A [`percentage`] within bounds, which are in per cent.
pub(super) fn percentage_within(
    node: &YamlNode,
    (least, most): (f64, f64),
) -> Result<f64, InvalidValue> {
    let Some(text) = node.text() else {
        return Err((
            format!("expected a percentage, found {}", describe_node(node)),
            PERCENTAGE_HELP.to_owned(),
        ));
    };
    let percent = parse_percent(text).ok_or_else(|| not_a_percentage(text))?;
    if (least..=most).contains(&percent) {
        return Ok(percent / 100.0);
    }
    Err((
        format!("percentage {} is out of range", quote(text)),
        format!("use `{least}%` to `{most}%`"),
    ))
}

/// The number before the sign, in range or not. Other forms that Rust parses, as `1e1`, are rejected.
fn parse_percent(text: &str) -> Option<f64> {
    let number = text.strip_suffix('%')?.trim_end();
    let digits = number.strip_prefix('-').unwrap_or(number);
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = all_digits(whole) && all_digits(decimals);
    number.parse().ok().filter(|_| plain)
}

fn not_a_percentage(text: &str) -> InvalidValue {
    let message = format!("{} is not a percentage", quote(text));
    // `0.5` may mean 0.5 % or 50 %; only a number above one is clear.
    let help = match text.parse::<f64>() {
        Ok(number) if number > 1.0 && parse_percent(&format!("{text}%")).is_some() => {
            format!("write `{text}%`")
        }
        _ => PERCENTAGE_HELP.to_owned(),
    };
    (message, help)
}

/// Bytes: `64KiB`, `1MiB`, `2GiB`, or a plain number.
pub(super) fn size(node: &YamlNode, bounds: &RangeInclusive<u64>) -> Result<u64, InvalidValue> {
    let Some(text) = node.text() else {
        let help = "write bytes as in `65536`, `64KiB` or `1MiB`".to_owned();
        return Err((
            format!("expected a size, found {}", describe_node(node)),
            help,
        ));
    };
    let bytes = parse_size(text).ok_or_else(|| not_a_size(text))?;
    if bounds.contains(&bytes) {
        return Ok(bytes);
    }
    let help = format!(
        "use {} to {}",
        format_size(*bounds.start()),
        format_size(*bounds.end())
    );
    Err((format!("size {} is out of range", quote(text)), help))
}

fn parse_size(text: &str) -> Option<u64> {
    let (digits, unit) = split_unit(text);
    let factor = match unit {
        "" => 1,
        unit => SIZE_UNITS.iter().find(|(name, _)| *name == unit)?.1,
    };
    // A number that overflows is out of every range, and is reported as that.
    let number = digits
        .parse::<u64>()
        .or_else(|_| all_digits(digits).then_some(u64::MAX).ok_or(()));
    number.ok().map(|number| number.saturating_mul(factor))
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    (digits, unit.trim_start())
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn not_a_size(text: &str) -> InvalidValue {
    let (digits, unit) = split_unit(text);
    let meant = unit.chars().next().and_then(|first| {
        SIZE_UNITS
            .iter()
            .find(|(name, _)| name.starts_with(first.to_ascii_uppercase()))
    });
    let help = match meant {
        Some((name, _)) if all_digits(digits) => format!("did you mean `{digits}{name}`?"),
        _ => "write bytes as in `65536`, `64KiB` or `1MiB`".to_owned(),
    };
    (format!("{} is not a size", quote(text)), help)
}

fn format_size(bytes: u64) -> String {
    let unit = SIZE_UNITS
        .iter()
        .rev()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    unit.map_or_else(
        || format!("`{bytes}`"),
        |(name, factor)| format!("`{}{name}`", bytes / factor),
    )
}
