//! Values of other systems within our bounds: what is out of them becomes the nearest that we allow,
//! and is told of.

use std::time::Duration;

use super::draft::{ProbeDraft, UpstreamDraft};
use super::notes::Notes;
use super::source::SourceSpan;
use crate::config;

/// Of a load factor, in percent.
const LOAD_FACTOR_BOUNDS: (u64, u64) = (101, 1000);
/// Of a slow start.
const SLOW_START_BOUNDS: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(24 * 3600));

/// A line or a word of the old configuration.
#[derive(Clone, Copy)]
pub(super) struct NoteSubject<'a> {
    pub(super) span: SourceSpan,
    pub(super) text: &'a str,
}

/// A number of threads; `None` where it is not one of ours, as `auto`.
pub(super) fn threads(text: &str) -> Option<String> {
    let number = text.parse::<u16>().ok();
    let number = number.filter(|number| (1..=256).contains(number));
    number.map(|number| number.to_string())
}

impl UpstreamDraft {
    /// No peer holds more than so many percent of its fair share; 0: as much as comes.
    pub(super) fn set_bounded_load(
        &mut self,
        percent: u64,
        said: NoteSubject<'_>,
        notes: &Notes<'_>,
    ) {
        let (least, most) = LOAD_FACTOR_BOUNDS;
        let bounded = percent.clamp(least, most);
        self.bounded_load = (percent > 0).then(|| format_percent_as_ratio(bounded));
        if percent > 0 && bounded != percent {
            let why = format!(
                "a factor is {} to {}; {} is written",
                format_percent_as_ratio(least),
                format_percent_as_ratio(most),
                format_percent_as_ratio(bounded)
            );
            self.comments.push(notes.gap(said.span, said.text, &why));
        }
    }

    /// How long a peer that comes back takes to get all its keys; `None`: no time.
    pub(super) fn set_slow_start(
        &mut self,
        time: Option<Duration>,
        said: NoteSubject<'_>,
        notes: &Notes<'_>,
    ) {
        let time = time.filter(|time| !time.is_zero());
        let (least, most) = SLOW_START_BOUNDS;
        self.slow_start = time.map(|time| time.clamp(least, most));
        if self.slow_start != time {
            let why = "a slow start takes 1 s to 1 day; the nearest is written";
            self.comments.push(notes.gap(said.span, said.text, why));
        }
    }
}

impl ProbeDraft {
    /// A probe that can be sent; none lasts longer than the interval, which is 2 s where none is given.
    pub(super) fn clamp_to_limits(
        mut self,
        said: NoteSubject<'_>,
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
            let why = "this path cannot be asked for; peers are only connected to";
            comments.push(notes.gap(said.span, said.text, why));
        }
        if self.host.take_if(|host| !config::is_host(host)).is_some() {
            let why = "this host cannot be asked for; the peer's address is";
            comments.push(notes.gap(said.span, said.text, why));
        }
        self
    }
}

/// 125 as `1.25`.
fn format_percent_as_ratio(percent: u64) -> String {
    let shown = format!("{}.{:02}", percent / 100, percent % 100);
    shown.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_is_written_with_the_digits_it_needs() {
        let shown = [101, 125, 150, 1000].map(format_percent_as_ratio);
        assert_eq!(shown, ["1.01", "1.25", "1.5", "10"]);
    }
}
