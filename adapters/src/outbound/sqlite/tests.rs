//! What the store promises beyond its port.

use belfry_application::ports::{History, InboxRepository, Outbox, PortError};
use belfry_application::testing::{a_draft, at, user};
use belfry_domain::{Draft, Revision};
use tempfile::TempDir;

use super::create::{LED_TO, STANDING};
use super::edit::{DELETE, KNOWN, READ, READ_ALL};
use super::inbox_repository::{
    CHANGED_IN, CREATED_IN, GET, HISTORY, PAGE, PAGE_OF_READ, PAGE_OF_UNREAD, STATE,
};
use super::{SqliteSettings, SqliteStore};

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn settings(&self) -> SqliteSettings {
        SqliteSettings::new(format!("sqlite://{}/belfry.db", self.0.path().display()))
    }

    async fn store(&self) -> SqliteStore {
        let store = SqliteStore::open(self.settings()).await.unwrap();
        store.migrate().await.unwrap();
        store
    }
}

#[tokio::test]
async fn what_was_written_is_there_when_the_file_is_opened_again() {
    let place = Place::new();
    let before = place.store().await;
    let epoch = before.epoch().await.unwrap();
    before.create(vec![a_draft("ada", "n1")]).await.unwrap();
    before.close().await;
    drop(before);

    let after = place.store().await;
    assert_eq!(after.epoch().await.unwrap(), epoch);
    assert_eq!(after.state(&user("ada")).await.unwrap().unread.get(), 1);
    assert_eq!(after.backlog().await.unwrap(), 1);
}

#[tokio::test]
async fn every_file_has_an_epoch_of_its_own() {
    let (one, other) = (Place::new(), Place::new());
    let epochs = (one.store().await.epoch().await, other.store().await.epoch().await);
    assert_ne!(epochs.0.unwrap(), epochs.1.unwrap());
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;

    let place = Place::new();
    let store = place.store().await;
    store.create(vec![a_draft("ada", "n1")]).await.unwrap();
    let mut files = 0;
    for file in std::fs::read_dir(place.0.path()).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        files += 1;
    }
    assert_eq!(files, 4, "the database, its log, the log's index and the lock");
}

#[tokio::test]
async fn a_file_is_for_one_process() {
    let place = Place::new();
    let first = place.store().await;
    let Err(second) = SqliteStore::open(place.settings()).await else {
        panic!("opened twice");
    };
    assert!(matches!(second, PortError::Rejected(_)));
    assert!(second.to_string().contains("in use"), "{second}");
    drop(first);
    place.store().await;
}

#[tokio::test]
async fn a_place_that_does_not_exist_is_refused() {
    for url in ["sqlite:///no/such/folder/belfry.db", "sqlite://x.db?mode=sideways"] {
        let refused = SqliteStore::open(SqliteSettings::new(url)).await;
        assert!(matches!(refused, Err(PortError::Rejected(_))), "{url}");
    }
}

#[tokio::test]
async fn what_the_relay_cannot_read_is_set_aside_and_stops_nobody() {
    let place = Place::new();
    let store = place.store().await;
    sqlx::query("INSERT INTO outbox (event) VALUES ('{}')").execute(&store.writer).await.unwrap();
    store.create(vec![a_draft("ada", "n1")]).await.unwrap();

    let mut lease = store.acquire_lease().await.unwrap().unwrap();
    let entries = lease.pending(1).await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].event.user, user("ada"));
    assert_eq!(store.backlog().await.unwrap(), 1);
    let aside: Vec<(String, i64)> =
        sqlx::query_as("SELECT event, set_aside_at - written_at FROM outbox_unreadable")
            .fetch_all(&store.writer)
            .await
            .unwrap();
    assert!(matches!(&aside[..], [(event, age)] if event == "{}" && *age >= 0), "{aside:?}");
}

#[tokio::test]
async fn history_that_is_not_kept_any_more_is_out_of_reach() {
    let place = Place::new();
    let store = place.store().await;
    let drafts = (1..=4).map(|n| a_draft("ada", &format!("n{n}"))).collect();
    store.create(drafts).await.unwrap();
    sqlx::query("UPDATE inboxes SET history_floor = 2").execute(&store.writer).await.unwrap();
    for (since, reached) in [(0, false), (1, false), (2, true), (4, true), (5, false)] {
        let history = store.history(&user("ada"), Revision::new(since), 10).await.unwrap();
        assert_eq!(matches!(history, History::Complete { .. }), reached, "since {since}");
    }
}

#[tokio::test]
async fn an_instant_that_cannot_be_told_is_refused_with_all_that_came_with_it() {
    let place = Place::new();
    let store = place.store().await;
    let endless = Draft { created_at: at(i64::MAX), ..a_draft("ada", "n2") };
    let refused = store.create(vec![a_draft("ada", "n1"), endless]).await;
    assert!(matches!(refused, Err(PortError::Rejected(_))));
    assert_eq!(store.state(&user("ada")).await.unwrap().revision, Revision::ZERO);
}

#[tokio::test]
async fn an_entry_tells_when_it_was_written() {
    let place = Place::new();
    let store = place.store().await;
    store.create(vec![a_draft("ada", "n1")]).await.unwrap();
    let entry = store.acquire_lease().await.unwrap().unwrap().pending(1).await.unwrap().remove(0);
    let year_2025 = at(1_735_689_600_000);
    assert!(entry.written_at > year_2025, "in milliseconds, by the database's clock: {entry:?}");
}

#[tokio::test]
async fn no_statement_walks_through_a_table() {
    let place = Place::new();
    let store = place.store().await;
    for statement in
        [GET, PAGE, PAGE_OF_UNREAD, PAGE_OF_READ, STATE, HISTORY, CREATED_IN, CHANGED_IN]
            .into_iter()
            .chain([STANDING, LED_TO, READ, READ_ALL, DELETE, KNOWN])
    {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(explain).fetch_all(&store.readers).await.unwrap();
        for (.., step) in plan {
            // Lists from a parameter, and what was found by an index, may be walked through.
            let table = ["inbox", "twin", "changed", "asked", "notifications", "inboxes"];
            let walks = table.iter().any(|name| step == format!("SCAN {name}"));
            assert!(!walks, "{step}: {statement}");
        }
    }
}

#[tokio::test]
async fn a_closed_store_is_unavailable() {
    let place = Place::new();
    let store = place.store().await;
    store.close().await;
    let refused = store.create(vec![a_draft("ada", "n1")]).await;
    assert!(matches!(refused, Err(PortError::Unavailable(_))));
}
