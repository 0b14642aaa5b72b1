use std::sync::Arc;

use belfry_domain::{Epoch, InboxState, Missed, Revision, UserId};

use crate::announcement::{Announcement, Push, SyncState};
use crate::ports::{History, InboxRepository, PortError};

/// A device comes back and gets what it missed.
#[derive(Clone)]
pub struct CatchUp {
    inboxes: Arc<dyn InboxRepository>,
    bound: usize,
}

/// What a device says that it has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The newest revision.
    pub since: Revision,
    /// Of which store; `None` if the device never heard.
    pub epoch: Option<Epoch>,
}

/// What to tell a device that came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// Where the inbox stands: the first thing it hears.
    pub sync: SyncState,
    /// What it missed, oldest first, closed by the count.
    pub missed: Vec<Announcement>,
}

impl CatchUp {
    /// Reads from that store, at most `bound` changes for one device: past that, loading the list
    /// is cheaper for both sides.
    pub fn new(inboxes: Arc<dyn InboxRepository>, bound: usize) -> Self {
        Self { inboxes, bound }
    }

    /// What to tell a device of that user that has `seen` so much, or nothing yet.
    pub async fn run(&self, user: &UserId, seen: Option<&Seen>) -> Result<Replay, PortError> {
        let epoch = self.inboxes.epoch().await?;
        let Some(since) = seen.and_then(|seen| seen.revision_in(&epoch)) else {
            return Ok(Replay::start_over(epoch, self.inboxes.state(user).await?));
        };
        Ok(match self.inboxes.history(user, since, self.bound).await? {
            History::OutOfReach { state } => Replay::start_over(epoch, state),
            History::Complete { state, changes } => {
                Replay::of(epoch, state, Missed::since(since, changes))
            }
        })
    }
}

impl Seen {
    /// The revision, if it means anything in that store.
    fn revision_in(&self, epoch: &Epoch) -> Option<Revision> {
        match &self.epoch {
            Some(seen) if seen != epoch => None,
            _ => Some(self.since),
        }
    }
}

impl Replay {
    fn start_over(epoch: Epoch, InboxState { revision, unread }: InboxState) -> Self {
        let sync = SyncState { epoch, revision, unread, recovered: false, missed: 0 };
        Self { sync, missed: Vec::new() }
    }

    fn of(epoch: Epoch, state: InboxState, changes: Missed) -> Self {
        let InboxState { revision, unread } = state;
        let missed = changes.new_notifications();
        let sync = SyncState { epoch, revision, unread, recovered: true, missed };
        let mut announcements: Vec<_> = changes
            .into_iter()
            .map(|(revision, change)| Announcement {
                revision: Some(revision),
                pushes: vec![Push::of(revision, change)],
            })
            .collect();
        // Told apart from the last change: its revision may lie behind it, when all that came after
        // was something that this device never saw come and go.
        if !announcements.is_empty() {
            announcements.push(Announcement {
                revision: Some(revision),
                pushes: vec![Push::UnreadCount { count: unread, revision }],
            });
        }
        Self { sync, missed: announcements }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{InMemoryStore, a_draft, epoch, user};

    async fn store_with(drafts: usize) -> Arc<InMemoryStore> {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let drafts = (0..drafts).map(|n| a_draft("ada", &format!("n{n}"))).collect();
        store.create(drafts).await.unwrap();
        store
    }

    fn since(revision: u64) -> Seen {
        Seen { since: Revision::new(revision), epoch: Some(epoch("e1")) }
    }

    #[tokio::test]
    async fn a_device_gets_what_it_missed_oldest_first_and_then_the_count() {
        let catch_up = CatchUp::new(store_with(3).await, 10);
        let replay = catch_up.run(&user("ada"), Some(&since(1))).await.unwrap();

        assert!(replay.sync.recovered);
        assert_eq!(replay.sync.missed, 2);
        let told: Vec<_> = replay.missed.iter().flat_map(|one| &one.pushes).collect();
        assert!(matches!(told[0], Push::New(n) if n.id.as_str() == "n1"));
        assert!(matches!(told[1], Push::New(n) if n.id.as_str() == "n2"));
        assert!(matches!(told[2], Push::UnreadCount { count, .. } if count.get() == 3));
    }

    #[tokio::test]
    async fn a_device_that_missed_nothing_hears_only_where_it_stands() {
        let catch_up = CatchUp::new(store_with(3).await, 10);
        let replay = catch_up.run(&user("ada"), Some(&since(3))).await.unwrap();
        assert!(replay.sync.recovered);
        assert!(replay.missed.is_empty());
    }

    #[tokio::test]
    async fn a_device_without_memory_of_another_store_or_too_far_behind_starts_over() {
        let catch_up = CatchUp::new(store_with(3).await, 2);
        let other_store = Seen { epoch: Some(epoch("e0")), ..since(2) };
        for seen in [None, Some(&other_store), Some(&since(0)), Some(&since(99))] {
            let replay = catch_up.run(&user("ada"), seen).await.unwrap();
            assert!(!replay.sync.recovered, "{seen:?}");
            assert_eq!(replay.sync.revision, Revision::new(3));
            assert!(replay.missed.is_empty());
        }
    }
}
