//! What has had its time goes, and nothing else.

use belfry_domain::{Change, Draft, Due, Receipt, ReplayRange, Revision};

use super::super::promises;
use super::{Store, key};
use crate::ports::{ListFilter, Once};
use crate::testing::{a_draft, at, id, user};

/// Due at that instant by the end that each notification has of its own.
fn expired_at(millis: i64) -> Due {
    Due { now: at(millis), created_before: None }
}

promises! { Store:

async fn what_expires_is_deleted_like_by_its_user(store) {
    let ends = |name: &str, millis| Draft { expires_at: Some(at(millis)), created_at: at(0), ..a_draft("ada", name) };
    store.takes(vec![ends("n1", 1_000), ends("n2", 1_000), ends("n3", 2_000), a_draft("ada", "n4")]).await;
    store.mark_read("ada", &["n2"]).await.unwrap();

    assert_eq!(store.expires(expired_at(999), 10).await, 0);
    assert_eq!(store.position("ada").await, (5, 3));
    assert_eq!(store.expires(expired_at(1_000), 10).await, 2);
    assert_eq!(store.expires(expired_at(1_000), 10).await, 0);

    assert_eq!(store.position("ada").await, (6, 2));
    assert_eq!(store.listed("ada", &ListFilter::default(), 10).await, ["n4", "n3"]);
    let event = store.waiting().await.pop().unwrap().event;
    assert_eq!((event.user, event.revision.get(), event.unread.get()), (user("ada"), 6, 2));
    assert_eq!(event.change, Change::Deleted { ids: vec![id("n1"), id("n2")] });
    assert_eq!(store.missed("ada", 5).await, ["6 deleted n1 n2"]);
    assert!(matches!(&store.takes(vec![ends("n1", 9_000)]).await[0], Receipt::AlreadyThere(_)));
}

async fn what_is_old_is_deleted_where_age_is_bounded(store) {
    let born = |name: &str, millis| Draft { created_at: at(millis), ..a_draft("ada", name) };
    store.takes(vec![born("n1", 1_000), born("n2", 2_000), born("n3", 3_000)]).await;
    let older_than = |millis| Due { created_before: Some(at(millis)), ..expired_at(9_000) };
    assert_eq!(store.expires(expired_at(9_000), 10).await, 0);
    assert_eq!(store.expires(older_than(1_000), 10).await, 0);
    assert_eq!(store.expires(older_than(3_000), 10).await, 2);
    assert_eq!(store.listed("ada", &ListFilter::default(), 10).await, ["n3"]);
    assert_eq!(store.position("ada").await, (4, 1));
}

async fn what_is_due_goes_in_batches_of_many_inboxes(store) {
    let drafts = (0..25).map(|n| {
        let name = format!("u{}", n % 5);
        Draft { expires_at: Some(at(1_000)), created_at: at(0), ..a_draft(&name, &format!("n{n}")) }
    });
    store.takes(drafts.collect()).await;
    let told = store.waiting().await.len();
    let mut batches = Vec::new();
    while batches.last() != Some(&0) {
        batches.push(store.expires(expired_at(1_000), 10).await);
    }
    assert_eq!(batches, [10, 10, 5, 0]);
    let mut gone: Vec<usize> = vec![0; 5];
    for entry in store.waiting().await.split_off(told) {
        let Change::Deleted { ids } = entry.event.change else { panic!("{entry:?}") };
        let n: usize = entry.event.user.as_str()[1..].parse().unwrap();
        gone[n] += ids.len();
        assert_eq!(entry.event.unread.get(), 5 - gone[n] as u64);
    }
    assert_eq!(gone, [5; 5]);
}

async fn what_was_deleted_long_ago_is_forgotten(store) {
    store.takes_plain("ada", 4).await;
    store.takes_plain("bob", 1).await;
    store.delete("ada", &["n2"]).await.unwrap();
    store.delete("ada", &["n3"]).await.unwrap();
    let (waiting, position) = (store.waiting().await.len(), store.position("ada").await);

    let replay = store.range_since("ada", 0).await;
    assert_eq!(store.forgets_deleted(6_000, 10).await, 0);
    assert!(store.reaches("ada", 0).await);
    assert!(store.changed_in("ada", replay).await.is_some());
    assert_eq!(store.forgets_deleted(6_001, 10).await, 2);
    assert_eq!(store.forgets_deleted(6_001, 10).await, 0);

    assert_eq!((store.waiting().await.len(), store.position("ada").await), (waiting, position));
    assert_eq!(store.listed("ada", &ListFilter::default(), 10).await, ["n4", "n1"]);
    for since in 0..=5 {
        assert!(!store.reaches("ada", since).await, "{since}");
    }
    for (after, complete) in [(0, false), (5, false), (6, true)] {
        let page = ReplayRange { after: Revision::new(after), ..replay };
        assert_eq!(store.changed_in("ada", page).await.is_some(), complete, "between two pages: {after}");
    }
    assert_eq!(store.missed("ada", 6).await, [""; 0]);
    assert!(store.reaches("bob", 0).await);
    assert!(matches!(&store.takes(vec![a_draft("ada", "n2")]).await[0], Receipt::Taken(_)));
    assert_eq!(store.missed("ada", 6).await, ["7 new n2"]);
}

async fn tombstones_are_forgotten_in_batches(store) {
    store.takes_plain("ada", 5).await;
    store.delete("ada", &["n1", "n2", "n3", "n4", "n5"]).await.unwrap();
    let mut batches = Vec::new();
    while batches.last() != Some(&0) {
        batches.push(store.forgets_deleted(i64::from(u32::MAX), 2).await);
        assert!(!store.reaches("ada", 5).await && store.reaches("ada", 6).await);
    }
    assert_eq!(batches, [2, 2, 1, 0]);
}

async fn requests_of_long_ago_are_forgotten(store) {
    for name in ["k1", "k2", "k3"] {
        store.inboxes.create_once(&key(name, "f"), vec![a_draft("ada", name)]).await.unwrap();
    }
    let forgets = async |before, limit| store.retention.purge_requests(before, limit).await.unwrap();
    assert_eq!(forgets(at(0), 10).await, 0);
    let future = at(9_000_000_000_000);
    assert_eq!([forgets(future, 2).await, forgets(future, 2).await, forgets(future, 2).await], [2, 1, 0]);
    let again = store.inboxes.create_once(&key("k1", "g"), vec![a_draft("ada", "k4")]).await.unwrap();
    assert!(matches!(again, Once::Done(_)));
    assert_eq!(store.position("ada").await, (4, 4));
}

/// Whoever comes at the same time, users included: each one is deleted once, and counts stay exact.
async fn removing_is_safe_beside_all_else(store) {
    let draft = |n: usize| Draft { expires_at: Some(at(1_000)), created_at: at(0), ..a_draft(["ada", "bob"][n % 2], &format!("n{n}")) };
    store.takes((0..60).map(draft).collect()).await;
    let sweeps = (0..3).map(|_| {
        let store = store.clone();
        async move {
            let mut gone = 0;
            for _ in 0..20 {
                gone += store.expires(expired_at(1_000), 5).await;
                store.forgets_deleted(1_001, 3).await;
            }
            gone
        }
    });
    let user_too = async {
        let mut gone = 0;
        for n in 0..30_usize {
            let name = format!("n{}", n * 2);
            gone += usize::from(store.delete("ada", &[&name]).await.is_some());
            store.mark_read("bob", &[&format!("n{}", n * 2 + 1)]).await;
            store.takes(vec![a_draft("ada", &format!("new{n}"))]).await;
        }
        gone
    };
    let (swept, deleted) = tokio::join!(futures_util::future::join_all(sweeps), user_too);
    let mut gone = swept.iter().sum::<usize>() + deleted;
    loop {
        match store.expires(expired_at(1_000), 50).await {
            0 => break,
            more => gone += more,
        }
    }
    assert_eq!(gone, 60);
    assert_eq!(store.position("ada").await.1, 30);
    assert_eq!(store.position("bob").await.1, 0);
    let waiting = store.waiting().await;
    for name in ["ada", "bob"] {
        let revisions: Vec<_> = waiting.iter().filter(|one| one.event.user == user(name)).map(|one| one.event.revision.get()).collect();
        assert_eq!(revisions, (1..=revisions.len() as u64).collect::<Vec<_>>(), "told in order, without holes");
    }
}

}
