//! What a store promises: inboxes ([`InboxRepository`]) and the outbox ([`Outbox`]) behind them,
//! which are written together, [`Revocations`], and [`Retention`], which makes room in all of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use belfry_domain::{
    Change, Data, DomainEvent, Draft, Due, Inbox, Kind, Link, Marked, Message, Missed,
    MissedChange, Notification, NotificationId, Priority, Receipt, Revision, UserId,
};

use super::promises;
use crate::ports::{
    History, IdempotencyKey, InboxRepository, ListFilter, Once, Outbox, OutboxEntry, OutboxLead,
    Retention, Revocation, Revocations,
};
use crate::testing::{a_draft, at, id, user};
use crate::trace::{self, TraceParent};

/// A fresh, empty store, by all of its ports.
#[derive(Clone)]
pub struct Store {
    inboxes: Arc<dyn InboxRepository>,
    outbox: Arc<dyn Outbox>,
    retention: Arc<dyn Retention>,
    revocations: Arc<dyn Revocations>,
}

impl Store {
    /// Takes one store, which has all of these ports.
    pub fn of<S>(store: S) -> Self
    where
        S: InboxRepository + Outbox + Retention + Revocations + 'static,
    {
        let store = Arc::new(store);
        Self {
            inboxes: store.clone(),
            outbox: store.clone(),
            retention: store.clone(),
            revocations: store,
        }
    }

    async fn takes(&self, drafts: Vec<Draft>) -> Vec<Receipt> {
        self.inboxes.create(drafts).await.expect("create")
    }

    async fn takes_plain(&self, name: &str, count: usize) {
        let drafts = (1..=count).map(|n| a_draft(name, &format!("n{n}"))).collect();
        self.takes(drafts).await;
    }

    async fn position(&self, name: &str) -> (u64, u64) {
        let state = self.inboxes.state(&user(name)).await.expect("state");
        (state.revision.get(), state.unread.get())
    }

    async fn listed(&self, name: &str, filter: &ListFilter, limit: usize) -> Vec<String> {
        let listed = self.inboxes.list(&user(name), filter, limit).await.expect("list");
        listed.into_iter().map(|one| one.id.to_string()).collect()
    }

    async fn mark_read(&self, name: &str, ids: &[&str]) -> Option<DomainEvent> {
        self.marked(name, ids).await.event
    }

    /// Which of these the inbox does not know.
    async fn unknown(&self, name: &str, ids: &[&str]) -> Vec<String> {
        self.marked(name, ids).await.unknown.iter().map(ToString::to_string).collect()
    }

    async fn marked(&self, name: &str, ids: &[&str]) -> Marked {
        let ids: Vec<_> = ids.iter().copied().map(id).collect();
        self.inboxes.mark_read(&user(name), &ids, at(5_000)).await.expect("mark read")
    }

    async fn delete(&self, name: &str, ids: &[&str]) -> Option<DomainEvent> {
        let ids: Vec<_> = ids.iter().copied().map(id).collect();
        self.inboxes.delete(&user(name), &ids, at(6_000)).await.expect("delete")
    }

    async fn lead(&self) -> Box<dyn OutboxLead> {
        self.outbox.lead().await.expect("lead").expect("nobody else leads")
    }

    async fn waiting(&self) -> Vec<OutboxEntry> {
        self.lead().await.pending(10_000).await.expect("pending")
    }

    async fn missed(&self, name: &str, since: u64) -> (u64, Vec<MissedChange>) {
        let since = Revision::new(since);
        match self.inboxes.history(&user(name), since, 1_000).await.expect("history") {
            History::Complete { state, changes } => (state.revision.get(), changes),
            History::OutOfReach { .. } => panic!("within reach"),
        }
    }

    /// Whether history can be told from there.
    async fn reaches(&self, name: &str, since: u64) -> bool {
        let history = self.inboxes.history(&user(name), Revision::new(since), 1_000).await;
        matches!(history.expect("history"), History::Complete { .. })
    }

    async fn expires(&self, due: Due, limit: usize) -> usize {
        self.retention.expire(&due, limit).await.expect("expire")
    }

    async fn forgets_deleted(&self, before: i64, limit: usize) -> usize {
        self.retention.forget_deleted(at(before), limit).await.expect("forget deleted")
    }
}

fn before(name: &str, instant: i64) -> Revocation {
    Revocation { user: user(name), issued_before: at(instant) }
}

/// Due at that instant by the end that each notification has of its own.
fn expired_at(millis: i64) -> Due {
    Due { now: at(millis), created_before: None }
}

