use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::Backoff;
use crate::ports::{
    EventPublisher, Outbox, OutboxEntry, OutboxLease, Page, PageLimit, PortError, PublishOutcome,
};

/// Publishes stored events: reads entries from the outbox in order, publishes them, and removes each
/// after its confirm. Only one node relays at a time, the holder of the outbox lease.
pub struct RelayOutbox {
    outbox: Arc<dyn Outbox>,
    events: Arc<dyn EventPublisher>,
    settings: RelaySettings,
}

/// Batch size and timing of a relay.
#[derive(Debug, Clone, Copy)]
pub struct RelaySettings {
    /// The maximum size of the entries published at a time.
    pub batch: PageLimit,
    /// The maximum wait for a new entry if no commit wakes the relay.
    pub patience: Duration,
    /// The interval at which a node without the lease tries to acquire it. If the holder dies, no node relays
    /// until the store has noticed that, and then for at most this interval.
    pub lease_retry_interval: Duration,
    /// The maximum delay after a failure. Delays double up to this maximum.
    pub max_backoff: Duration,
}

impl Default for RelaySettings {
    /// One transaction stores at most 500 entries, so a batch has room for all of them unless they are large.
    /// While a batch is published, its bodies are in memory about three times.
    fn default() -> Self {
        Self {
            batch: PageLimit { rows: 512, bytes: 2 * 1024 * 1024 },
            patience: Duration::from_secs(1),
            lease_retry_interval: Duration::from_millis(250),
            max_backoff: Duration::from_secs(5),
        }
    }
}

impl RelayOutbox {
    const MIN_BACKOFF: Duration = Duration::from_millis(50);

    /// Relays from `outbox` to `events`.
    pub fn new(
        outbox: Arc<dyn Outbox>,
        events: Arc<dyn EventPublisher>,
        settings: RelaySettings,
    ) -> Self {
        Self { outbox, events, settings }
    }

    /// Relays until `stop` is cancelled. Retries after every failure.
    pub async fn run(&self, stop: CancellationToken) {
        let mut backoff = Backoff::new(Self::MIN_BACKOFF, self.settings.max_backoff);
        loop {
            let failure = match self.outbox.acquire_lease().await {
                Ok(None) => None,
                Ok(Some(mut lease)) => {
                    info!("outbox lease acquired; this node relays events");
                    match self.relay(lease.as_mut(), &stop, &mut backoff).await {
                        Ok(()) => return,
                        Err(error) => Some(error),
                    }
                }
                Err(error) => Some(error),
            };
            let retry_in = match failure {
                None => self.settings.lease_retry_interval,
                Some(error) => {
                    let retry_in = backoff.next_delay();
                    warn!(
                        error = &error as &dyn Error,
                        ?retry_in,
                        "outbox relay paused: store failed"
                    );
                    retry_in
                }
            };
            if stop.run_until_cancelled(sleep(retry_in)).await.is_none() {
                return;
            }
        }
    }

    /// Relays as long as the lease is valid. Returns `Ok` when `stop` is cancelled.
    async fn relay(
        &self,
        lease: &mut dyn OutboxLease,
        stop: &CancellationToken,
        backoff: &mut Backoff,
    ) -> Result<(), PortError> {
        while !stop.is_cancelled() {
            let Page { items: entries, more } = lease.pending(self.settings.batch).await?;
            let PublishOutcome { confirmed, error } = self.publish(lease, &entries).await?;
            if confirmed > 0 || error.is_none() {
                backoff.reset();
            }
            // Keep the lease while the publisher fails: the publisher of another node would fail too, and
            // keeping the lease preserves the order.
            if let Some(error) = error {
                let retry_in = backoff.next_delay();
                warn!(
                    error = &error as &dyn Error,
                    ?retry_in,
                    "outbox relay paused: publish failed"
                );
                if stop.run_until_cancelled(sleep(retry_in)).await.is_none() {
                    return Ok(());
                }
                continue;
            }
            if !more {
                let wait = lease.wait_for_entries(self.settings.patience);
                match stop.run_until_cancelled(wait).await {
                    Some(waited) => waited?,
                    None => return Ok(()),
                }
            }
        }
        Ok(())
    }

