use std::collections::BTreeMap;
use std::sync::Arc;

use belfry_application::ports::Clock;

use super::headers::{attempts, with_failure};
use super::reason::FailureReason;
use crate::amqp::{
    ConfirmChannel, Confirmation, HeldDelivery, Publish, PublishError, Publisher, RequiredTopology,
    Topology,
};
use crate::wire::Rfc3339;

/// A message for a retry queue or the dead queue.
pub(super) struct FailedMessage {
    pub(super) delivery: HeldDelivery,
    /// With [`FailureReason::Failed`] the message goes to a retry queue, with any other reason to the dead
    /// queue.
    pub(super) reason: FailureReason,
    pub(super) error: String,
}

impl FailedMessage {
    pub(super) fn is_dead(&self) -> bool {
        self.reason != FailureReason::Failed
    }

    fn queue<'a>(&self, topology: &'a Topology) -> &'a str {
        if self.is_dead() {
            topology.dead_queue()
        } else {
            topology.retry_queue(attempts(&self.delivery.properties) + 1)
        }
    }
}

/// Publishes failed messages to the retry queues and the dead queue.
///
/// While the dead queue is full and rejects messages (`x-overflow: reject-publish`), the messages for it are
/// parked in the last retry queue, so that they do not block others. They return to the ingest queue after
/// its delay, fail again, and go to the dead queue.
pub(super) struct FailureRouter {
    channel: ConfirmChannel,
    topology: Topology,
    clock: Arc<dyn Clock>,
}

/// The result of [`FailureRouter::route`].
#[derive(Default)]
pub(super) struct Routed {
    /// Messages that their queues have confirmed.
    pub(super) confirmed: Vec<FailedMessage>,
    /// Messages for the dead queue that the last retry queue has confirmed instead.
    pub(super) parked: Vec<FailedMessage>,
    /// Messages that must be published again.
    pub(super) unconfirmed: Vec<FailedMessage>,
    /// Why messages are unconfirmed. If publishing to several queues failed, the error of the last one.
    pub(super) error: Option<PublishError>,
}

impl FailureRouter {
    pub(super) fn new(publisher: &Publisher, topology: Topology, clock: Arc<dyn Clock>) -> Self {
        Self { channel: publisher.channel(RequiredTopology::RetryAndDead), topology, clock }
    }

    /// Publishes the messages to their queues and awaits the confirms. The order is kept only within a queue.
    pub(super) async fn route(&self, messages: Vec<FailedMessage>) -> Routed {
        // One publish per queue, so that a missing queue does not fail the messages for other queues.
        let mut by_queue: BTreeMap<&str, Vec<FailedMessage>> = BTreeMap::new();
        for message in messages {
            by_queue.entry(message.queue(&self.topology)).or_default().push(message);
        }
        let mut routed = Routed::default();
        for (queue, messages) in by_queue {
            let (confirmed, mut unconfirmed, mut error) = self.publish(queue, messages).await;
            routed.confirmed.extend(confirmed);
            if queue == self.topology.dead_queue() && matches!(error, Some(PublishError::Nacked)) {
                let last_retry_queue = self.topology.retry_queue(u32::MAX);
                (routed.parked, unconfirmed, error) =
                    self.publish(last_retry_queue, unconfirmed).await;
            }
            routed.unconfirmed.extend(unconfirmed);
            routed.error = error.or(routed.error);
        }
        routed
    }

    /// Publishes messages to a queue. Returns the confirmed messages, the unconfirmed ones, and the error if
    /// there are any of the latter.
    async fn publish(
        &self,
        queue: &str,
        mut messages: Vec<FailedMessage>,
    ) -> (Vec<FailedMessage>, Vec<FailedMessage>, Option<PublishError>) {
        let publishes: Vec<_> =
            messages.iter().map(|message| self.prepare(queue, message)).collect();
        let Confirmation { confirmed, error } = self.channel.publish(&publishes).await;
        drop(publishes);
        let unconfirmed = messages.split_off(confirmed);
        (messages, unconfirmed, error)
    }

    fn prepare<'a>(&self, queue: &'a str, message: &'a FailedMessage) -> Publish<'a> {
        let FailedMessage { delivery, reason, error } = message;
        let now = Rfc3339(self.clock.now()).to_string();
        Publish {
            exchange: "",
            routing_key: queue,
            mandatory: true,
            properties: with_failure(delivery, reason.as_str(), error, &now),
            body: &delivery.data,
        }
    }
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;
    use lapin::message::Delivery;

    use super::super::disposition::Disposition;
    use super::super::headers;
    use super::super::ingest_settings::IngestSettings;
    use super::super::message_handler::HandlerError;
    use super::*;

    #[test]
    fn message_goes_through_all_retry_queues_before_the_dead_queue() {
        let topology = Topology::new(&crate::amqp::TopologySettings::new("a")).unwrap();
        let settings = IngestSettings::default();
        let mut queues = vec![];
        let mut properties = BasicProperties::default();
        for _ in 0..6 {
            let mut delivery = Delivery::mock(1, "".into(), "".into(), false, vec![]);
            delivery.properties = properties;
            let result = Err(HandlerError::Failed("down".into()));
            let attempts = attempts(&delivery.properties);
            let disposition = Disposition::of(&result, attempts, &settings);
            let reason = disposition.failure_reason().expect("the result is an error");
            let message =
                FailedMessage { delivery: delivery.into(), reason, error: "down".to_owned() };
            queues.push(message.queue(&topology).to_owned());
            properties = with_failure(&message.delivery, reason.as_str(), "down", "now");
        }
        let expected = ["retry.1s", "retry.5s", "retry.30s", "retry.120s", "retry.120s", "dead"];
        assert_eq!(queues, expected.map(|suffix| format!("belfry.ingest.{suffix}")));
        let headers = properties.headers().as_ref().unwrap();
        assert_eq!(headers::text_of(headers, headers::REASON), Some("gave_up"));
    }
}
