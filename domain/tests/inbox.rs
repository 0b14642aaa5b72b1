//! Examples for the rules of an inbox, and property tests of its invariants for random histories.
#![expect(clippy::unwrap_used, reason = "an invalid sample fails the test")]

use belfry_domain::*;
use proptest::prelude::*;

fn user() -> UserId {
    UserId::parse("ada").unwrap()
}

fn id(n: usize) -> NotificationId {
    NotificationId::parse(&format!("n{n}")).unwrap()
}

fn draft(n: usize) -> Draft {
    Draft {
        id: id(n),
        user: user(),
        kind: NotificationKind::default(),
        title: Title::parse("Hi").unwrap(),
        message: Message::default(),
        data: None,
        link: None,
        priority: Priority::Normal,
        dedupe_key: None,
        created_at: Timestamp::from_unix_millis(0),
        expires_at: None,
    }
}

fn now() -> Timestamp {
    Timestamp::from_unix_millis(1_000)
}

#[test]
fn repeated_id_creates_one_notification() {
    let mut inbox = Inbox::new(user());
    assert!(matches!(inbox.create(draft(1)), Receipt::Created(_)));
    assert!(matches!(inbox.create(draft(1)), Receipt::Duplicate(_)));
    assert_eq!(inbox.state().unread, UnreadCount::new(1));
    assert_eq!(inbox.state().revision, Revision::new(1));
}

#[test]
fn repeated_dedupe_key_creates_one_notification() {
    let key = NotificationId::parse("order-7-shipped").unwrap();
    let mut inbox = Inbox::new(user());
    inbox.create(Draft { dedupe_key: Some(key.clone()), ..draft(1) });
    let again = inbox.create(Draft { dedupe_key: Some(key), ..draft(2) });
    assert_eq!(again.notification().map(|existing| existing.id.clone()), Some(id(1)));
}

#[test]
fn deleted_notification_is_not_created_again() {
    let mut inbox = Inbox::new(user());
    inbox.create(draft(1));
    inbox.delete(&[id(1)], now()).unwrap();
    assert_eq!(inbox.create(draft(1)), Receipt::Deleted(id(1)));
    assert_eq!(inbox.notifications().count(), 0);
}

#[test]
fn call_without_effect_uses_no_revision() {
    let mut inbox = Inbox::new(user());
    inbox.create(draft(1));
    inbox.mark_read(&[id(1)], now()).event.unwrap();
    let before = inbox.state();
    assert_eq!(inbox.mark_read(&[id(1), id(9)], now()).event, None);
    assert_eq!(inbox.mark_all_read(now()), None);
    assert_eq!(inbox.delete(&[id(9)], now()), None);
    assert_eq!(inbox.state(), before);
}

#[test]
fn marking_as_read_returns_unknown_ids() {
    let mut inbox = Inbox::new(user());
    for n in 1..=3 {
        inbox.create(draft(n));
    }
    inbox.mark_read(&[id(1)], now());
    inbox.delete(&[id(2)], now()).unwrap();
    let marked = inbox.mark_read(&[id(9), id(1), id(2), id(3), id(8), id(9)], now());
    assert_eq!(marked.unknown, [id(9), id(8)]);
    assert!(marked.event.is_some());
}

/// Everything that a device missed after `since`.
fn missed_since(inbox: &Inbox, since: Revision) -> Option<ReplayBatch> {
    let range = ReplayRange::new(since, inbox.state().revision);
    Some(ReplayBatch::merge(inbox.created_in(range).cloned().collect(), inbox.changed_in(range)?))
}

#[test]
fn notification_read_elsewhere_is_new_to_a_device_that_never_saw_it() {
    let mut inbox = Inbox::new(user());
    inbox.create(draft(1));
    inbox.create(draft(2));
    inbox.mark_read(&[id(1)], now());

    let missed = missed_since(&inbox, Revision::ZERO).unwrap();
    assert!(!missed.is_empty());
    let missed: Vec<_> =
        missed.into_iter().map(|(revision, change)| (revision.get(), change)).collect();

    let (1, Change::Created(first)) = &missed[0] else { panic!("{:?}", missed[0]) };
    assert_eq!((first.id.clone(), first.is_read()), (id(1), true));
    assert_eq!(first.revision, Revision::new(1), "a device resumes from the creating revision");
    assert!(matches!(&missed[1], (2, Change::Created(second)) if second.id == id(2)));
    assert_eq!(missed[2], (3, Change::MarkedRead { ids: vec![id(1)], read_at: now() }));
}

