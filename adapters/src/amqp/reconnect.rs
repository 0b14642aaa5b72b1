use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use belfry_application::Backoff;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::broker_connection::BrokerConnection;
use super::connection_error::ConnectionError;
use super::metrics::{OUTAGES, UP};
use super::missing_right::MissingRights;
use super::one_shot::OneShotConnection;
use super::settings::AmqpSettings;

/// A task that has its own connection to the broker, such as a consumer.
pub(crate) trait ConnectedTask: Send + Sync {
    /// Identifies the task in logs, metrics and RabbitMQ's list of connections.
    const NAME: &'static str;

    /// The limit on the bytes of the message bodies that the task holds; `usize::MAX` for no limit. See
    /// [`ByteBudget`](super::ByteBudget).
    fn max_held_bytes(&self) -> usize;

    /// Declares the topology that the task needs, calls [`ConnectionStatus::set_connected`], and does the
    /// task's work. After `stop`, it finishes the work in flight and returns `Ok`. It returns an error when the
    /// connection, a channel or a queue is lost.
    fn serve(
        &self,
        connection: &Arc<BrokerConnection>,
        status: &ConnectionStatus,
        stop: &CancellationToken,
    ) -> impl Future<Output = Result<(), ConnectionError>> + Send;
}

/// Reports to logs and metrics that a task is connected and working.
pub(crate) struct ConnectionStatus {
    task: &'static str,
    /// When the current outage began; `None` if this is the first attempt to connect.
    outage_since: Option<Instant>,
    connected: AtomicBool,
    missing_rights: MissingRights,
}

impl ConnectionStatus {
    pub(crate) fn set_connected(&self) {
        self.missing_rights.set(self.task, false);
        self.connected.store(true, Ordering::Relaxed);
        metrics::gauge!(UP, "role" => self.task).set(1.0);
        if let Some(since) = self.outage_since {
            info!(role = self.task, after = ?since.elapsed(), "reconnected to RabbitMQ");
        } else {
            info!(role = self.task, "connected to RabbitMQ");
        }
    }
}

/// Runs a task until `stop`. Reconnects with backoff after every failure.
///
/// An outage is logged when it begins and when it ends. A missing right is logged once in each outage. All other
/// failed attempts are logged at DEBUG.
pub(crate) async fn run_with_reconnect<T: ConnectedTask>(
    task: &T,
    settings: &AmqpSettings,
    stop: &CancellationToken,
) {
    let mut backoff = Backoff::new(settings.initial_backoff, settings.max_backoff);
    let mut outage_since = None;
    let mut was_connected = false;
    let mut missing_right_logged = false;
    metrics::gauge!(UP, "role" => T::NAME).set(0.0);
    while !stop.is_cancelled() {
        let connected = AtomicBool::new(false);
        let missing_rights = settings.missing_rights.clone();
        let status = ConnectionStatus { task: T::NAME, outage_since, connected, missing_rights };
        let started = Instant::now();
        let result = connect_and_serve(task, settings, &status, stop).await;
        metrics::gauge!(UP, "role" => T::NAME).set(0.0);
        // `Ok` means that `stop` is cancelled.
        let Err(error) = result else { return };

        if status.connected.into_inner() {
            outage_since = None;
            was_connected = true;
            missing_right_logged = false;
            // A connection that is lost soon after it opened does not reset the backoff. Otherwise the task would
            // reconnect again and again after the shortest delay.
            if started.elapsed() > settings.max_backoff {
                backoff.reset();
            }
        }
        let retry_in = backoff.next_delay();
        let is_missing_right = error.is_missing_right();
        let error = &error as &(dyn Error + Send + Sync);
        if is_missing_right && !missing_right_logged {
            settings.missing_rights.set(T::NAME, true);
            error!(role = T::NAME, error, ?retry_in, "RabbitMQ refuses access; retrying");
        } else if !was_connected && outage_since.is_none() {
            warn!(role = T::NAME, error, ?retry_in, "RabbitMQ unavailable at start; retrying");
        } else if outage_since.is_none() {
            warn!(role = T::NAME, error, ?retry_in, "RabbitMQ connection lost; reconnecting");
        } else {
            debug!(role = T::NAME, error, ?retry_in, "cannot reconnect to RabbitMQ yet");
        }
        missing_right_logged |= is_missing_right;
        if outage_since.is_none() {
            outage_since = Some(Instant::now());
            metrics::counter!(OUTAGES, "role" => T::NAME).increment(1);
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(retry_in) => {}
        }
    }
}

async fn connect_and_serve<T: ConnectedTask>(
    task: &T,
    settings: &AmqpSettings,
    status: &ConnectionStatus,
    stop: &CancellationToken,
) -> Result<(), ConnectionError> {
    let connection = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        opened = OneShotConnection::open(settings, T::NAME, task.max_held_bytes()) => opened?,
    };
    let result = task.serve(connection.connection(), status, stop).await;
    // At its limit, the stream would not read the broker's `close-ok` behind further deliveries.
    connection.connection().budget().lift();
    connection.close().await;
    result
}
