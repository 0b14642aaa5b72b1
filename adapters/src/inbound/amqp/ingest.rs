use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use belfry_application::Backoff;
use belfry_application::ports::Clock;
use belfry_application::trace::TraceParent;
use lapin::options::BasicAckOptions;
use lapin::{Channel, Consumer};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::batch_executor::{BatchExecutor, BatchRun, Pending};
use super::delivery_batcher::DeliveryBatcher;
use super::disposition::Disposition;
use super::failure_router::{FailedMessage, FailureRouter, Routed};
use super::headers::attempts;
use super::ingest_settings::IngestSettings;
use super::message::{Envelope, Incoming, InvalidMessage, Pattern};
use super::message_handler::MessageHandler;
use super::reason::FailureReason;
use crate::amqp::metrics::{INGEST_MESSAGES, OUTAGES};
use crate::amqp::{
    AmqpSettings, BrokerConnection, ConnectedTask, ConnectionError, ConnectionStatus, HeldDelivery,
    Publisher, Topology, close_channel, run_with_reconnect, subscribe,
};

/// Consumes the ingest queue and executes its messages.
pub struct Ingest<H> {
    amqp: AmqpSettings,
    topology: Topology,
    settings: IngestSettings,
    router: FailureRouter,
    handler: H,
}

impl<H: MessageHandler> Ingest<H> {
    /// `publisher` publishes failed messages to the retry queues and the dead queue.
    pub fn new(
        amqp: AmqpSettings,
        topology: Topology,
        settings: IngestSettings,
        publisher: &Publisher,
        clock: Arc<dyn Clock>,
        handler: H,
    ) -> Self {
        let router = FailureRouter::new(publisher, topology.clone(), clock);
        Self { amqp, topology, settings, router, handler }
    }

    /// Consumes until `stop`. The current batch is then finished and acknowledged; messages that only wait
    /// return to the queue.
    ///
    /// A deleted queue loses its messages, except those that were delivered to this process. They are
    /// executed all the same while the queue is declared and consumed again. They are lost only if this
    /// connection ends or `stop` is cancelled before they are finished.
    pub async fn run(&self, stop: CancellationToken) {
        run_with_reconnect(self, &self.amqp, &stop).await;
    }

    async fn subscribe(
        &self,
        connection: &BrokerConnection,
    ) -> Result<(Channel, Consumer), ConnectionError> {
        let subscribing = async {
            self.topology.declare_ingest(connection).await?;
            self.topology.declare_retry_and_dead(connection).await?;
            let queue = self.topology.ingest_queue();
            subscribe(connection, queue, self.settings.prefetch, false)
                .await
                .map_err(|error| self.topology.consume_error(queue, error))
        };
        connection.unless_ended(subscribing).await
    }
}

impl<H: MessageHandler> ConnectedTask for Ingest<H> {
    const NAME: &'static str = "ingest";

    fn max_held_bytes(&self) -> usize {
        self.settings.prefetch_bytes
    }

    async fn serve(
        &self,
        connection: &Arc<BrokerConnection>,
        status: &ConnectionStatus,
        stop: &CancellationToken,
    ) -> Result<(), ConnectionError> {
        let (channel, consumer) = self.subscribe(connection).await?;
        status.set_connected();
        let mut pipeline = Pipeline::new(self, connection, channel);
        pipeline.run(DeliveryBatcher::new(consumer, connection.budget().clone()), stop).await?;
        // The reply to the close must not wait behind deliveries.
        connection.budget().lift();
        close_channel(&pipeline.channel).await;
        Ok(())
    }
}

/// The unacknowledged messages of one connection, on their way: decode, execute, then acknowledge, or
/// publish to a retry queue or the dead queue and acknowledge after the confirm.
struct Pipeline<'a, H: MessageHandler> {
    ingest: &'a Ingest<H>,
    connection: &'a BrokerConnection,
    /// The channel that the current consumer's deliveries are acknowledged on.
    channel: Channel,
    executor: BatchExecutor<HeldDelivery, H::Command>,
    /// For a retry queue or the dead queue.
    failed: Vec<FailedMessage>,
    /// When failed messages are published again that their queue did not accept. Other messages go on
    /// meanwhile.
    route_at: Option<Instant>,
    route_backoff: Backoff,
    /// Delivery tags of finished messages that are not acknowledged yet.
    finished: Vec<u64>,
    backoff: Backoff,
    /// Whether the current pause has been logged.
    pause_logged: bool,
}

impl<'a, H: MessageHandler> Pipeline<'a, H> {
    fn new(ingest: &'a Ingest<H>, connection: &'a BrokerConnection, channel: Channel) -> Self {
        let IngestSettings { initial_backoff, max_backoff, .. } = ingest.settings;
        Self {
            ingest,
            connection,
            channel,
            executor: BatchExecutor::default(),
            failed: Vec::new(),
            route_at: None,
            route_backoff: Backoff::new(initial_backoff, max_backoff),
            finished: Vec::new(),
            backoff: Backoff::new(initial_backoff, max_backoff),
            pause_logged: false,
        }
    }

