use std::collections::{BTreeMap, BTreeSet, HashMap};

use belfry_application::ports::IdempotentOutcome;
use belfry_domain::{
    Change, DomainEvent, Draft, InboxState, Notification, NotificationId, Receipt, Revision,
    UnreadCount, UserId,
};

use super::notification_row::JoinedNotification;
use super::stored_value::{InvalidStoredValue, inbox_state, notification_id, user_id};
use super::timestamp::StoredTimestamp;

/// Plans a create in memory: which drafts become notifications, and how each inbox changes.
///
/// Sorted by user, because inbox rows are locked in that order.
#[derive(Debug, Default)]
pub(crate) struct CreatePlanner {
    inboxes: BTreeMap<UserId, InboxPlan>,
}

/// An inbox during planning.
#[derive(Debug, Default)]
struct InboxPlan {
    /// There is no such inbox yet.
    is_new: bool,
    state: InboxState,
    /// The notifications that have the id of a draft.
    by_id: HashMap<NotificationId, Duplicate>,
    /// The notifications that have the dedupe key of a draft.
    by_key: HashMap<NotificationId, Duplicate>,
}

/// A notification whose id or dedupe key a draft may repeat.
#[derive(Debug, Clone)]
enum Duplicate {
    Stored(Box<Notification>),
    /// A tombstone, created at that revision.
    Deleted(Revision, NotificationId),
    /// Created by this plan, at that revision; its receipt has that index.
    Planned(Revision, usize),
}

/// An inbox of a draft, whether it exists or not, joined with one of its notifications that has the id or
/// the dedupe key of a draft, if there is one.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct DuplicateRow<At> {
    inbox: String,
    is_new: bool,
    at_revision: i64,
    unread: i64,
    dedupe_key: Option<String>,
    deleted: bool,
    #[sqlx(flatten)]
    duplicate: JoinedNotification<At>,
}

/// The result of planning: what to write, and what to return.
#[derive(Debug, Default)]
pub(crate) struct CreatePlan {
    /// One for each draft, in the order of the drafts.
    pub(crate) receipts: Vec<Receipt>,
    /// The dedupe keys of the new notifications, in their order.
    pub(crate) dedupe_keys: Vec<Option<NotificationId>>,
    /// The inboxes that get new notifications: their revision before, and the number of new ones.
    pub(crate) inboxes: BTreeMap<UserId, (Revision, u64)>,
    /// The inboxes that do not exist yet.
    pub(crate) new_users: BTreeSet<UserId>,
    /// The inboxes that get no new notification, at this revision, because they had those of the drafts.
    pub(crate) unchanged: BTreeMap<UserId, Revision>,
}

impl Duplicate {
    fn created_revision(&self) -> Revision {
        match self {
            Self::Stored(notification) => notification.created_revision,
            Self::Deleted(revision, _) | Self::Planned(revision, _) => *revision,
        }
    }
}

impl InboxPlan {
    fn add_stored(&mut self, notification: Notification, dedupe_key: Option<NotificationId>) {
        let id = notification.id.clone();
        self.add(id, dedupe_key, Duplicate::Stored(Box::new(notification)));
    }

    fn add_deleted(&mut self, tombstone: Notification, dedupe_key: Option<NotificationId>) {
        let Notification { id, created_revision, .. } = tombstone;
        self.add(id.clone(), dedupe_key, Duplicate::Deleted(created_revision, id));
    }

    fn add(&mut self, id: NotificationId, key: Option<NotificationId>, duplicate: Duplicate) {
        if let Some(key) = key {
            self.by_key.insert(key, duplicate.clone());
        }
        self.by_id.insert(id, duplicate);
    }

    /// If the id and the key belong to two notifications, the earlier one, as in the domain's
    /// inbox.
    fn duplicate_of(&self, draft: &Draft) -> Option<&Duplicate> {
        let by_id = self.by_id.get(&draft.id);
        let by_key = draft.dedupe_key.as_ref();
        let by_key = by_key.and_then(|key| self.by_key.get(key));
        by_id.into_iter().chain(by_key).min_by_key(|duplicate| duplicate.created_revision())
    }

    /// The state after one more notification.
    fn advance(&mut self) -> InboxState {
        self.state = InboxState {
            revision: self.state.revision.next(),
            unread: UnreadCount::new(self.state.unread.get() + 1),
        };
        self.state
    }
}

