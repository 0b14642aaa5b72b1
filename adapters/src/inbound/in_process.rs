//! Event delivery within the process, for a single node: it needs no broker to reach its own devices.

use std::error::Error;
use std::num::NonZeroUsize;
use std::sync::Arc;

use belfry_application::ports::{Clock, OutboxId};
use belfry_application::use_cases::DeliverEvent;
use tokio::sync::mpsc::{Receiver, channel};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::socket_latency::SocketLatency;
use crate::outbound::in_process::{InProcessEventPublisher, PublishedEvent};
use crate::wire::EventForm;

/// The maximum size of the queue between a publisher and its consumer.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimit {
    /// The maximum number of events.
    pub events: NonZeroUsize,
    /// The maximum number of bytes of all bodies together. A single larger body waits until the queue is empty.
    pub bytes: u32,
}

/// Delivers the events of an [`InProcessEventPublisher`], in order.
pub struct InProcessEvents {
    events: Receiver<PublishedEvent>,
    deliver: DeliverEvent,
    latency: SocketLatency,
}

impl InProcessEvents {
    /// Creates a publisher and its consumer. Publishing waits while the queue is full.
    pub fn new(
        limit: QueueLimit,
        deliver: DeliverEvent,
        clock: Arc<dyn Clock>,
    ) -> (InProcessEventPublisher, Self) {
        let (sender, events) = channel(limit.events.get());
        let latency = SocketLatency::since_commit(clock);
        (InProcessEventPublisher::new(sender, limit.bytes), Self { events, deliver, latency })
    }

    /// Delivers events until `stop` or until the publisher is dropped. Then delivers the events that are
    /// still queued.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                event = self.events.recv() => match event {
                    Some(event) => self.deliver(event).await,
                    None => return,
                }
            }
        }
        self.events.close();
        while let Some(event) = self.events.recv().await {
            self.deliver(event).await;
        }
    }

    /// Delivers an event. An event that cannot be decoded is skipped, as in the consumer of a node's queue.
    /// The user's next event then has a gap in the revisions before it, and the devices catch up from the
    /// store.
    async fn deliver(&self, event: PublishedEvent) {
        // `_queued` is a permit. It is returned at the end, after the delivery.
        let PublishedEvent { entry: OutboxId(entry), written_at, body, queued_bytes: _queued } =
            event;
        match EventForm::read(body.as_bytes()) {
            Ok(event) => {
                let devices = self.deliver.run(event).await;
                self.latency.record(Some(written_at), devices);
            }
            Err(error) => {
                let error = &error as &dyn Error;
                warn!(entry, error, "skipping an outbox entry that cannot be decoded");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use belfry_application::ports::{EventHeader, EventPublisher, OutboxEntry};
    use belfry_application::testing::{ManualClock, RecordingDelivery, a_draft, at, user};
    use belfry_domain::{Change, DomainEvent, Revision, UnreadCount};

    use super::*;

    fn entries(count: u64) -> Vec<OutboxEntry> {
        (1..=count)
            .map(|number| {
                let revision = Revision::new(number);
                let notification =
                    a_draft("ada", &format!("n{number}")).into_notification(revision);
                let change = Change::Created(Box::new(notification));
                let unread = UnreadCount::new(number);
                let event = DomainEvent { user: user("ada"), revision, unread, change };
                OutboxEntry {
                    id: OutboxId(1),
                    header: EventHeader::of(&event),
                    body: EventForm::write(&event).into(),
                    written_at: at(0),
                    trace: None,
                }
            })
            .collect()
    }

    fn channel_with(
        events: usize,
        bytes: u32,
    ) -> (InProcessEventPublisher, InProcessEvents, Arc<RecordingDelivery>) {
        let delivery = Arc::new(RecordingDelivery::default());
        let limit = QueueLimit { events: NonZeroUsize::new(events).unwrap(), bytes };
        let clock = Arc::new(ManualClock::at(0));
        let (publisher, events) =
            InProcessEvents::new(limit, DeliverEvent::new(delivery.clone()), clock);
        (publisher, events, delivery)
    }

    fn revisions(delivery: &RecordingDelivery) -> Vec<u64> {
        let delivered = delivery.delivered();
        delivered.iter().map(|(_, batch)| batch.revision.unwrap().get()).collect()
    }

    #[tokio::test]
    async fn published_events_are_delivered_in_order() {
        let (publisher, events, delivery) = channel_with(2, u32::MAX);
        let stop = CancellationToken::new();
        let running = tokio::spawn(events.run(stop.clone()));
        let outcome = publisher.publish(&entries(20)).await;
        assert_eq!(outcome.confirmed, 20);
        stop.cancel();
        running.await.unwrap();
        assert_eq!(revisions(&delivery), (1..=20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn event_that_cannot_be_decoded_is_skipped() {
        let (publisher, events, delivery) = channel_with(3, u32::MAX);
        let mut entries = entries(3);
        entries[1].body = r#"{"pattern":"notification.archived","data":{}}"#.into();
        assert_eq!(publisher.publish(&entries).await.confirmed, 3);
        drop(publisher);
        events.run(CancellationToken::new()).await;
        assert_eq!(revisions(&delivery), [1, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn publishing_waits_while_the_queue_is_full() {
        let (publisher, events, delivery) = channel_with(2, u32::MAX);
        let entries = entries(3);
        let limit = Duration::from_mins(1);
        let waited = tokio::time::timeout(limit, publisher.publish(&entries)).await;
        assert!(waited.is_err(), "two fit, the third waits");
        let stop = CancellationToken::new();
        stop.cancel();
        events.run(stop).await;
        assert_eq!(revisions(&delivery), [1, 2], "queued events are delivered");
    }

    #[tokio::test(start_paused = true)]
    async fn publishing_waits_while_the_queue_has_its_maximum_of_bytes() {
        let entries = entries(3);
        let total_bytes: usize = entries.iter().map(OutboxEntry::body_bytes).sum();
        let limit = u32::try_from(total_bytes - 1).unwrap();
        let (publisher, events, delivery) = channel_with(10, limit);
        let publishing = tokio::spawn(async move { publisher.publish(&entries).await });
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(!publishing.is_finished(), "two fit, the third waits");
        events.run(CancellationToken::new()).await;
        assert_eq!(publishing.await.unwrap().confirmed, 3);
        assert_eq!(revisions(&delivery), [1, 2, 3]);
    }

    #[tokio::test]
    async fn event_larger_than_the_byte_limit_is_delivered() {
        let (publisher, events, delivery) = channel_with(10, 1);
        let publishing = async move { publisher.publish(&entries(3)).await };
        let (outcome, ()) = tokio::join!(publishing, events.run(CancellationToken::new()));
        assert_eq!(outcome.confirmed, 3);
        assert_eq!(revisions(&delivery), [1, 2, 3]);
    }

    #[tokio::test]
    async fn publishing_after_shutdown_confirms_nothing() {
        let (publisher, events, _) = channel_with(2, u32::MAX);
        drop(events);
        let outcome = publisher.publish(&entries(3)).await;
        assert_eq!(outcome.confirmed, 0);
        assert!(outcome.error.is_some());
    }
}