    async fn run(
        &mut self,
        mut batcher: DeliveryBatcher,
        stop: &CancellationToken,
    ) -> Result<(), ConnectionError> {
        let IngestSettings { batch_size, linger, ack_delay, .. } = self.ingest.settings;
        let connection = self.connection;
        let mut stopped = pin!(stop.cancelled());
        let mut ended = pin!(connection.ended());
        let mut ack_due = pin!(sleep_until(Instant::now()));
        let mut retry_in = None;
        loop {
            if batcher.has_ended() {
                self.resubscribe(&mut batcher).await?;
            }
            if let Some(delay) = retry_in {
                tokio::select! {
                    biased;
                    () = &mut stopped => return Ok(()),
                    () = sleep(delay) => {}
                }
                // Nothing new is awaited until all pending messages are finished. Deliveries that are already
                // available run with them, to show whether one message is at fault or the store.
                self.accept(batcher.available(batch_size.saturating_sub(self.executor.len()))?);
            } else {
                tokio::select! {
                    biased;
                    () = &mut stopped => return self.acknowledge().await,
                    () = &mut ack_due, if self.owes_ack() => self.acknowledge().await?,
                    () = sleep_until(self.route_at.unwrap_or_else(Instant::now)), if self.route_at.is_some() => {}
                    batch = batcher.next_batch(batch_size, linger) => {
                        if !self.owes_ack() {
                            ack_due.as_mut().reset(Instant::now() + ack_delay);
                        }
                        self.accept(batch?);
                    }
                    () = &mut ended => return Err(ConnectionError::Closed),
                }
            }
            retry_in = self.process().await?;
        }
    }

    /// Declares and consumes the queue again after it was deleted.
    ///
    /// The new consumer has a channel of its own. Deliveries of the old channel can no longer be
    /// acknowledged, as tags are counted per channel. The old channel must be closed: RabbitMQ would apply
    /// its acknowledgements to the new queue, which counts from one as well, and it closes a channel
    /// with a delivery that is never acknowledged.
    async fn resubscribe(&mut self, batcher: &mut DeliveryBatcher) -> Result<(), ConnectionError> {
        let pending = self.pending();
        warn!(pending, "ingest queue deleted; declaring and consuming it again");
        metrics::counter!(OUTAGES, "role" => Ingest::<H>::NAME).increment(1);
        self.acknowledge_each().await?;
        // Before the new consumer: the reply could wait behind its deliveries, and those for a byte budget that
        // only this task can release.
        let closing = self.channel.close(200, "its queue is gone".into());
        self.connection.unless_ended(closing).await?;
        let (channel, consumer) = self.ingest.subscribe(self.connection).await?;
        self.channel = channel;
        batcher.replace_consumer(consumer);
        Ok(())
    }

    /// Finished messages wait for their acknowledgement.
    fn owes_ack(&self) -> bool {
        !self.finished.is_empty()
    }

    /// How many messages are not finished.
    fn pending(&self) -> usize {
        self.executor.len() + self.failed.len()
    }

    fn accept(&mut self, deliveries: Vec<HeldDelivery>) {
        for delivery in deliveries {
            match self.decode(&delivery) {
                Ok((command, trace)) => self.executor.push(Pending::new(delivery, command, trace)),
                Err(error) => {
                    let disposition = Disposition::DeadLetter(FailureReason::from(&error));
                    self.dispose(delivery, disposition, error.to_string());
                }
            }
        }
    }

    fn decode(
        &self,
        delivery: &HeldDelivery,
    ) -> Result<(H::Command, Option<TraceParent>), InvalidMessage> {
        let incoming = Incoming::from(&**delivery);
        let envelope = Envelope::open(&incoming, self.ingest.topology.ingest_queue())?;
        if envelope.pattern == Pattern::RevokeTokens && !self.ingest.settings.revocations {
            return Err(InvalidMessage::RevocationNotAllowed);
        }
        let command = self.ingest.handler.decode(&envelope)?;
        Ok((command, envelope.trace))
    }

    /// Executes pending commands and publishes failed messages. Returns the delay before the next try if any
    /// commands are left.
    async fn process(&mut self) -> Result<Option<Duration>, ConnectionError> {
        if self.execute().await {
            self.backoff.reset();
        }
        self.route_failed().await;
        if !self.executor.is_empty() {
            self.acknowledge().await?;
            return Ok(Some(self.backoff.next_delay()));
        }
        // Well below the prefetch, so that the broker never stops delivering to wait for acknowledgements.
        let ack_batch = usize::from(self.ingest.settings.prefetch / 4).max(1);
        if self.ingest.settings.ack_delay.is_zero() || self.finished.len() >= ack_batch {
            self.acknowledge().await?;
        }
        Ok(None)
    }

