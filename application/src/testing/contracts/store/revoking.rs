//! Revocations are stored, and no reader misses one.

use std::collections::HashSet;
use std::time::Duration;

use super::super::promises;
use super::subject::Store;
use crate::ports::{Revocation, TokenOwner};
use crate::testing::samples::{at, user};

fn revocation(name: &str, issued_before: i64) -> Revocation {
    Revocation { owner: TokenOwner::User(user(name)), issued_before: at(issued_before) }
}

fn everyone_revoked(issued_before: i64) -> Revocation {
    Revocation { owner: TokenOwner::Everyone, issued_before: at(issued_before) }
}

promises! { Store:

async fn later_revocation_of_a_user_applies(store) {
    assert_eq!(store.revocations.revoke(&revocation("ada", 2_000)).await.unwrap(), revocation("ada", 2_000));
    assert_eq!(store.revocations.revoke(&revocation("ada", 1_000)).await.unwrap(), revocation("ada", 2_000));
    assert_eq!(store.revocations.revoke(&revocation("ada", 3_000)).await.unwrap(), revocation("ada", 3_000));
    store.revocations.revoke(&revocation("bob", 1_000)).await.unwrap();
    let (mut all, _) = store.revocations.since(None).await.unwrap();
    all.sort_by_key(|revocation| revocation.owner.user().cloned());
    assert_eq!(all, [revocation("ada", 3_000), revocation("bob", 1_000)]);
}

async fn revocation_for_everyone_is_independent_of_those_of_users(store) {
    store.revocations.revoke(&revocation("ada", 3_000)).await.unwrap();
    let (_, cursor) = store.revocations.since(None).await.unwrap();
    assert_eq!(store.revocations.revoke(&everyone_revoked(2_000)).await.unwrap(), everyone_revoked(2_000));
    assert_eq!(store.revocations.revoke(&everyone_revoked(1_000)).await.unwrap(), everyone_revoked(2_000));
    assert_eq!(store.revocations.revoke(&revocation("ada", 1_000)).await.unwrap(), revocation("ada", 3_000));
    let (mut new, _) = store.revocations.since(Some(cursor)).await.unwrap();
    new.sort_by_key(|revocation| revocation.owner.user().cloned());
    assert_eq!(new, [everyone_revoked(2_000), revocation("ada", 3_000)]);
}

async fn reader_that_passes_cursors_on_misses_no_revocation(store) {
    let (none, mut cursor) = store.revocations.since(None).await.unwrap();
    assert_eq!(none, []);
    let reader = async {
        let mut received = HashSet::new();
        while received.len() < 40 {
            let (new, next) = store.revocations.since(Some(cursor)).await.unwrap();
            received.extend(new.into_iter().map(|revocation| revocation.owner));
            cursor = next;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let writers = futures_util::future::join_all((0..4).map(|writer| {
        let store = store.clone();
        async move {
            for n in 0..10 {
                store.revocations.revoke(&revocation(&format!("u{writer}-{n}"), 1_000)).await.unwrap();
            }
        }
    }));
    let both = async { tokio::join!(reader, writers) };
    tokio::time::timeout(Duration::from_mins(1), both).await.expect("all revocations are received");
}

async fn old_revocations_are_purged(store) {
    for name in ["ada", "bob", "cy"] {
        store.revocations.revoke(&revocation(name, 1_000)).await.unwrap();
    }
    let purge = async |made_before, limit| store.retention.purge_revocations(made_before, limit).await.unwrap();
    assert_eq!(purge(at(0), 10).await, 0);
    let future = at(9_000_000_000_000);
    assert_eq!([purge(future, 2).await, purge(future, 2).await, purge(future, 2).await], [2, 1, 0]);
    assert_eq!(store.revocations.since(None).await.unwrap().0, []);
}

async fn revocation_for_everyone_is_purged(store) {
    store.revocations.revoke(&everyone_revoked(1_000)).await.unwrap();
    assert_eq!(store.retention.purge_revocations(at(0), 10).await.unwrap(), 0);
    assert_eq!(store.retention.purge_revocations(at(9_000_000_000_000), 10).await.unwrap(), 1);
    assert_eq!(store.revocations.since(None).await.unwrap().0, []);
}

async fn revocation_is_kept_while_its_instant_is_recent(store) {
    // The store's clock may have been wrong when the revocation was written.
    for recent in [revocation("ada", 8_000_000_000_000), everyone_revoked(8_000_000_000_000)] {
        store.revocations.revoke(&recent).await.unwrap();
        assert_eq!(store.retention.purge_revocations(at(7_000_000_000_000), 10).await.unwrap(), 0);
        assert!(store.revocations.since(None).await.unwrap().0.contains(&recent));
    }
}

}
