//! The accept loop of a listener, and its end without a lost connection.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pingora::apps::HttpServerApp;
use pingora::server::ShutdownWatch;

use super::Listener;
use super::connection_task::{Acceptor, ConnectionConfig};
use crate::clock;
use crate::downstream::{ConnectionLimit, Http1Engine};

/// The pause after a failed accept (for example, without a free file descriptor); it ends early when a
/// connection closes.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// How many times a closing listener pauses for [`ACCEPT_BACKOFF`] before it closes the socket with the
/// connections that are still in the accept queue.
const MAX_DRAIN_BACKOFFS: usize = 50;

/// When a listener closes: the time in which TCP handshakes that have begun can complete; a round trip.
const HANDSHAKE_DRAIN_TIME: Duration = Duration::from_millis(200);

impl Listener {
    /// Accepts connections and serves them with `app` until `shutdown`; then empties the accept queue
    /// and closes the socket. Connections that are open continue.
    ///
    /// `connection_config` gives the settings of each new connection.
    pub(crate) async fn run<A>(
        self,
        app: Arc<A>,
        connection_limit: Arc<ConnectionLimit>,
        connection_config: impl Fn() -> ConnectionConfig + Send + Sync,
        mut shutdown: ShutdownWatch,
    ) where
        A: HttpServerApp + Http1Engine + Send + Sync + 'static,
    {
        let listener = (
            Arc::clone(&self.configured_address),
            Arc::clone(&self.metrics),
        );
        let acceptor = Acceptor {
            app,
            connection_limit,
            connection_config,
            listener,
            shutdown: shutdown.clone(),
        };
        while !*shutdown.borrow() {
            let accepted = tokio::select! {
                biased;
                _ = shutdown.changed() => break,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok(accepted) => {
                    self.wait_for_capacity(&acceptor.connection_limit, &mut shutdown)
                        .await;
                    acceptor.spawn_connection(accepted);
                }
                Err(error) => {
                    self.on_accept_error(&error, &acceptor.connection_limit)
                        .await;
                }
            }
        }
        if !self.handed_over.load(Ordering::SeqCst) {
            self.drain_accept_queue(&acceptor).await;
        }
    }

    /// Delays an accepted connection while the limit is reached. It is accepted first, because only then it is
    /// known that a client waits, and that idle connections should be closed for it.
    async fn wait_for_capacity(&self, limit: &ConnectionLimit, shutdown: &mut ShutdownWatch) {
        limit.set_out_of_descriptors(false);
        if limit.is_reached() {
            self.metrics.full.inc();
            tokio::select! {
                () = limit.wait_for_capacity() => {}
                // The delayed connection is still served: it was accepted before the shutdown.
                _ = shutdown.changed() => {}
            }
        }
    }

    /// Serves the connections in the accept queue, and those of handshakes that have begun.
    async fn drain_accept_queue<A, C>(&self, acceptor: &Acceptor<A, C>)
    where
        A: HttpServerApp + Http1Engine + Send + Sync + 'static,
        C: Fn() -> ConnectionConfig + Send + Sync,
    {
        if let Err(error) = self.socket.drop_new_syns() {
            log::debug!(
                "cannot block new connections on {}: {error}",
                self.configured_address
            );
        }
        let handshakes_over = tokio::time::sleep(HANDSHAKE_DRAIN_TIME);
        tokio::pin!(handshakes_over);
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = &mut handshakes_over => break,
            };
            match accepted {
                Ok(accepted) => acceptor.spawn_connection(accepted),
                Err(error) => {
                    self.on_accept_error(&error, &acceptor.connection_limit)
                        .await;
                }
            }
        }
        let mut backoffs_left = MAX_DRAIN_BACKOFFS;
        loop {
            match self.socket.accept_nonblocking() {
                Ok(accepted) => acceptor.spawn_connection(accepted),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_transient_error(&error) => {}
                Err(_) if backoffs_left == 0 => return,
                Err(error) => {
                    backoffs_left -= 1;
                    self.on_accept_error(&error, &acceptor.connection_limit)
                        .await;
                }
            }
        }
    }

    /// Counts and logs a failed accept, and pauses. Without a free file descriptor, accepting fails until
    /// a connection closes, so an idle one is asked to close.
    async fn on_accept_error(&self, error: &io::Error, limit: &ConnectionLimit) {
        self.metrics.accept_errors.inc();
        if is_transient_error(error) {
            return;
        }
        if let Some(suppressed) = self.accept_warnings.try_acquire(clock::since_start()) {
            let address = &self.configured_address;
            log::warn!(
                "cannot accept connections on {address}: {error} ({suppressed} more since the last warning)"
            );
        }
        limit.set_out_of_descriptors(is_out_of_descriptors(error));
        limit.evict_idle_and_wait(ACCEPT_BACKOFF).await;
    }
}

/// Whether the next accept can succeed at once: the client closed before it was accepted, or a signal interrupted.
fn is_transient_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
    )
}

/// Whether the process (EMFILE) or the system (ENFILE) has no file descriptor left.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}
