//! Notifications are taken once, as they are.

use belfry_domain::{
    Change, Data, DomainEvent, Draft, Message, Notification, NotificationId, Receipt, Revision,
    UserId,
};

use super::super::promises;
use super::{Store, full_draft, key};
use crate::ports::{IdempotencyKey, ListFilter, Once, PageLimit};
use crate::testing::{a_draft, id, user};

fn created(receipt: &Receipt) -> &Notification {
    match receipt {
        Receipt::Taken(DomainEvent { change: Change::Created(one), .. }) => one,
        other => panic!("not taken: {other:?}"),
    }
}

promises! { Store:

async fn a_notification_is_kept_as_it_was_put_in(store) {
    let receipts = store.takes(vec![full_draft()]).await;
    let expected = full_draft().taken_at(Revision::new(1));
    assert_eq!(created(&receipts[0]), &expected);
    let got = store.inboxes.get(&user("ada"), &id("n1")).await.unwrap();
    assert_eq!(got.as_ref(), Some(&expected));
    let limit = PageLimit::rows(10);
    let listed = store.list("ada", &ListFilter::default(), limit).await.items;
    assert_eq!(listed, [expected]);
    let whole = store.range_since("ada", 0).await;
    assert_eq!(store.created_in("ada", whole, limit).await.items, listed);
}

async fn texts_of_any_script_and_length_are_kept(store) {
    let long = Draft {
        id: NotificationId::parse(&"💌".repeat(128)).unwrap(),
        user: UserId::parse(&"ü".repeat(128)).unwrap(),
        message: Message::parse(&"語".repeat(4_000)).unwrap(),
        data: Some(Data::of_checked_syntax(format!("{{\"x\":\"{}\"}}", "y".repeat(16_000))).unwrap()),
        ..a_draft("ada", "n1")
    };
    let receipts = store.takes(vec![long.clone()]).await;
    assert_eq!(created(&receipts[0]), &long.taken_at(Revision::new(1)));
}

async fn the_same_id_twice_is_one_notification(store) {
    store.takes_plain("ada", 1).await;
    let again = store.takes(vec![a_draft("ada", "n1")]).await;
    assert!(matches!(&again[0], Receipt::AlreadyThere(one) if one.id == id("n1")));
    assert_eq!(store.position("ada").await, (1, 1));
    assert_eq!(store.waiting().await.len(), 1);
}

async fn the_same_id_twice_in_one_call_is_one_notification(store) {
    let receipts = store.takes(vec![a_draft("ada", "n1"), a_draft("ada", "n2"), a_draft("ada", "n1")]).await;
    assert_eq!(created(&receipts[1]).revision, Revision::new(2));
    assert!(matches!(&receipts[2], Receipt::AlreadyThere(one) if one.revision == Revision::new(1)));
    assert_eq!(store.position("ada").await, (2, 2));
}

async fn the_same_id_in_two_inboxes_is_two_notifications(store) {
    let receipts = store.takes(vec![a_draft("ada", "n1"), a_draft("bob", "n1")]).await;
    assert!(receipts.iter().all(|one| matches!(one, Receipt::Taken(_))));
    assert_eq!(store.position("ada").await, (1, 1));
    assert_eq!(store.position("bob").await, (1, 1));
}

async fn the_same_dedupe_key_twice_is_one_notification(store) {
    let with_key = |name: &str, name_of_key: &str| Draft { dedupe_key: Some(id(name_of_key)), ..a_draft("ada", name) };
    let receipts = store.takes(vec![with_key("n1", "k"), with_key("n2", "k"), with_key("n3", "other")]).await;
    assert!(matches!(&receipts[1], Receipt::AlreadyThere(one) if one.id == id("n1")));
    assert!(matches!(&receipts[2], Receipt::Taken(_)));
    let later = store.takes(vec![with_key("n4", "k")]).await;
    assert!(matches!(&later[0], Receipt::AlreadyThere(one) if one.id == id("n1")));
    assert_eq!(store.position("ada").await, (2, 2));
}

async fn what_was_deleted_does_not_come_back(store) {
    store.takes_plain("ada", 1).await;
    store.delete("ada", &["n1"]).await.unwrap();
    let again = store.takes(vec![a_draft("ada", "n1")]).await;
    assert!(matches!(&again[0], Receipt::AlreadyThere(_)));
    assert_eq!(store.position("ada").await, (2, 0));
}

async fn many_drafts_take_revisions_in_their_order(store) {
    let drafts = (0..50).map(|n| a_draft(["ada", "bob", "cy"][n % 3], &format!("n{n}"))).collect();
    let receipts = store.takes(drafts).await;
    for (n, receipt) in receipts.iter().enumerate() {
        let one = created(receipt);
        assert_eq!(one.id, id(&format!("n{n}")));
        assert_eq!(one.revision, Revision::new(n as u64 / 3 + 1));
        let Receipt::Taken(event) = receipt else { unreachable!() };
        assert_eq!(event.unread.get(), n as u64 / 3 + 1, "the count right after each");
    }
}

async fn no_drafts_are_no_work(store) {
    assert_eq!(store.takes(vec![]).await, []);
}

async fn a_request_takes_effect_once(store) {
    let drafts = |a: &str, b: &str| vec![a_draft("ada", a), a_draft("bob", b)];
    let first = store.inboxes.create_once(&key("k", "f"), drafts("n1", "n2")).await.unwrap();
    let Once::Done(receipts) = first else { panic!("{first:?}") };
    let done: Vec<_> = receipts.iter().map(|one| created(one).clone()).collect();

    let again = store.inboxes.create_once(&key("k", "f"), drafts("n3", "n4")).await.unwrap();
    assert_eq!(again, Once::Before(done));
    assert_eq!(store.position("ada").await, (1, 1));
    assert_eq!(store.waiting().await.len(), 2);
}

async fn a_key_is_not_used_for_two_requests(store) {
    store.inboxes.create_once(&key("k", "f"), vec![a_draft("ada", "n1")]).await.unwrap();
    let other = store.inboxes.create_once(&key("k", "g"), vec![a_draft("bob", "n2")]).await.unwrap();
    assert_eq!(other, Once::KeyReused);
    assert_eq!(store.position("bob").await, (0, 0));
    let callers_own = IdempotencyKey::parse(user("other shop".replace(' ', "-").as_str()), "k", "g").unwrap();
    let done = store.inboxes.create_once(&callers_own, vec![a_draft("bob", "n2")]).await.unwrap();
    assert!(matches!(done, Once::Done(_)));
}

async fn a_request_sent_many_times_at_once_takes_effect_once(store) {
    let attempts = (0..8).map(|n| {
        let inboxes = store.inboxes.clone();
        async move { inboxes.create_once(&key("k", "f"), vec![a_draft("ada", &format!("n{n}"))]).await.unwrap() }
    });
    let outcomes = futures_util::future::join_all(attempts).await;
    let done = outcomes.iter().filter(|one| matches!(one, Once::Done(_))).count();
    assert_eq!(done, 1, "{outcomes:?}");
    assert_eq!(store.position("ada").await, (1, 1));
}

}
