use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use belfry_application::ports::Clock;
use lapin::{Channel, Consumer};
use metrics::Histogram;
use tokio::time::sleep;
use tracing::{info, warn};

use super::super::failure_router::FailureRouter;
use super::super::ingest_settings::IngestSettings;
use super::super::message_handler::MessageHandler;
use crate::amqp::{BrokerConnection, ConfirmChannel, ConnectionError, Topology, subscribe};

/// How often the pipeline checks whether a missing ingest queue exists again.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// If no message arrives within this time after the start, a log line shows the bindings of the queue.
pub(super) const QUIET_START: Duration = Duration::from_mins(3);

/// The parts that the pipelines of all connections share.
pub(super) struct PipelineParts<H> {
    pub(super) topology: Topology,
    pub(super) settings: IngestSettings,
    pub(super) router: FailureRouter,
    pub(super) handler: H,
    pub(super) clock: Arc<dyn Clock>,
    /// The age of messages. Registered once and not looked up for every message.
    pub(super) lag: Histogram,
    /// Publishes the responses to requests.
    pub(super) replies: ConfirmChannel,
    /// Whether a message has arrived since the start, or the absence of messages has been logged.
    pub(super) quiet_start_ended: AtomicBool,
    /// Whether the current absence of the ingest queue has been logged.
    pub(super) missing_queue_logged: AtomicBool,
}

impl<H: MessageHandler> PipelineParts<H> {
    /// Declares the queues and consumes the ingest queue. Returns `None` while that queue is missing and another
    /// service must declare it.
    pub(super) async fn try_subscribe(
        &self,
        connection: &BrokerConnection,
    ) -> Result<Option<(Channel, Consumer)>, ConnectionError> {
        let queue = self.topology.ingest_queue();
        let subscribing = async {
            self.topology.declare_ingest(connection).await?;
            self.topology.declare_retry_and_dead(connection).await?;
            subscribe(connection, queue, self.settings.prefetch, false)
                .await
                .map_err(|error| self.topology.consume_error(queue, error))
        };
        match connection.unless_ended(subscribing).await {
            Err(ConnectionError::QueueMissing(_)) => {
                if !self.missing_queue_logged.swap(true, Ordering::Relaxed) {
                    warn!(queue, "ingest queue missing; waiting for another service to declare it");
                }
                Ok(None)
            }
            subscribed => {
                let subscribed = subscribed?;
                self.missing_queue_logged.store(false, Ordering::Relaxed);
                Ok(Some(subscribed))
            }
        }
    }

    /// Like [`try_subscribe`](Self::try_subscribe), but waits for the queue.
    pub(super) async fn subscribe(
        &self,
        connection: &BrokerConnection,
    ) -> Result<(Channel, Consumer), ConnectionError> {
        loop {
            if let Some(subscribed) = self.try_subscribe(connection).await? {
                return Ok(subscribed);
            }
            sleep(CHECK_INTERVAL).await;
        }
    }

    pub(super) fn log_quiet_start(&self) {
        self.quiet_start_ended.store(true, Ordering::Relaxed);
        let bindings: Vec<_> =
            self.topology.ingest_bindings().iter().map(ToString::to_string).collect();
        let (queue, bindings) = (self.topology.ingest_queue(), bindings.join(", "));
        info!(queue, bindings, after = ?QUIET_START, "no message received since the start");
    }
}
