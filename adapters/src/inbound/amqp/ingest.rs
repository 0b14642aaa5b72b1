mod finished_deliveries;
mod parts;
mod pipeline;
mod responses;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use belfry_application::ports::Clock;
use tokio_util::sync::CancellationToken;

use self::parts::PipelineParts;
use self::pipeline::{Pipeline, ROLE};
use super::delivery_batcher::DeliveryBatcher;
use super::failure_router::FailureRouter;
use super::ingest_settings::IngestSettings;
use super::message_handler::MessageHandler;
use super::retry_queues::RetryQueues;
use crate::amqp::metrics::INGEST_LAG;
use crate::amqp::{
    AmqpSettings, BrokerConnection, ConnectedTask, ConnectionError, ConnectionStatus, Publisher,
    RequiredTopology, Topology, close_channel, run_with_reconnect,
};

/// Consumes the ingest queue and executes its messages. Also moves messages from the retry queues back to the
/// ingest queue when their delay is over.
pub struct Ingest<H> {
    amqp: AmqpSettings,
    parts: PipelineParts<H>,
    retry_queues: RetryQueues,
}

impl<H: MessageHandler> Ingest<H> {
    /// `publisher` publishes failed messages to the retry queues or the dead queue, due messages to the
    /// ingest queue, and the responses to requests.
    pub fn new(
        amqp: AmqpSettings,
        topology: Topology,
        settings: IngestSettings,
        publisher: &Publisher,
        clock: Arc<dyn Clock>,
        handler: H,
    ) -> Self {
        let retry_queues = RetryQueues::new(&amqp, topology.clone(), publisher, clock.clone());
        let router = FailureRouter::new(publisher, topology.clone(), clock.clone());
        let replies = publisher.channel(RequiredTopology::Replies);
        let parts = PipelineParts {
            topology,
            replies,
            settings,
            router,
            handler,
            clock,
            lag: metrics::histogram!(INGEST_LAG),
            quiet_start_ended: AtomicBool::new(false),
            missing_queue_logged: AtomicBool::new(false),
        };
        Self { amqp, parts, retry_queues }
    }

    /// Consumes until `stop`. The current batch is then finished and acknowledged. All other messages return
    /// to the queue.
    ///
    /// If the ingest queue is deleted, its messages are lost, except those that were delivered to this process.
    /// These are still executed, while the queue is declared and consumed again. They are lost only if the
    /// connection ends or `stop` is cancelled before they are finished.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::join!(
            run_with_reconnect(self, &self.amqp, &stop),
            run_with_reconnect(&self.retry_queues, &self.amqp, &stop),
        );
    }
}

impl<H: MessageHandler> ConnectedTask for Ingest<H> {
    const NAME: &'static str = ROLE;

    fn max_held_bytes(&self) -> usize {
        self.parts.settings.prefetch_bytes
    }

    async fn serve(
        &self,
        connection: &Arc<BrokerConnection>,
        status: &ConnectionStatus,
        stop: &CancellationToken,
    ) -> Result<(), ConnectionError> {
        let subscribing = stop.run_until_cancelled(self.parts.subscribe(connection));
        let Some(subscribed) = subscribing.await else { return Ok(()) };
        let (channel, consumer) = subscribed?;
        status.set_connected();
        let mut pipeline = Pipeline::new(&self.parts, connection, channel);
        pipeline.run(DeliveryBatcher::new(consumer, connection.budget().clone()), stop).await?;
        // At its limit, the stream would not read the broker's reply to the close behind further deliveries.
        connection.budget().lift();
        close_channel(&pipeline.channel).await;
        Ok(())
    }
}
