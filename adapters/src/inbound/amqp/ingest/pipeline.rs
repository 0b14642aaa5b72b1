use std::error::Error;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use belfry_application::Backoff;
use belfry_application::trace::TraceParent;
use belfry_domain::Timestamp;
use lapin::Channel;
use lapin::protocol::constants::REPLY_SUCCESS;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::super::batch_executor::{BatchExecutor, BatchRun, Pending};
use super::super::delivery_batcher::DeliveryBatcher;
use super::super::disposition::Disposition;
use super::super::failure_router::{FailedMessage, Routed};
use super::super::headers::attempts;
use super::super::ingest_settings::IngestSettings;
use super::super::invalid_message::InvalidMessage;
use super::super::message::{Envelope, Incoming};
use super::super::message_handler::MessageHandler;
use super::super::pattern::Pattern;
use super::super::publication_time::PublicationTime;
use super::super::reason::FailureReason;
use super::super::request::{Request, RequestError};
use super::finished_deliveries::FinishedDeliveries;
use super::parts::{CHECK_INTERVAL, PipelineParts, QUIET_START};
use super::responses::Response;
use crate::amqp::metrics::{INGEST_MESSAGES, OUTAGES};
use crate::amqp::{BrokerConnection, ConnectionError, HeldDelivery};

/// The name of the connection in logs and metrics.
pub(super) const ROLE: &str = "ingest";

/// A message whose command is pending.
struct Received<C> {
    delivery: HeldDelivery,
    /// If the sender waits for a response: the request and a copy of its command.
    request: Option<(Request, C)>,
}

/// The unacknowledged messages of one connection. Each message is decoded and executed. After a success it is
/// acknowledged. After a failure it is published to a retry queue or the dead queue, and acknowledged after the
/// confirm. For a request, a response is sent in both cases, and the request is then acknowledged.
pub(super) struct Pipeline<'a, H: MessageHandler> {
    parts: &'a PipelineParts<H>,
    connection: &'a BrokerConnection,
    /// The channel on which the current consumer's deliveries are acknowledged.
    pub(super) channel: Channel,
    /// The messages whose commands are pending.
    executor: BatchExecutor<Received<H::Command>, H::Command>,
    responses: Vec<Response<H::Command>>,
    /// Messages for a retry queue or the dead queue.
    failed: Vec<FailedMessage>,
    /// When the messages in `failed` are published again, after a queue did not accept them. Other messages are
    /// processed meanwhile. `None` outside this backoff.
    route_at: Option<Instant>,
    route_backoff: Backoff,
    /// When the pipeline checks again whether the deleted ingest queue exists. `None` while the queue is consumed.
    resubscribe_at: Option<Instant>,
    finished: FinishedDeliveries,
    /// The delays before pending commands run again.
    backoff: Backoff,
    /// Whether it has been logged that the store is unavailable.
    pause_logged: bool,
}

impl<'a, H: MessageHandler> Pipeline<'a, H> {
    pub(super) fn new(
        parts: &'a PipelineParts<H>,
        connection: &'a BrokerConnection,
        channel: Channel,
    ) -> Self {
        let IngestSettings { initial_backoff, max_backoff, .. } = parts.settings;
        Self {
            parts,
            connection,
            channel,
            executor: BatchExecutor::default(),
            responses: Vec::new(),
            failed: Vec::new(),
            route_at: None,
            resubscribe_at: None,
            route_backoff: Backoff::new(initial_backoff, max_backoff),
            finished: FinishedDeliveries::default(),
            backoff: Backoff::new(initial_backoff, max_backoff),
            pause_logged: false,
        }
    }

