//! What an instance does beside its work, once in a while: looks whether its configuration file has
//! changed, writes its state file, and shows the service manager that it lives.

use std::path::Path;
use std::time::Duration;

use super::notify::Watchdog;
use super::state_file::Keeper;
use crate::admin::Subject;
use crate::config::Config;

/// How often the state file is brought up to date.
const KEEP: Duration = Duration::from_secs(2);

/// The chores, and what they remember from time to time.
#[derive(Debug, Default)]
pub(super) struct Chores {
    keeper: Keeper,
    /// The configuration file as it was last looked at.
    seen: Option<Vec<u8>>,
    /// Time since the file was looked at.
    since_look: Duration,
    watchdog: Option<Watchdog>,
}

impl Chores {
    /// For an instance that has just read `source`.
    pub(super) fn new(source: Option<&Path>) -> Self {
        let mut chores = Self {
            watchdog: Watchdog::start(),
            ..Self::default()
        };
        chores.look(source);
        chores
    }

    /// The file is being read for another reason: what it holds now is nothing new.
    pub(super) fn look(&mut self, source: Option<&Path>) {
        self.seen = source.and_then(|source| std::fs::read(source).ok());
    }

    /// Does the chores until the watched file has changed. Can be dropped and called again.
    pub(super) async fn until_changed(
        &mut self,
        subject: &Subject,
        config: &Config,
        source: Option<&Path>,
    ) {
        loop {
            let pause = config.watch.map_or(KEEP, |watch| watch.min(KEEP));
            tokio::time::sleep(pause).await;
            self.keep(subject, config);
            self.since_look += pause;
            if let (Some(watch), Some(source)) = (config.watch, source)
                && self.since_look >= watch
            {
                self.since_look = Duration::ZERO;
                if self.has_changed(source) {
                    return;
                }
            }
        }
    }

    /// From now on the signs of life must come from another process.
    pub(super) fn leave(&mut self) {
        self.watchdog = None;
    }

    /// The last time, at the process's end.
    pub(super) fn finish(&mut self, subject: &Subject) {
        self.keep(subject, &subject.snapshot.load().config);
    }

    fn keep(&mut self, subject: &Subject, config: &Config) {
        if let Some(file) = &config.state_file {
            self.keeper.keep(file, subject.snapshot.load().memory());
        }
    }

    /// Contents, not times: links are swapped, and files written anew with what they held. A file
    /// that is not there for a moment is being replaced.
    fn has_changed(&mut self, source: &Path) -> bool {
        let Ok(now) = std::fs::read(source) else {
            return false;
        };
        let before = self.seen.replace(now);
        before.is_some() && before != self.seen
    }
}
