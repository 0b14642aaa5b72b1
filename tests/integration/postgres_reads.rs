//! The cost of reads and writes: they fetch only the rows that they need, by index, however large the tables are.

use belfry_adapters::outbound::postgres::{PostgresSettings, PostgresStore};
use belfry_application::ports::{History, InboxRepository, ListFilter, PageLimit, Retention};
use belfry_application::testing::{a_draft, at, id, user};
use belfry_domain::{Draft, ExpiryCutoff, ReplayRange, Revision, UserId};
use belfry_tests::postgres::{Database, fresh_database};
use belfry_tests::wait::{until, until_true};
use sqlx::PgPool;

/// The number of sequential scans of a table, and of rows fetched from it by index. A connection reports them
/// when it closes.
async fn reads_of(table: &str, pool: &PgPool) -> (i64, i64) {
    sqlx::query_as(
        "SELECT seq_scan, coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relname = $1",
    )
    .bind(table)
    .fetch_one(pool)
    .await
    .unwrap()
}

/// 100,000 notifications in 100 inboxes, one in ten unread, and 20,000 more inboxes.
async fn fill(pool: &PgPool) {
    for statement in [
        "INSERT INTO inboxes (user_id, revision, unread)
         SELECT 'u' || u, 1000, 100 FROM generate_series(1, 100) u",
        "INSERT INTO inboxes (user_id) SELECT 'v' || u FROM generate_series(1, 20000) u",
        "INSERT INTO notifications (user_id, id, created_revision, revision, created_at, read_at,
             priority, kind, title, message)
         SELECT 'u' || u, 'n' || n, n, n, now(), CASE WHEN n % 10 > 0 THEN now() END,
             'normal', 'general', 'A title', repeat('word ', 20)
         FROM generate_series(1, 100) u, generate_series(1, 1000) n",
    ] {
        sqlx::query(statement).execute(pool).await.unwrap();
    }
}

/// The table statistics with which PostgreSQL plans the statements.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Planned {
    /// Current statistics of the filled tables.
    WithStatistics,
    /// None: the tables are empty at first, and are never analyzed.
    WhileEmpty,
}

/// A store with one connection, on filled tables. Its statements are planned with these statistics.
async fn store_planned(when: Planned, database: &Database, pool: &PgPool) -> PostgresStore {
    let settings = PostgresSettings { max_connections: 1, ..PostgresSettings::new(database.url()) };
    let store = PostgresStore::connect(settings).await.unwrap();
    store.migrate().await.unwrap();
    for table in ["notifications", "inboxes"] {
        let no_autovacuum = format!("ALTER TABLE {table} SET (autovacuum_enabled = off)");
        sqlx::query(sqlx::AssertSqlSafe(no_autovacuum)).execute(pool).await.unwrap();
    }
    if when == Planned::WhileEmpty {
        run_all_reads(&store, "nobody", 0).await;
        run_all_writes(&store, "somebody").await;
    }
    fill(pool).await;
    if when == Planned::WithStatistics {
        sqlx::query("VACUUM ANALYZE").execute(pool).await.unwrap();
    }
    store
}

/// Runs each read once on an inbox. Returns the number of rows of `notifications` that this needs.
async fn run_all_reads(store: &PostgresStore, name: &str, unread: u64) -> usize {
    let name = user(name);
    let mut needed = 0;
    for only in [None, Some(true), Some(false)] {
        let before = Some(Revision::new(500));
        let filter = ListFilter { unread: only, before, kind: None };
        needed += store.list(&name, &filter, PageLimit::rows(20)).await.unwrap().items.len();
        // One more row shows whether there is a next page.
        needed += 1;
    }
    if let History::Complete { created, .. } = history_since(store, &name, 980).await {
        needed += created;
    }
    // Too many changes: one row more than the limit of 50 shows this.
    history_since(store, &name, 10).await;
    needed += 51;
    let range = ReplayRange::new(Revision::new(980), Revision::new(1_000));
    needed += store.created_in(&name, range, PageLimit::rows(50)).await.unwrap().items.len();
    needed += store.changed_in(&name, range, 50).await.unwrap().unwrap().len();
    needed += usize::from(store.get(&name, &id("n7")).await.unwrap().is_some());
    let due = ExpiryCutoff { now: at(5), created_before: Some(at(5)) };
    assert_eq!(store.expire(&due, 100).await.unwrap(), 0);
    assert_eq!(store.state(&name).await.unwrap().unread.get(), unread);
    needed
}

