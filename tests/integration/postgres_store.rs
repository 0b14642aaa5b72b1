//! What the store promises beyond its port: several nodes on one database, and servers that come and go.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

async fn two_nodes() -> (Database, PostgresStore, PostgresStore) {
    let database = fresh_database().await;
    let (one, other) = (node(&database).await, node(&database).await);
    (database, one, other)
}

async fn acquire_lease(store: &PostgresStore) -> Box<dyn OutboxLease> {
    until("the lead is free", async || store.acquire_lease().await.unwrap()).await
}

/// Ends the connections of that name, as a failing network or an administrator would.
async fn cut(pool: &PgPool, application: &str) -> usize {
    let ended: Vec<bool> = sqlx::query_scalar(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = $1",
    )
    .bind(application)
    .fetch_all(pool)
    .await
    .unwrap();
    ended.len()
}

const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn one_node_leads_and_another_takes_over_when_its_connection_dies() {
    let (database, one, other) = two_nodes().await;
    let mut first = acquire_lease(&one).await;
    assert!(other.acquire_lease().await.unwrap().is_none(), "one leads already");
    one.create(vec![a_draft("ada", "n1")]).await.unwrap();
    assert_eq!(first.pending(10).await.unwrap().len(), 1);

    assert_eq!(cut(&database.pool().await, "belfry outbox").await, 1);
    let since = Instant::now();
    let mut second = acquire_lease(&other).await;
    assert!(since.elapsed() < Duration::from_secs(5));

    let lost = |error: PortError| assert!(matches!(error, PortError::Unavailable(_)), "{error}");
    lost(first.pending(10).await.unwrap_err());
    lost(first.wait_for_entries(PATIENCE).await.unwrap_err());
    lost(first.remove(&[]).await.unwrap_err());
    let entries = second.pending(10).await.unwrap();
    assert_eq!(entries.len(), 1, "what the first did not forget is told");
    second.remove(&[entries[0].id]).await.unwrap();
}

#[tokio::test]
async fn a_lead_learns_of_its_loss_while_it_waits() {
    let (database, one, _) = two_nodes().await;
    let mut first = acquire_lease(&one).await;
    let pool = database.pool().await;
    let (waited, _) = tokio::join!(first.wait_for_entries(PATIENCE), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cut(&pool, "belfry outbox").await
    });
    assert!(matches!(waited, Err(PortError::Unavailable(_))));
    assert!(first.pending(1).await.is_err());
}

