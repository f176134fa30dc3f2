//! Values of other systems, clamped to the bounds of Clockwise and noted if they were outside.

use std::time::Duration;

use super::draft::{ProbeDraft, UpstreamDraft};
use super::notes::Notes;
use super::source::SourceSpan;
use crate::config;

/// Bounds of `bounded_load`, in percent.
const LOAD_FACTOR_BOUNDS: (u64, u64) = (101, 1000);
/// Bounds of `slow_start`.
const SLOW_START_BOUNDS: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(24 * 3600));

/// The words of the old configuration that a note is about.
#[derive(Clone, Copy)]
pub(super) struct NoteSubject<'a> {
    pub(super) span: SourceSpan,
    pub(super) text: &'a str,
}

/// A number of threads; `None` for `auto` and numbers out of bounds.
pub(super) fn threads(text: &str) -> Option<String> {
    let number = text.parse::<u16>().ok();
    let number = number.filter(|number| (1..=256).contains(number));
    number.map(|number| number.to_string())
}

impl UpstreamDraft {
    /// Sets the limit of a peer's load, in percent of its fair share; 0 means no limit.
    pub(super) fn set_bounded_load(
        &mut self,
        percent: u64,
        subject: NoteSubject<'_>,
        notes: &Notes<'_>,
    ) {
        let (least, most) = LOAD_FACTOR_BOUNDS;
        let bounded = percent.clamp(least, most);
        self.bounded_load = (percent > 0).then(|| format_percent_as_ratio(bounded));
        if percent > 0 && bounded != percent {
            let why = format!(
                "a load factor is {} to {}; {} is written",
                format_percent_as_ratio(least),
                format_percent_as_ratio(most),
                format_percent_as_ratio(bounded)
            );
            self.comments
                .push(notes.gap(subject.span, subject.text, &why));
        }
    }

    /// Sets the time after which a recovered peer has all its keys again; `None` means at once.
    pub(super) fn set_slow_start(
        &mut self,
        time: Option<Duration>,
        subject: NoteSubject<'_>,
        notes: &Notes<'_>,
    ) {
        let time = time.filter(|time| !time.is_zero());
        let (least, most) = SLOW_START_BOUNDS;
        self.slow_start = time.map(|time| time.clamp(least, most));
        if self.slow_start != time {
            let why = "`slow_start` is 1 s to 1 day; the nearest value is written";
            self.comments
                .push(notes.gap(subject.span, subject.text, why));
        }
    }
}

impl ProbeDraft {
    /// Makes the probe valid: its timeout is at most its interval, which is 2 s by default.
    pub(super) fn clamp_to_limits(
        mut self,
        subject: NoteSubject<'_>,
        comments: &mut Vec<String>,
        notes: &Notes<'_>,
    ) -> Self {
        const INTERVAL: Duration = Duration::from_secs(2);
        const LEAST: Duration = Duration::from_millis(10);
        self.interval = self.interval.map(|interval| interval.max(LEAST));
        let longest = self.interval.unwrap_or(INTERVAL);
        self.timeout = self.timeout.map(|timeout| timeout.min(longest));
        if self
            .http
            .take_if(|path| !config::is_probe_path(path))
            .is_some()
        {
            let why = "the probe's path is not valid; a TCP probe is written";
            comments.push(notes.gap(subject.span, subject.text, why));
        }
        if self.host.take_if(|host| !config::is_host(host)).is_some() {
            let why = "the probe's host is not valid; the peer's address is sent";
            comments.push(notes.gap(subject.span, subject.text, why));
        }
        self
    }
}

/// 125 becomes `1.25`.
fn format_percent_as_ratio(percent: u64) -> String {
    let ratio = format!("{}.{:02}", percent / 100, percent % 100);
    ratio.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_is_written_with_the_digits_it_needs() {
        let ratio = [101, 125, 150, 1000].map(format_percent_as_ratio);
        assert_eq!(ratio, ["1.01", "1.25", "1.5", "10"]);
    }
}