    /// Publishes entries and removes the confirmed ones.
    async fn publish(
        &self,
        lease: &mut dyn OutboxLease,
        entries: &[OutboxEntry],
    ) -> Result<PublishOutcome, PortError> {
        if entries.is_empty() {
            return Ok(PublishOutcome::all_confirmed(entries));
        }
        let outcome = self.events.publish(entries).await;
        let confirmed: Vec<_> = entries[..outcome.confirmed].iter().map(|entry| entry.id).collect();
        if !confirmed.is_empty() {
            lease.remove(&confirmed).await?;
            debug!(count = confirmed.len(), "outbox entries published");
        }
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use mockall::Sequence;
    use parking_lot::Mutex;
    use tokio::time::Instant;

    use super::*;
    use crate::ports::InboxRepository;
    use crate::ports::event_publisher::MockEventPublisher;
    use crate::ports::outbox::{MockOutbox, MockOutboxLease};
    use crate::testing::{InMemoryStore, RecordingPublisher, a_draft, epoch};

    fn quick() -> RelaySettings {
        RelaySettings { patience: Duration::from_millis(20), ..RelaySettings::default() }
    }

    async fn wait_until_empty(store: &InMemoryStore) {
        while store.backlog().await.unwrap().entries > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn stored_entries_are_published_unchanged_in_order_and_removed() {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let drafts = (0..5).map(|n| a_draft("ada", &format!("n{n}"))).collect();
        store.create(drafts).await.unwrap();
        let expected = store
            .acquire_lease()
            .await
            .unwrap()
            .unwrap()
            .pending(PageLimit::rows(9))
            .await
            .unwrap()
            .items;
        let events = Arc::new(RecordingPublisher::default());
        let relay = RelayOutbox::new(
            store.clone(),
            events.clone(),
            RelaySettings { batch: PageLimit::rows(2), ..quick() },
        );
        let stop = CancellationToken::new();

        let wait = async {
            wait_until_empty(&store).await;
            stop.cancel();
        };
        tokio::join!(relay.run(stop.clone()), wait);

        assert_eq!(events.published(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn entry_is_retried_with_backoff_until_it_is_confirmed() {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let drafts = (0..3).map(|n| a_draft("ada", &format!("n{n}"))).collect();
        store.create(drafts).await.unwrap();
        let mut events = MockEventPublisher::new();
        let attempts_at = Arc::new(Mutex::new(Vec::new()));
        let recorded = attempts_at.clone();
        events.expect_publish().times(4).returning(move |entries| {
            let mut attempts_at = recorded.lock();
            attempts_at.push(Instant::now());
            match attempts_at.len() {
                1 | 2 => {
                    PublishOutcome::failed_after(0, PortError::unavailable("the broker is down"))
                }
                3 => PublishOutcome::failed_after(
                    1,
                    PortError::unavailable("connection lost half-way"),
                ),
                _ => PublishOutcome::all_confirmed(entries),
            }
        });
        let relay = RelayOutbox::new(store.clone(), Arc::new(events), quick());
        let stop = CancellationToken::new();
        let wait = async {
            wait_until_empty(&store).await;
            stop.cancel();
        };
        tokio::join!(relay.run(stop.clone()), wait);

        let delays: Vec<_> =
            attempts_at.lock().windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
        // The partial success of the third attempt resets the backoff.
        let limits = [50, 100, 50];
        for (delay, limit) in delays.iter().zip(limits) {
            assert!((limit * 3 / 4..=limit + 1).contains(delay), "{delays:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn relay_does_not_wait_while_more_entries_follow() {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let drafts = (0..6).map(|n| a_draft("ada", &format!("n{n}"))).collect();
        store.create(drafts).await.unwrap();
        let patience = Duration::from_mins(1);
        let relay = RelayOutbox::new(
            store.clone(),
            Arc::new(RecordingPublisher::default()),
            RelaySettings { batch: PageLimit::rows(2), patience, ..RelaySettings::default() },
        );
        let stop = CancellationToken::new();
        let begin = Instant::now();
        let wait = async {
            wait_until_empty(&store).await;
            stop.cancel();
        };
        tokio::join!(relay.run(stop.clone()), wait);
        assert!(begin.elapsed() < patience);
    }

    #[tokio::test]
    async fn relay_waits_when_no_more_entries_follow() {
        let store = InMemoryStore::new(epoch("e1"));
        store.create(vec![a_draft("ada", "n1"), a_draft("ada", "n2")]).await.unwrap();
        let entries = store
            .acquire_lease()
            .await
            .unwrap()
            .unwrap()
            .pending(PageLimit::rows(2))
            .await
            .unwrap()
            .items;
        let stop = CancellationToken::new();
        let mut outbox = MockOutbox::new();
        let stop_at_end = stop.clone();
        outbox.expect_acquire_lease().once().return_once(move || {
            let (mut lease, mut order) = (MockOutboxLease::new(), Sequence::new());
            for entry in entries {
                let page = Page { items: vec![entry], more: false };
                lease.expect_pending().once().in_sequence(&mut order).return_once(|_| Ok(page));
                lease.expect_remove().once().in_sequence(&mut order).return_once(|_| Ok(()));
                lease
                    .expect_wait_for_entries()
                    .once()
                    .in_sequence(&mut order)
                    .return_once(|_| Ok(()));
            }
            lease.expect_pending().once().in_sequence(&mut order).return_once(move |_| {
                stop_at_end.cancel();
                Ok(Page::default())
            });
            lease.expect_wait_for_entries().returning(|_| Ok(()));
            Ok(Some(Box::new(lease)))
        });
        let events = Arc::new(RecordingPublisher::default());
        RelayOutbox::new(Arc::new(outbox), events.clone(), quick()).run(stop).await;
        assert_eq!(events.published().len(), 2);
    }

    #[tokio::test]
    async fn lease_is_exclusive() {
        let store = InMemoryStore::new(epoch("e1"));
        let lease = store.acquire_lease().await.unwrap();
        assert!(lease.is_some());
        assert!(store.acquire_lease().await.unwrap().is_none());
        drop(lease);
        assert!(store.acquire_lease().await.unwrap().is_some());
    }
}
