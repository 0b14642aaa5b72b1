//! Marking as read and deleting, with exact counts.

use std::collections::HashSet;

use belfry_domain::{Change, Inbox, Marked, Receipt};

use super::super::promises;
use super::subject::Store;
use crate::ports::ListFilter;
use crate::testing::samples::{a_draft, at, id, user};

promises! { Store:

async fn marking_as_read_counts_each_notification_once(store) {
    store.create_plain("ada", 3).await;
    let event = store.mark_read("ada", &["n1", "n3", "unknown", "n1"]).await.unwrap();
    assert_eq!((event.revision.get(), event.unread.get()), (4, 1));
    let Change::MarkedRead { ids, read_at } = event.change else { panic!() };
    assert_eq!(ids.iter().collect::<HashSet<_>>(), HashSet::from([&id("n1"), &id("n3")]));
    assert_eq!(ids.len(), 2);
    assert_eq!(read_at, at(5_000));

    assert_eq!(store.mark_read("ada", &["n1"]).await, None);
    assert_eq!(store.mark_read("ada", &[]).await, None);
    assert_eq!(store.state("ada").await, (4, 1));
    let read = store.inboxes.get(&user("ada"), &id("n1")).await.unwrap().unwrap();
    assert_eq!((read.read_at, read.revision.get(), read.created_revision.get()), (Some(at(5_000)), 4, 1));
}

async fn marking_as_read_returns_unknown_ids(store) {
    assert_eq!(store.unknown("ada", &["n1", "n0", "n1"]).await, ["n1", "n0"], "the inbox does not exist yet");
    store.create_plain("ada", 3).await;
    assert_eq!(store.unknown("bob", &["n1"]).await, ["n1"], "n1 is in another inbox");
    store.create_plain("bob", 1).await;
    assert_eq!(store.unknown("bob", &["n2", "n1"]).await, ["n2"]);

    assert_eq!(store.unknown("ada", &["n1", "n2", "n1"]).await, [""; 0]);
    store.delete("ada", &["n2"]).await.unwrap();
    let Marked { event, unknown } = store.marked("ada", &["z", "n1", "n2", "n3", "a", "z"]).await;
    assert_eq!(unknown, [id("z"), id("a")], "read and deleted notifications are known");
    assert!(matches!(event.unwrap().change, Change::MarkedRead { ids, .. } if ids == [id("n3")]));
    assert_eq!(store.unknown("ada", &["a", "n1", "n2", "n3"]).await, ["a"], "unknown ids are returned even without a change");
    assert_eq!(store.unknown("ada", &[]).await, [""; 0]);
}

/// The notification is either marked or unknown, never both and never neither.
async fn notification_created_while_marking_is_marked_or_unknown(store) {
    for n in 0..40 {
        let name = format!("n{n}");
        let named = [name.as_str()];
        let (_, marked) = tokio::join!(store.create(vec![a_draft("ada", &name)]), store.marked("ada", &named));
        assert_eq!(marked.event.is_none(), marked.unknown == [id(&name)], "{marked:?}");
    }
}

async fn marking_all_as_read_sets_the_count_to_zero(store) {
    assert_eq!(store.inboxes.mark_all_read(&user("ada"), at(1)).await.unwrap(), None);
    store.create_plain("ada", 3).await;
    store.mark_read("ada", &["n2"]).await.unwrap();
    let event = store.inboxes.mark_all_read(&user("ada"), at(7_000)).await.unwrap().unwrap();
    assert_eq!((event.revision.get(), event.unread.get()), (5, 0));
    assert_eq!(event.change, Change::AllRead { read_at: at(7_000) });
    assert_eq!(store.inboxes.mark_all_read(&user("ada"), at(8_000)).await.unwrap(), None);
    assert_eq!(store.listed("ada", &ListFilter { unread: Some(true), ..ListFilter::default() }, 9).await, [""; 0]);
}

async fn deleting_an_unread_notification_decrements_the_count(store) {
    store.create_plain("ada", 3).await;
    store.mark_read("ada", &["n1"]).await.unwrap();
    let event = store.delete("ada", &["n1", "n2", "unknown"]).await.unwrap();
    assert_eq!((event.revision.get(), event.unread.get()), (5, 1));
    let Change::Deleted { ids } = event.change else { panic!() };
    assert_eq!(ids.len(), 2);
    assert_eq!(store.delete("ada", &["n1"]).await, None);
    assert_eq!(store.listed("ada", &ListFilter::default(), 10).await, ["n3"]);
    assert_eq!(store.inboxes.get(&user("ada"), &id("n1")).await.unwrap(), None);
    assert_eq!(store.mark_read("ada", &["n2"]).await, None);
}

async fn other_users_inbox_is_neither_readable_nor_writable(store) {
    store.create_plain("ada", 1).await;
    assert_eq!(store.mark_read("bob", &["n1"]).await, None);
    assert_eq!(store.delete("bob", &["n1"]).await, None);
    assert_eq!(store.inboxes.mark_all_read(&user("bob"), at(1)).await.unwrap(), None);
    assert_eq!(store.inboxes.get(&user("bob"), &id("n1")).await.unwrap(), None);
    assert_eq!(store.listed("bob", &ListFilter::default(), 10).await, [""; 0]);
    assert_eq!(store.missed("bob", 0).await, [""; 0]);
    assert_eq!(store.state("ada").await, (1, 1));
}

/// Concurrent changes have the same result as in the domain's inbox, if it makes them one after another in the
/// order of their revisions. Revisions are consecutive, and the count equals the number of unread rows.
async fn counts_and_revisions_are_exact_under_concurrency(store) {
    let work = (0..8_usize).map(|worker| {
        let store = store.clone();
        async move {
            let mut events = Vec::new();
            for n in 0..12_usize {
                let name = format!("w{worker}-n{n}");
                events.extend(store.created_events(vec![a_draft("ada", &name), a_draft("bob", &name)]).await);
                if n % 3 == 0 {
                    events.extend(store.mark_read("ada", &[&name]).await);
                }
                if n % 4 == 0 {
                    events.extend(store.delete("ada", &[&name]).await);
                }
                if n % 6 == 5 {
                    events.extend(store.inboxes.mark_all_read(&user("ada"), at(9_000)).await.unwrap());
                }
            }
            events
        }
    });
    let mut events = futures_util::future::join_all(work).await.concat();
    events.sort_by_key(|event| event.revision);
    let (adas_events, bobs_events): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event.user == user("ada"));

    let (revision, unread) = store.state("ada").await;
    assert_eq!(revision, adas_events.len() as u64);
    let unread_rows = store.listed("ada", &ListFilter { unread: Some(true), ..ListFilter::default() }, 1_000).await;
    assert_eq!(unread, unread_rows.len() as u64);

    let entries = store.outbox_entries().await;
    for (name, events) in [("ada", &adas_events), ("bob", &bobs_events)] {
        store.assert_entries_of(entries.iter().filter(|entry| entry.header.user == user(name)), events);
        let revisions: Vec<_> = events.iter().map(|event| event.revision.get()).collect();
        assert_eq!(revisions, (1..=revisions.len() as u64).collect::<Vec<_>>(), "revisions are consecutive");
    }
    let mut reference = Inbox::new(user("ada"));
    for event in adas_events {
        let expected = match &event.change {
            Change::Created(new) => match reference.create(a_draft("ada", new.id.as_str())) {
                Receipt::Created(event) => Some(event),
                Receipt::Duplicate(_) | Receipt::Deleted(_) => None,
            },
            Change::MarkedRead { ids, read_at } => reference.mark_read(ids, *read_at).event,
            Change::AllRead { read_at } => reference.mark_all_read(*read_at),
            Change::Deleted { ids } => reference.delete(ids, at(6_000)),
            Change::Erased { .. } => panic!("nothing was erased"),
        };
        let expected = expected.expect("each published change also changes the reference");
        assert_eq!((event.revision, event.unread), (expected.revision, expected.unread));
    }
}

}
