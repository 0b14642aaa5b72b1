use std::sync::Arc;

use belfry_domain::{
    Epoch, InboxState, MissedChange, Notification, ReplayBatch, ReplayRange, Revision, UserId,
};

use crate::ports::{History, InboxRepository, Page, PageLimit, PortError};
use crate::push::{PushBatch, SyncState};

/// Reads the changes that a returning device missed: makes a plan first, then reads page by page.
#[derive(Clone)]
pub struct CatchUp {
    inboxes: Arc<dyn InboxRepository>,
    /// Whether the users' inboxes are kept in `inboxes`. In forward mode they are not, and only the epoch of
    /// `inboxes` is used.
    keeps_inboxes: bool,
    /// The maximum number of changed notifications in a replay.
    max_replayed: usize,
    page_limit: ReplayPageLimit,
}

/// The position of a returning device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumePoint {
    /// The latest revision that the device received.
    pub since: Revision,
    /// The store that the revision belongs to; `None` if the device does not know it.
    pub epoch: Option<Epoch>,
}

/// How a device is brought up to date.
///
/// The replay ends at the revision that the inbox had when the plan was made ([`SyncState::revision`]). Later
/// changes arrive as live events, which the session's gate holds until the replay is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatchUpPlan {
    /// The state that is sent first.
    pub sync: SyncState,
    /// The changes to read and send afterwards; `None` if there are none.
    pub replay: Option<ReplayRange>,
}

/// The maximum size of a replay page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplayPageLimit {
    /// The limit of new notifications.
    pub(crate) created: PageLimit,
    /// The maximum number of reads and deletions. They contain only ids, so a page may have more of them.
    pub(crate) changed: usize,
}

impl ReplayPageLimit {
    /// A device that does not read costs the node the memory of one page. Sending 256 KiB takes about one
    /// second at 2 Mbit/s. The 64 rows limit a burst of small notifications.
    const DEFAULT: Self =
        Self { created: PageLimit { rows: 64, bytes: 256 * 1024 }, changed: 1_024 };
}

/// One page of a replay.
#[derive(Debug, Clone, PartialEq)]
pub enum ReplayPage {
    /// All changes up to a revision.
    Complete {
        /// Oldest first. May be empty, because deleted notifications are not replayed.
        batches: Vec<PushBatch>,
        /// The last revision of the page.
        end: Revision,
    },
    /// The history is incomplete. The device must start over.
    OutOfReach,
}

impl CatchUp {
    /// Replays at most `max_replayed` changed notifications to one device. Beyond that, loading the list
    /// is cheaper for both sides.
    pub fn new(inboxes: Arc<dyn InboxRepository>, max_replayed: usize) -> Self {
        Self { inboxes, keeps_inboxes: true, max_replayed, page_limit: ReplayPageLimit::DEFAULT }
    }

    /// Forward mode: another service keeps the inboxes, so nothing is replayed, and a device loads its list from
    /// that service. Reads the epoch of `inboxes` and nothing else.
    pub fn for_forward_mode(inboxes: Arc<dyn InboxRepository>) -> Self {
        Self { keeps_inboxes: false, ..Self::new(inboxes, 0) }
    }

    /// Sets the page size.
    #[cfg(test)]
    pub(crate) fn with_pages(self, created: PageLimit, changed: usize) -> Self {
        Self { page_limit: ReplayPageLimit { created, changed }, ..self }
    }

    /// Reads the state of the inbox and plans the replay for a device at `resume`, which is `None` for a
    /// device without a position.
    pub async fn plan(
        &self,
        user: &UserId,
        resume: Option<&ResumePoint>,
    ) -> Result<CatchUpPlan, PortError> {
        let epoch = self.inboxes.epoch().await?;
        if !self.keeps_inboxes {
            return Ok(CatchUpPlan::of_unknown_inbox(epoch));
        }
        let Some(since) = resume.and_then(|resume| resume.revision_in(&epoch)) else {
            return Ok(CatchUpPlan::without_replay(epoch, self.inboxes.state(user).await?));
        };
        Ok(match self.inboxes.history(user, since, self.max_replayed).await? {
            History::OutOfReach { state } => CatchUpPlan::without_replay(epoch, state),
            History::Complete { state, created } => {
                CatchUpPlan::replay(epoch, state, ReplayRange::new(since, state.revision), created)
            }
        })
    }