    /// Runs the pending commands. Returns whether the store works.
    async fn execute(&mut self) -> bool {
        let expired = self.executor.take_expired(&self.ingest.handler);
        count("expired", expired.len());
        self.finished.extend(expired.iter().filter_map(ack_tag));
        if self.executor.is_empty() {
            return true;
        }
        let run = self.executor.run(&self.ingest.handler).await;
        self.log_pause(&run);
        let works = run.made_progress();
        count("done", run.finished.iter().filter(|(_, result)| result.is_ok()).count());
        for (delivery, result) in run.finished {
            let attempts = attempts(&delivery.properties);
            let disposition = Disposition::of(&result, attempts, &self.ingest.settings);
            let error = result.err().map(|error| error.to_string()).unwrap_or_default();
            self.dispose(delivery, disposition, error);
        }
        works
    }

    fn dispose(&mut self, delivery: HeldDelivery, disposition: Disposition, error: String) {
        match disposition.failure_reason() {
            None => self.finished.extend(ack_tag(&delivery)),
            Some(reason) => self.failed.push(FailedMessage { delivery, reason, error }),
        }
    }

    fn log_pause(&mut self, run: &BatchRun<HeldDelivery>) {
        if run.made_progress() {
            if std::mem::take(&mut self.pause_logged) {
                info!("ingest resumed");
            }
        } else if let Some(error) = run.blocked_by.as_ref().filter(|_| !self.pause_logged) {
            self.pause_logged = true;
            let error = error as &dyn Error;
            warn!(pending = self.executor.len(), error, "ingest paused: store unavailable");
        }
    }

    /// Publishes failed messages to their queues, unless a pause after a failure is not over.
    async fn route_failed(&mut self) {
        if self.failed.is_empty() || self.route_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let failed = std::mem::take(&mut self.failed);
        let Routed { confirmed, parked, unconfirmed, error } =
            self.ingest.router.route(failed).await;
        self.failed = unconfirmed;
        if self.failed.is_empty() {
            self.route_at = None;
            self.route_backoff.reset();
        } else {
            self.route_at = Some(Instant::now() + self.route_backoff.next_delay());
        }
        if let Some(error) = error {
            let (messages, error) = (self.failed.len(), &error as &dyn Error);
            warn!(messages, error, "cannot publish to the retry or dead queue; retrying");
        }
        let (dead, retried): (Vec<_>, Vec<_>) =
            confirmed.iter().partition(|message| message.is_dead());
        count("dead", dead.len());
        count("retry", retried.len() + parked.len());
        if !parked.is_empty() {
            warn!(messages = parked.len(), "dead queue is full; messages moved to a retry queue");
        }
        // Reason and error are those of the first message.
        if let Some(FailedMessage { reason, error, .. }) = dead.first() {
            let reason = reason.as_str();
            warn!(messages = dead.len(), reason, error, "messages moved to the dead queue");
        }
        if let Some(FailedMessage { error, .. }) = retried.first() {
            warn!(messages = retried.len(), error, "messages moved to a retry queue");
        }
        let routed = confirmed.iter().chain(&parked);
        self.finished.extend(routed.filter_map(|message| ack_tag(&message.delivery)));
    }

    /// Acknowledges the finished messages.
    async fn acknowledge(&mut self) -> Result<(), ConnectionError> {
        if self.pending() == 0 { self.acknowledge_all().await } else { self.acknowledge_each().await }
    }

    /// Acknowledges all finished messages at once. Only while none is pending.
    ///
    /// The tag is the newest finished one, not the newest delivered one: that one may be acknowledged
    /// already, and RabbitMQ closes the channel on an unknown tag.
    async fn acknowledge_all(&mut self) -> Result<(), ConnectionError> {
        if let Some(newest) = self.finished.drain(..).max() {
            let multiple = BasicAckOptions { multiple: true };
            self.connection.unless_ended(self.channel.basic_ack(newest, multiple)).await?;
        }
        Ok(())
    }

    async fn acknowledge_each(&mut self) -> Result<(), ConnectionError> {
        for tag in self.finished.drain(..) {
            let single = BasicAckOptions::default();
            self.connection.unless_ended(self.channel.basic_ack(tag, single)).await?;
        }
        Ok(())
    }
}

/// The tag to acknowledge a delivery with; `None` if its channel is closed.
fn ack_tag(delivery: &HeldDelivery) -> Option<u64> {
    (!delivery.acker.poisoned()).then_some(delivery.delivery_tag)
}

fn count(outcome: &'static str, messages: usize) {
    metrics::counter!(INGEST_MESSAGES, "outcome" => outcome).increment(messages as u64);
}
