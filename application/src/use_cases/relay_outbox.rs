use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::ports::{EventPublisher, Outbox, OutboxEntry, OutboxLease, PortError, Published};

/// Tells what is stored: takes entries from the outbox in order, publishes them, and forgets each
/// once it was taken over. One relay is at work at a time, wherever it runs; the others stand by.
pub struct RelayOutbox {
    outbox: Arc<dyn Outbox>,
    events: Arc<dyn EventPublisher>,
    pace: Relay,
}

/// How a relay paces itself.
#[derive(Debug, Clone, Copy)]
pub struct Relay {
    /// The most entries published in one go.
    pub batch: usize,
    /// How long the wait for a new entry lasts when nobody calls.
    pub patience: Duration,
    /// How often a relay that stands by tries to take the lead. Bounds, with what the store needs
    /// to notice that a holder died, how long nobody leads.
    pub stand_by: Duration,
    /// The longest pause after a failure; pauses grow up to it.
    pub longest_pause: Duration,
}

impl Default for Relay {
    /// A few more than the 500 that are stored together at most: a look that shows all of those then
    /// shows that there are no others.
    fn default() -> Self {
        Self {
            batch: 512,
            patience: Duration::from_secs(1),
            stand_by: Duration::from_millis(250),
            longest_pause: Duration::from_secs(5),
        }
    }
}

impl RelayOutbox {
    const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

    /// Relays from that outbox to that publisher.
    pub fn new(outbox: Arc<dyn Outbox>, events: Arc<dyn EventPublisher>, pace: Relay) -> Self {
        Self { outbox, events, pace }
    }

    /// Relays until told to stop. A failure is a pause, never the end.
    pub async fn run(&self, stop: CancellationToken) {
        let mut pause = Self::SHORTEST_PAUSE;
        loop {
            let rest = match self.outbox.acquire_lease().await {
                Ok(None) => self.pace.stand_by,
                Ok(Some(mut lead)) => {
                    info!("relaying the outbox");
                    match self.relay(lead.as_mut(), &stop, &mut pause).await {
                        Ok(()) => return,
                        Err(error) => self.longer(&mut pause, &error),
                    }
                }
                Err(error) => self.longer(&mut pause, &error),
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// Relays for as long as the lead lasts; `Ok` when told to stop.
    async fn relay(
        &self,
        lease: &mut dyn OutboxLease,
        stop: &CancellationToken,
        pause: &mut Duration,
    ) -> Result<(), PortError> {
        while !stop.is_cancelled() {
            let entries = lease.pending(self.pace.batch).await?;
            let Published { confirmed, stopped_by } = self.publish(lease, &entries).await?;
            if confirmed > 0 || stopped_by.is_none() {
                *pause = Self::SHORTEST_PAUSE;
            }
            // A publisher that is down is no reason to give up the lead: another node's would be no
            // better off, and order is kept by staying.
            if let Some(error) = stopped_by {
                let rest = self.longer(pause, &error);
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(rest) => {}
                }
                continue;
            }
            // Where that was all there was, the store is not asked again before it calls.
            if entries.len() < self.pace.batch {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    more = lease.wait_for_entries(self.pace.patience) => more?,
                }
            }
        }
        Ok(())
    }

    /// Publishes entries, and forgets those that were taken over.
    async fn publish(
        &self,
        lease: &mut dyn OutboxLease,
        entries: &[OutboxEntry],
    ) -> Result<Published, PortError> {
        if entries.is_empty() {
            return Ok(Published::all(entries));
        }
        let published = self.events.publish(entries).await;
        let told: Vec<_> = entries[..published.confirmed].iter().map(|one| one.id).collect();
        if !told.is_empty() {
            lease.remove(&told).await?;
            debug!(count = told.len(), "outbox entries told");
        }
        Ok(published)
    }

    /// The pause to make now; the next one will be longer.
    fn longer(&self, pause: &mut Duration, error: &PortError) -> Duration {
        let rest = *pause;
        warn!(error = error as &dyn Error, ?rest, "the outbox waits");
        *pause = (rest * 2).min(self.pace.longest_pause);
        rest
    }
}

#[cfg(test)]
mod tests {
    use mockall::Sequence;