async fn history_since(store: &PostgresStore, name: &UserId, since: u64) -> History {
    store.history(name, Revision::new(since), 50).await.unwrap()
}

/// Runs each write once.
async fn run_all_writes(store: &PostgresStore, name: &str) {
    let keyed = Draft { dedupe_key: Some(id("k")), ..a_draft(name, "new") };
    store.create(vec![keyed, a_draft(name, "n1")]).await.unwrap();
    let marked = store.mark_read(&user(name), &[id("n10"), id("new")], at(5)).await;
    assert!(marked.unwrap().event.is_some());
    let deleted = store.delete(&user(name), &[id("n20"), id("new")], at(5)).await;
    assert!(deleted.unwrap().is_some());
    let all = store.mark_all_read(&user(name), at(6)).await.unwrap();
    assert_eq!(all.unwrap().unread.get(), 0);
}

#[tokio::test]
async fn reads_fetch_only_the_rows_they_return() {
    reads_fetch_only_needed_rows(Planned::WithStatistics).await;
}

#[tokio::test]
async fn reads_planned_on_empty_tables_fetch_only_the_rows_they_return() {
    reads_fetch_only_needed_rows(Planned::WhileEmpty).await;
}

async fn reads_fetch_only_needed_rows(when: Planned) {
    let database = fresh_database().await;
    let pool = database.pool().await;
    let store = store_planned(when, &database, &pool).await;
    let (scans_before, fetched_before) = reads_of("notifications", &pool).await;
    let (inbox_scans_before, _) = reads_of("inboxes", &pool).await;

    // More than five executions, because PostgreSQL may then switch to a generic plan.
    let mut needed = 0;
    for n in 1..=8 {
        needed += run_all_reads(&store, &format!("u{n}"), 100).await;
    }
    // Three pages, two histories, created and changed notifications of a range, and one by its id.
    assert_eq!(needed, 8 * (3 * 21 + 20 + 51 + 20 + 18 + 1));
    store.close().await;

    let (scans, fetched) = until("the reads are counted", async || {
        let (scans, fetched) = reads_of("notifications", &pool).await;
        let fetched = fetched - fetched_before;
        (fetched >= i64::try_from(needed).unwrap()).then_some((scans, fetched))
    })
    .await;
    let (inbox_scans, _) = reads_of("inboxes", &pool).await;
    assert_eq!(scans, scans_before, "a read scanned all notifications");
    assert_eq!(inbox_scans, inbox_scans_before, "a read scanned all inboxes");
    // A page of read notifications also fetches the few unread ones between them.
    let fetched = usize::try_from(fetched).unwrap();
    assert!(fetched < needed * 5 / 4, "{fetched} rows read, {needed} needed");
}

#[tokio::test]
async fn writes_find_their_rows_by_index() {
    writes_fetch_only_needed_rows(Planned::WithStatistics).await;
}

#[tokio::test]
async fn writes_planned_on_empty_tables_find_their_rows_by_index() {
    writes_fetch_only_needed_rows(Planned::WhileEmpty).await;
}

async fn writes_fetch_only_needed_rows(when: Planned) {
    let database = fresh_database().await;
    let pool = database.pool().await;
    let store = store_planned(when, &database, &pool).await;
    let (scans_before, fetched_before) = reads_of("notifications", &pool).await;
    for n in 1..=8 {
        run_all_writes(&store, &format!("u{n}")).await;
    }
    store.close().await;
    until_true("the writes are counted", async || {
        let updated: i64 = sqlx::query_scalar(
            "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'notifications'",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        updated >= 8 * 100
    })
    .await;
    let (scans, fetched) = reads_of("notifications", &pool).await;
    assert_eq!(scans, scans_before, "a write scanned all notifications");
    // The 100 unread notifications of each inbox, and the few that are named by id.
    let fetched = fetched - fetched_before;
    assert!((8 * 100..8 * 120).contains(&fetched), "{fetched} rows read");
}
