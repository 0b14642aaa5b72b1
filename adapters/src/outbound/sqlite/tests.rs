//! Guarantees of the store beyond its ports.

use belfry_application::ports::{
    Erased, Erasure, History, IdempotencyKey, InboxRepository, Outbox, OutboxId, PageLimit,
    PortError, Retention,
};
use belfry_application::testing::{a_draft, at, id, user};
use belfry_domain::{Data, Draft, ExpiryCutoff, Link, Message, Receipt, Revision, Title};
use tempfile::TempDir;

use super::create::{EARLIER_RESULT, LOAD};
use super::edit::{DELETE, INBOX_STATE, KNOWN, MARK_ALL_READ, MARK_READ};
use super::failure::SqliteFailure;
use super::queries::{CHANGED_IN, CREATED_IN, GET, HISTORY, LIST_ALL, LIST_READ, LIST_UNREAD};
use super::settings::SqliteSettings;
use super::store::SqliteStore;
use super::write::Work;
use crate::outbound::relational::statements::STATE;
use crate::wire::EventForm;

struct Folder(TempDir);

impl Folder {
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
async fn reopened_file_keeps_epoch_inboxes_and_outbox() {
    let folder = Folder::new();
    let before = folder.store().await;
    let epoch = before.epoch().await.unwrap();
    before.create(vec![a_draft("ada", "n1")]).await.unwrap();
    before.close().await;
    drop(before);

    let after = folder.store().await;
    assert_eq!(after.epoch().await.unwrap(), epoch);
    assert_eq!(after.state(&user("ada")).await.unwrap().unread.get(), 1);
    assert_eq!(after.backlog().await.unwrap().entries, 1);
}

#[tokio::test]
async fn each_file_has_its_own_epoch() {
    let (one, other) = (Folder::new(), Folder::new());
    let epochs = (one.store().await.epoch().await, other.store().await.epoch().await);
    assert_ne!(epochs.0.unwrap(), epochs.1.unwrap());
}

#[cfg(unix)]
#[tokio::test]
async fn files_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;

    let folder = Folder::new();
    let store = folder.store().await;
    store.create(vec![a_draft("ada", "n1")]).await.unwrap();
    let mut files = 0;
    for file in std::fs::read_dir(folder.0.path()).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        files += 1;
    }
    assert_eq!(files, 4, "the database, its log, the log's index and the lock");
}

#[tokio::test]
async fn second_open_of_a_file_is_rejected_until_the_first_is_dropped() {
    let folder = Folder::new();
    let first = folder.store().await;
    let Err(second) = SqliteStore::open(folder.settings()).await else {
        panic!("the second open succeeded");
    };
    assert!(matches!(second, PortError::Rejected(_)));
    assert!(second.to_string().contains("in use"), "{second}");
    drop(first);
    folder.store().await;
}

#[cfg(unix)]
#[tokio::test]
async fn second_open_is_rejected_through_a_link_too() {
    let folder = Folder::new();
    let path = folder.0.path().join("belfry.db");
    let url = |name: &str| format!("sqlite://{}/{name}", folder.0.path().display());
    let first = folder.store().await;
    std::os::unix::fs::symlink(&path, folder.0.path().join("symbolic.db")).unwrap();
    let second = SqliteStore::open(SqliteSettings::new(url("symbolic.db"))).await.unwrap_err();
    assert!(second.to_string().contains("in use"), "{second}");

    std::fs::hard_link(&path, folder.0.path().join("hard.db")).unwrap();
    for name in ["hard.db", "belfry.db"] {
        let second = SqliteStore::open(SqliteSettings::new(url(name))).await.unwrap_err();
        assert!(matches!(second, PortError::Rejected(_)), "{second}");
        assert!(second.to_string().contains("hard link"), "{second}");
    }
    drop(first);
    std::fs::remove_file(folder.0.path().join("hard.db")).unwrap();
    SqliteStore::open(SqliteSettings::new(url("symbolic.db"))).await.unwrap();
}

/// A notification that does not fit into the free space of a page.
fn large(name: &str) -> Draft {
    Draft { message: Message::parse(&"m".repeat(4_000)).unwrap(), ..a_draft("ada", name) }
}

