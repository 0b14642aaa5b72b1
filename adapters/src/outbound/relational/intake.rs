use std::collections::{BTreeMap, HashMap};

use belfry_domain::{
    Change, DomainEvent, Draft, InboxState, Notification, NotificationId, Receipt, Revision,
    UnreadCount, UserId,
};

use super::row::Joined;
use super::{StoredInstant, Unreadable, inbox_state};

/// What is known of an inbox before drafts are put into it: where it stands, and which of its
/// notifications have the id or the dedupe key of one of the drafts.
#[derive(Debug, Default)]
struct Standing {
    state: InboxState,
    by_id: HashMap<NotificationId, Twin>,
    by_key: HashMap<NotificationId, Twin>,
}

/// A notification that a draft may turn out to be.
#[derive(Debug, Clone)]
enum Twin {
    Stored(Box<Notification>),
    /// Taken just now: the receipt with that index tells of it.
    Taken(Revision, usize),
}

impl Twin {
    fn created_revision(&self) -> Revision {
        match self {
            Self::Stored(one) => one.created_revision,
            Self::Taken(revision, _) => *revision,
        }
    }
}

impl Standing {
    /// It stands there.
    fn stands_at(&mut self, state: InboxState) {
        self.state = state;
    }

    /// Adds a notification that is in the inbox, deleted or not.
    fn holds(&mut self, one: Notification, dedupe_key: Option<NotificationId>) {
        let twin = Twin::Stored(Box::new(one.clone()));
        self.knows(one.id, dedupe_key, twin);
    }

    fn knows(&mut self, id: NotificationId, key: Option<NotificationId>, twin: Twin) {
        if let Some(key) = key {
            self.by_key.insert(key, twin.clone());
        }
        self.by_id.insert(id, twin);
    }

    /// The earliest one, as the domain's inbox finds it.
    fn twin_of(&self, draft: &Draft) -> Option<&Twin> {
        let by_id = self.by_id.get(&draft.id);
        let by_key = draft.dedupe_key.as_ref();
        let by_key = by_key.and_then(|key| self.by_key.get(key));
        by_id.into_iter().chain(by_key).min_by_key(|twin| twin.created_revision())
    }

    fn next(&mut self) -> InboxState {
        self.state = InboxState {
            revision: self.state.revision.next(),
            unread: UnreadCount::new(self.state.unread.get() + 1),
        };
        self.state
    }
}

/// An inbox of a draft, and beside it one of its notifications that has the id or the dedupe key of
/// a draft, if there is one.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct StandingRow<At> {
    inbox: String,
    at_revision: i64,
    unread: i64,
    dedupe_key: Option<String>,
    #[sqlx(flatten)]
    twin: Joined<At>,
}

/// Inboxes into which drafts are to be put. Sorted, as a database locks their rows in that order.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    inboxes: BTreeMap<UserId, Standing>,
}

/// What drafts came to.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// One for each draft, in their order.
    pub(crate) receipts: Vec<Receipt>,
    /// The dedupe keys of those that were taken, in the order of their receipts.
    pub(crate) dedupe_keys: Vec<Option<NotificationId>>,
    /// The inboxes that took some: the revision they had before, and how many they took.
    pub(crate) moved: BTreeMap<UserId, (Revision, u64)>,
}

impl Intake {
    /// Sums up what a question for inboxes and twins was answered with.
    pub(crate) fn of<At: StoredInstant>(rows: Vec<StandingRow<At>>) -> Result<Self, Unreadable> {
        let mut intake = Self::default();
        for row in rows {
            let user = UserId::parse(&row.inbox).map_err(|why| Unreadable::new("a user", &why))?;
            let inbox = intake.inbox(user);
            inbox.stands_at(inbox_state(row.at_revision, row.unread)?);
            if let Joined(Some(twin)) = row.twin {
                let key = row.dedupe_key.as_deref().map(NotificationId::parse);
                let key = key.transpose();
                let key = key.map_err(|why| Unreadable::new("a dedupe key", &why))?;
                inbox.holds(twin.read()?, key);
            }
        }
        Ok(intake)
    }

    /// What is known of that user's inbox.
    fn inbox(&mut self, user: UserId) -> &mut Standing {
        self.inboxes.entry(user).or_default()
    }

    /// Puts the drafts in, one after another, as [`belfry_domain::Inbox::receive`] does.
    pub(crate) fn take(mut self, drafts: &[Draft]) -> Taken {
        let mut taken = Taken::default();
        for draft in drafts {
            let inbox = self.inboxes.entry(draft.user.clone()).or_default();
            let receipt = match inbox.twin_of(draft) {
                Some(Twin::Stored(one)) => Receipt::Duplicate(one.clone()),
                Some(&Twin::Taken(_, index)) => taken.again(index),
                None => taken.accept(inbox, draft),
            };
            taken.receipts.push(receipt);
        }
        taken
    }
}

