//! The outbox has an entry for every change, in order. Only the holder of the lease reads it.

use std::time::Duration;

use super::super::promises;
use super::subject::{Store, full_draft};
use crate::ports::{OutboxBacklog, OutboxEntry, PageLimit};
use crate::testing::samples::{a_draft, at, user};
use crate::trace::{self, TraceParent};

promises! { Store:

async fn every_change_is_in_the_outbox_in_order(store) {
    let parent = TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
    let mut expected = trace::scope(Some(parent.clone()), store.created_events(vec![full_draft(), a_draft("bob", "n9")])).await;
    assert_eq!(expected.len(), 2);
    expected.push(store.mark_read("ada", &["n1"]).await.unwrap());
    expected.extend(store.created_events(vec![a_draft("ada", "n2")]).await);
    expected.push(store.inboxes.mark_all_read(&user("ada"), at(9_000)).await.unwrap().unwrap());
    expected.push(store.delete("ada", &["n1", "n2"]).await.unwrap());

    let entries = store.outbox_entries().await;
    assert!(entries.is_sorted_by_key(|entry| entry.id));
    store.assert_entries_of(&entries, &expected);
    assert_eq!(entries[0].trace, Some(parent));
    assert_eq!(entries[2].trace, None);
    assert_eq!(store.outbox.backlog().await.unwrap().entries, entries.len() as u64);
}

async fn call_without_effect_writes_no_outbox_entry(store) {
    store.create_plain("ada", 1).await;
    // None of these calls has an effect.
    store.create_plain("ada", 1).await;
    store.mark_read("ada", &["unknown"]).await;
    store.delete("ada", &["unknown"]).await;
    assert_eq!(store.outbox_entries().await.len(), 1);
}

async fn only_removed_entries_leave_the_outbox(store) {
    assert_eq!(store.outbox.backlog().await.unwrap(), OutboxBacklog::default());
    store.create_plain("ada", 5).await;
    let mut lease = store.acquire_lease().await;
    let first = lease.pending(PageLimit::rows(2)).await.unwrap().items;
    assert_eq!(first.len(), 2);
    lease.remove(&[first[0].id, first[1].id]).await.unwrap();
    let remaining = lease.pending(PageLimit::rows(10)).await.unwrap().items;
    assert_eq!(remaining.iter().map(|entry| entry.header.revision.get()).collect::<Vec<_>>(), [3, 4, 5]);
    lease.remove(&[]).await.unwrap();
    let OutboxBacklog { entries, age } = store.outbox.backlog().await.unwrap();
    assert_eq!(entries, 3);
    assert!(age < Duration::from_mins(5), "{age:?}");
}

async fn page_of_the_outbox_is_limited_in_entries_and_bytes(store) {
    store.created_events(vec![full_draft()]).await;
    store.create_plain("bob", 4).await;
    let mut lease = store.acquire_lease().await;
    let all = lease.pending(PageLimit::rows(5)).await.unwrap();
    assert_eq!((all.items.len(), all.more), (5, false));
    let sizes: Vec<_> = all.items.iter().map(OutboxEntry::body_bytes).collect();
    let sum = |count: usize| sizes[..count].iter().sum::<usize>();
    for (limit, expected, more) in [
        (PageLimit::rows(4), 4, true),
        (PageLimit { rows: 10, bytes: sum(5) }, 5, false),
        (PageLimit { rows: 10, bytes: sum(5) - 1 }, 4, true),
        (PageLimit { rows: 10, bytes: sum(2) }, 2, true),
        (PageLimit { rows: 1, bytes: sum(2) }, 1, true),
        (PageLimit { rows: 10, bytes: 1 }, 1, true),
    ] {
        let page = lease.pending(limit).await.unwrap();
        assert_eq!((&page.items[..], page.more), (&all.items[..expected], more), "{limit:?}");
    }
    lease.remove(&all.items.iter().map(|entry| entry.id).collect::<Vec<_>>()).await.unwrap();
    let none = lease.pending(PageLimit { rows: 10, bytes: 1 }).await.unwrap();
    assert_eq!((none.items.len(), none.more), (0, false));
}

async fn lease_is_exclusive_and_free_again_after_drop(store) {
    let lease = store.acquire_lease().await;
    assert!(store.outbox.acquire_lease().await.unwrap().is_none());
    drop(lease);
    // The store may take a moment to release a dropped lease.
    for _ in 0..100 {
        if store.outbox.acquire_lease().await.unwrap().is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the lease was never released");
}

async fn commit_during_the_wait_ends_the_wait(store) {
    let mut lease = store.acquire_lease().await;
    assert_eq!(lease.pending(PageLimit::rows(10)).await.unwrap().items, []);
    let wait = tokio::time::timeout(Duration::from_secs(30), lease.wait_for_entries(Duration::from_mins(1)));
    let (waited, ()) = tokio::join!(wait, async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        store.create_plain("ada", 1).await;
    });
    waited.expect("woken").unwrap();
    assert_eq!(lease.pending(PageLimit::rows(10)).await.unwrap().items.len(), 1);
}

async fn commit_just_before_the_wait_ends_the_wait(store) {
    let mut lease = store.acquire_lease().await;
    assert_eq!(lease.pending(PageLimit::rows(10)).await.unwrap().items, []);
    store.create_plain("ada", 1).await;
    tokio::time::timeout(Duration::from_secs(30), lease.wait_for_entries(Duration::from_mins(1))).await.expect("woken").unwrap();
}

async fn wait_without_a_commit_ends_after_patience(store) {
    let mut lease = store.acquire_lease().await;
    lease.wait_for_entries(Duration::from_millis(20)).await.unwrap();
}

}
