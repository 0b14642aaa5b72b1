//! Retention removes old data and nothing else.

use belfry_domain::{
    Change, DomainEvent, Draft, ExpiryCutoff, Receipt, ReplayRange, Revision, UnreadCount,
};

use super::super::promises;
use super::subject::{Store, key};
use crate::ports::{EventHeader, IdempotentOutcome, ListFilter};
use crate::testing::samples::{a_draft, at, id, user};

/// A cutoff that applies to notifications that expire by this instant, whatever their age.
fn expired_at(millis: i64) -> ExpiryCutoff {
    ExpiryCutoff { now: at(millis), created_before: None }
}

promises! { Store:

async fn expired_notifications_are_deleted_with_an_event(store) {
    let expiring = |name: &str, millis| Draft { expires_at: Some(at(millis)), created_at: at(0), ..a_draft("ada", name) };
    store.create(vec![expiring("n1", 1_000), expiring("n2", 1_000), expiring("n3", 2_000), a_draft("ada", "n4")]).await;
    store.mark_read("ada", &["n2"]).await.unwrap();

    assert_eq!(store.expire(expired_at(999), 10).await, 0);
    assert_eq!(store.state("ada").await, (5, 3));
    assert_eq!(store.expire(expired_at(1_000), 10).await, 2);
    assert_eq!(store.expire(expired_at(1_000), 10).await, 0);

    assert_eq!(store.state("ada").await, (6, 2));
    assert_eq!(store.listed("ada", &ListFilter::default(), 10).await, ["n4", "n3"]);
    let change = Change::Deleted { ids: vec![id("n1"), id("n2")] };
    let event = DomainEvent { user: user("ada"), revision: Revision::new(6), unread: UnreadCount::new(2), change };
    store.assert_entries_of(store.outbox_entries().await.last(), &[event]);
    assert_eq!(store.missed("ada", 5).await, ["6 deleted n1 n2"]);
    assert_eq!(store.create(vec![expiring("n1", 9_000)]).await, [Receipt::Deleted(id("n1"))]);
}

async fn old_notifications_are_deleted_only_with_a_maximum_age(store) {
    let created = |name: &str, millis| Draft { created_at: at(millis), ..a_draft("ada", name) };
    store.create(vec![created("n1", 1_000), created("n2", 2_000), created("n3", 3_000)]).await;
    let older_than = |millis| ExpiryCutoff { created_before: Some(at(millis)), ..expired_at(9_000) };
    assert_eq!(store.expire(expired_at(9_000), 10).await, 0);
    assert_eq!(store.expire(older_than(1_000), 10).await, 0);
    assert_eq!(store.expire(older_than(3_000), 10).await, 2);
    assert_eq!(store.listed("ada", &ListFilter::default(), 10).await, ["n3"]);
    assert_eq!(store.state("ada").await, (4, 1));
}

/// For example, the lock of an expiry must be released even if nothing has expired.
async fn expiry_without_effect_does_not_block_the_next_one(store) {
    for n in 0..100 {
        assert_eq!(store.expire(expired_at(1_000), 10).await, 0);
        let expiring = |user: &str| {
            let draft = a_draft(user, &format!("n{n}"));
            Draft { expires_at: Some(at(1_000)), created_at: at(0), ..draft }
        };
        // Two concurrent writes, so that each expiry may run on another connection than the previous one.
        tokio::join!(store.create(vec![expiring("ada")]), store.create(vec![expiring("bob")]));
        assert_eq!(store.expire(expired_at(999), 10).await, 0);
        assert_eq!(store.expire(expired_at(1_000), 10).await, 2, "{n}");
    }
}

async fn expired_notifications_of_many_inboxes_are_deleted_in_batches(store) {
    let drafts = (0..25).map(|n| {
        let name = format!("u{}", n % 5);
        Draft { expires_at: Some(at(1_000)), created_at: at(0), ..a_draft(&name, &format!("n{n}")) }
    });
    store.create(drafts.collect()).await;
    let entries_before = store.outbox_entries().await.len();
    let mut batches = Vec::new();
    while batches.last() != Some(&0) {
        batches.push(store.expire(expired_at(1_000), 10).await);
    }
    assert_eq!(batches, [10, 10, 5, 0]);
    let mut deleted: Vec<usize> = vec![0; 5];
    for entry in store.outbox_entries().await.split_off(entries_before) {
        let EventHeader { user, revision, .. } = entry.header.clone();
        let this_change = ReplayRange::new(Revision::new(revision.get() - 1), revision);
        let changes = store.changed_in(user.as_str(), this_change).await.unwrap();
        let mut ids: Vec<_> = changes.into_iter().map(|change| change.id).collect();
        // The event lists the ids in the order in which the notifications were created.
        ids.sort_by_key(|id| id.as_str()[1..].parse::<usize>().unwrap());
        let n: usize = user.as_str()[1..].parse().unwrap();
        deleted[n] += ids.len();
        let unread = UnreadCount::new(5 - deleted[n] as u64);
        let event = DomainEvent { user, revision, unread, change: Change::Deleted { ids } };
        store.assert_entries_of([&entry], &[event]);
    }
    assert_eq!(deleted, [5; 5]);
}

async fn old_tombstones_are_purged(store) {
    store.create_plain("ada", 4).await;
    store.create_plain("bob", 1).await;
    store.delete("ada", &["n2"]).await.unwrap();
    store.delete("ada", &["n3"]).await.unwrap();
    let (entries, state) = (store.outbox_entries().await.len(), store.state("ada").await);

    let replay = store.range_since("ada", 0).await;
    assert_eq!(store.purge_deleted(6_000, 10).await, 0);
    assert!(store.has_history("ada", 0).await);
    assert!(store.changed_in("ada", replay).await.is_some());
    assert_eq!(store.purge_deleted(6_001, 10).await, 2);
    assert_eq!(store.purge_deleted(6_001, 10).await, 0);

    assert_eq!((store.outbox_entries().await.len(), store.state("ada").await), (entries, state));
    assert_eq!(store.listed("ada", &ListFilter::default(), 10).await, ["n4", "n1"]);
    for since in 0..=5 {
        assert!(!store.has_history("ada", since).await, "{since}");
    }
    for (after, complete) in [(0, false), (5, false), (6, true)] {
        let page = ReplayRange { after: Revision::new(after), ..replay };
        assert_eq!(store.changed_in("ada", page).await.is_some(), complete, "the page after {after}");
    }
    assert_eq!(store.missed("ada", 6).await, [""; 0]);
    assert!(store.has_history("bob", 0).await);
    assert!(matches!(&store.create(vec![a_draft("ada", "n2")]).await[0], Receipt::Created(_)));
    assert_eq!(store.missed("ada", 6).await, ["7 new n2"]);
}

async fn tombstones_are_purged_in_batches(store) {
    store.create_plain("ada", 5).await;
    store.delete("ada", &["n1", "n2", "n3", "n4", "n5"]).await.unwrap();
    let mut batches = Vec::new();
    while batches.last() != Some(&0) {
        batches.push(store.purge_deleted(i64::from(u32::MAX), 2).await);
        assert!(!store.has_history("ada", 5).await && store.has_history("ada", 6).await);
    }
    assert_eq!(batches, [2, 2, 1, 0]);
}

async fn old_idempotency_keys_are_purged(store) {
    for name in ["k1", "k2", "k3"] {
        store.inboxes.create_once(&key(name, "f"), vec![a_draft("ada", name)]).await.unwrap();
    }
    let purge = async |made_before, limit| store.retention.purge_idempotency_keys(made_before, limit).await.unwrap();
    assert_eq!(purge(at(0), 10).await, 0);
    let future = at(9_000_000_000_000);
    assert_eq!([purge(future, 2).await, purge(future, 2).await, purge(future, 2).await], [2, 1, 0]);
    let again = store.inboxes.create_once(&key("k1", "g"), vec![a_draft("ada", "k4")]).await.unwrap();
    assert!(matches!(again, IdempotentOutcome::Executed(_)));
    assert_eq!(store.state("ada").await, (4, 4));
}

/// Concurrent cleanups and user actions delete each notification once, and counts stay exact.
async fn retention_is_exact_under_concurrency(store) {
    let draft = |n: usize| Draft { expires_at: Some(at(1_000)), created_at: at(0), ..a_draft(["ada", "bob"][n % 2], &format!("n{n}")) };
    store.create((0..60).map(draft).collect()).await;
    let cleanups = (0..3).map(|_| {
        let store = store.clone();
        async move {
            let mut deleted_count = 0;
            for _ in 0..20 {
                deleted_count += store.expire(expired_at(1_000), 5).await;
                store.purge_deleted(1_001, 3).await;
            }
            deleted_count
        }
    });
    let user_actions = async {
        let mut deleted_count = 0;
        for n in 0..30_usize {
            let name = format!("n{}", n * 2);
            deleted_count += usize::from(store.delete("ada", &[&name]).await.is_some());
            store.mark_read("bob", &[&format!("n{}", n * 2 + 1)]).await;
            store.create(vec![a_draft("ada", &format!("new{n}"))]).await;
        }
        deleted_count
    };
    let (cleaned, deleted) = tokio::join!(futures_util::future::join_all(cleanups), user_actions);
    let mut deleted_count = cleaned.iter().sum::<usize>() + deleted;
    loop {
        match store.expire(expired_at(1_000), 50).await {
            0 => break,
            more => deleted_count += more,
        }
    }
    assert_eq!(deleted_count, 60);
    assert_eq!(store.state("ada").await.1, 30);
    assert_eq!(store.state("bob").await.1, 0);
    let entries = store.outbox_entries().await;
    for name in ["ada", "bob"] {
        let revisions: Vec<_> = entries.iter().filter(|entry| entry.header.user == user(name)).map(|entry| entry.header.revision.get()).collect();
        assert_eq!(revisions, (1..=revisions.len() as u64).collect::<Vec<_>>(), "revisions are in order and consecutive");
    }
}

}