impl Taken {
    fn accept(&mut self, inbox: &mut Standing, draft: &Draft) -> Receipt {
        let before = inbox.state.revision;
        let state = inbox.next();
        let twin = Twin::Taken(state.revision, self.receipts.len());
        inbox.knows(draft.id.clone(), draft.dedupe_key.clone(), twin);
        self.moved.entry(draft.user.clone()).or_insert((before, 0)).1 += 1;
        self.dedupe_keys.push(draft.dedupe_key.clone());
        Receipt::Created(DomainEvent {
            user: draft.user.clone(),
            revision: state.revision,
            unread: state.unread,
            change: Change::Created(Box::new(draft.clone().into_notification(state.revision))),
        })
    }

    fn again(&self, index: usize) -> Receipt {
        let one = self.receipts[index].notification();
        let one = one.expect("a draft that was taken became a notification");
        Receipt::Duplicate(Box::new(one.clone()))
    }

    /// The users whose inbox takes its first notification ever.
    pub(crate) fn first_ever(&self) -> impl Iterator<Item = &str> {
        self.moved
            .iter()
            .filter(|(_, (from, _))| *from == Revision::ZERO)
            .map(|(user, _)| user.as_str())
    }

    /// What is to be told, in order.
    pub(crate) fn events(&self) -> impl Iterator<Item = &DomainEvent> {
        self.receipts.iter().filter_map(|receipt| match receipt {
            Receipt::Created(event) => Some(event),
            Receipt::Duplicate(_) => None,
        })
    }

    /// What is to be written, in order.
    pub(crate) fn notifications(&self) -> impl Iterator<Item = &Notification> {
        self.receipts
            .iter()
            .filter(|receipt| matches!(receipt, Receipt::Created(_)))
            .filter_map(Receipt::notification)
    }

    /// Every draft's notification, new or not, in order.
    pub(crate) fn led_to(&self) -> impl Iterator<Item = &Notification> {
        self.receipts.iter().filter_map(Receipt::notification)
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

    /// The domain's inbox decides what is right: puts the same drafts into both.
    fn as_the_reference_does(before: &[Draft], drafts: &[Draft]) {
        let mut reference = Inbox::new(user("ada"));
        let mut intake = Intake::default();
        let stored: Vec<_> = before
            .iter()
            .filter(|draft| matches!(reference.receive((*draft).clone()), Receipt::Created(_)))
            .collect();
        intake.inbox(user("ada")).stands_at(reference.state());
        for (revision, draft) in (1..).zip(stored) {
            let one = draft.clone().into_notification(Revision::new(revision));
            intake.inbox(user("ada")).holds(one, draft.dedupe_key.clone());
        }
        let from = reference.state().revision;

        let taken = intake.take(drafts);

        let expected: Vec<_> =
            drafts.iter().map(|draft| reference.receive(draft.clone())).collect();
        assert_eq!(taken.receipts, expected);
        let count = reference.state().revision.get() - from.get();
        let moved: Vec<_> = taken.moved.into_iter().collect();
        let expected: Vec<_> =
            (count > 0).then(|| (user("ada"), (from, count))).into_iter().collect();
        assert_eq!(moved, expected);
    }

    #[test]
    fn new_ones_are_taken_in_order() {
        as_the_reference_does(&[], &[a_draft("ada", "n1"), a_draft("ada", "n2")]);
        as_the_reference_does(&[a_draft("ada", "n1")], &[a_draft("ada", "n2")]);
    }

    #[test]
    fn twins_are_found_in_the_inbox_and_among_the_drafts() {
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
        as_the_reference_does(&before, &drafts);
        as_the_reference_does(&[], &drafts);
        as_the_reference_does(&drafts, &drafts);
    }

    #[test]
    fn every_inbox_counts_for_itself() {
        let mut intake = Intake::default();
        intake
            .inbox(user("bob"))
            .stands_at(InboxState { revision: Revision::new(7), unread: UnreadCount::new(2) });
        let drafts = [a_draft("bob", "n1"), a_draft("ada", "n1"), a_draft("bob", "n2")];
        let taken = intake.take(&drafts);
        let told: Vec<_> = taken
            .events()
            .map(|event| (event.user.as_str(), event.revision.get(), event.unread.get()))
            .collect();
        assert_eq!(told, [("bob", 8, 3), ("ada", 1, 1), ("bob", 9, 4)]);
        let moved: Vec<_> = taken
            .moved
            .iter()
            .map(|(user, (from, count))| (user.as_str(), from.get(), *count))
            .collect();
        assert_eq!(moved, [("ada", 0, 1), ("bob", 7, 2)]);
    }
}
