//! Event delivery within the process, used when no broker is configured.

use std::num::NonZeroUsize;

use belfry_application::use_cases::DeliverEvent;
use belfry_domain::DomainEvent;
use tokio::sync::mpsc::{Receiver, channel};
use tokio_util::sync::CancellationToken;

use crate::outbound::in_process::InProcessEventPublisher;

/// Delivers the events of an [`InProcessEventPublisher`], in order.
pub struct InProcessEvents {
    events: Receiver<DomainEvent>,
    deliver: DeliverEvent,
}

impl InProcessEvents {
    /// A publisher and its consumer. Publishing waits while `capacity` events are queued.
    pub fn new(capacity: NonZeroUsize, deliver: DeliverEvent) -> (InProcessEventPublisher, Self) {
        let (sender, events) = channel(capacity.get());
        (InProcessEventPublisher::new(sender), Self { events, deliver })
    }

    /// Delivers events until `stop` or until the publisher is dropped, then drains the queue.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                event = self.events.recv() => match event {
                    Some(event) => self.deliver.run(event).await,
                    None => return,
                }
            }
        }
        self.events.close();
        while let Some(event) = self.events.recv().await {
            self.deliver.run(event).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use belfry_application::ports::{EventPublisher, OutboxEntry, OutboxId};
    use belfry_application::testing::{RecordingDelivery, a_draft, at, user};
    use belfry_domain::{Change, Revision, UnreadCount};

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
                OutboxEntry { id: OutboxId(1), event, written_at: at(0), trace: None }
            })
            .collect()
    }

    fn channel_with(
        capacity: usize,
    ) -> (InProcessEventPublisher, InProcessEvents, Arc<RecordingDelivery>) {
        let delivery = Arc::new(RecordingDelivery::default());
        let capacity = NonZeroUsize::new(capacity).unwrap();
        let (publisher, events) =
            InProcessEvents::new(capacity, DeliverEvent::new(delivery.clone()));
        (publisher, events, delivery)
    }

    fn revisions(delivery: &RecordingDelivery) -> Vec<u64> {
        let delivered = delivery.delivered();
        delivered.iter().map(|(_, batch)| batch.revision.unwrap().get()).collect()
    }

    #[tokio::test]
    async fn published_events_are_delivered_in_order() {
        let (publisher, events, delivery) = channel_with(2);
        let stop = CancellationToken::new();
        let running = tokio::spawn(events.run(stop.clone()));
        let outcome = publisher.publish(&entries(20)).await;
        assert_eq!(outcome.confirmed, 20);
        stop.cancel();
        running.await.unwrap();
        assert_eq!(revisions(&delivery), (1..=20).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn publishing_waits_while_the_queue_is_full() {
        let (publisher, events, delivery) = channel_with(2);
        let entries = entries(3);
        let limit = Duration::from_mins(1);
        let waited = tokio::time::timeout(limit, publisher.publish(&entries)).await;
        assert!(waited.is_err(), "two fit, the third waits");
        let stop = CancellationToken::new();
        stop.cancel();
        events.run(stop).await;
        assert_eq!(revisions(&delivery), [1, 2], "queued events are delivered");
    }

    #[tokio::test]
    async fn publishing_after_shutdown_confirms_nothing() {
        let (publisher, events, _) = channel_with(2);
        drop(events);
        let outcome = publisher.publish(&entries(3)).await;
        assert_eq!(outcome.confirmed, 0);
        assert!(outcome.error.is_some());
    }
}
