//! The end: no new connection, and every open one to its own end.
//!
//! Each response now carries `Connection: close`; an idle connection keeps the idle time it was
//! promised, so that a request already on its way finds it open. The process ends when the last
//! connection has, or at the bound.

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Ending;
use super::signals::Signals;
use crate::admin::Subject;
use crate::lifecycle::Stage;

pub(super) struct Drain<'a> {
    pub(super) subject: &'a Subject,
    /// Tells listeners and connections.
    pub(super) stop: watch::Sender<bool>,
    /// The accept loops.
    pub(super) accepting: Vec<JoinHandle<()>>,
}

impl Drain<'_> {
    pub(super) async fn run(mut self, signals: &mut Signals) -> Ending {
        let bound = self.subject.snapshot.load().config.drain_timeout;
        self.subject.lifecycle.advance(Stage::Draining);
        self.stop.send_replace(true);
        log::info!(
            "draining {} connections, for up to {bound:?}",
            self.subject.gate.inside()
        );
        let accepting = std::mem::take(&mut self.accepting);
        let emptied = self.emptied(accepting);
        let again = signals.until_stop(&self.subject.telemetry);
        let ending = tokio::select! {
            () = emptied => Ending::Drained,
            () = tokio::time::sleep(bound) => Ending::Cut,
            () = again => Ending::Cut,
        };
        self.report(ending);
        ending
    }

    async fn emptied(&self, accepting: Vec<JoinHandle<()>>) {
        for accept_loop in accepting {
            // One that panicked accepts no more either.
            let _ = accept_loop.await;
        }
        self.subject.gate.empty().await;
    }

    fn report(&self, ending: Ending) {
        let left = self.subject.gate.inside();
        match ending {
            Ending::Drained => log::info!("drained; good-bye"),
            Ending::Cut => {
                self.subject
                    .telemetry
                    .metrics
                    .process
                    .drain_cut
                    .inc_by(left as u64);
                log::warn!("cutting {left} connections");
            }
        }
    }
}
