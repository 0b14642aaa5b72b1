//! Notifications are created once and stored unchanged.

use std::collections::HashMap;

use belfry_domain::{
    Change, Data, DomainEvent, Draft, Message, Notification, NotificationId, Receipt, Revision,
    UserId,
};

use super::super::promises;
use super::subject::{Store, full_draft, key};
use crate::ports::{IdempotencyKey, IdempotentOutcome, ListFilter, PageLimit};
use crate::testing::samples::{a_draft, at, id, user};
use crate::trace::{self, TraceParent};

fn created(receipt: &Receipt) -> &Notification {
    match receipt {
        Receipt::Created(DomainEvent { change: Change::Created(notification), .. }) => notification,
        other => panic!("not created: {other:?}"),
    }
}

promises! { Store:

async fn notification_is_stored_unchanged(store) {
    let receipts = store.create(vec![full_draft()]).await;
    let expected = full_draft().into_notification(Revision::new(1));
    assert_eq!(created(&receipts[0]), &expected);
    let got = store.inboxes.get(&user("ada"), &id("n1")).await.unwrap();
    assert_eq!(got.as_ref(), Some(&expected));
    let limit = PageLimit::rows(10);
    let listed = store.list("ada", &ListFilter::default(), limit).await.items;
    assert_eq!(listed, [expected]);
    let range = store.range_since("ada", 0).await;
    assert_eq!(store.created_in("ada", range, limit).await.items, listed);
}

async fn texts_of_any_script_and_length_are_stored_unchanged(store) {
    let long = Draft {
        id: NotificationId::parse(&"💌".repeat(128)).unwrap(),
        user: UserId::parse(&"💌".repeat(255)).unwrap(),
        message: Message::parse(&"語".repeat(4_000)).unwrap(),
        data: Some(Data::from_valid_json(format!("{{\"x\":\"{}\"}}", "y".repeat(16_000))).unwrap()),
        ..a_draft("ada", "n1")
    };
    let receipts = store.create(vec![long.clone()]).await;
    assert_eq!(created(&receipts[0]), &long.into_notification(Revision::new(1)));
}

async fn repeated_id_creates_one_notification(store) {
    store.create_plain("ada", 1).await;
    let again = store.create(vec![a_draft("ada", "n1")]).await;
    assert!(matches!(&again[0], Receipt::Duplicate(existing) if existing.id == id("n1")));
    assert_eq!(store.state("ada").await, (1, 1));
    assert_eq!(store.outbox_entries().await.len(), 1);
}

async fn repeated_id_in_one_call_creates_one_notification(store) {
    let receipts = store.create(vec![a_draft("ada", "n1"), a_draft("ada", "n2"), a_draft("ada", "n1")]).await;
    assert_eq!(created(&receipts[1]).revision, Revision::new(2));
    assert!(matches!(&receipts[2], Receipt::Duplicate(existing) if existing.revision == Revision::new(1)));
    assert_eq!(store.state("ada").await, (2, 2));
}

async fn same_id_in_two_inboxes_creates_two_notifications(store) {
    let receipts = store.create(vec![a_draft("ada", "n1"), a_draft("bob", "n1")]).await;
    assert!(receipts.iter().all(|receipt| matches!(receipt, Receipt::Created(_))));
    assert_eq!(store.state("ada").await, (1, 1));
    assert_eq!(store.state("bob").await, (1, 1));
}

async fn repeated_dedupe_key_creates_one_notification(store) {
    let with_key = |name: &str, key: &str| Draft { dedupe_key: Some(id(key)), ..a_draft("ada", name) };
    let receipts = store.create(vec![with_key("n1", "k"), with_key("n2", "k"), with_key("n3", "other")]).await;
    assert!(matches!(&receipts[1], Receipt::Duplicate(existing) if existing.id == id("n1")));
    assert!(matches!(&receipts[2], Receipt::Created(_)));
    let later = store.create(vec![with_key("n4", "k")]).await;
    assert!(matches!(&later[0], Receipt::Duplicate(existing) if existing.id == id("n1")));
    assert_eq!(store.state("ada").await, (2, 2));
}

async fn deleted_notification_is_not_created_again(store) {
    store.create_plain("ada", 1).await;
    store.delete("ada", &["n1"]).await.unwrap();
    let again = store.create(vec![a_draft("ada", "n1")]).await;
    assert_eq!(again, [Receipt::Deleted(id("n1"))]);
    assert_eq!(store.state("ada").await, (2, 0));
}

async fn dedupe_key_of_a_deleted_notification_creates_none(store) {
    let with_key = |name: &str| Draft { id: id(name), ..full_draft() };
    store.create(vec![with_key("n1")]).await;
    store.delete("ada", &["n1"]).await.unwrap();
    let again = store.inboxes.create_once(&key("k", "f"), vec![with_key("n2"), a_draft("ada", "n3")]).await.unwrap();
    let IdempotentOutcome::Executed(receipts) = again else { panic!("{again:?}") };
    assert_eq!(receipts[0], Receipt::Deleted(id("n1")));
    assert!(matches!(&receipts[1], Receipt::Created(_)));
    let repeated = store.inboxes.create_once(&key("k", "f"), vec![]).await.unwrap();
    assert!(matches!(&repeated, IdempotentOutcome::Repeated(all) if all.len() == 1), "{repeated:?}");
}

async fn drafts_of_one_call_get_revisions_in_their_order(store) {
    let drafts = (0..50).map(|n| a_draft(["ada", "bob", "cy"][n % 3], &format!("n{n}"))).collect();
    let receipts = store.create(drafts).await;
    for (n, receipt) in receipts.iter().enumerate() {
        let notification = created(receipt);
        assert_eq!(notification.id, id(&format!("n{n}")));
        assert_eq!(notification.revision, Revision::new(n as u64 / 3 + 1));
        let Receipt::Created(event) = receipt else { unreachable!() };
        assert_eq!(event.unread.get(), n as u64 / 3 + 1, "the count is that right after the change");
    }
}

async fn creating_no_drafts_returns_no_receipts(store) {
    assert_eq!(store.create(vec![]).await, []);
}

async fn repeated_request_is_executed_once(store) {
    let drafts = |a: &str, b: &str| vec![a_draft("ada", a), a_draft("bob", b)];
    let first = store.inboxes.create_once(&key("k", "f"), drafts("n1", "n2")).await.unwrap();
    let IdempotentOutcome::Executed(receipts) = first else { panic!("{first:?}") };
    let expected: Vec<_> = receipts.iter().map(|receipt| created(receipt).clone()).collect();

    let again = store.inboxes.create_once(&key("k", "f"), drafts("n3", "n4")).await.unwrap();
    assert_eq!(again, IdempotentOutcome::Repeated(expected));
    assert_eq!(store.state("ada").await, (1, 1));
    assert_eq!(store.outbox_entries().await.len(), 2);
}

async fn idempotency_key_with_another_request_is_rejected(store) {
    store.inboxes.create_once(&key("k", "f"), vec![a_draft("ada", "n1")]).await.unwrap();
    let other = store.inboxes.create_once(&key("k", "g"), vec![a_draft("bob", "n2")]).await.unwrap();
    assert_eq!(other, IdempotentOutcome::KeyReused);
    assert_eq!(store.state("bob").await, (0, 0));
    let key_of_other_caller = IdempotencyKey::parse(user("other-shop"), "k", "g").unwrap();
    let outcome = store.inboxes.create_once(&key_of_other_caller, vec![a_draft("bob", "n2")]).await.unwrap();
    assert!(matches!(outcome, IdempotentOutcome::Executed(_)));
}

async fn concurrent_identical_requests_are_executed_once(store) {
    let attempts = (0..8).map(|n| {
        let inboxes = store.inboxes.clone();
        async move { inboxes.create_once(&key("k", "f"), vec![a_draft("ada", &format!("n{n}"))]).await.unwrap() }
    });
    let outcomes = futures_util::future::join_all(attempts).await;
    let executed = outcomes.iter().filter(|outcome| matches!(outcome, IdempotentOutcome::Executed(_))).count();
    assert_eq!(executed, 1, "{outcomes:?}");
    assert_eq!(store.state("ada").await, (1, 1));
}

async fn concurrent_creates_each_return_their_receipts_and_keep_their_trace(store) {
    let trace_of = |n: usize| TraceParent::parse(&format!("00-{:032x}-{:016x}-01", n + 1, n + 1)).unwrap();
    let calls = (0..40).map(|n| {
        let inboxes = store.inboxes.clone();
        let name = format!("n{n}");
        let drafts = vec![a_draft(["ada", "bob", "cy"][n % 3], &name), a_draft("dan", &name)];
        trace::scope(Some(trace_of(n)), async move {
            if n % 2 == 0 {
                return inboxes.create(drafts).await.unwrap();
            }
            match inboxes.create_once(&key(&name, "f"), drafts).await.unwrap() {
                IdempotentOutcome::Executed(receipts) => receipts,
                other => panic!("{other:?}"),
            }
        })
    });
    let all = futures_util::future::join_all(calls).await;

    let mut traces = HashMap::new();
    for (n, receipts) in all.iter().enumerate() {
        let notifications: Vec<_> = receipts.iter().map(created).collect();
        assert_eq!(notifications.len(), 2);
        for notification in notifications {
            assert_eq!(notification.id, id(&format!("n{n}")));
            traces.insert((notification.user.clone(), notification.revision), trace_of(n));
        }
    }
    assert_eq!(store.state("dan").await, (40, 40));
    let entries = store.outbox_entries().await;
    assert_eq!(entries.len(), 80);
    for entry in entries {
        let header = &entry.header;
        let trace = traces.remove(&(header.user.clone(), header.revision));
        assert!(trace.is_some() && trace == entry.trace, "{entry:?}");
    }
}

async fn concurrent_creates_edits_and_deletes_each_take_effect(store) {
    let names: Vec<_> = (0..10).map(|n| format!("user{n}")).collect();
    for name in &names {
        store.create_plain(name, 3).await;
    }
    let calls = names.iter().flat_map(|name| [(name, 0), (name, 1), (name, 2), (name, 3)]);
    // Whether each call had its effect.
    let outcomes = calls.map(|(name, call)| {
        let (inboxes, user) = (store.inboxes.clone(), user(name));
        async move {
            match call {
                0 => matches!(&inboxes.create(vec![a_draft(user.as_str(), "n4")]).await.unwrap()[..], [Receipt::Created(_)]),
                1 => inboxes.mark_read(&user, &[id("n1")], at(9_000)).await.unwrap().event.is_some(),
                2 => inboxes.delete(&user, &[id("n2")], at(9_000)).await.unwrap().is_some(),
                _ => inboxes.mark_read(&user, &[id("never")], at(9_000)).await.unwrap().unknown == [id("never")],
            }
        }
    });
    let outcomes = futures_util::future::join_all(outcomes).await;
    assert!(outcomes.into_iter().all(|had_effect| had_effect));
    // Of four notifications, one is read and one is deleted. The last call changed nothing.
    for name in &names {
        assert_eq!(store.state(name).await, (6, 2), "{name}");
    }
}

}