#[tokio::test]
async fn writer_is_replaced_after_a_full_disk_and_the_store_is_not_ready_meanwhile() {
    let folder = Folder::new();
    let store = folder.store().await;
    store.check().await.unwrap();
    // The disk is full for this connection only.
    sqlx::query("PRAGMA max_page_count = 1").execute(&store.writer).await.unwrap();
    let drafts = (0..20).map(|n| large(&format!("n{n}"))).collect();
    let full = store.create(drafts).await.unwrap_err();
    assert!(matches!(full, PortError::Unavailable(_)), "{full}");
    store.create(vec![large("n1")]).await.expect("the next write has a new connection");
    assert_eq!(store.check().await.unwrap_err().reason, "the disk of the database is full");
    assert_eq!(store.state(&user("ada")).await.unwrap().revision, Revision::new(1));
}

#[tokio::test]
async fn writer_is_replaced_after_sqlite_has_rolled_back_by_itself() {
    let folder = Folder::new();
    let store = folder.store().await;
    let failed = store.in_transaction(async |connection| {
        // As SQLite does when a commit finds no room or cannot be written.
        sqlx::query("ROLLBACK").execute(connection).await?;
        Err::<Work<()>, _>(SqliteFailure::NotMigrated)
    });
    failed.await.unwrap_err();
    store.create(vec![a_draft("ada", "n1")]).await.unwrap();
    store.check().await.unwrap();
}

#[tokio::test]
async fn connection_that_cannot_write_is_replaced() {
    let folder = Folder::new();
    let store = folder.store().await;
    sqlx::query("PRAGMA query_only = on").execute(&store.writer).await.unwrap();
    let read_only = store.create(vec![a_draft("ada", "n1")]).await.unwrap_err();
    assert!(matches!(read_only, PortError::Unavailable(_)), "{read_only}");
    store.create(vec![a_draft("ada", "n1")]).await.unwrap();
    assert_eq!(store.check().await.unwrap_err().reason, "the database is read-only");
}

#[tokio::test]
async fn cancelled_write_leaves_a_usable_writer() {
    let folder = Folder::new();
    let store = folder.store().await;
    for n in 0..20 {
        let write = store.create(vec![a_draft("ada", &format!("cancelled{n}"))]);
        let _ = tokio::time::timeout(std::time::Duration::from_micros(20 * n), write).await;
        store.create(vec![a_draft("ada", &format!("n{n}"))]).await.unwrap();
    }
    store.check().await.unwrap();
}

#[tokio::test]
async fn store_is_not_ready_before_its_migrations() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.settings()).await.unwrap();
    let missing = "the migrations of this version are missing";
    assert_eq!(store.check().await.unwrap_err().reason, missing);
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    let remove = sqlx::query("DELETE FROM _sqlx_migrations WHERE version = 3");
    remove.execute(&store.writer).await.unwrap();
    assert_eq!(store.check().await.unwrap_err().reason, missing);
}