    use super::*;
    use crate::ports::InboxRepository;
    use crate::ports::event_publisher::MockEventPublisher;
    use crate::ports::outbox::{MockOutbox, MockOutboxLease};
    use crate::testing::{InMemoryStore, RecordingPublisher, a_draft, epoch};

    fn quick() -> Relay {
        Relay { patience: Duration::from_millis(20), ..Relay::default() }
    }

    async fn emptied(store: &InMemoryStore) {
        while store.backlog().await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn what_is_stored_is_told_in_order_and_forgotten() {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let drafts = (0..5).map(|n| a_draft("ada", &format!("n{n}"))).collect();
        store.create(drafts).await.unwrap();
        let events = Arc::new(RecordingPublisher::default());
        let relay = RelayOutbox::new(store.clone(), events.clone(), Relay { batch: 2, ..quick() });
        let stop = CancellationToken::new();

        let wait = async {
            emptied(&store).await;
            stop.cancel();
        };
        tokio::join!(relay.run(stop.clone()), wait);

        let revisions: Vec<_> = events.published().iter().map(|e| e.event.revision.get()).collect();
        assert_eq!(revisions, [1, 2, 3, 4, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_is_kept_until_it_is_taken_over() {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let drafts = (0..3).map(|n| a_draft("ada", &format!("n{n}"))).collect();
        store.create(drafts).await.unwrap();
        let mut events = MockEventPublisher::new();
        let mut attempts = 0;
        events.expect_publish().times(4).returning(move |entries| {
            attempts += 1;
            match attempts {
                1 | 2 => Published::stopped(0, PortError::unavailable("the broker is down")),
                3 => Published::stopped(1, PortError::unavailable("cut in the middle")),
                _ => Published::all(entries),
            }
        });
        let relay = RelayOutbox::new(store.clone(), Arc::new(events), quick());
        let stop = CancellationToken::new();
        let wait = async {
            emptied(&store).await;
            stop.cancel();
        };
        tokio::join!(relay.run(stop.clone()), wait);
    }

    #[tokio::test]
    async fn a_store_that_has_shown_all_is_not_asked_again_before_it_calls() {
        let store = InMemoryStore::new(epoch("e1"));
        store.create(vec![a_draft("ada", "n1"), a_draft("ada", "n2")]).await.unwrap();
        let entries = store.acquire_lease().await.unwrap().unwrap().pending(2).await.unwrap();
        let stop = CancellationToken::new();
        let mut outbox = MockOutbox::new();
        let told_to_stop = stop.clone();
        outbox.expect_acquire_lease().once().return_once(move || {
            let (mut lead, mut order) = (MockOutboxLease::new(), Sequence::new());
            let (first, second) = (vec![entries[0].clone()], vec![entries[1].clone()]);
            for shown in [first, second] {
                lead.expect_pending().once().in_sequence(&mut order).return_once(|_| Ok(shown));
                lead.expect_remove().once().in_sequence(&mut order).return_once(|_| Ok(()));
                lead.expect_wait_for_entries()
                    .once()
                    .in_sequence(&mut order)
                    .return_once(|_| Ok(()));
            }
            lead.expect_pending().once().in_sequence(&mut order).return_once(move |_| {
                told_to_stop.cancel();
                Ok(Vec::new())
            });
            lead.expect_wait_for_entries().returning(|_| Ok(()));
            Ok(Some(Box::new(lead)))
        });
        let events = Arc::new(RecordingPublisher::default());
        RelayOutbox::new(Arc::new(outbox), events.clone(), quick()).run(stop).await;
        assert_eq!(events.published().len(), 2);
    }

    #[tokio::test]
    async fn only_one_relay_leads() {
        let store = InMemoryStore::new(epoch("e1"));
        let lease = store.acquire_lease().await.unwrap();
        assert!(lease.is_some());
        assert!(store.acquire_lease().await.unwrap().is_none());
        drop(lease);
        assert!(store.acquire_lease().await.unwrap().is_some());
    }
}