#[tokio::test]
async fn a_lead_that_is_dropped_leaves_nothing_behind() {
    let (database, one, other) = two_nodes().await;
    drop(acquire_lease(&one).await);
    drop(acquire_lease(&other).await);
    let pool = database.pool().await;
    until_true("the lead's connection is closed", async || {
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
async fn standing_by_opens_no_connection() {
    let (database, one, other) = two_nodes().await;
    let _lease = acquire_lease(&one).await;
    for _ in 0..5 {
        assert!(other.acquire_lease().await.unwrap().is_none());
    }
    let pool = database.pool().await;
    assert_eq!(cut(&pool, "belfry outbox").await, 1, "the lead's own");
}

#[tokio::test]
async fn a_commit_wakes_the_lead_of_another_node() {
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
        assert!(since.elapsed() < PATIENCE / 2, "called, not only patient");
        assert_eq!(lease.pending(10).await.unwrap().len(), n + 1);
    }
}

#[tokio::test]
async fn a_commit_on_another_node_just_before_the_wait_is_not_slept_through() {
    let (_database, one, other) = two_nodes().await;
    let mut lease = acquire_lease(&one).await;
    assert_eq!(lease.pending(10).await.unwrap(), []);
    other.create(vec![a_draft("ada", "n1")]).await.unwrap();
    tokio::time::timeout(PATIENCE / 2, lease.wait_for_entries(PATIENCE))
        .await
        .expect("woken")
        .unwrap();
}

/// The entries of one user, by revision.
fn told_of(name: &str, entries: &[OutboxEntry]) -> Vec<u64> {
    let of = entries.iter().filter(|entry| entry.event.user == user(name));
    of.map(|entry| entry.event.revision.get()).collect()
}

#[tokio::test]
async fn batches_of_two_nodes_for_the_same_inboxes_do_not_get_in_each_others_way() {
    const USERS: usize = 6;
    const ROUNDS: usize = 15;
    let (_database, one, other) = two_nodes().await;
    let (one, other) = (Arc::new(one), Arc::new(other));
    let workers = (0..8_usize).map(|worker| {
        let store = if worker % 2 == 0 { &one } else { &other }.clone();
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                // Each in another order, and some of them change what they made at once.
                let name = |n: usize| format!("u{}", (n * (worker + 1) + round) % USERS);
                let batch = (0..USERS).map(|n| a_draft(&name(n), &format!("{worker}-{round}-{n}")));
                let receipts = store.create(batch.collect()).await.unwrap();
                assert!(receipts.iter().all(|one| matches!(one, Receipt::Created(_))));
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
    let told = lease.pending(100_000).await.unwrap();
    let mut created = 0;
    for n in 0..USERS {
        let name = format!("u{n}");
        let state = one.state(&user(&name)).await.unwrap();
        let all: Vec<_> = (1..=state.revision.get()).collect();
        assert_eq!(told_of(&name, &told), all, "in order, without holes");
        let list = |unread| ListFilter { unread, ..ListFilter::default() };
        let unread = one.list(&user(&name), &list(Some(true)), PageLimit::rows(10_000)).await;
        assert_eq!(state.unread.get(), unread.unwrap().items.len() as u64);
        let all = one.list(&user(&name), &list(None), PageLimit::rows(10_000)).await;
        created += all.unwrap().items.len();
    }
    assert_eq!(created, 8 * ROUNDS * USERS);
}

#[tokio::test]
async fn connections_that_were_cut_are_replaced() {
    let (database, one, _) = two_nodes().await;
    let pool = database.pool().await;
    let tasks = (0..4).map(|n| one.create(vec![a_draft("ada", &format!("n{n}"))]).boxed());
    join_all(tasks).await;
    assert!(cut(&pool, "belfry").await > 0);
    // A connection that was in use a moment ago is not tried before it is used again, so a few may
    // be told of the cut; those are errors worth a retry.
    until_true("it works again", async || match one.create(vec![a_draft("ada", "after")]).await {
        Ok(_) => true,
        Err(PortError::Unavailable(_)) => false,
        Err(rejected) => panic!("{rejected}"),
    })
    .await;
    assert_eq!(one.state(&user("ada")).await.unwrap().unread.get(), 5);
}

#[tokio::test]
async fn whatever_is_cut_what_was_answered_is_there_and_the_count_equals_the_rows() {
    let (database, one, other) = two_nodes().await;
    let pool = database.pool().await;
    let workers = (0..6_usize).map(|worker| {
        let store = if worker % 2 == 0 { &one } else { &other }.clone();
        tokio::spawn(async move {
            let mut answered = Vec::new();
            for n in 0..25 {
                let name = format!("{worker}-{n}");
                match store.create(vec![a_draft("ada", &name), a_draft("bob", &name)]).await {
                    Ok(_) => answered.push(name),
                    Err(PortError::Unavailable(_)) => {}
                    Err(rejected) => panic!("{rejected}"),
                }
            }
            answered
        })
    });
    let workers = join_all(workers.collect::<Vec<_>>());
    let cutting = async {
        loop {
            tokio::time::sleep(Duration::from_millis(25)).await;
            cut(&pool, "belfry").await;
        }
    };
    let answered = tokio::select! {
        answered = workers => answered,
        never = cutting => never,
    };

    until_true("it works again", async || one.ping().await.is_ok()).await;
    let mut lease = acquire_lease(&one).await;
    let told = lease.pending(100_000).await.unwrap();
    for name in ["ada", "bob"] {
        let filter = ListFilter { unread: Some(true), ..ListFilter::default() };
        let unread = one.list(&user(name), &filter, PageLimit::rows(10_000)).await.unwrap();
        let there: HashSet<_> = unread.items.iter().map(|one| one.id.as_str()).collect();
        for answered in answered.iter().flat_map(|worker| worker.as_ref().unwrap()) {
            assert!(there.contains(answered.as_str()), "{answered} was answered");
        }
        let state = one.state(&user(name)).await.unwrap();
        assert_eq!(state.unread.get(), unread.items.len() as u64);
        let all: Vec<_> = (1..=state.revision.get()).collect();
        assert_eq!(told_of(name, &told), all, "in order, without holes");
    }
}

#[tokio::test]
async fn migrations_may_be_run_by_several_nodes_at_once_and_again() {
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
async fn a_database_that_is_not_migrated_yet_is_worth_waiting_for() {
    let database = fresh_database().await;
    let store = PostgresStore::connect(PostgresSettings::new(database.url())).await.unwrap();
    let refused = store.create(vec![a_draft("ada", "n1")]).await.unwrap_err();
    assert!(matches!(refused, PortError::Unavailable(_)), "{refused}");
    store.migrate().await.unwrap();
    store.create(vec![a_draft("ada", "n1")]).await.unwrap();
}

#[tokio::test]
async fn a_restart_of_the_server_loses_nothing_and_is_recovered_from() {
    let server = PostgresServer::start_own().await;
    let database = Database::on(server.url()).await;
    let settings = PostgresSettings {
        acquire_timeout: Duration::from_millis(500),
        ..PostgresSettings::new(database.url())
    };
    let store = PostgresStore::connect(settings).await.unwrap();
    store.migrate().await.unwrap();
    let mut before = acquire_lease(&store).await;
    store.create(vec![a_draft("ada", "n1")]).await.unwrap();

    server.kill().await;
    let down = store.create(vec![a_draft("ada", "n2")]).await.unwrap_err();
    assert!(matches!(down, PortError::Unavailable(_)), "{down}");
    assert!(store.ping().await.is_err());
    assert!(before.pending(10).await.is_err());
    drop(before);

    server.start().await;
    until_true("the store is back", async || store.ping().await.is_ok()).await;
    store.create(vec![a_draft("ada", "n2")]).await.unwrap();
    let mut after = acquire_lease(&store).await;
    assert_eq!(told_of("ada", &after.pending(10).await.unwrap()), [1, 2]);
}

#[tokio::test]
async fn no_error_tells_the_password() {
    let database = fresh_database().await;
    let (before, place) = database.url().rsplit_once('@').unwrap();
    let (scheme, _) = before.split_once("://").unwrap();
    for url in [
        format!("{scheme}://nobody:s3cret@{place}"),
        "postgres://nobody:s3cret@127.0.0.1:1/none".to_owned(),
        "postgres://nobody:s3cret@127.0.0.1:port/none".to_owned(),
        format!("{scheme}://nobody:s3cret@{place}?sslmode=perhaps"),
    ] {
        let settings = PostgresSettings {
            acquire_timeout: Duration::from_millis(300),
            ..PostgresSettings::new(url)
        };
        let Err(error) = PostgresStore::connect(settings).await else {
            continue; // a server that trusts everybody
        };
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn what_the_relay_cannot_read_is_set_aside_and_stops_nobody() {
    let (database, one, _) = two_nodes().await;
    let pool = database.pool().await;
    one.create(vec![a_draft("ada", "n1")]).await.unwrap();
    sqlx::query("INSERT INTO outbox (event) VALUES ('{}'), ('{\"pattern\":\"notification.new\"}')")
        .execute(&pool)
        .await
        .unwrap();
    one.create(vec![a_draft("ada", "n2")]).await.unwrap();

    let mut lease = acquire_lease(&one).await;
    let entries = lease.pending(10).await.unwrap();
    assert_eq!(told_of("ada", &entries), [1, 2]);
    lease.remove(&[entries[0].id, entries[1].id]).await.unwrap();
    assert_eq!(lease.pending(10).await.unwrap(), []);
    assert_eq!(one.backlog().await.unwrap(), 0);
    let aside: Vec<(String, String)> =
        sqlx::query_as("SELECT event::text, reason FROM outbox_unreadable ORDER BY id")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(aside.len(), 2);
    assert_eq!(aside[0].0, "{}");
    assert!(aside[0].1.contains("not the JSON of an event"), "{aside:?}");
}

#[tokio::test]
async fn history_that_is_not_kept_any_more_is_out_of_reach() {
    let (database, one, _) = two_nodes().await;
    let drafts = (1..=4).map(|n| a_draft("ada", &format!("n{n}"))).collect();
    one.create(drafts).await.unwrap();
    sqlx::query("UPDATE inboxes SET history_floor = 2")
        .execute(&database.pool().await)
        .await
        .unwrap();
    for (since, reached) in [(0, false), (1, false), (2, true), (3, true), (5, false)] {
        let history = one.history(&user("ada"), Revision::new(since), 10).await;
        let complete = matches!(history.unwrap(), History::Complete { .. });
        assert_eq!(complete, reached, "since {since}");
    }
}

#[tokio::test]
async fn an_instant_that_cannot_be_told_is_refused_with_all_that_came_with_it() {
    let (_database, one, _) = two_nodes().await;
    let endless = Draft { expires_at: Some(at(i64::MAX)), ..a_draft("ada", "n2") };
    let refused = one.create(vec![a_draft("ada", "n1"), endless]).await;
    assert!(matches!(refused, Err(PortError::Rejected(_))));
    assert_eq!(one.state(&user("ada")).await.unwrap().revision, Revision::ZERO);
    let refused = one.mark_all_read(&user("ada"), at(i64::MIN)).await;
    assert!(matches!(refused, Err(PortError::Rejected(_))));
}
