mod pipeline;

use std::sync::Arc;

use belfry_application::ports::Clock;
use lapin::{Channel, Consumer};
use tokio_util::sync::CancellationToken;

use self::pipeline::Pipeline;
use super::delivery_batcher::DeliveryBatcher;
use super::failure_router::FailureRouter;
use super::ingest_settings::IngestSettings;
use super::message_handler::MessageHandler;
use super::retry_queues::RetryQueues;
use crate::amqp::{
    AmqpSettings, BrokerConnection, ConnectedTask, ConnectionError, ConnectionStatus, Publisher,
    Topology, close_channel, run_with_reconnect, subscribe,
};

/// Consumes the ingest queue and executes its messages. Returns messages from the retry queues.
pub struct Ingest<H> {
    amqp: AmqpSettings,
    topology: Topology,
    settings: IngestSettings,
    router: FailureRouter,
    retry_queues: RetryQueues,
    handler: H,
}

impl<H: MessageHandler> Ingest<H> {
    /// `publisher` publishes failed messages to the retry queues and the dead queue, and returns them.
    pub fn new(
        amqp: AmqpSettings,
        topology: Topology,
        settings: IngestSettings,
        publisher: &Publisher,
        clock: Arc<dyn Clock>,
        handler: H,
    ) -> Self {
        let retry_queues = RetryQueues::new(&amqp, topology.clone(), publisher, clock.clone());
        let router = FailureRouter::new(publisher, topology.clone(), clock);
        Self { amqp, topology, settings, router, retry_queues, handler }
    }

    /// Consumes until `stop`. The current batch is then finished and acknowledged; messages that only wait
    /// return to the queue.
    ///
    /// A deleted queue loses its messages, except those that were delivered to this process. They are
    /// executed all the same while the queue is declared and consumed again. They are lost only if this
    /// connection ends or `stop` is cancelled before they are finished.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::join!(
            run_with_reconnect(self, &self.amqp, &stop),
            run_with_reconnect(&self.retry_queues, &self.amqp, &stop),
        );
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
