//! Reading an inbox: state, lists and history.

use belfry_domain::{
    Draft, InboxState, MissedChange, Notification, NotificationKind, ReplayRange, Revision,
    UnreadCount,
};

use super::super::promises;
use super::subject::{Store, full_draft, ids_of};
use crate::ports::{History, ListFilter, PageLimit};
use crate::testing::samples::{a_draft, at, id, user};

promises! { Store:

async fn epoch_does_not_change(store) {
    let epoch = store.inboxes.epoch().await.unwrap();
    store.create_plain("ada", 1).await;
    assert_eq!(store.inboxes.epoch().await.unwrap(), epoch);
}

async fn unknown_inbox_is_empty(store) {
    assert_eq!(store.state("ada").await, (0, 0));
    assert_eq!(store.listed("ada", &ListFilter::default(), 10).await, [""; 0]);
    assert_eq!(store.missed("ada", 0).await, [""; 0]);
    let empty = History::Complete { state: InboxState::default(), created: 0 };
    assert_eq!(store.history("ada", 0, 10).await, empty);
    assert_eq!(store.inboxes.get(&user("ada"), &id("n1")).await.unwrap(), None);
}

async fn lists_are_newest_first_and_page_without_gaps(store) {
    store.create_plain("ada", 5).await;
    // A change does not move a notification in the list.
    store.mark_read("ada", &["n1"]).await.unwrap();
    let first = store.list("ada", &ListFilter::default(), PageLimit::rows(2)).await;
    assert_eq!(ids_of(&first), ["n5", "n4"]);
    assert!(first.more);
    let remaining = ListFilter { before: first.items.last().map(|last| last.created_revision), ..ListFilter::default() };
    for (rows, more) in [(2, true), (3, false), (10, false)] {
        assert_eq!(store.list("ada", &remaining, PageLimit::rows(rows)).await.more, more, "{rows}");
    }
    assert_eq!(store.listed("ada", &remaining, 10).await, ["n3", "n2", "n1"]);
}

/// The store counts bytes as the domain does, for texts of any script, with and without optional fields.
async fn pages_end_at_the_byte_limit(store) {
    let full = |n: usize| Draft { id: id(&format!("n{n}")), dedupe_key: None, ..full_draft() };
    store.create(vec![full(1), full(2), a_draft("ada", "n3"), full(4)]).await;
    let all = store.list("ada", &ListFilter::default(), PageLimit::rows(10)).await;
    let sizes: Vec<_> = all.items.iter().map(Notification::text_bytes).collect();
    assert!(sizes[0] > sizes[1], "{sizes:?}");
    let range = store.range_since("ada", 0).await;
    for (bytes, rows) in [
        (0, 1),
        (sizes[0], 1),
        (sizes[0] + sizes[1] - 1, 1),
        (sizes[0] + sizes[1], 2),
        (sizes[0] + sizes[1] + sizes[2], 3),
        (sizes.iter().sum(), 4),
        (usize::MAX, 4),
    ] {
        let limit = PageLimit { rows: 10, bytes };
        let newest_first = store.list("ada", &ListFilter::default(), limit).await;
        assert_eq!(newest_first.items, all.items[..rows], "{bytes}");
        assert_eq!(newest_first.more, rows < 4, "{bytes}");
        let unread = ListFilter { unread: Some(true), ..ListFilter::default() };
        assert_eq!(store.list("ada", &unread, limit).await, newest_first);
    }
    let oldest_first = store.created_in("ada", range, PageLimit { rows: 10, bytes: sizes[3] + sizes[2] }).await;
    assert_eq!((ids_of(&oldest_first).join(" "), oldest_first.more), ("n1 n2".to_owned(), true));
}

async fn lists_are_filtered_by_read_state_and_kind(store) {
    let kind = NotificationKind::parse("mention").unwrap();
    store.create_plain("ada", 2).await;
    store.create(vec![Draft { kind: kind.clone(), ..a_draft("ada", "n3") }]).await;
    store.mark_read("ada", &["n1", "n3"]).await.unwrap();
    let filter = |unread, kind| ListFilter { unread, kind, before: None };
    assert_eq!(store.listed("ada", &filter(Some(true), None), 9).await, ["n2"]);
    assert_eq!(store.listed("ada", &filter(Some(false), None), 9).await, ["n3", "n1"]);
    assert_eq!(store.listed("ada", &filter(None, Some(kind.clone())), 9).await, ["n3"]);
    assert_eq!(store.listed("ada", &filter(Some(true), Some(kind)), 9).await, [""; 0]);
}

async fn replay_contains_the_latest_change_of_each_notification(store) {
    store.create_plain("ada", 3).await;
    store.mark_read("ada", &["n1"]).await.unwrap();
    store.delete("ada", &["n2"]).await.unwrap();
    store.create(vec![a_draft("ada", "n4"), a_draft("ada", "n5")]).await;
    store.mark_read("ada", &["n4"]).await.unwrap();
    store.delete("ada", &["n5"]).await.unwrap();

    assert_eq!(store.missed("ada", 2).await, ["3 new n3", "4 read n1", "5 deleted n2", "6 new n4", "8 read n4"]);
    assert_eq!(store.missed("ada", 0).await, ["1 new n1", "3 new n3", "4 read n1", "6 new n4", "8 read n4"]);
    assert_eq!(store.missed("ada", 7).await, ["8 read n4", "9 deleted n5"]);
    assert_eq!(store.missed("ada", 9).await, [""; 0]);
    let range = store.range_since("ada", 0).await;
    let read = store.changed_in("ada", range).await.unwrap();
    let remaining = ReplayRange { after: Revision::new(4), ..range };
    assert_eq!(store.changed_in("ada", remaining).await.unwrap(), read[1..], "the device never saw n2 and n5");
    assert_eq!(read[0], MissedChange { id: id("n1"), revision: Revision::new(4), read_at: Some(at(5_000)) });
}

/// A change after the end of the range is not replayed. A notification that is deleted after it is not replayed
/// either.
async fn replay_is_exact_while_the_inbox_changes(store) {
    store.create_plain("ada", 4).await;
    store.mark_read("ada", &["n1"]).await.unwrap();
    let range = store.range_since("ada", 1).await;
    store.mark_read("ada", &["n2"]).await.unwrap();
    store.delete("ada", &["n1", "n4"]).await.unwrap();
    store.create(vec![a_draft("ada", "n5")]).await;

    let created = store.created_in("ada", range, PageLimit::rows(10)).await;
    assert_eq!(ids_of(&created), ["n2", "n3"]);
    assert_eq!(store.changed_in("ada", range).await, Some(vec![]), "n1 was deleted later");
    let remaining = ReplayRange { after: Revision::new(2), ..range };
    assert_eq!(ids_of(&store.created_in("ada", remaining, PageLimit::rows(10)).await), ["n3"]);
}

async fn created_notifications_are_paged_oldest_first(store) {
    store.create_plain("ada", 5).await;
    store.delete("ada", &["n2"]).await.unwrap();
    let mut range = store.range_since("ada", 0).await;
    let mut pages = Vec::new();
    loop {
        let page = store.created_in("ada", range, PageLimit::rows(2)).await;
        pages.push(ids_of(&page).join(" "));
        range.after = page.items.last().unwrap().created_revision;
        if !page.more {
            break;
        }
    }
    assert_eq!(pages, ["n1 n3", "n4 n5"]);
}

/// A device that received a revision never requests the remaining changes of that revision.
async fn changes_of_one_revision_are_never_split(store) {
    store.create_plain("ada", 6).await;
    store.mark_read("ada", &["n1"]).await.unwrap();
    store.mark_read("ada", &["n2", "n3", "n4"]).await.unwrap();
    store.delete("ada", &["n5"]).await.unwrap();
    let range = store.range_since("ada", 6).await;
    for (limit, rows) in [(1, 1), (2, 4), (3, 4), (4, 4), (5, 5), (9, 5)] {
        let changes = store.inboxes.changed_in(&user("ada"), range, limit).await.unwrap().unwrap();
        assert_eq!(changes.len(), rows, "{limit}");
        assert!(changes.is_sorted_by_key(|change| change.revision));
    }
}

async fn history_counts_new_notifications_and_reports_gaps(store) {
    store.create_plain("ada", 5).await;
    store.mark_read("ada", &["n1", "n4"]).await.unwrap();
    store.delete("ada", &["n5"]).await.unwrap();
    let state = InboxState { revision: Revision::new(7), unread: UnreadCount::new(2) };
    for (since, created) in [(0, 4), (2, 2), (3, 1), (5, 0), (7, 0)] {
        assert_eq!(store.history("ada", since, 5).await, History::Complete { state, created }, "{since}");
    }
    for (since, limit) in [(0, 4), (2, 3), (8, 100)] {
        assert_eq!(store.history("ada", since, limit).await, History::OutOfReach { state }, "{since}");
    }
}

}
