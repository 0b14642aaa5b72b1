//! Erasure in PostgreSQL: no column keeps data of the user. Revisions stay unique, also with concurrent writers and
//! with nodes of the previous version.

use std::time::Duration;

use belfry_adapters::outbound::postgres::{PostgresSettings, PostgresStore};
use belfry_application::ports::{
    Erased, Erasure, IdempotencyKey, InboxRepository, Outbox, PageLimit, Revocation, Revocations,
    TokenOwner,
};
use belfry_application::testing::{a_draft, at, id, user};
use belfry_domain::{Data, Draft, Link, Message, Receipt, Title};
use belfry_tests::postgres::{Database, fresh_database};
use belfry_tests::wait::until_true;
use sqlx::{AssertSqlSafe, PgPool};

async fn new_store() -> (Database, PgPool, PostgresStore) {
    let database = fresh_database().await;
    let store = PostgresStore::connect(PostgresSettings::new(database.url())).await.unwrap();
    store.migrate().await.unwrap();
    let pool = database.pool().await;
    (database, pool, store)
}

/// The tables with a row that contains the text.
async fn tables_with(text: &str, pool: &PgPool) -> Vec<String> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT table_name::text FROM information_schema.tables
         WHERE table_schema = 'public' ORDER BY table_name",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut found = Vec::new();
    for table in tables {
        let contains =
            format!("SELECT EXISTS (SELECT FROM {table} one WHERE strpos(one::text, $1) > 0)");
        let query = sqlx::query_scalar(AssertSqlSafe(contains)).bind(text);
        if query.fetch_one(pool).await.unwrap() {
            found.push(table);
        }
    }
    found
}