#[test]
fn notification_created_and_deleted_while_offline_is_not_replayed() {
    let mut inbox = Inbox::new(user());
    inbox.create(draft(1));
    let seen = inbox.state().revision;
    inbox.create(draft(2));
    inbox.delete(&[id(2)], now());
    assert!(missed_since(&inbox, seen).unwrap().is_empty());
    assert_eq!(inbox.count_since(seen), Some(MissedCount { changed: 1, created: 0 }));
}

fn cutoff_at(millis: i64) -> ExpiryCutoff {
    ExpiryCutoff { now: Timestamp::from_unix_millis(millis), created_before: None }
}

#[test]
fn expired_notification_is_deleted_at_its_expiry() {
    let ends = |millis| Some(Timestamp::from_unix_millis(millis));
    let mut inbox = Inbox::new(user());
    inbox.create(Draft { expires_at: ends(500), ..draft(1) });
    inbox.create(Draft { expires_at: ends(600), ..draft(2) });
    inbox.create(draft(3));

    assert_eq!(inbox.expire(&cutoff_at(499), 10), None);
    let event = inbox.expire(&cutoff_at(500), 10).unwrap();
    assert_eq!(event.change, Change::Deleted { ids: vec![id(1)] });
    assert_eq!((event.revision.get(), event.unread.get()), (4, 2));
    assert_eq!(inbox.expire(&cutoff_at(500), 10), None);
}

#[test]
fn old_notifications_are_deleted_in_batches() {
    let mut inbox = Inbox::new(user());
    for n in 1..=5 {
        let created_at = Timestamp::from_unix_millis(i64::try_from(n).unwrap());
        inbox.create(Draft { created_at, ..draft(n) });
    }
    let old =
        ExpiryCutoff { created_before: Some(Timestamp::from_unix_millis(4)), ..cutoff_at(1_000) };
    let deleted = |event: Option<DomainEvent>| event.map(|event| event.change);
    assert_eq!(deleted(inbox.expire(&old, 2)), Some(Change::Deleted { ids: vec![id(1), id(2)] }));
    assert_eq!(deleted(inbox.expire(&old, 2)), Some(Change::Deleted { ids: vec![id(3)] }));
    assert_eq!(inbox.notifications().count(), 2);
}

#[test]
fn history_before_a_purged_tombstone_is_incomplete_and_its_id_can_be_used_again() {
    let mut inbox = Inbox::new(user());
    (1..=3).for_each(|n| drop(inbox.create(draft(n))));
    let known = inbox.state().revision;
    inbox.delete(&[id(1)], now()).unwrap();
    inbox.mark_read(&[id(2)], now()).event.unwrap();

    assert_eq!(inbox.purge_deleted(now(), 10), 0, "was deleted at that instant, not before it");
    let later = Timestamp::from_unix_millis(1_001);
    assert_eq!(inbox.purge_deleted(later, 10), 1);
    assert_eq!(inbox.count_since(known), None);
    assert_eq!(missed_since(&inbox, known), None);
    assert_eq!(inbox.count_since(known.next()), Some(MissedCount { changed: 1, created: 0 }));
    assert_eq!(inbox.count_since(inbox.state().revision.next()), None, "a future revision");
    assert_eq!(
        inbox.state(),
        InboxState { revision: Revision::new(5), unread: UnreadCount::new(1) }
    );
    assert!(matches!(inbox.create(draft(1)), Receipt::Created(_)));
}

#[test]
fn tombstones_count_as_entries_until_they_are_purged_in_batches() {
    let mut inbox = Inbox::new(user());
    (1..=4).for_each(|n| drop(inbox.create(draft(n))));
    inbox.delete(&[id(1), id(2), id(3)], now()).unwrap();
    assert_eq!((inbox.entry_count(), inbox.notifications().count()), (4, 1));
    let later = Timestamp::from_unix_millis(1_001);
    assert_eq!([(); 3].map(|()| inbox.purge_deleted(later, 2)), [2, 1, 0]);
    assert_eq!(inbox.entry_count(), 1);
}

#[test]
fn notification_that_the_device_knows_is_counted_as_changed_only() {
    let mut inbox = Inbox::new(user());
    inbox.create(draft(1));
    let known = inbox.state().revision;
    inbox.mark_read(&[id(1)], now()).event.unwrap();
    inbox.create(draft(2));
    assert_eq!(inbox.count_since(known), Some(MissedCount { changed: 2, created: 1 }));
}