#[tokio::test]
async fn deleted_and_expired_notifications_leave_no_text_in_the_file() {
    let folder = Folder::new();
    let store = folder.store().await;
    let secret = |name: &str| Draft {
        title: Title::parse("s3cret").unwrap(),
        message: Message::parse(&"s3cret ".repeat(500)).unwrap(),
        data: Some(Data::from_valid_json(r#"{"s3cret":1}"#).unwrap()),
        link: Some(Link::parse("/s3cret").unwrap()),
        expires_at: Some(at(2_000)),
        ..a_draft("ada", name)
    };
    store.create(vec![secret("n1"), secret("n2")]).await.unwrap();
    store.delete(&user("ada"), &[id("n1")], at(1)).await.unwrap().unwrap();
    let due = ExpiryCutoff { now: at(3_000), created_before: None };
    assert_eq!(store.expire(&due, 10).await.unwrap(), 1);
    let mut lease = store.acquire_lease().await.unwrap().unwrap();
    let entries = lease.pending(PageLimit::rows(10)).await.unwrap().items;
    lease.remove(&entries.iter().map(|one| one.id).collect::<Vec<_>>()).await.unwrap();
    drop(lease);
    store.close().await;
    let bytes = std::fs::read(folder.0.path().join("belfry.db")).unwrap();
    assert!(!bytes.windows(6).any(|part| part == b"s3cret"));

    // A tombstone that an earlier version wrote.
    drop(store);
    let store = folder.store().await;
    for statement in [
        "UPDATE notifications SET title = 's3cret' WHERE id = 'n1'",
        "DELETE FROM _sqlx_migrations WHERE version = 5",
    ] {
        sqlx::query(statement).execute(&store.writer).await.unwrap();
    }
    store.migrate().await.unwrap();
    let titles: Vec<String> = sqlx::query_scalar("SELECT title FROM notifications")
        .fetch_all(&store.readers)
        .await
        .unwrap();
    assert_eq!(titles, ["deleted", "deleted"]);
}

#[tokio::test]
async fn missing_folder_and_invalid_url_are_rejected() {
    for url in ["sqlite:///no/such/folder/belfry.db", "sqlite://x.db?mode=sideways"] {
        let opened = SqliteStore::open(SqliteSettings::new(url)).await;
        assert!(matches!(opened, Err(PortError::Rejected(_))), "{url}");
    }
}

/// The removal of published entries makes commits of its connection less durable for a moment.
async fn assert_durable_commits(store: &SqliteStore) {
    const FULL: i64 = 2;
    let synchronous: i64 =
        sqlx::query_scalar("PRAGMA synchronous").fetch_one(&store.writer).await.unwrap();
    assert_eq!(synchronous, FULL);
}

#[tokio::test]
async fn writes_after_a_removal_are_on_disk_before_they_are_confirmed() {
    let folder = Folder::new();
    let store = folder.store().await;
    let mut lease = store.acquire_lease().await.unwrap().unwrap();
    store.create(vec![a_draft("ada", "n1")]).await.unwrap();
    let entries = lease.pending(PageLimit::rows(1)).await.unwrap().items;
    lease.remove(&[entries[0].id]).await.unwrap();
    assert_eq!(lease.pending(PageLimit::rows(1)).await.unwrap().items, []);
    assert_durable_commits(&store).await;
}

#[tokio::test]
async fn writes_after_a_failed_or_cancelled_removal_are_on_disk_before_they_are_confirmed() {
    let folder = Folder::new();
    let store = folder.store().await;
    let mut lease = store.acquire_lease().await.unwrap().unwrap();
    for n in 0..20 {
        let removal = lease.remove(&[OutboxId(1)]);
        let _ = tokio::time::timeout(std::time::Duration::from_micros(20 * n), removal).await;
        assert_durable_commits(&store).await;
    }
    let fail = "CREATE TRIGGER fail BEFORE DELETE ON outbox BEGIN SELECT raise(ABORT, 'no'); END";
    sqlx::query(fail).execute(&store.writer).await.unwrap();
    store.create(vec![a_draft("ada", "n1")]).await.unwrap();
    let entries = lease.pending(PageLimit::rows(1)).await.unwrap().items;
    lease.remove(&[entries[0].id]).await.unwrap_err();
    assert_durable_commits(&store).await;
}

#[tokio::test]
async fn unreadable_outbox_entry_is_set_aside_and_later_entries_are_returned() {
    let folder = Folder::new();
    let store = folder.store().await;
    sqlx::query("INSERT INTO outbox (event) VALUES ('{}')").execute(&store.writer).await.unwrap();
    store.create(vec![a_draft("ada", "n1")]).await.unwrap();

    let mut lease = store.acquire_lease().await.unwrap().unwrap();
    let entries = lease.pending(PageLimit::rows(1)).await.unwrap().items;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].header.user, user("ada"));
    assert_eq!(store.backlog().await.unwrap().entries, 1);
    let set_aside: Vec<(String, i64)> =
        sqlx::query_as("SELECT event, set_aside_at - written_at FROM outbox_unreadable")
            .fetch_all(&store.writer)
            .await
            .unwrap();
    assert!(
        matches!(&set_aside[..], [(event, age)] if event == "{}" && *age >= 0),
        "{set_aside:?}"
    );
}

