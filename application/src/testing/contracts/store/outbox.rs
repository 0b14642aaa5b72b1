//! What has changed waits in the outbox to be told, in its order, by one at a time.

use std::time::Duration;

use belfry_domain::Receipt;

use super::super::promises;
use super::{Store, full_draft};
use crate::testing::{a_draft, at, user};
use crate::trace::{self, TraceParent};

promises! { Store:

async fn every_change_waits_in_the_outbox_in_order(store) {
    let parent = TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
    let mut told = Vec::new();
    for receipt in trace::scope(Some(parent.clone()), store.takes(vec![full_draft(), a_draft("bob", "n9")])).await {
        let Receipt::Taken(event) = receipt else { panic!() };
        told.push(event);
    }
    told.push(store.mark_read("ada", &["n1"]).await.unwrap());
    store.takes(vec![a_draft("ada", "n2")]).await;
    told.push(store.inboxes.mark_all_read(&user("ada"), at(9_000)).await.unwrap().unwrap());
    told.push(store.delete("ada", &["n1", "n2"]).await.unwrap());

    let waiting = store.waiting().await;
    assert!(waiting.is_sorted_by_key(|entry| entry.id));
    let events: Vec<_> = waiting.iter().map(|entry| entry.event.clone()).filter(|event| event.revision.get() != 3 || event.user != user("ada")).collect();
    assert_eq!(events, told);
    assert_eq!(waiting[0].trace, Some(parent));
    assert_eq!(waiting[2].trace, None);
    assert_eq!(store.outbox.backlog().await.unwrap(), waiting.len() as u64);
}

async fn a_change_that_changes_nothing_is_not_told(store) {
    store.takes_plain("ada", 1).await;
    store.takes_plain("ada", 1).await;
    store.mark_read("ada", &["nobody"]).await;
    store.delete("ada", &["nobody"]).await;
    assert_eq!(store.waiting().await.len(), 1);
}

async fn what_was_told_is_forgotten_and_nothing_else(store) {
    store.takes_plain("ada", 5).await;
    let mut lease = store.acquire_lease().await;
    let first = lease.pending(2).await.unwrap();
    assert_eq!(first.len(), 2);
    lease.remove(&[first[0].id, first[1].id]).await.unwrap();
    let rest = lease.pending(10).await.unwrap();
    assert_eq!(rest.iter().map(|entry| entry.event.revision.get()).collect::<Vec<_>>(), [3, 4, 5]);
    lease.remove(&[]).await.unwrap();
    assert_eq!(store.outbox.backlog().await.unwrap(), 3);
}

async fn one_leads_at_a_time_and_the_lead_passes_on(store) {
    let lease = store.acquire_lease().await;
    assert!(store.outbox.acquire_lease().await.unwrap().is_none());
    drop(lease);
    // A lead that is dropped may take a moment to be free again.
    for _ in 0..100 {
        if store.outbox.acquire_lease().await.unwrap().is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the lead was never free again");
}

async fn a_commit_wakes_the_lead(store) {
    let mut lease = store.acquire_lease().await;
    assert_eq!(lease.pending(10).await.unwrap(), []);
    let patience = Duration::from_mins(1);
    let (woken, ()) = tokio::join!(lease.wait_for_entries(patience), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        store.takes_plain("ada", 1).await;
    });
    woken.unwrap();
    assert_eq!(lease.pending(10).await.unwrap().len(), 1);
}

async fn a_commit_just_before_the_wait_is_not_slept_through(store) {
    let mut lease = store.acquire_lease().await;
    assert_eq!(lease.pending(10).await.unwrap(), []);
    store.takes_plain("ada", 1).await;
    tokio::time::timeout(Duration::from_secs(30), lease.wait_for_entries(Duration::from_mins(1))).await.expect("woken").unwrap();
}

async fn patience_ends_a_wait_for_nothing(store) {
    let mut lease = store.acquire_lease().await;
    lease.wait_for_entries(Duration::from_millis(20)).await.unwrap();
}

}
