use async_trait::async_trait;
use belfry_application::ports::{EventPublisher, OutboxEntry, PortError, PublishOutcome};
use belfry_domain::DomainEvent;
use tokio::sync::mpsc::Sender;

/// Publishes events to the devices of this process, in order. If events are created faster than they are
/// delivered, publishing waits and the remaining events stay in the outbox, on disk.
///
/// A confirmed event is lost if the process ends before delivery. Its devices catch up from the inbox when
/// they reconnect. No other process receives the event.
#[derive(Debug, Clone)]
pub struct InProcessEventPublisher(Sender<DomainEvent>);

impl InProcessEventPublisher {
    pub(crate) fn new(events: Sender<DomainEvent>) -> Self {
        Self(events)
    }
}

#[async_trait]
impl EventPublisher for InProcessEventPublisher {
    async fn publish(&self, entries: &[OutboxEntry]) -> PublishOutcome {
        for (confirmed, entry) in entries.iter().enumerate() {
            if self.0.send(entry.event.clone()).await.is_err() {
                let error = PortError::unavailable("in-process delivery has stopped");
                return PublishOutcome::failed_after(confirmed, error);
            }
        }
        PublishOutcome::all_confirmed(entries)
    }
}