#[tokio::test]
async fn backlog_has_the_age_of_the_oldest_entry() {
    let folder = Folder::new();
    let store = folder.store().await;
    store.create(vec![a_draft("ada", "n1"), a_draft("ada", "n2")]).await.unwrap();
    sqlx::query("UPDATE outbox SET written_at = written_at - 90000 WHERE id = 1")
        .execute(&store.writer)
        .await
        .unwrap();
    let backlog = store.backlog().await.unwrap();
    assert_eq!(backlog.entries, 2);
    assert!((90..150).contains(&backlog.age.as_secs()), "{backlog:?}");
}

/// In a file that the version before the header columns has written, they are null.
#[tokio::test]
async fn entry_without_header_columns_gets_its_header_from_the_event() {
    let folder = Folder::new();
    let store = folder.store().await;
    store.create(vec![a_draft("ada", "n1"), a_draft("ada", "n2")]).await.unwrap();
    let mut lease = store.acquire_lease().await.unwrap().unwrap();
    let expected = lease.pending(PageLimit::rows(10)).await.unwrap().items;
    let updated = "UPDATE outbox SET name = NULL, user_id = NULL, revision = NULL";
    assert_eq!(sqlx::query(updated).execute(&store.writer).await.unwrap().rows_affected(), 2);
    assert_eq!(lease.pending(PageLimit::rows(10)).await.unwrap().items, expected);
}