    /// Reads the next page of a replay that is not done.
    pub async fn page(
        &self,
        user: &UserId,
        remaining: ReplayRange,
    ) -> Result<ReplayPage, PortError> {
        let created = self.inboxes.created_in(user, remaining, self.page_limit.created).await?;
        // If more new notifications follow, the page ends at the last one, and other changes are read up to
        // there. The two reads need no common snapshot: a notification that changes in between leaves the
        // range, and the gate holds its event.
        let end = match (&created, created.items.last()) {
            (Page { more: true, .. }, Some(last)) => last.created_revision,
            _ => remaining.up_to,
        };
        let range = ReplayRange { up_to: end, ..remaining };
        let limit = self.page_limit.changed;
        Ok(match self.inboxes.changed_in(user, range, limit).await? {
            None => ReplayPage::OutOfReach,
            Some(changes) => ReplayPage::of(created.items, changes, limit, end),
        })
    }
}

impl ResumePoint {
    /// The revision; `None` if it belongs to another store.
    fn revision_in(&self, epoch: &Epoch) -> Option<Revision> {
        match &self.epoch {
            Some(device_epoch) if device_epoch != epoch => None,
            _ => Some(self.since),
        }
    }
}

impl CatchUpPlan {
    fn of_unknown_inbox(epoch: Epoch) -> Self {
        let (revision, unread) = (Revision::ZERO, None);
        let sync = SyncState { epoch, revision, unread, recovered: false, missed: 0 };
        Self { sync, replay: None }
    }

    fn without_replay(epoch: Epoch, InboxState { revision, unread }: InboxState) -> Self {
        let unread = Some(unread);
        let sync = SyncState { epoch, revision, unread, recovered: false, missed: 0 };
        Self { sync, replay: None }
    }

    fn replay(epoch: Epoch, state: InboxState, range: ReplayRange, missed: usize) -> Self {
        let InboxState { revision, unread } = state;
        let unread = Some(unread);
        let sync = SyncState { epoch, revision, unread, recovered: true, missed };
        Self { sync, replay: (!range.is_done()).then_some(range) }
    }
}

