use std::sync::Arc;

use belfry_domain::{
    Epoch, InboxState, Missed, MissedChange, Notification, ReplayRange, Revision, UserId,
};

use crate::ports::{History, InboxRepository, Page, PageLimit, PortError};
use crate::push::{Push, PushBatch, SyncState};

/// A device comes back and gets what it missed: first a plan, then page by page.
#[derive(Clone)]
pub struct CatchUp {
    inboxes: Arc<dyn InboxRepository>,
    bound: usize,
    page: ReplayPageLimit,
}

/// Where a device says that it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumePoint {
    /// The newest revision that it has.
    pub since: Revision,
    /// Of which store; `None` if the device never heard.
    pub epoch: Option<Epoch>,
}

/// How a device is brought up to date.
///
/// It is made for an inbox as it stands at one revision ([`SyncState::revision`]). What is replayed ends
/// there; every later change is for the gate to let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatchUpPlan {
    /// What to send first.
    pub sync: SyncState,
    /// What to read and send then.
    pub replay: Option<ReplayRange>,
}

/// How large one page of a replay may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplayPageLimit {
    /// Of new notifications.
    pub(crate) created: PageLimit,
    /// Of what was read or deleted. These are ids only, so there may be more of them.
    pub(crate) changed: usize,
}

impl ReplayPageLimit {
    /// What a device that does not read costs the node: a page in its send queue, and no more. 256 KiB are
    /// a second at 2 Mbit/s; 64 rows keep a page of small notifications from being one long burst.
    const USUAL: Self = Self { created: PageLimit { rows: 64, bytes: 256 * 1024 }, changed: 1_024 };
}

/// The next part of a replay.
#[derive(Debug, Clone, PartialEq)]
pub enum ReplayPage {
    /// All up to a revision.
    Complete {
        /// What to send, oldest first. May be empty: what was deleted is not replayed.
        announcements: Vec<PushBatch>,
        /// Where the page ends.
        end: Revision,
    },
    /// Some of the rest is forgotten. The device must start over.
    OutOfReach,
}

impl CatchUp {
    /// Reads from that store, at most `bound` changed notifications for one device: past that, loading
    /// the list is cheaper for both sides.
    pub fn new(inboxes: Arc<dyn InboxRepository>, bound: usize) -> Self {
        Self { inboxes, bound, page: ReplayPageLimit::USUAL }
    }

    /// With pages of another size.
    #[cfg(test)]
    pub(crate) fn with_pages(self, created: PageLimit, changed: usize) -> Self {
        Self { page: ReplayPageLimit { created, changed }, ..self }
    }

    /// Reads where the inbox stands, and decides what a device needs that stands at `resume`; `None` for
    /// one that has nothing.
    pub async fn plan(
        &self,
        user: &UserId,
        resume: Option<&ResumePoint>,
    ) -> Result<CatchUpPlan, PortError> {
        let epoch = self.inboxes.epoch().await?;
        let Some(since) = resume.and_then(|resume| resume.revision_in(&epoch)) else {
            return Ok(CatchUpPlan::without_replay(epoch, self.inboxes.state(user).await?));
        };
        Ok(match self.inboxes.history(user, since, self.bound).await? {
            History::OutOfReach { state } => CatchUpPlan::without_replay(epoch, state),
            History::Complete { state, created } => {
                CatchUpPlan::replay(epoch, state, ReplayRange::new(since, state.revision), created)
            }
        })
    }

    /// Reads the next page of a replay that is not done.
    pub async fn page(&self, user: &UserId, rest: ReplayRange) -> Result<ReplayPage, PortError> {
        let created = self.inboxes.created_in(user, rest, self.page.created).await?;
        // What else happened is read as far as the notifications reach. The two need not be read at one
        // moment: rows that change in between leave the range, and the gate has what they become.
        let end = match (&created, created.items.last()) {
            (Page { more: true, .. }, Some(last)) => last.created_revision,
            _ => rest.up_to,
        };
        let range = ReplayRange { up_to: end, ..rest };
        let limit = self.page.changed;
        Ok(match self.inboxes.changed_in(user, range, limit).await? {
            None => ReplayPage::OutOfReach,
            Some(changes) => ReplayPage::of(created.items, changes, limit, end),
        })
    }
}

impl ResumePoint {
    /// The revision, if it means anything in that store.
    fn revision_in(&self, epoch: &Epoch) -> Option<Revision> {
        match &self.epoch {
            Some(own) if own != epoch => None,
            _ => Some(self.since),
        }
    }
}

impl CatchUpPlan {
    fn without_replay(epoch: Epoch, InboxState { revision, unread }: InboxState) -> Self {
        let sync = SyncState { epoch, revision, unread, recovered: false, missed: 0 };
        Self { sync, replay: None }
    }

    fn replay(epoch: Epoch, state: InboxState, range: ReplayRange, missed: usize) -> Self {
        let InboxState { revision, unread } = state;
        let sync = SyncState { epoch, revision, unread, recovered: true, missed };
        Self { sync, replay: (!range.is_done()).then_some(range) }
    }

    /// What closes a replay that sent anything: its last change may lie before the plan's revision, when
    /// all that came after was something that this device never saw come and go.
    pub(crate) fn closing_count(&self) -> Push {
        Push::UnreadCount { count: self.sync.unread, revision: self.sync.revision }
    }
}

