//! Guarantees of the outbox and its lease in PostgreSQL beyond the contract of their ports: with several
//! nodes, and with rows of other versions. The lease is the lock that makes a node the leader, the only one
//! that reads the outbox.

use std::time::{Duration, Instant};

use belfry_adapters::outbound::postgres::PostgresStore;
use belfry_application::ports::{
    InboxRepository, Outbox, OutboxEntry, OutboxId, OutboxLease, PageLimit, PortError,
};
use belfry_application::testing::a_draft;
use belfry_tests::wait::until_true;
use sqlx::PgConnection;

use crate::postgres_store::{acquire_lease, revisions_of, terminate_connections, two_nodes};

/// The time that a wait for entries may take. A commit ends it far sooner.
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn another_node_takes_the_lease_when_the_holders_connection_dies() {
    let (database, one, other) = two_nodes().await;
    let mut first = acquire_lease(&one).await;
    assert!(other.acquire_lease().await.unwrap().is_none(), "two nodes hold the lease");
    one.create(vec![a_draft("ada", "n1")]).await.unwrap();
    assert_eq!(first.pending(PageLimit::rows(10)).await.unwrap().items.len(), 1);

    assert_eq!(terminate_connections(&database.pool().await, "belfry outbox").await, 1);
    let since = Instant::now();
    let mut second = acquire_lease(&other).await;
    assert!(since.elapsed() < Duration::from_secs(5));

    let assert_lost =
        |error: PortError| assert!(matches!(error, PortError::Unavailable(_)), "{error}");
    assert_lost(first.pending(PageLimit::rows(10)).await.unwrap_err());
    assert_lost(first.wait_for_entries(PATIENCE).await.unwrap_err());
    assert_lost(first.remove(&[]).await.unwrap_err());
    let entries = second.pending(PageLimit::rows(10)).await.unwrap().items;
    // The first leader did not remove the entry.
    assert_eq!(entries.len(), 1);
    second.remove(&[entries[0].id]).await.unwrap();
}

#[tokio::test]
async fn lease_lost_during_a_wait_is_reported() {
    let (database, one, _) = two_nodes().await;
    let mut first = acquire_lease(&one).await;
    let pool = database.pool().await;
    let (waited, _) = tokio::join!(first.wait_for_entries(PATIENCE), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        terminate_connections(&pool, "belfry outbox").await
    });
    assert!(matches!(waited, Err(PortError::Unavailable(_))));
    assert!(first.pending(PageLimit::rows(1)).await.is_err());
}

#[tokio::test]
async fn dropped_lease_closes_its_connection() {
    let (database, one, other) = two_nodes().await;
    drop(acquire_lease(&one).await);
    drop(acquire_lease(&other).await);
    let pool = database.pool().await;
    until_true("the lease's connection is closed", async || {
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'belfry outbox'",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        open == 0
    })
    .await;
}

#[tokio::test]
async fn standby_node_opens_no_connection() {
    let (database, one, other) = two_nodes().await;
    let _lease = acquire_lease(&one).await;
    for _ in 0..5 {
        assert!(other.acquire_lease().await.unwrap().is_none());
    }
    let pool = database.pool().await;
    let connections = terminate_connections(&pool, "belfry outbox").await;
    assert_eq!(connections, 1, "not only the leader has a connection");
}

#[tokio::test]
async fn commit_wakes_the_leader_on_another_node() {
    let (_database, one, other) = two_nodes().await;
    let mut lease = acquire_lease(&one).await;
    for n in 0..5 {
        let since = Instant::now();
        let (woken, created) = tokio::join!(lease.wait_for_entries(PATIENCE), async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            other.create(vec![a_draft("ada", &format!("n{n}"))]).await
        });
        created.unwrap();
        woken.unwrap();
        assert!(since.elapsed() < PATIENCE / 2, "the commit did not end the wait");
        assert_eq!(lease.pending(PageLimit::rows(10)).await.unwrap().items.len(), n + 1);
    }
}

#[tokio::test]
async fn commit_on_another_node_just_before_the_wait_wakes_the_leader() {
    let (_database, one, other) = two_nodes().await;
    let mut lease = acquire_lease(&one).await;
    assert_eq!(lease.pending(PageLimit::rows(10)).await.unwrap().items, []);
    other.create(vec![a_draft("ada", "n1")]).await.unwrap();
    tokio::time::timeout(PATIENCE / 2, lease.wait_for_entries(PATIENCE))
        .await
        .expect("the commit ends the wait")
        .unwrap();
}