/// A random change of an inbox. Notifications are named by their number.
#[derive(Debug, Clone)]
enum Step {
    Receive(usize),
    MarkRead(Vec<usize>),
    MarkAllRead,
    Delete(Vec<usize>),
    /// Expires at most this many notifications by their age.
    Expire(usize),
    /// Purges at most this many tombstones.
    Purge(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..20_usize).prop_map(Step::Receive),
        2 => prop::collection::vec(0..20_usize, 1..4).prop_map(Step::MarkRead),
        1 => Just(Step::MarkAllRead),
        1 => prop::collection::vec(0..20_usize, 1..3).prop_map(Step::Delete),
        1 => (1..4_usize).prop_map(Step::Expire),
        1 => (1..4_usize).prop_map(Step::Purge),
    ]
}

fn apply(inbox: &mut Inbox, step: &Step) -> Option<DomainEvent> {
    let ids = |numbers: &[usize]| numbers.iter().copied().map(id).collect::<Vec<_>>();
    match step {
        Step::Receive(n) => match inbox.create(draft(*n)) {
            Receipt::Created(event) => Some(event),
            Receipt::Duplicate(_) | Receipt::Deleted(_) => None,
        },
        Step::MarkRead(numbers) => inbox.mark_read(&ids(numbers), now()).event,
        Step::MarkAllRead => inbox.mark_all_read(now()),
        Step::Delete(numbers) => inbox.delete(&ids(numbers), now()),
        Step::Expire(limit) => {
            inbox.expire(&ExpiryCutoff { now: now(), created_before: Some(now()) }, *limit)
        }
        Step::Purge(limit) => {
            let before = inbox.state();
            inbox.purge_deleted(Timestamp::from_unix_millis(1_001), *limit);
            assert_eq!(inbox.state(), before, "purging does not change the state");
            None
        }
    }
}

#[test]
fn inbox_after_an_erasure_starts_above_all_erased_revisions() {
    let epoch = Epoch::parse("e1").unwrap();
    let mut inbox = Inbox::new(user());
    inbox.create(draft(1));
    inbox.mark_all_read(now()).unwrap();
    for (erased_before, revision) in [(0, 3), (3, 3), (9, 9)] {
        let event = inbox.clone().erase(epoch.clone(), Revision::new(erased_before));
        assert_eq!(event.revision, Revision::new(revision));
        assert_eq!(event.unread, UnreadCount::ZERO);
        assert_eq!(event.change, Change::Erased { epoch: epoch.clone() });
    }
    let mut later = Inbox::starting_at(user(), Revision::new(9));
    assert_eq!(later.state().revision, Revision::new(9));
    assert_eq!(
        later.count_since(Revision::new(8)),
        None,
        "a device of the erased inbox starts over"
    );
    assert_eq!(later.count_since(Revision::new(9)), Some(MissedCount::default()));
    let Receipt::Created(event) = later.create(draft(1)) else {
        panic!("the id of an erased notification cannot be used again")
    };
    assert_eq!((event.revision, event.unread), (Revision::new(10), UnreadCount::new(1)));
}

/// A device's own list, kept up to date by the changes that it receives: whether each notification is read,
/// by its id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Device(std::collections::BTreeMap<String, bool>);

impl Device {
    fn receive(&mut self, change: &Change) {
        match change {
            Change::Created(new) => {
                self.0.insert(new.id.to_string(), new.is_read());
            }
            Change::MarkedRead { ids, .. } => {
                for id in ids {
                    if let Some(read) = self.0.get_mut(id.as_str()) {
                        *read = true;
                    }
                }
            }
            Change::AllRead { .. } => self.0.values_mut().for_each(|read| *read = true),
            Change::Deleted { ids } => {
                for id in ids {
                    self.0.remove(id.as_str());
                }
            }
            Change::Erased { .. } => self.0.clear(),
        }
    }

    fn of(inbox: &Inbox) -> Self {
        Self(inbox.notifications().map(|n| (n.id.to_string(), n.is_read())).collect())
    }
}

