//! Guarantees of the PostgreSQL store beyond the contract of its ports: with several nodes on one database, broken
//! connections and server restarts.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use belfry_adapters::outbound::postgres::{PostgresSettings, PostgresStore};
use belfry_application::ports::{
    History, InboxRepository, ListFilter, Outbox, OutboxEntry, OutboxLease, PageLimit, PortError,
};
use belfry_application::testing::{a_draft, at, id, user};
use belfry_domain::{Draft, Receipt, Revision};
use belfry_tests::postgres::{Database, PostgresServer, fresh_database};
use belfry_tests::wait::{until, until_true};
use futures_util::future::{FutureExt, join_all};
use sqlx::PgPool;

async fn node(database: &Database) -> PostgresStore {
    let settings = PostgresSettings { max_connections: 4, ..PostgresSettings::new(database.url()) };
    let store = PostgresStore::connect(settings).await.unwrap();
    store.migrate().await.unwrap();
    store
}

pub(super) async fn two_nodes() -> (Database, PostgresStore, PostgresStore) {
    let database = fresh_database().await;
    let (one, other) = (node(&database).await, node(&database).await);
    (database, one, other)
}

pub(super) async fn acquire_lease(store: &PostgresStore) -> Box<dyn OutboxLease> {
    until("the lease is free", async || store.acquire_lease().await.unwrap()).await
}

/// Terminates the connections with this application name. Returns their number.
pub(super) async fn terminate_connections(pool: &PgPool, application: &str) -> usize {
    let terminated: Vec<bool> = sqlx::query_scalar(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = $1",
    )
    .bind(application)
    .fetch_all(pool)
    .await
    .unwrap();
    terminated.len()
}

/// The revisions of one user's entries, in order.
pub(super) fn revisions_of(name: &str, entries: &[OutboxEntry]) -> Vec<u64> {
    let of_user = entries.iter().filter(|entry| entry.header.user == user(name));
    of_user.map(|entry| entry.header.revision.get()).collect()
}

#[tokio::test]
async fn concurrent_batches_of_two_nodes_to_the_same_inboxes_all_succeed() {
    const USERS: usize = 6;
    const ROUNDS: usize = 15;
    let (_database, one, other) = two_nodes().await;
    let (one, other) = (Arc::new(one), Arc::new(other));
    let workers = (0..8_usize).map(|worker| {
        let store = if worker % 2 == 0 { &one } else { &other }.clone();
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                // Each worker uses another order of users, and immediately changes a notification that it has
                // created.
                let name = |n: usize| format!("u{}", (n * (worker + 1) + round) % USERS);
                let batch = (0..USERS).map(|n| a_draft(&name(n), &format!("{worker}-{round}-{n}")));
                let receipts = store.create(batch.collect()).await.unwrap();
                assert!(receipts.iter().all(|receipt| matches!(receipt, Receipt::Created(_))));
                let first = id(&format!("{worker}-{round}-0"));
                let marked = store.mark_read(&user(&name(0)), &[first], at(5)).await;
                marked.unwrap();
            }
        })
    });
    for worker in join_all(workers).await {
        worker.unwrap();
    }

    let mut lease = acquire_lease(&one).await;
    let entries = lease.pending(PageLimit::rows(100_000)).await.unwrap().items;
    let mut created = 0;
    for n in 0..USERS {
        let name = format!("u{n}");
        let state = one.state(&user(&name)).await.unwrap();
        let all: Vec<_> = (1..=state.revision.get()).collect();
        assert_eq!(revisions_of(&name, &entries), all, "revisions have gaps or are out of order");
        let filter = |unread| ListFilter { unread, ..ListFilter::default() };
        let unread = one.list(&user(&name), &filter(Some(true)), PageLimit::rows(10_000)).await;
        assert_eq!(state.unread.get(), unread.unwrap().items.len() as u64);
        let all = one.list(&user(&name), &filter(None), PageLimit::rows(10_000)).await;
        created += all.unwrap().items.len();
    }
    assert_eq!(created, 8 * ROUNDS * USERS);
}

#[tokio::test]
async fn terminated_connections_are_replaced() {
    let (database, one, _) = two_nodes().await;
    let pool = database.pool().await;
    let tasks = (0..4).map(|n| one.create(vec![a_draft("ada", &format!("n{n}"))]).boxed());
    join_all(tasks).await;
    assert!(terminate_connections(&pool, "belfry").await > 0);
    // The pool pings a connection before use only if it was idle for a second. So a few calls may fail, with
    // an error that is worth a retry.
    until_true("the store works again", async || {
        match one.create(vec![a_draft("ada", "after")]).await {
            Ok(_) => true,
            Err(PortError::Unavailable(_)) => false,
            Err(rejected) => panic!("{rejected}"),
        }
    })
    .await;
    assert_eq!(one.state(&user("ada")).await.unwrap().unread.get(), 5);
}