#[tokio::test]
async fn backlog_has_the_age_of_the_oldest_entry() {
    let (database, one, _) = two_nodes().await;
    one.create(vec![a_draft("ada", "n1"), a_draft("ada", "n2")]).await.unwrap();
    let older = "UPDATE outbox SET written_at = written_at - interval '90 s'
        WHERE id = (SELECT min(id) FROM outbox)";
    sqlx::query(older).execute(&database.pool().await).await.unwrap();
    let backlog = one.backlog().await.unwrap();
    assert_eq!(backlog.entries, 2);
    assert!((90..150).contains(&backlog.age.as_secs()), "{backlog:?}");
}

/// Changes an inbox, so that PostgreSQL assigns an id to the transaction.
async fn touch_inbox(transaction: &mut PgConnection, user: &str) {
    sqlx::query("UPDATE inboxes SET revision = revision WHERE user_id = $1")
        .bind(user)
        .execute(transaction)
        .await
        .unwrap();
}

/// Writes an entry as a change of the inbox does, with this id or the next one. Returns the id.
async fn insert_entry(
    transaction: &mut PgConnection,
    id: Option<OutboxId>,
    user: &str,
) -> OutboxId {
    touch_inbox(transaction, user).await;
    let inserted = sqlx::query_scalar(
        "INSERT INTO outbox (id, event, name, user_id, revision)
         OVERRIDING SYSTEM VALUE
         VALUES (coalesce($1, nextval(pg_get_serial_sequence('outbox', 'id'))),
            '{}', 'notification.archived', $2, 9)
         RETURNING id",
    )
    .bind(id.map(|OutboxId(id)| id))
    .bind(user)
    .fetch_one(transaction)
    .await;
    OutboxId(inserted.unwrap())
}

fn ids_of(entries: &[OutboxEntry]) -> Vec<OutboxId> {
    entries.iter().map(|entry| entry.id).collect()
}

/// Creates, reads and removes an entry five times. Returns the ids that were read.
async fn relay_some(
    store: &PostgresStore,
    lease: &mut dyn OutboxLease,
    name: &str,
) -> Vec<OutboxId> {
    let mut ids = Vec::new();
    for n in 0..5 {
        store.create(vec![a_draft(name, &format!("{name}{n}"))]).await.unwrap();
        let entries = lease.pending(PageLimit::rows(10)).await.unwrap().items;
        let read = ids_of(&entries);
        lease.remove(&read).await.unwrap();
        ids.extend(read);
    }
    ids
}

#[tokio::test]
async fn entry_committed_after_later_ones_were_removed_is_returned() {
    let (database, one, _) = two_nodes().await;
    let mut lease = acquire_lease(&one).await;
    relay_some(&one, lease.as_mut(), "ada").await;
    let pool = database.pool().await;
    let mut transaction = pool.begin().await.unwrap();
    let late = insert_entry(&mut transaction, None, "ada").await;
    let others = relay_some(&one, lease.as_mut(), "bob").await;
    assert!(others.iter().all(|id| *id > late), "{others:?} follow {late:?}");
    transaction.commit().await.unwrap();
    let entries = lease.pending(PageLimit::rows(10)).await.unwrap().items;
    assert_eq!(ids_of(&entries), [late]);
}

/// As in the previous test, but the late entry belongs to the youngest transaction: all that have finished
/// are older.
#[tokio::test]
async fn late_entry_of_the_youngest_transaction_is_returned() {
    let (database, one, _) = two_nodes().await;
    let mut lease = acquire_lease(&one).await;
    one.create(vec![a_draft("ada", "n1"), a_draft("bob", "n1")]).await.unwrap();
    let entries = lease.pending(PageLimit::rows(10)).await.unwrap().items;
    lease.remove(&ids_of(&entries)).await.unwrap();
    let pool = database.pool().await;
    // A transaction of another test may finish in between and be younger. So there are many rounds.
    for round in 0..20 {
        let mut older = pool.begin().await.unwrap();
        touch_inbox(&mut older, "ada").await;
        let mut younger = pool.begin().await.unwrap();
        let late = insert_entry(&mut younger, None, "bob").await;
        let early = insert_entry(&mut older, None, "ada").await;
        older.commit().await.unwrap();
        let entries = lease.pending(PageLimit::rows(10)).await.unwrap().items;
        assert_eq!(ids_of(&entries), [early]);
        lease.remove(&[early]).await.unwrap();
        relay_some(&one, lease.as_mut(), &format!("user{round}")).await;
        younger.commit().await.unwrap();
        let entries = lease.pending(PageLimit::rows(10)).await.unwrap().items;
        assert_eq!(ids_of(&entries), [late], "round {round}");
        lease.remove(&[late]).await.unwrap();
    }
}