impl ReplayPage {
    /// `changes` that reach the limit may go on after the last one; then the page ends there.
    fn of(
        mut created: Vec<Notification>,
        changes: Vec<MissedChange>,
        limit: usize,
        end: Revision,
    ) -> Self {
        let cut = changes.last().filter(|_| changes.len() >= limit);
        let end = cut.map_or(end, |last| last.revision);
        created.retain(|one| one.created_revision <= end);
        let announcements = Missed::of(created, changes)
            .into_iter()
            .map(|(revision, change)| PushBatch {
                revision: Some(revision),
                pushes: vec![Push::of(revision, change)],
            })
            .collect();
        Self::Complete { announcements, end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    /// What each page says, as `n1` for a new one, `read 3` for three at once; and where it ends.
    async fn pages(catch_up: &CatchUp, from: u64) -> Vec<(String, u64)> {
        let plan = catch_up.plan(&user("ada"), Some(&since(from))).await.unwrap();
        let Some(mut rest) = plan.replay else { return Vec::new() };
        let mut pages = Vec::new();
        while !rest.is_done() {
            let page = catch_up.page(&user("ada"), rest).await.unwrap();
            let ReplayPage::Complete { announcements, end } = page else { panic!("{page:?}") };
            let words = announcements.iter().flat_map(|one| &one.pushes).map(|push| match push {
                Push::New(one) => one.id.to_string(),
                Push::MarkedRead { which: Selection::Ids(ids), .. } => {
                    format!("read {}", ids.len())
                }
                Push::Deleted { ids, .. } => format!("deleted {}", ids.len()),
                other => panic!("{other:?}"),
            });
            pages.push((words.collect::<Vec<_>>().join(" "), end.get()));
            rest.after = end;
        }
        pages
    }

    fn page(words: &str, end: u64) -> (String, u64) {
        (words.to_owned(), end)
    }

    #[tokio::test]
    async fn a_replay_is_planned_from_where_the_device_stands() {
        let catch_up = CatchUp::new(store_with(3).await, 10);
        let plan = catch_up.plan(&user("ada"), Some(&since(1))).await.unwrap();
        assert!(plan.sync.recovered);
        assert_eq!((plan.sync.missed, plan.sync.revision.get()), (2, 3));
        assert_eq!(pages(&catch_up, 1).await, [page("n2 n3", 3)]);
        let Push::UnreadCount { count, revision } = plan.closing_count() else { panic!() };
        assert_eq!((count.get(), revision.get()), (3, 3));
    }

    #[tokio::test]
    async fn nothing_is_replayed_to_a_device_that_missed_nothing() {
        let catch_up = CatchUp::new(store_with(3).await, 10);
        let plan = catch_up.plan(&user("ada"), Some(&since(3))).await.unwrap();
        assert!(plan.sync.recovered);
        assert_eq!(plan.replay, None);
    }

    #[tokio::test]
    async fn a_device_without_memory_of_another_store_or_too_far_behind_starts_over() {
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
    async fn a_page_ends_where_its_notifications_or_its_changes_do() {
        let store = store_with(5).await;
        let ids =
            |numbers: &[usize]| numbers.iter().map(|n| id(&format!("n{n}"))).collect::<Vec<_>>();
        store.mark_read(&user("ada"), &ids(&[1]), at(1)).await.unwrap();
        store.mark_read(&user("ada"), &ids(&[2, 3]), at(1)).await.unwrap();
        store.create(vec![a_draft("ada", "n6"), a_draft("ada", "n7")]).await.unwrap();

        let by = |created, changed| {
            CatchUp::new(store.clone(), 10).with_pages(PageLimit::rows(created), changed)
        };
        let all = "n1 n2 n3 n4 n5 read 1 read 2 n6 n7";
        assert_eq!(pages(&by(10, 10), 0).await, [page(all, 9)]);
        let by_notifications =
            [page("n1 n2 n3", 3), page("n4 n5 read 1 read 2 n6", 8), page("n7", 9)];
        assert_eq!(pages(&by(3, 10), 0).await, by_notifications);
        // A revision is never divided, however many rows it has.
        let by_changes = [page("n1 n2 n3 n4 n5 read 1", 6), page("read 2", 7), page("n6 n7", 9)];
        assert_eq!(pages(&by(10, 1), 0).await, by_changes);
    }

    #[tokio::test]
    async fn what_changes_between_two_pages_is_new_once() {
        let store = store_with(4).await;
        let catch_up = CatchUp::new(store.clone(), 10).with_pages(PageLimit::rows(2), 10);
        let plan = catch_up.plan(&user("ada"), Some(&since(0))).await.unwrap();
        let mut rest = plan.replay.unwrap();
        let new = async |rest| match catch_up.page(&user("ada"), rest).await.unwrap() {
            ReplayPage::Complete { announcements, end } => {
                let pushes = announcements.into_iter().flat_map(|one| one.pushes);
                let ids = pushes.map(|push| match push {
                    Push::New(one) => one.id.to_string(),
                    other => panic!("not before the plan's end: {other:?}"),
                });
                (ids.collect::<Vec<_>>(), end)
            }
            ReplayPage::OutOfReach => panic!("within reach"),
        };
        let (first, end) = new(rest).await;
        store.mark_all_read(&user("ada"), at(1)).await.unwrap();
        store.delete(&user("ada"), &[id("n2"), id("n4")], at(1)).await.unwrap();
        rest.after = end;
        let (second, end) = new(rest).await;
        assert_eq!(
            (first, second),
            (vec!["n1".to_owned(), "n2".to_owned()], vec!["n3".to_owned()])
        );
        assert_eq!(end, plan.sync.revision, "the rest is for the gate");
    }
}