/// A notification with the word `s3cret` in each text.
fn secret(name: &str, number: usize) -> Draft {
    Draft {
        title: Title::parse("s3cret title").unwrap(),
        message: Message::parse("A s3cret message").unwrap(),
        link: Some(Link::parse("/s3cret").unwrap()),
        data: Some(Data::from_valid_json(r#"{"of":"s3cret","\u0000":1}"#).unwrap()),
        dedupe_key: Some(id(&format!("s3cret-{number}"))),
        ..a_draft(name, &format!("n{number}"))
    }
}

#[tokio::test]
async fn no_column_keeps_the_user_or_a_text_after_an_erasure() {
    let (_database, pool, store) = new_store().await;
    let key = |caller: &str| IdempotencyKey::parse(user(caller), "k", "f").unwrap();
    store.create(vec![secret("erased-ada", 1), a_draft("bob", "n1")]).await.unwrap();
    let both = vec![secret("erased-ada", 2), a_draft("bob", "n2")];
    store.create_once(&key("shop"), both).await.unwrap();
    store.create_once(&key("erased-ada"), vec![secret("erased-ada", 3)]).await.unwrap();
    store.delete(&user("erased-ada"), &[id("n3")], at(1)).await.unwrap();
    // Copies of the entries without header columns, as earlier versions write them, and copies of all entries
    // as the relay sets them aside when it cannot read them.
    for statement in [
        "INSERT INTO outbox (event) SELECT event FROM outbox",
        "INSERT INTO outbox_unreadable (id, event, written_at, reason)
         SELECT id, event, written_at, 'for this test' FROM outbox",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    assert_eq!(
        tables_with("erased-ada", &pool).await,
        ["idempotency_keys", "inboxes", "notifications", "outbox", "outbox_unreadable"]
    );

    let erased = store.erase(&user("erased-ada")).await.unwrap();

    // Four changes of the inbox, their copies without header columns, and the copies of these eight.
    assert_eq!(
        erased,
        Erased { inbox: true, notifications: 3, idempotency_keys: 2, events: 4 + 4 + 8 }
    );
    assert_eq!(tables_with("s3cret", &pool).await, [""; 0]);
    // The event about the erasure stays until the relay has published it.
    assert_eq!(tables_with("erased-ada", &pool).await, ["outbox"]);
    let mut lease = store.acquire_lease().await.unwrap().expect("the lease is free");
    let entries = lease.pending(PageLimit::rows(100)).await.unwrap().items;
    let of_ada: Vec<_> =
        entries.iter().filter(|entry| entry.header.user == user("erased-ada")).collect();
    assert_eq!(of_ada.len(), 1);
    lease.remove(&[of_ada[0].id]).await.unwrap();
    assert_eq!(tables_with("erased-ada", &pool).await, [""; 0]);
    assert_eq!(entries.len(), 1 + 4, "events of the other user were removed, too");
    assert_eq!(store.state(&user("bob")).await.unwrap().unread.get(), 2);

    // An erasure does not remove a revocation, which has its own retention.
    let revocation =
        Revocation { owner: TokenOwner::User(user("erased-ada")), issued_before: at(5) };
    store.revoke(&revocation).await.unwrap();
    store.erase(&user("erased-ada")).await.unwrap();
    assert_eq!(tables_with("erased-ada", &pool).await, ["revocations"]);
}

/// A node of the previous version inserts an inbox without a revision. The column's default is the highest erased
/// revision, so that the next change takes a higher one.
#[tokio::test]
async fn inbox_created_by_the_previous_version_starts_at_the_highest_erased_revision() {
    let (_database, pool, store) = new_store().await;
    let drafts = (0..5).map(|n| a_draft("ada", &format!("n{n}"))).collect();
    store.create(drafts).await.unwrap();
    store.erase(&user("ada")).await.unwrap();
    let (revision, history_floor): (i64, i64) = sqlx::query_as(
        "INSERT INTO inboxes (user_id) VALUES ('ada') RETURNING revision, history_floor",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!((revision, history_floor), (6, 6));
    let receipts = store.create(vec![a_draft("ada", "n1")]).await.unwrap();
    let Receipt::Created(event) = &receipts[0] else { panic!("{receipts:?}") };
    assert_eq!(event.revision.get(), 7);
}

/// The number of connections that wait for a lock.
async fn waiting_for_locks(pool: &PgPool) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Without the lock on the row of `store`, the inbox would start at the revision before the erasure.
#[tokio::test]
async fn new_inbox_waits_for_an_erasure_that_is_about_to_commit() {
    let (_database, pool, store) = new_store().await;
    let mut erasure = pool.begin().await.unwrap();
    sqlx::query("UPDATE store SET erased_revision = 50").execute(&mut *erasure).await.unwrap();
    let creating = tokio::spawn({
        let store = store.clone();
        async move { store.create(vec![a_draft("ada", "n1")]).await.unwrap() }
    });
    until_true("the new inbox waits", async || waiting_for_locks(&pool).await == 1).await;
    erasure.commit().await.unwrap();
    let receipts = tokio::time::timeout(Duration::from_secs(30), creating).await.unwrap().unwrap();
    let Receipt::Created(event) = &receipts[0] else { panic!("{receipts:?}") };
    assert_eq!(event.revision.get(), 51);
}

/// A request with an idempotency key may only repeat an existing notification. If it did not wait for the
/// erasure, it would record its key with a notification that no longer exists.
#[tokio::test]
async fn request_that_repeats_a_notification_during_its_erasure_creates_it_again() {
    let (_database, pool, store) = new_store().await;
    store.create(vec![a_draft("erased-ada", "n1")]).await.unwrap();
    // An erasure that is not committed yet, and holds the lock on the inbox.
    let mut erasure = pool.begin().await.unwrap();
    for statement in [
        "SELECT FROM inboxes FOR UPDATE",
        "DELETE FROM notifications",
        "UPDATE store SET erased_revision = 2",
        "DELETE FROM inboxes",
    ] {
        sqlx::query(statement).execute(&mut *erasure).await.unwrap();
    }
    let repeating = tokio::spawn({
        let store = store.clone();
        async move {
            let key = IdempotencyKey::parse(user("shop"), "k", "f").unwrap();
            store.create_once(&key, vec![a_draft("erased-ada", "n1")]).await.unwrap()
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(tables_with("shop", &pool).await, [""; 0], "the request did not wait");
    erasure.commit().await.unwrap();
    repeating.await.unwrap();
    let state = store.state(&user("erased-ada")).await.unwrap();
    // The notification was created after the erasure, whose revision is 2.
    assert_eq!((state.revision.get(), state.unread.get()), (3, 1));
}

/// The user has an idempotency key and no inbox when the erasure begins. If a new inbox did not wait, the
/// erasure would remove its event but not its notification, or its notification without publishing an event.
#[tokio::test]
async fn inbox_created_during_an_erasure_keeps_its_notification_and_event() {
    let (_database, pool, store) = new_store().await;
    let key = IdempotencyKey::parse(user("ada"), "k", "f").unwrap();
    store.create_once(&key, vec![a_draft("bob", "n1")]).await.unwrap();
    // The erasure waits for this key.
    let mut blocker = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM idempotency_keys FOR UPDATE").execute(&mut *blocker).await.unwrap();
    let erasing = tokio::spawn({
        let store = store.clone();
        async move { store.erase(&user("ada")).await.unwrap() }
    });
    until_true("the erasure waits", async || waiting_for_locks(&pool).await == 1).await;
    let creating = tokio::spawn({
        let store = store.clone();
        async move { store.create(vec![a_draft("ada", "n1")]).await.unwrap() }
    });
    until_true("the new inbox waits, too, or is created", async || {
        creating.is_finished() || waiting_for_locks(&pool).await == 2
    })
    .await;
    blocker.rollback().await.unwrap();

    let erased = erasing.await.unwrap();
    let receipts = creating.await.unwrap();
    assert_eq!(erased, Erased { idempotency_keys: 1, ..Erased::default() });
    let Receipt::Created(event) = &receipts[0] else { panic!("{receipts:?}") };
    assert_eq!(store.state(&user("ada")).await.unwrap().unread.get(), 1);
    let mut lease = store.acquire_lease().await.unwrap().expect("the lease is free");
    let entries = lease.pending(PageLimit::rows(100)).await.unwrap().items;
    let of_ada = entries.iter().find(|entry| entry.header.user == user("ada")).expect("its event");
    assert_eq!(of_ada.header.revision, event.revision);
    assert_eq!(tables_with("ada", &pool).await, ["inboxes", "notifications", "outbox"]);
}
