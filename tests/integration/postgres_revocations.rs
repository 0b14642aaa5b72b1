//! Each node reads all revocations, even if clocks are wrong, commits are late, or the database is restored.

use std::collections::HashSet;
use std::time::Duration;

use belfry_adapters::outbound::postgres::{PostgresSettings, PostgresStore};
use belfry_application::ports::{Revocation, RevocationCursor, Revocations, TokenOwner};
use belfry_application::testing::{at, user};
use belfry_tests::postgres::{Database, fresh_database};
use sqlx::{Executor, Postgres};

/// The statement with which the previous version writes a revocation.
const REVOKE_OF_PREVIOUS_VERSION: &str = "
    INSERT INTO revocations AS existing (user_id, issued_before) VALUES ($1, now())
    ON CONFLICT (user_id) DO UPDATE
    SET issued_before = greatest(existing.issued_before, excluded.issued_before),
        written_at = clock_timestamp()
    RETURNING issued_before";

async fn store() -> (Database, PostgresStore) {
    let database = fresh_database().await;
    let store = PostgresStore::connect(PostgresSettings::new(database.url())).await.unwrap();
    store.migrate().await.unwrap();
    (database, store)
}

async fn revoke(store: &PostgresStore, name: &str) {
    let owner = TokenOwner::User(user(name));
    store.revoke(&Revocation { owner, issued_before: at(1_000) }).await.unwrap();
}

async fn revoke_as_previous_version(
    connection: impl Executor<'_, Database = Postgres>,
    name: &str,
) {
    sqlx::query(REVOKE_OF_PREVIOUS_VERSION).bind(name).execute(connection).await.unwrap();
}

/// The users whose revocations were written since the cursor (all without one), and the next cursor.
async fn read(
    store: &PostgresStore,
    cursor: Option<RevocationCursor>,
) -> (HashSet<String>, RevocationCursor) {
    let (revocations, next) = store.since(cursor).await.unwrap();
    let users = revocations.iter().filter_map(|it| it.owner.user()).map(ToString::to_string);
    (users.collect(), next)
}

fn names<const N: usize>(names: [&str; N]) -> HashSet<String> {
    names.map(str::to_owned).into()
}

#[tokio::test]
async fn revocation_is_read_after_the_databases_clock_went_back() {
    let (database, store) = store().await;
    revoke(&store, "ada").await;
    // The row looks as if the clock had been ahead by an hour until now.
    sqlx::query("UPDATE revocations SET written_at = written_at + interval '1 hour'")
        .execute(&database.pool().await)
        .await
        .unwrap();
    let (all, cursor) = read(&store, None).await;
    assert_eq!(all, names(["ada"]));
    revoke(&store, "bob").await;
    let (new, cursor) = read(&store, Some(cursor)).await;
    assert_eq!(new, names(["bob"]));
    assert_eq!(read(&store, Some(cursor)).await.0, names([]));
}

#[tokio::test]
async fn revocation_that_commits_after_a_later_one_is_read() {
    let (database, store) = store().await;
    let (_, mut cursor) = read(&store, None).await;
    let mut slow = database.pool().await.begin().await.unwrap();
    revoke_as_previous_version(&mut *slow, "ada").await;
    let other = tokio::spawn({
        let store = store.clone();
        async move { revoke(&store, "bob").await }
    });
    let mut received = HashSet::new();
    for _ in 0..20 {
        let (new, next) = read(&store, Some(cursor)).await;
        received.extend(new);
        cursor = next;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    slow.commit().await.unwrap();
    other.await.unwrap();
    received.extend(read(&store, Some(cursor)).await.0);
    assert_eq!(received, names(["ada", "bob"]));
}

#[tokio::test]
async fn revocation_of_a_node_of_the_previous_version_is_read() {
    let (database, store) = store().await;
    let pool = database.pool().await;
    let (_, cursor) = read(&store, None).await;
    revoke_as_previous_version(&pool, "ada").await;
    let (new, cursor) = read(&store, Some(cursor)).await;
    assert_eq!(new, names(["ada"]));
    revoke_as_previous_version(&pool, "ada").await;
    // The second revocation has a later instant.
    assert_eq!(read(&store, Some(cursor)).await.0, names(["ada"]));
}

#[tokio::test]
async fn all_revocations_are_read_after_a_restore_of_the_database() {
    let (database, store) = store().await;
    for name in ["ada", "bob"] {
        revoke(&store, name).await;
    }
    let (_, cursor) = read(&store, None).await;
    let pool = database.pool().await;
    sqlx::query("DELETE FROM revocations WHERE user_id = 'bob'").execute(&pool).await.unwrap();
    sqlx::query("UPDATE revocation_state SET last_number = 0").execute(&pool).await.unwrap();
    revoke(&store, "cy").await;
    let (all, cursor) = read(&store, Some(cursor)).await;
    assert_eq!(all, names(["ada", "cy"]));
    revoke(&store, "dan").await;
    assert!(read(&store, Some(cursor)).await.0.contains("dan"));
}
