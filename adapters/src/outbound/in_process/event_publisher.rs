use async_trait::async_trait;
use belfry_application::ports::{EventPublisher, OutboxEntry, PortError, PublishOutcome};
use belfry_domain::DomainEvent;
use tokio::sync::mpsc::Sender;

/// Hands events to this process's own devices, in order. Where they take them slower than they come,
/// publishing waits: what is not handed over yet stays in the outbox, on disk.
///
/// Taking over here means for as long as the process lives. That is enough for its devices, which
/// live no longer and catch up from the inbox when they come back; but nobody else hears of it.
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
        for (handed_over, entry) in entries.iter().enumerate() {
            if self.0.send(entry.event.clone()).await.is_err() {
                let error = PortError::unavailable("delivery within the process has stopped");
                return PublishOutcome::failed_after(handed_over, error);
            }
        }
        PublishOutcome::all_confirmed(entries)
    }
}