#[tokio::test]
async fn terminated_connections_lose_no_confirmed_create_and_keep_counts_exact() {
    let (database, one, other) = two_nodes().await;
    let pool = database.pool().await;
    let workers = (0..6_usize).map(|worker| {
        let store = if worker % 2 == 0 { &one } else { &other }.clone();
        tokio::spawn(async move {
            let mut confirmed = Vec::new();
            for n in 0..25 {
                let name = format!("{worker}-{n}");
                match store.create(vec![a_draft("ada", &name), a_draft("bob", &name)]).await {
                    Ok(_) => confirmed.push(name),
                    Err(PortError::Unavailable(_)) => {}
                    Err(rejected) => panic!("{rejected}"),
                }
            }
            confirmed
        })
    });
    let workers = join_all(workers.collect::<Vec<_>>());
    let terminating = async {
        loop {
            tokio::time::sleep(Duration::from_millis(25)).await;
            terminate_connections(&pool, "belfry").await;
        }
    };
    let confirmed = tokio::select! {
        confirmed = workers => confirmed,
        never = terminating => never,
    };

    until_true("the store works again", async || one.ping().await.is_ok()).await;
    let mut lease = acquire_lease(&one).await;
    let entries = lease.pending(PageLimit::rows(100_000)).await.unwrap().items;
    for name in ["ada", "bob"] {
        let filter = ListFilter { unread: Some(true), ..ListFilter::default() };
        let unread = one.list(&user(name), &filter, PageLimit::rows(10_000)).await.unwrap();
        let stored: HashSet<_> = unread.items.iter().map(|item| item.id.as_str()).collect();
        for id in confirmed.iter().flat_map(|worker| worker.as_ref().unwrap()) {
            assert!(stored.contains(id.as_str()), "{id} was confirmed and is lost");
        }
        let state = one.state(&user(name)).await.unwrap();
        assert_eq!(state.unread.get(), unread.items.len() as u64);
        let all: Vec<_> = (1..=state.revision.get()).collect();
        assert_eq!(revisions_of(name, &entries), all, "revisions have gaps or are out of order");
    }
}

#[tokio::test]
async fn migrations_can_run_concurrently_and_repeatedly() {
    let database = fresh_database().await;
    let nodes: Vec<_> = (0..4)
        .map(|_| PostgresStore::lazy(PostgresSettings::new(database.url())).unwrap())
        .collect();
    for migrated in join_all(nodes.iter().map(PostgresStore::migrate)).await {
        migrated.unwrap();
    }
    let epoch = nodes[0].epoch().await.unwrap();
    nodes[1].migrate().await.unwrap();
    assert_eq!(nodes[1].epoch().await.unwrap(), epoch);
}

#[tokio::test]
async fn create_before_migration_is_unavailable() {
    let database = fresh_database().await;
    let store = PostgresStore::connect(PostgresSettings::new(database.url())).await.unwrap();
    let rejected = store.create(vec![a_draft("ada", "n1")]).await.unwrap_err();
    assert!(matches!(rejected, PortError::Unavailable(_)), "{rejected}");
    store.migrate().await.unwrap();
    store.create(vec![a_draft("ada", "n1")]).await.unwrap();
}

#[tokio::test]
async fn store_recovers_from_a_server_restart_without_loss() {
    let server = PostgresServer::start_own().await;
    let database = Database::on(server.url()).await;
    let settings = PostgresSettings {
        acquire_timeout: Duration::from_millis(500),
        ..PostgresSettings::new(database.url())
    };
    let store = PostgresStore::connect(settings).await.unwrap();
    store.migrate().await.unwrap();
    let mut lease_before = acquire_lease(&store).await;
    store.create(vec![a_draft("ada", "n1")]).await.unwrap();

    server.kill().await;
    let down = store.create(vec![a_draft("ada", "n2")]).await.unwrap_err();
    assert!(matches!(down, PortError::Unavailable(_)), "{down}");
    assert!(store.ping().await.is_err());
    assert!(lease_before.pending(PageLimit::rows(10)).await.is_err());
    drop(lease_before);

    server.start().await;
    until_true("the store works again", async || store.ping().await.is_ok()).await;
    store.create(vec![a_draft("ada", "n2")]).await.unwrap();
    let mut lease_after = acquire_lease(&store).await;
    let entries = lease_after.pending(PageLimit::rows(10)).await.unwrap().items;
    assert_eq!(revisions_of("ada", &entries), [1, 2]);
}

