//! Content negotiation (RFC 9110 §12.5.1), as far as two endpoints need it: the format of metrics, and the ring as SVG.

use http::HeaderMap;
use http::header::ACCEPT;

use super::response::SVG_TYPE;
use crate::telemetry::metrics::MetricsFormat;

/// The largest weight, in thousandths.
const MAX_WEIGHT: u16 = 1000;

/// One media range of `Accept`, without parameters other than `version` and `q`.
struct MediaRange<'a> {
    media_type: &'a str,
    version: Option<&'a str>,
    /// In thousandths; 0: not acceptable.
    weight: u16,
}

/// The format of the metrics: OpenMetrics if the client names it (in our version, or in any) and does not prefer
/// plain text; so does Prometheus. For all others, as `*/*`, version 0.0.4: every collector reads it.
pub(super) fn metrics_format(headers: &HeaderMap) -> MetricsFormat {
    let weight = |media_type, version| weight_of(headers, media_type, version);
    let openmetrics = weight("application/openmetrics-text", "1.0.0");
    if openmetrics > 0 && openmetrics >= weight("text/plain", "0.0.4") {
        MetricsFormat::OpenMetrics
    } else {
        MetricsFormat::Text
    }
}

/// Whether the client names SVG.
pub(super) fn accepts_svg(headers: &HeaderMap) -> bool {
    weight_of(headers, SVG_TYPE, "") > 0
}

/// The weight that the client gives to exactly this media type, in this version or without one; 0: it does not name it.
fn weight_of(headers: &HeaderMap, media_type: &str, version: &str) -> u16 {
    let values = headers.get_all(ACCEPT).iter();
    let ranges = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(parse_range);
    let named = ranges.filter(|range| {
        let same_type = range.media_type.eq_ignore_ascii_case(media_type);
        same_type && range.version.is_none_or(|asked| asked == version)
    });
    named.map(|range| range.weight).max().unwrap_or(0)
}

fn parse_range(range: &str) -> MediaRange<'_> {
    let mut parts = range.split(';').map(str::trim);
    let mut parsed = MediaRange {
        media_type: parts.next().unwrap_or_default(),
        version: None,
        weight: MAX_WEIGHT,
    };
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        let value = value.trim().trim_matches('"');
        match name.trim() {
            name if name.eq_ignore_ascii_case("version") => parsed.version = Some(value),
            name if name.eq_ignore_ascii_case("q") => parsed.weight = parse_weight(value),
            _ => {}
        }
    }
    parsed
}

/// `0.5`, as 500; a malformed weight is 0.
fn parse_weight(text: &str) -> u16 {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = decimals.len() <= 3 && decimals.bytes().all(|byte| byte.is_ascii_digit());
    match whole {
        "1" => MAX_WEIGHT,
        "0" if digits => format!("{decimals:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The last two are the headers of Prometheus 2.42 and 3.5.
    #[test]
    fn metrics_are_openmetrics_only_if_the_client_asks_for_it() {
        use MetricsFormat::{OpenMetrics, Text};
        for (accept, format) in [
            (&[][..], Text),
            (&[""], Text),
            (&["*/*"], Text),
            (&["application/*"], Text),
            (&["text/plain; version=0.0.4"], Text),
            (&["application/openmetrics-text"], OpenMetrics),
            (
                &[
                    "text/html",
                    "Application/OpenMetrics-Text ; Version=\"1.0.0\"",
                ],
                OpenMetrics,
            ),
            (&["application/openmetrics-text; q=0, */*"], Text),
            (&["application/openmetrics-text; q=x"], Text),
            (&["application/openmetrics-text; version=0.0.1"], Text),
            (&["application/openmetrics-text;q=0.5, text/plain"], Text),
            (
                &["application/openmetrics-text;q=0.5, text/plain;q=0.05"],
                OpenMetrics,
            ),
            (
                &[
                    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
                   version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                ],
                OpenMetrics,
            ),
            (
                &[
                    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                   application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;\
                   escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                ],
                OpenMetrics,
            ),
        ] {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(ACCEPT, HeaderValue::from_static(value));
            }
            assert_eq!(metrics_format(&headers), format, "{accept:?}");
        }
    }

    #[test]
    fn ring_is_drawn_only_for_a_client_that_names_svg() {
        for (accept, expected) in [
            ("image/svg+xml", true),
            ("text/html, image/SVG+XML;q=0.1", true),
            ("image/svg+xml;q=0", false),
            ("image/*, */*", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(accepts_svg(&headers), expected, "{accept}");
        }
    }
}
