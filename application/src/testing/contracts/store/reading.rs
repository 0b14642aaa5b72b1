//! What can be read of an inbox: where it stands, what is in it, and what has changed.

use belfry_domain::{Change, Draft, Kind, Missed, Revision};

use super::super::promises;
use super::Store;
use crate::ports::{History, ListFilter};
use crate::testing::{a_draft, id, user};

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

}