#[tokio::test]
async fn event_is_stored_as_the_text_that_is_published() {
    let folder = Folder::new();
    let store = folder.store().await;
    let data = Data::from_valid_json(r#"{"z":1.0,"a":"\u00e4 \u2028 \" \u0000","a":[ ]}"#).unwrap();
    let draft = Draft { data: Some(data), ..a_draft("ada", "n1") };
    let receipts = store.create(vec![draft]).await.unwrap();
    let [Receipt::Created(event)] = &receipts[..] else { panic!("{receipts:?}") };
    let stored: String =
        sqlx::query_scalar("SELECT event FROM outbox").fetch_one(&store.writer).await.unwrap();
    assert_eq!(stored, EventForm::write(event));
}

#[tokio::test]
async fn history_below_the_floor_is_out_of_reach() {
    let folder = Folder::new();
    let store = folder.store().await;
    let drafts = (1..=4).map(|n| a_draft("ada", &format!("n{n}"))).collect();
    store.create(drafts).await.unwrap();
    sqlx::query("UPDATE inboxes SET history_floor = 2").execute(&store.writer).await.unwrap();
    for (since, complete) in [(0, false), (1, false), (2, true), (4, true), (5, false)] {
        let history = store.history(&user("ada"), Revision::new(since), 10).await.unwrap();
        assert_eq!(matches!(history, History::Complete { .. }), complete, "since {since}");
    }
}

#[tokio::test]
async fn timestamp_out_of_range_rejects_the_whole_batch() {
    let folder = Folder::new();
    let store = folder.store().await;
    let out_of_range = Draft { created_at: at(i64::MAX), ..a_draft("ada", "n2") };
    let rejected = store.create(vec![a_draft("ada", "n1"), out_of_range]).await;
    assert!(matches!(rejected, Err(PortError::Rejected(_))));
    assert_eq!(store.state(&user("ada")).await.unwrap().revision, Revision::ZERO);
}

#[tokio::test]
async fn rejected_write_fails_no_other_write_of_its_group() {
    let folder = Folder::new();
    let store = folder.store().await;
    let create = |n: usize| {
        let created_at = if n == 7 { at(i64::MAX) } else { at(1_000) };
        store.create(vec![Draft { created_at, ..a_draft("ada", &format!("n{n}")) }])
    };
    let results = futures_util::future::join_all((0..20).map(create)).await;
    let failed: Vec<_> = (0..20).filter(|&n| results[n].is_err()).collect();
    assert_eq!(failed, [7]);
    assert!(matches!(results[7], Err(PortError::Rejected(_))));
    assert_eq!(store.state(&user("ada")).await.unwrap().revision, Revision::new(19));
}

#[tokio::test]
async fn outbox_entry_has_the_time_of_its_insert() {
    let folder = Folder::new();
    let store = folder.store().await;
    store.create(vec![a_draft("ada", "n1")]).await.unwrap();
    let entry = store
        .acquire_lease()
        .await
        .unwrap()
        .unwrap()
        .pending(PageLimit::rows(1))
        .await
        .unwrap()
        .items
        .remove(0);
    let year_2025 = at(1_735_689_600_000);
    assert!(entry.written_at > year_2025, "in milliseconds, by the database's clock: {entry:?}");
}

/// The files of a store that contain the text.
fn files_with(text: &str, folder: &Folder) -> Vec<String> {
    let mut files: Vec<_> = std::fs::read_dir(folder.0.path())
        .unwrap()
        .map(Result::unwrap)
        .filter(|file| {
            let bytes = std::fs::read(file.path()).unwrap();
            bytes.windows(text.len()).any(|part| part == text.as_bytes())
        })
        .map(|file| file.file_name().into_string().unwrap())
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn no_byte_of_the_file_keeps_the_user_or_a_text_after_an_erasure() {
    let folder = Folder::new();
    let store = folder.store().await;
    let secret = |name: &str, number: usize| Draft {
        title: Title::parse("s3cret title").unwrap(),
        message: Message::parse(&"A s3cret message. ".repeat(1 + number % 40)).unwrap(),
        dedupe_key: Some(id(&format!("s3cret-{number}"))),
        ..a_draft(name, &format!("n{number}"))
    };
    // Many pages, in which the rows of two users take turns.
    for batch in 0..40 {
        let numbers = (0..10).map(|n| batch * 10 + n);
        let drafts =
            numbers.flat_map(|n| [secret("erased-ada", n), a_draft("bob", &format!("n{n}"))]);
        store.create(drafts.collect()).await.unwrap();
        let key = IdempotencyKey::parse(user("shop"), &batch.to_string(), "f").unwrap();
        let both =
            [a_draft("erased-ada", &format!("k{batch}")), a_draft("bob", &format!("k{batch}"))];
        store.create_once(&key, both.into()).await.unwrap();
        store.delete(&user("erased-ada"), &[id(&format!("n{batch}"))], at(1)).await.unwrap();
    }
    sqlx::query(
        "INSERT INTO outbox_unreadable (id, event, written_at, reason)
         SELECT id, event, written_at, 'for this test' FROM outbox",
    )
    .execute(&store.writer)
    .await
    .unwrap();
    let erased = store.erase(&user("erased-ada")).await.unwrap();
    assert_eq!((erased.notifications, erased.idempotency_keys), (440, 40));
    assert_eq!(files_with("s3cret", &folder), [""; 0]);
    // Only the event about the erasure, until the relay has published it.
    let mut lease = store.acquire_lease().await.unwrap().unwrap();
    let entries = lease.pending(PageLimit::rows(10_000)).await.unwrap().items;
    let of_ada: Vec<_> =
        entries.iter().filter(|one| one.header.user == user("erased-ada")).collect();
    assert_eq!(of_ada.len(), 1);
    lease.remove(&[of_ada[0].id]).await.unwrap();
    drop(lease);
    assert_eq!(store.erase(&user("erased-ada")).await.unwrap(), Erased::default());
    assert_eq!(files_with("erased-ada", &folder), [""; 0]);
    assert_eq!(store.state(&user("bob")).await.unwrap().unread.get(), 440);
    store.close().await;
}

#[tokio::test]
async fn no_statement_scans_a_table() {
    let folder = Folder::new();
    let store = folder.store().await;
    for statement in
        [GET, LIST_ALL, LIST_UNREAD, LIST_READ, INBOX_STATE, HISTORY, CREATED_IN, CHANGED_IN]
            .into_iter()
            .chain([STATE, LOAD, EARLIER_RESULT, MARK_READ, MARK_ALL_READ, DELETE, KNOWN])
    {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(explain).fetch_all(&store.readers).await.unwrap();
        for (.., step) in plan {
            // Scans of a list parameter or of a subquery's rows are fine.
            let tables = ["inbox", "duplicate", "changed", "request", "notifications", "inboxes"];
            let is_scan = tables.iter().any(|name| step == format!("SCAN {name}"));
            assert!(!is_scan, "{step}: {statement}");
        }
    }
}

#[tokio::test]
async fn closed_store_is_unavailable() {
    let folder = Folder::new();
    let store = folder.store().await;
    store.close().await;
    let rejected = store.create(vec![a_draft("ada", "n1")]).await;
    assert!(matches!(rejected, Err(PortError::Unavailable(_))));
}