impl ReplayPage {
    /// The page of these notifications and changes, which ends at `end` or earlier: if `changes` reach the
    /// limit, more may follow, so the page ends at the last one.
    fn of(
        mut created: Vec<Notification>,
        changes: Vec<MissedChange>,
        limit: usize,
        end: Revision,
    ) -> Self {
        let last_before_more = changes.last().filter(|_| changes.len() >= limit);
        let end = last_before_more.map_or(end, |last| last.revision);
        created.retain(|notification| notification.created_revision <= end);
        let batches = ReplayBatch::merge(created, changes)
            .into_iter()
            .map(|(revision, change)| PushBatch::replayed(revision, change))
            .collect();
        Self::Complete { batches, end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::Push;
    use crate::push::Selection;
    use crate::testing::{InMemoryStore, a_draft, at, epoch, id, user};

    async fn store_with(drafts: usize) -> Arc<InMemoryStore> {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let drafts = (1..=drafts).map(|n| a_draft("ada", &format!("n{n}"))).collect();
        store.create(drafts).await.unwrap();
        store
    }

    fn since(revision: u64) -> ResumePoint {
        ResumePoint { since: Revision::new(revision), epoch: Some(epoch("e1")) }
    }

    /// Each page of the replay after `from`: its pushes in words, and the revision at its end. `n1` stands for
    /// a new notification, `read 3` for three notifications that were read at once.
    async fn pages(catch_up: &CatchUp, from: u64) -> Vec<(String, u64)> {
        let plan = catch_up.plan(&user("ada"), Some(&since(from))).await.unwrap();
        let Some(mut remaining) = plan.replay else { return Vec::new() };
        let mut pages = Vec::new();
        while !remaining.is_done() {
            let page = catch_up.page(&user("ada"), remaining).await.unwrap();
            let ReplayPage::Complete { batches, end } = page else { panic!("{page:?}") };
            let words = batches.iter().flat_map(|batch| &batch.pushes).map(|push| match push {
                Push::New(notification) => notification.id.to_string(),
                Push::MarkedRead { selection: Selection::Ids(ids), .. } => {
                    format!("read {}", ids.len())
                }
                Push::Deleted { ids, .. } => format!("deleted {}", ids.len()),
                other => panic!("{other:?}"),
            });
            pages.push((words.collect::<Vec<_>>().join(" "), end.get()));
            remaining.after = end;
        }
        pages
    }

    fn page(words: &str, end: u64) -> (String, u64) {
        (words.to_owned(), end)
    }

    #[tokio::test]
    async fn replay_starts_after_the_revision_of_the_device() {
        let catch_up = CatchUp::new(store_with(3).await, 10);
        let plan = catch_up.plan(&user("ada"), Some(&since(1))).await.unwrap();
        assert!(plan.sync.recovered);
        assert_eq!((plan.sync.missed, plan.sync.revision.get()), (2, 3));
        assert_eq!(pages(&catch_up, 1).await, [page("n2 n3", 3)]);
        let push = plan.sync.unread_count_push();
        let Some(Push::UnreadCount { count, revision }) = push else { panic!("{push:?}") };
        assert_eq!((count.get(), revision.get()), (3, 3));
    }

    #[tokio::test]
    async fn device_that_missed_nothing_gets_no_replay() {
        let catch_up = CatchUp::new(store_with(3).await, 10);
        let plan = catch_up.plan(&user("ada"), Some(&since(3))).await.unwrap();
        assert!(plan.sync.recovered);
        assert_eq!(plan.replay, None);
    }

    #[tokio::test]
    async fn device_without_position_or_of_another_store_or_too_far_behind_starts_over() {
        let catch_up = CatchUp::new(store_with(3).await, 2);
        let other_store = ResumePoint { epoch: Some(epoch("e0")), ..since(2) };
        for resume in [None, Some(&other_store), Some(&since(0)), Some(&since(99))] {
            let plan = catch_up.plan(&user("ada"), resume).await.unwrap();
            assert!(!plan.sync.recovered, "{resume:?}");
            assert_eq!(plan.sync.revision, Revision::new(3));
            assert_eq!(plan.replay, None);
        }
    }

    #[tokio::test]
    async fn page_ends_at_its_notification_limit_or_change_limit() {
        let store = store_with(5).await;
        let ids =
            |numbers: &[usize]| numbers.iter().map(|n| id(&format!("n{n}"))).collect::<Vec<_>>();
        store.mark_read(&user("ada"), &ids(&[1]), at(1)).await.unwrap();
        store.mark_read(&user("ada"), &ids(&[2, 3]), at(1)).await.unwrap();
        store.create(vec![a_draft("ada", "n6"), a_draft("ada", "n7")]).await.unwrap();

        let limited = |created, changed| {
            CatchUp::new(store.clone(), 10).with_pages(PageLimit::rows(created), changed)
        };
        let all = "n1 n2 n3 n4 n5 read 1 read 2 n6 n7";
        assert_eq!(pages(&limited(10, 10), 0).await, [page(all, 9)]);
        let by_notifications =
            [page("n1 n2 n3", 3), page("n4 n5 read 1 read 2 n6", 8), page("n7", 9)];
        assert_eq!(pages(&limited(3, 10), 0).await, by_notifications);
        // A revision is never split, however many rows it has.
        let by_changes = [page("n1 n2 n3 n4 n5 read 1", 6), page("read 2", 7), page("n6 n7", 9)];
        assert_eq!(pages(&limited(10, 1), 0).await, by_changes);
    }

    #[tokio::test]
    async fn notification_changed_between_pages_is_new_once() {
        let store = store_with(4).await;
        let catch_up = CatchUp::new(store.clone(), 10).with_pages(PageLimit::rows(2), 10);
        let plan = catch_up.plan(&user("ada"), Some(&since(0))).await.unwrap();
        let mut remaining = plan.replay.unwrap();
        let new = async |remaining| match catch_up.page(&user("ada"), remaining).await.unwrap() {
            ReplayPage::Complete { batches, end } => {
                let pushes = batches.into_iter().flat_map(|batch| batch.pushes);
                let ids = pushes.map(|push| match push {
                    Push::New(notification) => notification.id.to_string(),
                    other => panic!("a change after the plan is replayed: {other:?}"),
                });
                (ids.collect::<Vec<_>>(), end)
            }
            ReplayPage::OutOfReach => panic!("the history is complete"),
        };
        let (first, end) = new(remaining).await;
        store.mark_all_read(&user("ada"), at(1)).await.unwrap();
        store.delete(&user("ada"), &[id("n2"), id("n4")], at(1)).await.unwrap();
        remaining.after = end;
        let (second, end) = new(remaining).await;
        assert_eq!(
            (first, second),
            (vec!["n1".to_owned(), "n2".to_owned()], vec!["n3".to_owned()])
        );
        assert_eq!(end, plan.sync.revision, "the replay ends at the revision of the plan");
    }
}