fn full_draft() -> Draft {
    Draft {
        kind: Kind::parse("order.shipped").unwrap(),
        message: Message::parse("It left today.\nÜbermorgen ist es da 📦").unwrap(),
        data: Some(Data::of_checked_syntax(r#"{"orderId":7,"tags":["a","b"],"z":null}"#).unwrap()),
        link: Some(Link::parse("/orders/7").unwrap()),
        priority: Priority::Urgent,
        dedupe_key: Some(id("order-7")),
        expires_at: Some(at(1_900_000_000_123)),
        ..a_draft("ada", "n1")
    }
}

fn created(receipt: &Receipt) -> &Notification {
    match receipt {
        Receipt::Taken(DomainEvent { change: Change::Created(one), .. }) => one,
        other => panic!("not taken: {other:?}"),
    }
}

fn key(name: &str, fingerprint: &str) -> IdempotencyKey {
    IdempotencyKey::parse(user("shop"), name, fingerprint).unwrap()
}

promises! { Store:

/// The epoch is one and stays.
async fn the_epoch_stays(store) {
    let epoch = store.inboxes.epoch().await.unwrap();
    store.takes_plain("ada", 1).await;
    assert_eq!(store.inboxes.epoch().await.unwrap(), epoch);
}

async fn an_inbox_needs_no_making(store) {
    assert_eq!(store.position("ada").await, (0, 0));
    assert_eq!(store.listed("ada", &ListFilter::default(), 10).await, [""; 0]);
    assert_eq!(store.missed("ada", 0).await, (0, vec![]));
    assert_eq!(store.inboxes.get(&user("ada"), &id("n1")).await.unwrap(), None);
}

async fn a_notification_is_kept_as_it_was_put_in(store) {
    let receipts = store.takes(vec![full_draft()]).await;
    let expected = full_draft().taken_at(Revision::new(1));
    assert_eq!(created(&receipts[0]), &expected);
    let got = store.inboxes.get(&user("ada"), &id("n1")).await.unwrap();
    assert_eq!(got.as_ref(), Some(&expected));
    let listed = store.inboxes.list(&user("ada"), &ListFilter::default(), 10).await.unwrap();
    assert_eq!(listed, [expected]);
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

async fn marking_as_read_counts_each_once(store) {
    store.takes_plain("ada", 3).await;
    let event = store.mark_read("ada", &["n1", "n3", "nobody", "n1"]).await.unwrap();
    assert_eq!((event.revision.get(), event.unread.get()), (4, 1));
    let Change::MarkedRead { ids, read_at } = event.change else { panic!() };
    assert_eq!(ids.iter().collect::<HashSet<_>>(), HashSet::from([&id("n1"), &id("n3")]));
    assert_eq!(ids.len(), 2);
    assert_eq!(read_at, at(5_000));

    assert_eq!(store.mark_read("ada", &["n1"]).await, None);
    assert_eq!(store.mark_read("ada", &[]).await, None);
    assert_eq!(store.position("ada").await, (4, 1));
    let read = store.inboxes.get(&user("ada"), &id("n1")).await.unwrap().unwrap();
    assert_eq!((read.read_at, read.revision.get(), read.created_revision.get()), (Some(at(5_000)), 4, 1));
}

async fn what_is_marked_and_was_never_there_is_named(store) {
    assert_eq!(store.unknown("ada", &["n1", "n0", "n1"]).await, ["n1", "n0"], "there is no inbox yet");
    store.takes_plain("ada", 3).await;
    assert_eq!(store.unknown("bob", &["n1"]).await, ["n1"], "it is in another inbox");
    store.takes_plain("bob", 1).await;
    assert_eq!(store.unknown("bob", &["n2", "n1"]).await, ["n2"]);

    assert_eq!(store.unknown("ada", &["n1", "n2", "n1"]).await, [""; 0]);
    store.delete("ada", &["n2"]).await.unwrap();
    let Marked { event, unknown } = store.marked("ada", &["z", "n1", "n2", "n3", "a", "z"]).await;
    assert_eq!(unknown, [id("z"), id("a")], "what was read or deleted is known");
    assert!(matches!(event.unwrap().change, Change::MarkedRead { ids, .. } if ids == [id("n3")]));
    assert_eq!(store.unknown("ada", &["a", "n1", "n2", "n3"]).await, ["a"], "also if nothing changes");
    assert_eq!(store.unknown("ada", &[]).await, [""; 0]);
}

/// Either it is marked, or it is unknown; there is no moment in between.
async fn what_comes_while_it_is_marked_is_marked_or_unknown(store) {
    for n in 0..40 {
        let name = format!("n{n}");
        let named = [name.as_str()];
        let (_, marked) = tokio::join!(store.takes(vec![a_draft("ada", &name)]), store.marked("ada", &named));
        assert_eq!(marked.event.is_none(), marked.unknown == [id(&name)], "{marked:?}");
    }
}

async fn marking_all_counts_to_zero(store) {
    assert_eq!(store.inboxes.mark_all_read(&user("ada"), at(1)).await.unwrap(), None);
    store.takes_plain("ada", 3).await;
    store.mark_read("ada", &["n2"]).await.unwrap();
    let event = store.inboxes.mark_all_read(&user("ada"), at(7_000)).await.unwrap().unwrap();
    assert_eq!((event.revision.get(), event.unread.get()), (5, 0));
    assert_eq!(event.change, Change::AllRead { read_at: at(7_000) });
    assert_eq!(store.inboxes.mark_all_read(&user("ada"), at(8_000)).await.unwrap(), None);
    assert_eq!(store.listed("ada", &ListFilter { unread: Some(true), ..ListFilter::default() }, 9).await, [""; 0]);
}

async fn deleting_takes_an_unread_one_off_the_count(store) {
    store.takes_plain("ada", 3).await;
    store.mark_read("ada", &["n1"]).await.unwrap();
    let event = store.delete("ada", &["n1", "n2", "nobody"]).await.unwrap();
    assert_eq!((event.revision.get(), event.unread.get()), (5, 1));
    let Change::Deleted { ids } = event.change else { panic!() };
    assert_eq!(ids.len(), 2);
    assert_eq!(store.delete("ada", &["n1"]).await, None);
    assert_eq!(store.listed("ada", &ListFilter::default(), 10).await, ["n3"]);
    assert_eq!(store.inboxes.get(&user("ada"), &id("n1")).await.unwrap(), None);
    assert_eq!(store.mark_read("ada", &["n2"]).await, None);
}

async fn nobody_changes_or_sees_another_users_inbox(store) {
    store.takes_plain("ada", 1).await;
    assert_eq!(store.mark_read("bob", &["n1"]).await, None);
    assert_eq!(store.delete("bob", &["n1"]).await, None);
    assert_eq!(store.inboxes.mark_all_read(&user("bob"), at(1)).await.unwrap(), None);
    assert_eq!(store.inboxes.get(&user("bob"), &id("n1")).await.unwrap(), None);
    assert_eq!(store.listed("bob", &ListFilter::default(), 10).await, [""; 0]);
    assert_eq!(store.missed("bob", 0).await.1, []);
    assert_eq!(store.position("ada").await, (1, 1));
}

async fn lists_go_from_newest_to_oldest_and_page_without_gaps(store) {
    store.takes_plain("ada", 5).await;
    // A change to an old one does not move it.
    store.mark_read("ada", &["n1"]).await.unwrap();
    let first = store.inboxes.list(&user("ada"), &ListFilter::default(), 2).await.unwrap();
    assert_eq!(first.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["n5", "n4"]);
    let rest = ListFilter { before: first.last().map(|one| one.created_revision), ..ListFilter::default() };
    assert_eq!(store.listed("ada", &rest, 10).await, ["n3", "n2", "n1"]);
}

async fn lists_are_filtered_by_read_state_and_kind(store) {
    let kind = Kind::parse("mention").unwrap();
    store.takes_plain("ada", 2).await;
    store.takes(vec![Draft { kind: kind.clone(), ..a_draft("ada", "n3") }]).await;
    store.mark_read("ada", &["n1", "n3"]).await.unwrap();
    let filter = |unread, kind| ListFilter { unread, kind, before: None };
    assert_eq!(store.listed("ada", &filter(Some(true), None), 9).await, ["n2"]);
    assert_eq!(store.listed("ada", &filter(Some(false), None), 9).await, ["n3", "n1"]);
    assert_eq!(store.listed("ada", &filter(None, Some(kind.clone())), 9).await, ["n3"]);
    assert_eq!(store.listed("ada", &filter(Some(true), Some(kind)), 9).await, [""; 0]);
}

async fn history_tells_the_latest_change_of_each(store) {
    store.takes_plain("ada", 3).await;
    store.mark_read("ada", &["n1"]).await.unwrap();
    store.delete("ada", &["n2"]).await.unwrap();
    store.takes(vec![a_draft("ada", "n4")]).await;

    let (revision, changes) = store.missed("ada", 2).await;
    assert_eq!(revision, 6);
    let told: Vec<_> = changes
        .iter()
        .map(|one| (one.notification.id.to_string(), one.notification.revision.get(), one.deleted))
        .collect();
    let expected = [("n3", 3, false), ("n1", 4, false), ("n2", 5, true), ("n4", 6, false)];
    assert_eq!(told, expected.map(|(name, revision, deleted)| (name.to_owned(), revision, deleted)));
    let missed: Vec<_> = Missed::since(Revision::new(2), changes).into_iter().collect();
    assert!(matches!(&missed[..], [
        (_, Change::Created(_)), (_, Change::MarkedRead { .. }), (_, Change::Deleted { .. }), (_, Change::Created(_)),
    ]));
    assert_eq!(store.missed("ada", 6).await, (6, vec![]));
}

async fn history_says_when_it_cannot_tell_all(store) {
    store.takes_plain("ada", 5).await;
    for (since, limit) in [(0, 4), (6, 100)] {
        let history = store.inboxes.history(&user("ada"), Revision::new(since), limit).await.unwrap();
        assert!(matches!(history, History::OutOfReach { state } if state.revision.get() == 5), "{since} {history:?}");
    }
    let all = store.inboxes.history(&user("ada"), Revision::new(0), 5).await.unwrap();
    assert!(matches!(all, History::Complete { changes, .. } if changes.len() == 5));
}

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
    let mut lead = store.lead().await;
    let first = lead.pending(2).await.unwrap();
    assert_eq!(first.len(), 2);
    lead.forget(&[first[0].id, first[1].id]).await.unwrap();
    let rest = lead.pending(10).await.unwrap();
    assert_eq!(rest.iter().map(|entry| entry.event.revision.get()).collect::<Vec<_>>(), [3, 4, 5]);
    lead.forget(&[]).await.unwrap();
    assert_eq!(store.outbox.backlog().await.unwrap(), 3);
}

async fn one_leads_at_a_time_and_the_lead_passes_on(store) {
    let lead = store.lead().await;
    assert!(store.outbox.lead().await.unwrap().is_none());
    drop(lead);
    // A lead that is dropped may take a moment to be free again.
    for _ in 0..100 {
        if store.outbox.lead().await.unwrap().is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the lead was never free again");
}

async fn a_commit_wakes_the_lead(store) {
    let mut lead = store.lead().await;
    assert_eq!(lead.pending(10).await.unwrap(), []);
    let patience = Duration::from_mins(1);
    let (woken, ()) = tokio::join!(lead.more(patience), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        store.takes_plain("ada", 1).await;
    });
    woken.unwrap();
    assert_eq!(lead.pending(10).await.unwrap().len(), 1);
}

async fn a_commit_just_before_the_wait_is_not_slept_through(store) {
    let mut lead = store.lead().await;
    assert_eq!(lead.pending(10).await.unwrap(), []);
    store.takes_plain("ada", 1).await;
    tokio::time::timeout(Duration::from_secs(30), lead.more(Duration::from_mins(1))).await.expect("woken").unwrap();
}

async fn patience_ends_a_wait_for_nothing(store) {
    let mut lead = store.lead().await;
    lead.more(Duration::from_millis(20)).await.unwrap();
}

/// The reference is the domain's inbox: whatever many do at once, the outcome is that of some order
/// of theirs, revisions have no holes, and the count equals the rows.
async fn counts_and_revisions_are_exact_under_concurrency(store) {
    let work = (0..8_usize).map(|worker| {
        let store = store.clone();
        async move {
            let mut changes = 0;
            for n in 0..12_usize {
                let name = format!("w{worker}-n{n}");
                changes += store.takes(vec![a_draft("ada", &name), a_draft("bob", &name)]).await.len() / 2;
                changes += usize::from(n % 3 == 0 && store.mark_read("ada", &[&name]).await.is_some());
                changes += usize::from(n % 4 == 0 && store.delete("ada", &[&name]).await.is_some());
                if n % 6 == 5 {
                    changes += usize::from(store.inboxes.mark_all_read(&user("ada"), at(9_000)).await.unwrap().is_some());
                }
            }
            changes
        }
    });
    let changes: usize = futures_util::future::join_all(work).await.into_iter().sum();

    let (revision, unread) = store.position("ada").await;
    assert_eq!(revision, changes as u64);
    let unread_rows = store.listed("ada", &ListFilter { unread: Some(true), ..ListFilter::default() }, 1_000).await;
    assert_eq!(unread, unread_rows.len() as u64);

    let waiting = store.waiting().await;
    for name in ["ada", "bob"] {
        let revisions: Vec<_> = waiting.iter().filter(|one| one.event.user == user(name)).map(|one| one.event.revision.get()).collect();
        assert_eq!(revisions, (1..=revisions.len() as u64).collect::<Vec<_>>(), "told in order, without holes");
    }
    let mut replayed = Inbox::new(user("ada"));
    for entry in waiting.iter().filter(|one| one.event.user == user("ada")) {
        let after = match &entry.event.change {
            Change::Created(one) => match replayed.receive(a_draft("ada", one.id.as_str())) {
                Receipt::Taken(event) => Some(event),
                Receipt::AlreadyThere(_) => None,
            },
            Change::MarkedRead { ids, read_at } => replayed.mark_read(ids, *read_at).event,
            Change::AllRead { read_at } => replayed.mark_all_read(*read_at),
            Change::Deleted { ids } => replayed.delete(ids, at(6_000)),
        };
        let after = after.expect("each told change changes the reference too");
        assert_eq!((after.revision, after.unread), (entry.event.revision, entry.event.unread));
    }
}

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
    let (_, missed) = store.missed("ada", 5).await;
    assert!(missed.len() == 2 && missed.iter().all(|one| one.deleted));
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

    assert_eq!(store.forgets_deleted(6_000, 10).await, 0);
    assert!(store.reaches("ada", 0).await);
    assert_eq!(store.forgets_deleted(6_001, 10).await, 2);
    assert_eq!(store.forgets_deleted(6_001, 10).await, 0);

    assert_eq!((store.waiting().await.len(), store.position("ada").await), (waiting, position));
    assert_eq!(store.listed("ada", &ListFilter::default(), 10).await, ["n4", "n1"]);
    for since in 0..=5 {
        assert!(!store.reaches("ada", since).await, "{since}");
    }
    assert_eq!(store.missed("ada", 6).await, (6, vec![]));
    assert!(store.reaches("bob", 0).await);
    assert!(matches!(&store.takes(vec![a_draft("ada", "n2")]).await[0], Receipt::Taken(_)));
    assert_eq!(store.missed("ada", 6).await.1.len(), 1);
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
    let forgets = async |before, limit| store.retention.forget_requests(before, limit).await.unwrap();
    assert_eq!(forgets(at(0), 10).await, 0);
    let future = at(9_000_000_000_000);
    assert_eq!([forgets(future, 2).await, forgets(future, 2).await, forgets(future, 2).await], [2, 1, 0]);
    let again = store.inboxes.create_once(&key("k1", "g"), vec![a_draft("ada", "k4")]).await.unwrap();
    assert!(matches!(again, Once::Done(_)));
    assert_eq!(store.position("ada").await, (4, 4));
}

async fn a_revocation_is_kept_and_the_later_instant_holds(store) {
    assert_eq!(store.revocations.revoke(&before("ada", 2_000)).await.unwrap(), before("ada", 2_000));
    assert_eq!(store.revocations.revoke(&before("ada", 1_000)).await.unwrap(), before("ada", 2_000));
    assert_eq!(store.revocations.revoke(&before("ada", 3_000)).await.unwrap(), before("ada", 3_000));
    store.revocations.revoke(&before("bob", 1_000)).await.unwrap();
    let (mut all, _) = store.revocations.since(None).await.unwrap();
    all.sort_by_key(|one| one.user.clone());
    assert_eq!(all, [before("ada", 3_000), before("bob", 1_000)]);
}

async fn whoever_passes_on_the_marks_misses_no_revocation(store) {
    let (none, mut mark) = store.revocations.since(None).await.unwrap();
    assert_eq!(none, []);
    let reader = async {
        let mut learned = HashSet::new();
        while learned.len() < 40 {
            let (news, next) = store.revocations.since(Some(mark)).await.unwrap();
            learned.extend(news.into_iter().map(|one| one.user));
            mark = next;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let writers = futures_util::future::join_all((0..4).map(|writer| {
        let store = store.clone();
        async move {
            for n in 0..10 {
                store.revocations.revoke(&before(&format!("u{writer}-{n}"), 1_000)).await.unwrap();
            }
        }
    }));
    let both = async { tokio::join!(reader, writers) };
    tokio::time::timeout(Duration::from_mins(1), both).await.expect("all are learned");
}

async fn revocations_of_long_ago_are_forgotten(store) {
    for name in ["ada", "bob", "cy"] {
        store.revocations.revoke(&before(name, 1_000)).await.unwrap();
    }
    let forgets = async |before, limit| store.retention.forget_revocations(before, limit).await.unwrap();
    assert_eq!(forgets(at(0), 10).await, 0);
    let future = at(9_000_000_000_000);
    assert_eq!([forgets(future, 2).await, forgets(future, 2).await, forgets(future, 2).await], [2, 1, 0]);
    assert_eq!(store.revocations.since(None).await.unwrap().0, []);
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