impl CreatePlanner {
    pub(crate) fn from_rows<At: StoredTimestamp>(
        rows: Vec<DuplicateRow<At>>,
    ) -> Result<Self, InvalidStoredValue> {
        let mut planner = Self::default();
        for row in rows {
            let inbox = planner.inbox(user_id(&row.inbox)?);
            inbox.is_new = row.is_new;
            inbox.state = inbox_state(row.at_revision, row.unread)?;
            if let JoinedNotification(Some(duplicate)) = row.duplicate {
                let key = row.dedupe_key.as_deref().map(notification_id).transpose()?;
                let duplicate = duplicate.parse()?;
                if row.deleted {
                    inbox.add_deleted(duplicate, key);
                } else {
                    inbox.add_stored(duplicate, key);
                }
            }
        }
        Ok(planner)
    }

    fn inbox(&mut self, user: UserId) -> &mut InboxPlan {
        self.inboxes.entry(user).or_default()
    }

    /// Plans the drafts in order, with the result of [`belfry_domain::Inbox::create`].
    pub(crate) fn plan<'d>(mut self, drafts: impl IntoIterator<Item = &'d Draft>) -> CreatePlan {
        let mut plan = CreatePlan::default();
        for draft in drafts {
            let inbox = self.inbox(draft.user.clone());
            let receipt = match inbox.duplicate_of(draft) {
                Some(Duplicate::Stored(notification)) => Receipt::Duplicate(notification.clone()),
                Some(Duplicate::Deleted(_, id)) => Receipt::Deleted(id.clone()),
                Some(&Duplicate::Planned(_, index)) => plan.repeat(index),
                None => plan.create(inbox, draft),
            };
            plan.receipts.push(receipt);
        }
        for (user, inbox) in self.inboxes {
            if !inbox.is_new && !plan.inboxes.contains_key(&user) {
                plan.unchanged.insert(user, inbox.state.revision);
            }
        }
        plan
    }
}

impl CreatePlan {
    fn create(&mut self, inbox: &mut InboxPlan, draft: &Draft) -> Receipt {
        let before = inbox.state.revision;
        if inbox.is_new {
            self.new_users.insert(draft.user.clone());
        }
        let state = inbox.advance();
        let planned = Duplicate::Planned(state.revision, self.receipts.len());
        inbox.add(draft.id.clone(), draft.dedupe_key.clone(), planned);
        self.inboxes.entry(draft.user.clone()).or_insert((before, 0)).1 += 1;
        self.dedupe_keys.push(draft.dedupe_key.clone());
        Receipt::Created(DomainEvent {
            user: draft.user.clone(),
            revision: state.revision,
            unread: state.unread,
            change: Change::Created(Box::new(draft.clone().into_notification(state.revision))),
        })
    }

    fn repeat(&self, index: usize) -> Receipt {
        let notification = self.receipts[index].notification();
        let notification = notification.expect("a planned draft has a notification");
        Receipt::Duplicate(Box::new(notification.clone()))
    }

    /// The events to publish, in order, each with the source of its draft. `sources` has one item per draft.
    pub(crate) fn events<S>(
        &self,
        sources: impl IntoIterator<Item = S>,
    ) -> impl Iterator<Item = (&DomainEvent, S)> {
        self.receipts.iter().zip(sources).filter_map(|(receipt, source)| match receipt {
            Receipt::Created(event) => Some((event, source)),
            Receipt::Duplicate(_) | Receipt::Deleted(_) => None,
        })
    }

    /// The outcomes of several writes that together had the drafts; `counts` are their numbers of drafts.
    pub(crate) fn outcomes(
        self,
        counts: impl IntoIterator<Item = usize>,
    ) -> impl Iterator<Item = IdempotentOutcome> {
        let mut receipts = self.receipts.into_iter();
        let counts = counts.into_iter();
        counts
            .map(move |count| IdempotentOutcome::Executed(receipts.by_ref().take(count).collect()))
    }

    /// The notifications to insert, in order.
    pub(crate) fn new_notifications(&self) -> impl Iterator<Item = &Notification> {
        self.receipts
            .iter()
            .filter(|receipt| matches!(receipt, Receipt::Created(_)))
            .filter_map(Receipt::notification)
    }

    /// The notification of each draft, new or not, in order, each with the source of its draft. Deleted ones are
    /// left out. `sources` has one item per draft.
    pub(crate) fn all_notifications<S>(
        &self,
        sources: impl IntoIterator<Item = S>,
    ) -> impl Iterator<Item = (&Notification, S)> {
        let with_source = self.receipts.iter().zip(sources);
        with_source.filter_map(|(receipt, source)| Some((receipt.notification()?, source)))
    }
}

