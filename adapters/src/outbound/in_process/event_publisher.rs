use std::sync::Arc;

use async_trait::async_trait;
use belfry_application::ports::{EventPublisher, OutboxEntry, OutboxId, PortError, PublishOutcome};
use belfry_domain::Timestamp;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::Sender;

use crate::limits::ByteLimiter;

/// Publishes events to the devices of this process, in order. If events are created faster than they are
/// delivered, publishing waits and the remaining events stay in the outbox, on disk.
///
/// A confirmed event is lost if the process ends before delivery. Its devices catch up from the inbox when
/// they reconnect. No other process receives the event.
#[derive(Debug, Clone)]
pub struct InProcessEventPublisher {
    events: Sender<PublishedEvent>,
    bodies: ByteLimiter,
}

/// An event on its way to its consumer in this process.
#[derive(Debug)]
pub(crate) struct PublishedEvent {
    /// For the log.
    pub(crate) entry: OutboxId,
    /// When the change was written to the store.
    pub(crate) written_at: Timestamp,
    /// The event in its wire form.
    pub(crate) body: Arc<str>,
    /// Held until the event is delivered.
    pub(crate) queued_bytes: OwnedSemaphorePermit,
}

impl InProcessEventPublisher {
    /// At most `max_bytes` of bodies are queued, or one larger body.
    pub(crate) fn new(events: Sender<PublishedEvent>, max_bytes: u32) -> Self {
        Self { events, bodies: ByteLimiter::new(max_bytes) }
    }
}

#[async_trait]
impl EventPublisher for InProcessEventPublisher {
    async fn publish(&self, entries: &[OutboxEntry]) -> PublishOutcome {
        for (confirmed, entry) in entries.iter().enumerate() {
            let queued_bytes = self.bodies.acquire(entry.body_bytes()).await;
            let (body, written_at) = (entry.body.clone(), entry.written_at);
            let event = PublishedEvent { entry: entry.id, written_at, body, queued_bytes };
            if self.events.send(event).await.is_err() {
                let error = PortError::unavailable("in-process delivery has stopped");
                return PublishOutcome::failed_after(confirmed, error);
            }
        }
        PublishOutcome::all_confirmed(entries)
    }
}