#[tokio::test]
async fn connection_error_contains_no_password() {
    let database = fresh_database().await;
    let (before, host) = database.url().rsplit_once('@').unwrap();
    let (scheme, _) = before.split_once("://").unwrap();
    for url in [
        format!("{scheme}://nobody:s3cret@{host}"),
        "postgres://nobody:s3cret@127.0.0.1:1/none".to_owned(),
        "postgres://nobody:s3cret@127.0.0.1:port/none".to_owned(),
        format!("{scheme}://nobody:s3cret@{host}?sslmode=perhaps"),
    ] {
        let settings = PostgresSettings {
            acquire_timeout: Duration::from_millis(300),
            ..PostgresSettings::new(url)
        };
        let Err(error) = PostgresStore::connect(settings).await else {
            continue; // the server accepts any password
        };
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
    }
}

/// The history floor is the highest revision of a tombstone that retention has removed. Changes since an earlier
/// revision are no longer complete.
#[tokio::test]
async fn history_since_a_revision_below_the_floor_is_not_complete() {
    let (database, one, _) = two_nodes().await;
    let drafts = (1..=4).map(|n| a_draft("ada", &format!("n{n}"))).collect();
    one.create(drafts).await.unwrap();
    sqlx::query("UPDATE inboxes SET history_floor = 2")
        .execute(&database.pool().await)
        .await
        .unwrap();
    // The inbox is at revision 4, so revision 5 is unknown.
    for (since, expected) in [(0, false), (1, false), (2, true), (3, true), (5, false)] {
        let history = one.history(&user("ada"), Revision::new(since), 10).await;
        let complete = matches!(history.unwrap(), History::Complete { .. });
        assert_eq!(complete, expected, "since {since}");
    }
}

/// Concurrent writes share a transaction, as a group.
#[tokio::test]
async fn rejected_write_makes_no_other_write_of_its_group_fail() {
    let (_database, one, _) = two_nodes().await;
    let create = |n: usize| {
        let created_at = if n == 7 { at(i64::MAX) } else { at(1_000) };
        one.create(vec![Draft { created_at, ..a_draft("ada", &format!("n{n}")) }])
    };
    let results = join_all((0..20).map(create)).await;
    let failed: Vec<_> = (0..20).filter(|&n| results[n].is_err()).collect();
    assert_eq!(failed, [7]);
    assert!(matches!(results[7], Err(PortError::Rejected(_))));
    assert_eq!(one.state(&user("ada")).await.unwrap().revision, Revision::new(19));
}

#[tokio::test]
async fn writes_do_not_wait_for_the_locked_inbox_of_another_user() {
    let (database, one, _) = two_nodes().await;
    one.create(vec![a_draft("ada", "n0")]).await.unwrap();
    let pool = database.pool().await;
    let mut holder = pool.begin().await.unwrap();
    let lock = "SELECT FROM inboxes WHERE user_id = 'ada' FOR UPDATE";
    sqlx::query(lock).execute(&mut *holder).await.unwrap();

    let store = one.clone();
    let waiting = tokio::spawn(async move { store.create(vec![a_draft("ada", "n1")]).await });
    // When this write waits for the lock, its transaction has begun. So it shares none with the other writes.
    let lock_waits = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    until_true("the write waits for the lock", async || {
        sqlx::query_scalar::<_, i64>(lock_waits).fetch_one(&pool).await.unwrap() == 1
    })
    .await;
    let others = (0..20).map(|n| one.create(vec![a_draft(&format!("user{n}"), "n1")]));
    for result in join_all(others).await {
        result.unwrap();
    }
    assert!(!waiting.is_finished(), "the write did not wait for its locked inbox");
    holder.commit().await.unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn timestamp_out_of_range_rejects_the_whole_batch() {
    let (_database, one, _) = two_nodes().await;
    let out_of_range = Draft { expires_at: Some(at(i64::MAX)), ..a_draft("ada", "n2") };
    let rejected = one.create(vec![a_draft("ada", "n1"), out_of_range]).await;
    assert!(matches!(rejected, Err(PortError::Rejected(_))));
    assert_eq!(one.state(&user("ada")).await.unwrap().revision, Revision::ZERO);
    let rejected = one.mark_all_read(&user("ada"), at(i64::MIN)).await;
    assert!(matches!(rejected, Err(PortError::Rejected(_))));
}