proptest! {
    #[test]
    fn revisions_are_consecutive_and_counts_are_exact(steps in prop::collection::vec(step(), 0..80)) {
        let mut inbox = Inbox::new(user());
        let mut revision = 0;
        for step in &steps {
            if let Some(event) = apply(&mut inbox, step) {
                revision += 1;
                prop_assert_eq!(event.revision.get(), revision);
                let unread = inbox.notifications().filter(|n| !n.is_read()).count() as u64;
                prop_assert_eq!(event.unread.get(), unread);
            }
            prop_assert_eq!(inbox.state().revision.get(), revision);
        }
    }

    #[test]
    fn returning_device_ends_in_the_same_state_as_a_connected_one(
        steps in prop::collection::vec(step(), 1..60),
        disconnect_after in any::<prop::sample::Index>(),
        interrupt_after in any::<prop::sample::Index>(),
    ) {
        let mut inbox = Inbox::new(user());
        let (mut connected, mut returning) = (Device::default(), Device::default());
        let mut seen = Revision::ZERO;
        let last_step = disconnect_after.index(steps.len());
        for (n, step) in steps.iter().enumerate() {
            if let Some(event) = apply(&mut inbox, step) {
                connected.receive(&event.change);
                if n <= last_step {
                    returning.receive(&event.change);
                    seen = event.revision;
                }
            }
        }
        prop_assert_eq!(&connected, &Device::of(&inbox));

        // The device returns. If the history was purged, it has to load its list again.
        let Some(missed) = missed_since(&inbox, seen) else {
            prop_assert!(steps.iter().any(|step| matches!(step, Step::Purge(_))));
            return Ok(());
        };
        // Otherwise it loses its connection in the middle of the replay and returns again.
        let missed: Vec<_> = missed.into_iter().collect();
        let revisions: Vec<_> = missed.iter().map(|(revision, _)| *revision).collect();
        prop_assert!(revisions.is_sorted_by(|a, b| a < b), "{:?}", revisions);
        let mut created = Vec::new();
        for (revision, change) in missed.iter().take(interrupt_after.index(missed.len() + 1)) {
            if let Change::Created(new) = change { created.push(new.id.clone()); }
            returning.receive(change);
            seen = *revision;
        }
        for (_, change) in missed_since(&inbox, seen).unwrap() {
            if let Change::Created(new) = &change { created.push(new.id.clone()); }
            returning.receive(&change);
        }
        prop_assert_eq!(&returning, &connected);
        let count = created.len();
        created.sort();
        created.dedup();
        prop_assert_eq!(created.len(), count, "a notification was delivered twice as new");
    }

    /// The inbox changes between pages. These changes are delivered after the last page, as a session's
    /// gate does.
    #[test]
    fn paged_replay_is_exact_while_the_inbox_changes(
        before in prop::collection::vec(step(), 0..40),
        missed in prop::collection::vec(step(), 1..40),
        revisions_per_page in 1..8_u64,
        changes_after_pages in prop::collection::vec(prop::collection::vec(step(), 0..4), 0..40),
    ) {
        let mut inbox = Inbox::new(user());
        for step in &before {
            apply(&mut inbox, step);
        }
        let mut device = Device::of(&inbox);
        let since = inbox.state().revision;
        for step in &missed {
            apply(&mut inbox, step);
        }
        let Some(count) = inbox.count_since(since) else { return Ok(()) };

        let mut range = ReplayRange::new(since, inbox.state().revision);
        let (mut live, mut delivered, mut created) = (Vec::new(), Vec::new(), 0);
        let mut changes_after_pages = changes_after_pages.into_iter();
        while !range.is_done() {
            let end = Revision::new((range.after.get() + revisions_per_page).min(range.up_to.get()));
            let page = ReplayRange { up_to: end, ..range };
            let Some(changes) = inbox.changed_in(page) else { return Ok(()) };
            for (revision, change) in ReplayBatch::merge(inbox.created_in(page).cloned().collect(), changes) {
                created += usize::from(matches!(change, Change::Created(_)));
                device.receive(&change);
                delivered.push((revision, change));
            }
            range.after = end;
            for step in changes_after_pages.next().unwrap_or_default() {
                live.extend(apply(&mut inbox, &step));
            }
        }
        for event in live {
            device.receive(&event.change);
            delivered.push((event.revision, event.change));
        }
        prop_assert_eq!(device, Device::of(&inbox));
        // Each revision is delivered once, so no notification is delivered twice as new.
        prop_assert!(delivered.is_sorted_by(|(a, _), (b, _)| a < b), "{:?}", delivered);
        // It can be fewer: a counted notification may be deleted before its page is read.
        prop_assert!(created <= count.created, "{} of {:?}", created, count);
    }
}