#[cfg(test)]
mod tests {
    use belfry_application::testing::{a_draft, id, user};
    use belfry_domain::Inbox;

    use super::*;

    fn keyed(name: &str, key: &str) -> Draft {
        Draft { dedupe_key: Some(id(key)), ..a_draft("ada", name) }
    }

    /// Puts the same drafts into the domain's inbox, which is the reference, and into a planner.
    fn assert_same_as_reference(before: &[Draft], drafts: &[Draft]) {
        let mut reference = Inbox::new(user("ada"));
        let mut planner = CreatePlanner::default();
        let stored: Vec<_> = before
            .iter()
            .filter(|draft| matches!(reference.create((*draft).clone()), Receipt::Created(_)))
            .collect();
        planner.inbox(user("ada")).state = reference.state();
        for (revision, draft) in (1..).zip(stored) {
            let notification = draft.clone().into_notification(Revision::new(revision));
            planner.inbox(user("ada")).add_stored(notification, draft.dedupe_key.clone());
        }
        let from = reference.state().revision;

        let plan = planner.plan(drafts);

        let expected: Vec<_> = drafts.iter().map(|draft| reference.create(draft.clone())).collect();
        assert_eq!(plan.receipts, expected);
        let count = reference.state().revision.get() - from.get();
        let inboxes: Vec<_> = plan.inboxes.into_iter().collect();
        let expected: Vec<_> =
            (count > 0).then(|| (user("ada"), (from, count))).into_iter().collect();
        assert_eq!(inboxes, expected);
    }

    #[test]
    fn new_drafts_become_notifications_in_order() {
        assert_same_as_reference(&[], &[a_draft("ada", "n1"), a_draft("ada", "n2")]);
        assert_same_as_reference(&[a_draft("ada", "n1")], &[a_draft("ada", "n2")]);
    }

    #[test]
    fn duplicates_are_found_in_the_inbox_and_among_the_drafts() {
        let before = [keyed("n1", "a"), keyed("n2", "b")];
        let drafts = [
            keyed("n2", "a"),
            keyed("n3", "b"),
            keyed("n4", "c"),
            keyed("n4", "d"),
            keyed("n5", "c"),
            a_draft("ada", "n6"),
            keyed("n1", "e"),
            keyed("n7", "e"),
        ];
        assert_same_as_reference(&before, &drafts);
        assert_same_as_reference(&[], &drafts);
        assert_same_as_reference(&drafts, &drafts);
    }

    #[test]
    fn new_and_unchanged_inboxes_are_known() {
        let mut planner = CreatePlanner::default();
        planner.inbox(user("ada")).is_new = true;
        for name in ["bob", "cy"] {
            let stored = a_draft(name, "n1").into_notification(Revision::new(1));
            planner.inbox(user(name)).state.revision = Revision::new(4);
            planner.inbox(user(name)).add_stored(stored, None);
        }
        let drafts = [("ada", "n1"), ("bob", "n1"), ("cy", "n1"), ("cy", "n2")];
        let plan = planner.plan(&drafts.map(|(name, id)| a_draft(name, id)));
        assert_eq!(plan.new_users, [user("ada")].into());
        assert_eq!(plan.unchanged, [(user("bob"), Revision::new(4))].into());
    }

    #[test]
    fn each_inbox_has_its_own_revision_and_count() {
        let mut planner = CreatePlanner::default();
        planner.inbox(user("bob")).state =
            InboxState { revision: Revision::new(7), unread: UnreadCount::new(2) };
        let drafts = [a_draft("bob", "n1"), a_draft("ada", "n1"), a_draft("bob", "n2")];
        let plan = planner.plan(&drafts);
        let events: Vec<_> = plan
            .events([(); 3])
            .map(|(event, ())| (event.user.as_str(), event.revision.get(), event.unread.get()))
            .collect();
        assert_eq!(events, [("bob", 8, 3), ("ada", 1, 1), ("bob", 9, 4)]);
        let inboxes: Vec<_> = plan
            .inboxes
            .iter()
            .map(|(user, (from, count))| (user.as_str(), from.get(), *count))
            .collect();
        assert_eq!(inboxes, [("ada", 0, 1), ("bob", 7, 2)]);
    }
}