    /// Processes deliveries until `stop`.
    pub(super) async fn run(
        &mut self,
        mut batcher: DeliveryBatcher,
        stop: &CancellationToken,
    ) -> Result<(), ConnectionError> {
        let IngestSettings { batch_size, linger, ack_delay, .. } = self.parts.settings;
        let connection = self.connection;
        let mut stopped = pin!(stop.cancelled());
        let mut ended = pin!(connection.ended());
        let mut ack_due = pin!(sleep_until(Instant::now()));
        let mut quiet_start = pin!(sleep(QUIET_START));
        let mut retry_in = None;
        loop {
            if batcher.has_ended() && self.resubscribe_at.is_none_or(|at| at <= Instant::now()) {
                self.resubscribe(&mut batcher).await?;
            }
            if let Some(delay) = retry_in {
                tokio::select! {
                    biased;
                    () = &mut stopped => return Ok(()),
                    () = sleep(delay) => {}
                }
                // Until all pending messages are finished, the pipeline does not wait for deliveries. It runs
                // deliveries that are already available together with the pending messages, to find out whether a
                // message or the store is at fault.
                let max = batch_size.saturating_sub(self.executor.len());
                self.accept(batcher.take_available(max)?);
            } else {
                tokio::select! {
                    biased;
                    () = &mut stopped => return self.acknowledge().await,
                    () = &mut ack_due, if self.owes_ack() => self.acknowledge().await?,
                    () = &mut quiet_start, if !self.parts.quiet_start_ended.load(Ordering::Relaxed) => {
                        self.parts.log_quiet_start();
                    }
                    () = sleep_until(self.route_at.unwrap_or_else(Instant::now)), if self.route_at.is_some() => {}
                    () = sleep_until(self.resubscribe_at.unwrap_or_else(Instant::now)), if self.resubscribe_at.is_some() => {}
                    batch = batcher.next_batch(batch_size, linger), if !batcher.is_exhausted() => {
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

    /// Tries to consume the queue again after it was deleted. Declares it, or only checks whether it exists
    /// if another service declares it. Between two checks, pending messages are executed.
    ///
    /// The new consumer has its own channel. The old channel is closed, and its remaining deliveries are
    /// never acknowledged: their messages were deleted with the queue. RabbitMQ would apply acknowledgements
    /// on the old channel to the new queue, which also numbers its messages from one. If the channel stayed
    /// open without them, RabbitMQ would close it at the consumer timeout.
    async fn resubscribe(&mut self, batcher: &mut DeliveryBatcher) -> Result<(), ConnectionError> {
        if self.resubscribe_at.is_none() {
            let pending = self.pending();
            warn!(pending, "ingest queue deleted; consuming it again");
            metrics::counter!(OUTAGES, "role" => ROLE).increment(1);
            self.finished.acknowledge_each(self.connection, &self.channel).await?;
            // Close the channel before the new consumer starts. Otherwise the broker's reply could be queued
            // behind deliveries of the new consumer, and they could wait for the byte budget, which only this
            // task releases.
            let closing = self.channel.close(REPLY_SUCCESS, "its queue is gone".into());
            self.connection.unless_ended(closing).await?;
        }
        match self.parts.try_subscribe(self.connection).await? {
            Some((channel, consumer)) => {
                self.channel = channel;
                self.resubscribe_at = None;
                batcher.replace_consumer(consumer);
            }
            None => self.resubscribe_at = Some(Instant::now() + CHECK_INTERVAL),
        }
        Ok(())
    }

    /// Whether finished messages wait for their acknowledgement.
    fn owes_ack(&self) -> bool {
        !self.finished.is_empty()
    }

    /// How many messages are not finished.
    fn pending(&self) -> usize {
        self.executor.len() + self.failed.len()
    }

    /// Decodes messages. Their commands become pending. An invalid message goes to the dead queue, or gets an
    /// error as its response if it is a request.
    fn accept(&mut self, deliveries: Vec<HeldDelivery>) {
        if !deliveries.is_empty() {
            self.parts.quiet_start_ended.store(true, Ordering::Relaxed);
        }
        let now = self.parts.clock.now();
        for delivery in deliveries {
            let published = PublicationTime::of(&delivery.properties, now);
            if let Some(published_at) = published.approximate {
                self.parts.lag.record(now.since(published_at));
            }
            let accepted_at = published.exact.unwrap_or(now);
            let request = self.request_of(&delivery);
            match (self.decode(&delivery, accepted_at), request) {
                (Ok((command, trace)), request) => {
                    let request = request.map(|request| (request, command.clone()));
                    let received = Received { delivery, request };
                    self.executor.push(Pending::new(received, command, trace));
                }
                (Err(error), Some(request)) => {
                    count("rejected", 1);
                    let result = Err(error.into());
                    self.responses.push(Response { delivery, request, result });
                }
                (Err(error), None) => {
                    let disposition = Disposition::DeadLetter(FailureReason::from(&error));
                    self.dispose(delivery, disposition, error.to_string());
                }
            }
        }
    }

    fn request_of(&self, delivery: &HeldDelivery) -> Option<Request> {
        let names = &self.parts.settings.mapping.patterns;
        Request::of(&Incoming::from(&**delivery), self.parts.topology.ingest_queue(), names)
    }

    fn decode(
        &self,
        delivery: &HeldDelivery,
        accepted_at: Timestamp,
    ) -> Result<(H::Command, Option<TraceParent>), InvalidMessage> {
        let incoming = Incoming::from(&**delivery);
        let mapping = &self.parts.settings.mapping;
        let queue = self.parts.topology.ingest_queue();
        let mut envelope = Envelope::open(&incoming, queue, &mapping.patterns)?;
        if envelope.pattern == Pattern::RevokeTokens && !self.parts.settings.revocations {
            return Err(InvalidMessage::RevocationNotAllowed);
        }
        if envelope.is_query() && !self.parts.settings.reads {
            return Err(InvalidMessage::ReadNotAllowed);
        }
        envelope.accepted_at = Some(accepted_at);
        let command = self.parts.handler.decode(&envelope, mapping)?;
        Ok((command, envelope.trace))
    }

    /// Executes pending commands, sends responses and publishes failed messages. If any commands are still
    /// pending, returns the delay before their next attempt.
    async fn process(&mut self) -> Result<Option<Duration>, ConnectionError> {
        if self.execute().await {
            self.backoff.reset();
        }
        let responses = std::mem::take(&mut self.responses);
        self.finished.extend(&self.parts.respond(responses).await);
        self.route_failed().await;
        if !self.executor.is_empty() {
            self.acknowledge().await?;
            return Ok(Some(self.backoff.next_delay()));
        }
        // A batch of acknowledgements is well below the prefetch, so that the broker never stops delivering
        // to wait for acknowledgements.
        let ack_batch = usize::from(self.parts.settings.prefetch / 4).max(1);
        if self.parts.settings.ack_delay.is_zero() || self.finished.len() >= ack_batch {
            self.acknowledge().await?;
        }
        Ok(None)
    }

    /// Runs the pending commands. Returns whether the store works; `true` if no command is pending.
    async fn execute(&mut self) -> bool {
        let expired = self.executor.take_expired(&self.parts.handler);
        count("expired", expired.len());
        for Received { delivery, request } in expired {
            match request {
                Some((request, _)) => {
                    let result =
                        Err(RequestError::Failed("the notification has expired".to_owned()));
                    self.responses.push(Response { delivery, request, result });
                }
                None => self.finished.extend([&delivery]),
            }
        }
        if self.executor.is_empty() {
            return true;
        }
        let run = self.executor.run(&self.parts.handler).await;
        self.log_pause(&run);
        let store_works = run.made_progress();
        count("done", run.finished.iter().filter(|(_, result)| result.is_ok()).count());
        for (Received { delivery, request }, result) in run.finished {
            // A failed request does not go to a retry queue, because its sender does not wait so long. It gets its
            // response at once.
            if let Some((request, command)) = request {
                if result.is_err() {
                    count("rejected", 1);
                }
                let result = result
                    .map(|()| command)
                    .map_err(|error| RequestError::Failed(error.to_string()));
                self.responses.push(Response { delivery, request, result });
                continue;
            }
            let attempts = attempts(&delivery.properties);
            let disposition = Disposition::of(&result, attempts, &self.parts.settings);
            let error = result.err().map(|error| error.to_string()).unwrap_or_default();
            self.dispose(delivery, disposition, error);
        }
        store_works
    }

    /// Queues the message for its acknowledgement, or for its publication to a retry queue or the dead queue.
    fn dispose(&mut self, delivery: HeldDelivery, disposition: Disposition, error: String) {
        match disposition.failure_reason() {
            None => self.finished.extend([&delivery]),
            Some(reason) => self.failed.push(FailedMessage { delivery, reason, error }),
        }
    }

    /// Logs once when the store becomes unavailable, and once when it works again.
    fn log_pause(&mut self, run: &BatchRun<Received<H::Command>>) {
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

    /// Publishes failed messages to their queues, except during the backoff after a failure.
    async fn route_failed(&mut self) {
        if self.failed.is_empty() || self.route_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let failed = std::mem::take(&mut self.failed);
        let Routed { confirmed, parked, unconfirmed, error } =
            self.parts.router.route(failed).await;
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
        // Each line has the reason and the error of its first message only.
        if let Some(FailedMessage { reason, error, .. }) = dead.first() {
            let reason = reason.as_str();
            warn!(messages = dead.len(), reason, error, "messages moved to the dead queue");
        }
        if let Some(FailedMessage { error, .. }) = retried.first() {
            warn!(messages = retried.len(), error, "messages moved to a retry queue");
        }
        let routed = confirmed.iter().chain(&parked);
        self.finished.extend(routed.map(|message| &message.delivery));
    }

    /// Acknowledges the finished messages.
    async fn acknowledge(&mut self) -> Result<(), ConnectionError> {
        if self.pending() == 0 {
            self.finished.acknowledge_all(self.connection, &self.channel).await
        } else {
            self.finished.acknowledge_each(self.connection, &self.channel).await
        }
    }
}

fn count(outcome: &'static str, messages: usize) {
    metrics::counter!(INGEST_MESSAGES, "outcome" => outcome).increment(messages as u64);
}
