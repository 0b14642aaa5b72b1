//! An erasure removes everything of one user and nothing else. A device with a position in an erased inbox
//! never counts as up to date again.

use belfry_domain::{Change, DomainEvent, EventName, Receipt, ReplayRange, Revision, UnreadCount};
use futures_util::future::join_all;

use super::super::promises;
use super::subject::{Store, full_draft, key};
use crate::ports::{Erased, IdempotencyKey, IdempotentOutcome, ListFilter, Revocation, TokenOwner};
use crate::testing::samples::{a_draft, at, id, user};

/// The event of the erasure of `name`.
async fn erased_event(store: &Store, name: &str, revision: u64) -> DomainEvent {
    DomainEvent {
        user: user(name),
        revision: Revision::new(revision),
        unread: UnreadCount::ZERO,
        change: Change::Erased { epoch: store.inboxes.epoch().await.unwrap() },
    }
}

promises! { Store:

async fn erasure_removes_everything_of_the_user_and_nothing_of_others(store) {
    store.create(vec![full_draft(), a_draft("ada", "n2"), a_draft("ada", "n3")]).await;
    let bobs_events = store.created_events(vec![a_draft("bob", "n1")]).await;
    store.mark_read("ada", &["n2"]).await.unwrap();
    store.delete("ada", &["n3"]).await.unwrap();
    store.inboxes.create_once(&key("k1", "f"), vec![a_draft("ada", "n4")]).await.unwrap();
    let own_key = IdempotencyKey::parse(user("ada"), "k2", "f").unwrap();
    store.inboxes.create_once(&own_key, vec![a_draft("ada", "n5")]).await.unwrap();
    let revocation = Revocation { owner: TokenOwner::User(user("ada")), issued_before: at(1_000) };
    store.revocations.revoke(&revocation).await.unwrap();
    assert_eq!(store.state("ada").await, (7, 3));

    let erased = store.erase("ada").await;

    assert_eq!(erased, Erased { inbox: true, notifications: 5, idempotency_keys: 2, events: 7 });
    assert_eq!(store.state("ada").await, (8, 0));
    assert_eq!(store.listed("ada", &ListFilter::default(), 10).await, [""; 0]);
    assert_eq!(store.inboxes.get(&user("ada"), &id("n1")).await.unwrap(), None);
    assert_eq!(store.unknown("ada", &["n1", "n3"]).await, ["n1", "n3"], "no tombstone is left");
    let expected = [&bobs_events[..], &[erased_event(&store, "ada", 8).await]].concat();
    store.assert_entries_of(&store.outbox_entries().await, &expected);
    let (revocations, _) = store.revocations.since(None).await.unwrap();
    assert_eq!(revocations, [revocation], "a revoked token stays revoked");
    assert_eq!(store.listed("bob", &ListFilter::default(), 10).await, ["n1"]);
    assert_eq!(store.state("bob").await, (1, 1));

    let again = store.created_events(vec![full_draft()]).await;
    assert_eq!((again[0].revision, again[0].unread), (Revision::new(9), UnreadCount::new(1)));
    let again = store.inboxes.create_once(&key("k1", "g"), vec![a_draft("ada", "n4")]).await.unwrap();
    assert!(matches!(again, IdempotentOutcome::Executed(_)), "the key is free again");
}

async fn idempotency_key_of_several_users_keeps_the_results_of_the_others(store) {
    let drafts = || ["bob", "ada", "cy", "ada"].into_iter().zip(["n1", "n2", "n3", "n4"]).map(|(name, id)| a_draft(name, id)).collect();
    store.inboxes.create_once(&key("k", "f"), drafts()).await.unwrap();
    assert_eq!(store.erase("ada").await.idempotency_keys, 1);
    let IdempotentOutcome::Repeated(kept) = store.inboxes.create_once(&key("k", "f"), drafts()).await.unwrap() else { panic!() };
    let kept: Vec<_> = kept.iter().map(|notification| (notification.user.as_str(), notification.id.as_str())).collect();
    assert_eq!(kept, [("bob", "n1"), ("cy", "n3")]);
    assert_eq!(store.state("ada").await.1, 0, "a retry does not create erased notifications again");
    assert_eq!(store.erase("bob").await.idempotency_keys, 1);
    assert_eq!(store.erase("cy").await.idempotency_keys, 1);
    let again = store.inboxes.create_once(&key("k", "g"), drafts()).await.unwrap();
    assert!(matches!(again, IdempotentOutcome::Executed(_)), "a key without results is removed");
}

async fn position_in_an_erased_inbox_is_never_up_to_date(store) {
    store.create_plain("ada", 3).await;
    let replay = store.range_since("ada", 1).await;
    store.erase("ada").await;
    assert_eq!(store.changed_in("ada", replay).await, None, "a running replay ends");
    for (since, complete) in [(0, false), (3, false), (4, true), (5, false)] {
        assert_eq!(store.has_history("ada", since).await, complete, "{since}");
    }
    // A longer inbox is erased, too. New inboxes start above both.
    store.create_plain("bob", 9).await;
    store.erase("bob").await;
    let (bobs_revision, _) = store.state("bob").await;
    assert!(bobs_revision >= 10, "{bobs_revision}");
    store.create_plain("cy", 1).await;
    store.erase("cy").await;
    for name in ["ada", "bob", "cy", "dan"] {
        let (start, unread) = store.state(name).await;
        assert_eq!(unread, 0);
        assert!(start >= bobs_revision, "{start}");
        store.create_plain(name, 2).await;
        assert_eq!(store.state(name).await, (start + 2, 2), "{name}");
        for since in 0..start {
            assert!(!store.has_history(name, since).await, "{name} since {since}");
        }
        let new = [format!("{} new n1", start + 1), format!("{} new n2", start + 2)];
        assert_eq!(store.missed(name, start).await, new);
    }
}

async fn erasing_nothing_changes_nothing(store) {
    assert_eq!(store.erase("ada").await, Erased::default());
    assert_eq!(store.mark_read("ada", &["n1"]).await, None);
    assert_eq!(store.delete("ada", &["n1"]).await, None);
    store.inboxes.mark_all_read(&user("ada"), at(0)).await.unwrap();
    assert_eq!(store.erase("ada").await, Erased::default(), "an edit without effect creates no inbox");
    assert_eq!(store.outbox_entries().await, []);
    store.create_plain("ada", 1).await;
    assert!(store.erase("ada").await.inbox);
    assert_eq!(store.erase("ada").await, Erased::default());
    let entries = store.outbox_entries().await;
    store.assert_entries_of(&entries, &[erased_event(&store, "ada", 2).await]);
    // The event of a later erasure replaces that of an earlier one.
    store.create_plain("ada", 1).await;
    assert_eq!(store.erase("ada").await.events, 2);
    let entries = store.outbox_entries().await;
    store.assert_entries_of(&entries, &[erased_event(&store, "ada", 4).await]);
}

/// Each notification is created before an erasure and erased with it, or is created after it.
async fn erasure_beside_concurrent_changes_keeps_counts_and_revisions_exact(store) {
    let creators = (0..3).map(|n| {
        let store = store.clone();
        async move {
            let mut created = Vec::new();
            for m in 0..15 {
                let drafts = vec![a_draft("ada", &format!("n{n}-{m}")), a_draft("bob", &format!("n{n}-{m}"))];
                let key = key(&format!("k{n}-{m}"), "f");
                let outcome = store.inboxes.create_once(&key, drafts).await.expect("create");
                let IdempotentOutcome::Executed(receipts) = outcome else { panic!("{outcome:?}") };
                for receipt in receipts {
                    let Receipt::Created(event) = receipt else { panic!("{receipt:?}") };
                    created.push((event.user, event.revision, format!("n{n}-{m}")));
                }
                store.mark_read("ada", &[&format!("n{n}-{m}")]).await;
            }
            created
        }
    });
    let erasures = async {
        for _ in 0..6 {
            store.erase("ada").await;
            store.state("ada").await;
        }
    };
    let (created, ()) = tokio::join!(join_all(creators), erasures);

    let (revision, unread) = store.state("ada").await;
    let listed = store.listed("ada", &ListFilter::default(), 100).await;
    let only_unread = ListFilter { unread: Some(true), ..ListFilter::default() };
    assert_eq!(store.listed("ada", &only_unread, 100).await.len() as u64, unread);
    let entries = store.outbox_entries().await;
    let headers: Vec<_> = entries.iter().map(|entry| &entry.header).filter(|header| header.user == user("ada")).collect();
    let revisions: Vec<_> = headers.iter().map(|header| header.revision.get()).collect();
    let first = *revisions.first().expect("an event");
    assert_eq!(revisions, (first..=revision).collect::<Vec<_>>(), "revisions after the last erasure are consecutive");
    // The list has exactly the notifications that were created after the last erasure that had an effect.
    let erased_at = if headers[0].name.as_str() == EventName::ALL_ERASED { first } else { 0 };
    let mut expected: Vec<_> = created.iter().flatten().filter(|(owner, at, _)| *owner == user("ada") && at.get() > erased_at).collect();
    expected.sort_by_key(|(_, at, _)| std::cmp::Reverse(*at));
    assert_eq!(listed, expected.iter().map(|(_, _, id)| id.clone()).collect::<Vec<_>>());
    assert_eq!(store.state("bob").await, (45, 45));

    store.erase("ada").await;
    let whole_history = ReplayRange::new(Revision::ZERO, Revision::new(10_000));
    assert_eq!(store.created_in("ada", whole_history, crate::ports::PageLimit::rows(100)).await.items, []);
}

}