/// Reads start after the ids for which no entry can appear any more. An entry that nevertheless has such an
/// id is found when the outbox is idle.
#[tokio::test]
async fn entry_inserted_by_hand_with_an_old_id_is_returned_after_a_wait() {
    let (database, one, _) = two_nodes().await;
    let mut lease = acquire_lease(&one).await;
    let first = relay_some(&one, lease.as_mut(), "user").await[0];
    let mut connection = database.pool().await.acquire().await.unwrap();
    let mut round = 0;
    // While other tests have open transactions, reads still start before the old id.
    until_true("reads start after the old id", async || {
        round += 1;
        relay_some(&one, lease.as_mut(), &format!("user{round}")).await;
        insert_entry(&mut connection, Some(first), "user").await;
        let entries = lease.pending(PageLimit::rows(10)).await.unwrap().items;
        lease.remove(&ids_of(&entries)).await.unwrap();
        entries.is_empty()
    })
    .await;
    until_true("the entry is returned", async || {
        lease.wait_for_entries(Duration::from_millis(10)).await.unwrap();
        !lease.pending(PageLimit::rows(10)).await.unwrap().items.is_empty()
    })
    .await;
}

#[tokio::test]
async fn unreadable_outbox_entries_are_set_aside_and_the_others_are_returned() {
    let (database, one, _) = two_nodes().await;
    let pool = database.pool().await;
    one.create(vec![a_draft("ada", "n1")]).await.unwrap();
    sqlx::query("INSERT INTO outbox (event) VALUES ('{}'), ('{\"pattern\":\"notification.new\"}')")
        .execute(&pool)
        .await
        .unwrap();
    one.create(vec![a_draft("ada", "n2")]).await.unwrap();

    let mut lease = acquire_lease(&one).await;
    let entries = lease.pending(PageLimit::rows(10)).await.unwrap().items;
    assert_eq!(revisions_of("ada", &entries), [1, 2]);
    lease.remove(&[entries[0].id, entries[1].id]).await.unwrap();
    assert_eq!(lease.pending(PageLimit::rows(10)).await.unwrap().items, []);
    assert_eq!(one.backlog().await.unwrap().entries, 0);
    let set_aside: Vec<(String, String)> =
        sqlx::query_as("SELECT event::text, reason FROM outbox_unreadable ORDER BY id")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(set_aside.len(), 2);
    assert_eq!(set_aside[0].0, "{}");
    assert!(set_aside[0].1.contains("not the JSON of an event"), "{set_aside:?}");
}

/// Earlier versions insert rows without the header columns `name`, `user_id` and `revision`.
#[tokio::test]
async fn entry_without_header_columns_gets_its_header_from_the_event() {
    let (database, one, _) = two_nodes().await;
    one.create(vec![a_draft("ada", "n1"), a_draft("ada", "n2")]).await.unwrap();
    let mut lease = acquire_lease(&one).await;
    let expected = lease.pending(PageLimit::rows(10)).await.unwrap().items;
    let updated = "UPDATE outbox SET name = NULL, user_id = NULL, revision = NULL";
    assert_eq!(
        sqlx::query(updated).execute(&database.pool().await).await.unwrap().rows_affected(),
        2
    );
    assert_eq!(lease.pending(PageLimit::rows(10)).await.unwrap().items, expected);
}

/// The relay publishes each event unchanged, so the relay of an old node also publishes a new kind of event.
#[tokio::test]
async fn event_of_a_newer_version_is_returned_unchanged() {
    let (database, one, _) = two_nodes().await;
    let body = r#"{"pattern":"notification.archived","data":{"of":"a newer version"}}"#;
    sqlx::query(
        "INSERT INTO outbox (event, name, user_id, revision)
         VALUES ($1::json, 'notification.archived', 'ada', 1)",
    )
    .bind(body)
    .execute(&database.pool().await)
    .await
    .unwrap();
    let entries = acquire_lease(&one).await.pending(PageLimit::rows(10)).await.unwrap().items;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].header.name.as_str(), "notification.archived");
    assert_eq!(&*entries[0].body, body);
}
