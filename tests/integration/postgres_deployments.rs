//! The store in deployments other than a fresh database with one installation: several schemas, a pooler, a
//! failover, changed tables and roles.

use std::time::Duration;

use belfry_adapters::outbound::NotReady;
use belfry_adapters::outbound::postgres::{PostgresSettings, PostgresStore};
use belfry_application::ports::{
    InboxRepository, ListFilter, Outbox, PageLimit, PortError, Retention,
};
use belfry_application::testing::{a_draft, at, id, user};
use belfry_domain::{Data, Draft, ExpiryCutoff, Link, Message, Title};
use belfry_tests::pgbouncer::PgBouncer;
use belfry_tests::postgres::{Database, fresh_database};
use belfry_tests::wait::{until, until_true};
use sqlx::{AssertSqlSafe, PgPool};

async fn open(url: &str) -> PostgresStore {
    let settings = PostgresSettings { max_connections: 4, ..PostgresSettings::new(url) };
    let store = PostgresStore::lazy(settings).unwrap();
    store.migrate().await.unwrap();
    store
}

async fn run(pool: &PgPool, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(pool).await.unwrap();
}

/// The name of the database, as an identifier.
async fn name(pool: &PgPool) -> String {
    sqlx::query_scalar("SELECT quote_ident(current_database())").fetch_one(pool).await.unwrap()
}

/// Opens all connections of the store and prepares its statements on them.
async fn warm_up(store: &PostgresStore) {
    let calls = (0..4).map(|n| async move {
        let name = format!("warm{n}");
        store.create(vec![a_draft(&name, "n1")]).await.unwrap();
        store.get(&user(&name), &id("n1")).await.unwrap().unwrap();
        store.list(&user(&name), &ListFilter::default(), PageLimit::rows(1)).await.unwrap();
    });
    futures_util::future::join_all(calls).await;
}

async fn not_ready(store: &PostgresStore) -> NotReady {
    store.check().await.unwrap_err()
}

#[tokio::test]
async fn two_installations_in_one_database_work_side_by_side() {
    const PATIENCE: Duration = Duration::from_mins(1);
    let database = fresh_database().await;
    let pool = database.pool().await;
    run(&pool, "CREATE SCHEMA one; CREATE SCHEMA other").await;
    let in_schema = |schema: &str| format!("{}?options[search_path]={schema}", database.url());
    let one = open(&in_schema("one")).await;
    let other = open(&in_schema("other")).await;
    let second_node = open(&in_schema("other")).await;
    assert_ne!(one.epoch().await.unwrap(), other.epoch().await.unwrap());

    let _lease = one.acquire_lease().await.unwrap().unwrap();
    let mut lease = other.acquire_lease().await.unwrap().expect("a lease of its own");
    assert!(one.acquire_lease().await.unwrap().is_none(), "an installation has two leaders");
    assert!(second_node.acquire_lease().await.unwrap().is_none());
    let (woken, created) = tokio::join!(
        tokio::time::timeout(PATIENCE / 2, lease.wait_for_entries(PATIENCE)),
        second_node.create(vec![Draft { expires_at: Some(at(2_000)), ..a_draft("ada", "n1") }]),
    );
    created.unwrap();
    woken.expect("a commit on another node of the installation wakes the leader").unwrap();
    assert_eq!(lease.pending(PageLimit::rows(10)).await.unwrap().items.len(), 1);
    assert_eq!(one.backlog().await.unwrap().entries, 0);

    // Holds the lock of the first installation's cleanup. Its key combines the bytes of `BelfryRt`
    // with the id of the schema.
    let mut cleanup = pool.begin().await.unwrap();
    let lock = "SELECT pg_advisory_xact_lock(key) FROM (
            SELECT x'42656c6672795274'::bigint # (oid::bigint << 16) AS key
            FROM pg_namespace WHERE nspname = 'one') one";
    sqlx::query(lock).execute(&mut *cleanup).await.unwrap();
    let due = ExpiryCutoff { now: at(3_000), created_before: None };
    assert_eq!(other.expire(&due, 10).await.unwrap(), 1);
}

#[tokio::test]
async fn store_and_outbox_work_through_pgbouncer() {
    let database = fresh_database().await;
    let pooler = PgBouncer::start(&database).await;
    let (one, other) = (open(pooler.url()).await, open(pooler.url()).await);
    one.check().await.unwrap();
    one.create(vec![a_draft("ada", "n1")]).await.unwrap();
    let mut lease = one.acquire_lease().await.unwrap().unwrap();
    assert!(other.acquire_lease().await.unwrap().is_none());
    let (woken, created) = tokio::join!(
        lease.wait_for_entries(Duration::from_mins(1)),
        other.create(vec![a_draft("ada", "n2")]),
    );
    woken.unwrap();
    created.unwrap();
    assert_eq!(lease.pending(PageLimit::rows(10)).await.unwrap().items.len(), 2);
    drop(lease);
    until("the lease is free", async || other.acquire_lease().await.unwrap()).await;
}

#[tokio::test]
async fn change_of_a_column_type_makes_no_call_fail() {
    let database = fresh_database().await;
    let store = open(database.url()).await;
    warm_up(&store).await;
    let change = "ALTER TABLE notifications ALTER COLUMN kind TYPE varchar(100)";
    run(&database.pool().await, change).await;
    let ada = user("warm0");
    store.get(&ada, &id("n1")).await.unwrap().unwrap();
    store.list(&ada, &ListFilter::default(), PageLimit::rows(1)).await.unwrap();
    store.create(vec![a_draft("warm0", "n1"), a_draft("warm0", "n2")]).await.unwrap();
    store.mark_read(&ada, &[id("n1")], at(1)).await.unwrap();
    store.check().await.unwrap();
    assert_eq!(store.state(&ada).await.unwrap().unread.get(), 1);
}

#[tokio::test]
async fn connections_to_a_read_only_database_are_replaced() {
    let database = fresh_database().await;
    let store = open(database.url()).await;
    let pool = database.pool().await;
    let name = name(&pool).await;
    // After a failover, connections may lead to a standby, which is read-only.
    run(&pool, &format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    let read_only = PostgresStore::lazy(PostgresSettings::new(database.url())).unwrap();
    let rejected = read_only.create(vec![a_draft("ada", "n1")]).await.unwrap_err();
    assert!(matches!(rejected, PortError::Unavailable(_)), "{rejected}");
    assert_eq!(not_ready(&read_only).await.reason, "the database is read-only");

    run(&pool, &format!("ALTER DATABASE {name} SET default_transaction_read_only = off")).await;
    read_only.create(vec![a_draft("ada", "n1")]).await.expect("on a new connection");
    until_true("the failure is forgotten", async || read_only.check().await.is_ok()).await;
    store.check().await.unwrap();
}

/// The database role of one test. All databases of a server share its roles, so the name of the role is
/// derived from that of the test's database.
struct DatabaseRole {
    name: String,
    url: String,
    /// The statement that grants the privileges that Belfry needs.
    grant: String,
}

fn role_of(database: &Database) -> DatabaseRole {
    let (before, host) = database.url().rsplit_once('@').unwrap();
    let (scheme, _) = before.split_once("://").unwrap();
    let name = format!("role_{}", &host.rsplit_once('_').unwrap().1[..8]);
    let url = format!("{scheme}://{name}:secret@{host}");
    let grant =
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}");
    DatabaseRole { name, url, grant }
}

#[tokio::test]
async fn connections_of_a_role_that_was_created_again_are_replaced() {
    let database = fresh_database().await;
    open(database.url()).await.close().await;
    let pool = database.pool().await;
    let DatabaseRole { name: role, url, grant } = role_of(&database);
    let create = format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'; {grant}");
    let drop = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    run(&pool, &create).await;
    let store =
        PostgresStore::lazy(PostgresSettings { max_connections: 2, ..PostgresSettings::new(&url) });
    let store = store.unwrap();
    store.check().await.expect("these privileges suffice");
    store.create(vec![a_draft("ada", "n1")]).await.unwrap();

    run(&pool, &format!("REVOKE INSERT ON outbox FROM {role}")).await;
    let rejected = store.create(vec![a_draft("ada", "n2")]).await.unwrap_err();
    assert!(matches!(rejected, PortError::Unavailable(_)), "{rejected}");
    assert_eq!(not_ready(&store).await.reason, "the database role lacks a privilege");

    run(&pool, &format!("{drop}; {create}")).await;
    store.create(vec![a_draft("ada", "n2")]).await.expect("on a new connection");
    assert_eq!(store.state(&user("ada")).await.unwrap().unread.get(), 2);
    store.close().await;
    run(&pool, &drop).await;
}

#[tokio::test]
async fn role_that_lacks_one_privilege_is_not_ready() {
    let database = fresh_database().await;
    open(database.url()).await.close().await;
    let pool = database.pool().await;
    let DatabaseRole { name: role, url, grant } = role_of(&database);
    run(&pool, &format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'; {grant}")).await;
    for (table, privileges) in [
        ("store", vec!["UPDATE"]),
        ("inboxes", vec!["INSERT", "UPDATE", "DELETE"]),
        ("notifications", vec!["INSERT", "UPDATE", "DELETE"]),
        ("outbox", vec!["INSERT", "DELETE"]),
        ("outbox_unreadable", vec!["INSERT", "DELETE"]),
        ("idempotency_keys", vec!["INSERT", "UPDATE", "DELETE"]),
        ("revocations", vec!["INSERT", "UPDATE", "DELETE"]),
        ("revocation_state", vec!["UPDATE"]),
    ] {
        for privilege in privileges {
            run(&pool, &format!("REVOKE {privilege} ON {table} FROM {role}")).await;
            let store = PostgresStore::lazy(PostgresSettings::new(&url)).unwrap();
            let NotReady { reason, error } = not_ready(&store).await;
            assert_eq!(reason, "the database role lacks a privilege", "{privilege} on {table}");
            assert!(error.to_string().contains(&format!("table {table} ")), "{error}");
            store.close().await;
            run(&pool, &grant).await;
        }
    }
    run(&pool, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn store_is_not_ready_before_its_migrations() {
    let database = fresh_database().await;
    let store = PostgresStore::lazy(PostgresSettings::new(database.url())).unwrap();
    let missing = "the migrations of this version are missing";
    let unmigrated = not_ready(&store).await;
    assert_eq!(unmigrated.reason, missing);
    assert!(matches!(unmigrated.error, PortError::Unavailable(_)), "{unmigrated}");
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    let pool = database.pool().await;
    run(&pool, "INSERT INTO _sqlx_migrations VALUES (9999, 'later', now(), true, '', 0)").await;
    store.check().await.expect("a newer schema is usable");
    run(&pool, "DELETE FROM _sqlx_migrations WHERE version = 4").await;
    assert_eq!(not_ready(&store).await.reason, missing);
}

#[tokio::test]
async fn database_with_another_encoding_than_utf8_is_rejected() {
    for encoding in ["WIN1252", "SQL_ASCII"] {
        let database = Database::with_encoding(encoding).await;
        let store = PostgresStore::lazy(PostgresSettings::new(database.url())).unwrap();
        let migrated = store.migrate().await.unwrap_err();
        let checked = not_ready(&store).await.error;
        for error in [migrated, checked] {
            assert!(matches!(error, PortError::Rejected(_)), "{error}");
            let text = error.to_string();
            assert!(text.contains(encoding) && text.contains("UTF8"), "{text}");
        }
    }
}

#[tokio::test]
async fn deleted_and_expired_notifications_leave_no_text() {
    let database = fresh_database().await;
    let store = open(database.url()).await;
    let secret = |name: &str| Draft {
        title: Title::parse("s3cret").unwrap(),
        message: Message::parse("s3cret").unwrap(),
        data: Some(Data::from_valid_json(r#"{"s3cret":1}"#).unwrap()),
        link: Some(Link::parse("/s3cret").unwrap()),
        expires_at: Some(at(2_000)),
        ..a_draft("ada", name)
    };
    store.create(vec![secret("n1"), secret("n2")]).await.unwrap();
    store.delete(&user("ada"), &[id("n1")], at(1)).await.unwrap().unwrap();
    let due = ExpiryCutoff { now: at(3_000), created_before: None };
    assert_eq!(store.expire(&due, 10).await.unwrap(), 1);
    let pool = database.pool().await;
    let rows = "SELECT count(*) FROM notifications n WHERE n::text LIKE '%s3cret%'";
    let left: i64 = sqlx::query_scalar(rows).fetch_one(&pool).await.unwrap();
    assert_eq!(left, 0);

    // A tombstone that an earlier version wrote.
    run(
        &pool,
        "UPDATE notifications SET title = 's3cret', data = '{\"s3cret\":1}' WHERE id = 'n1';
         DELETE FROM _sqlx_migrations WHERE version = 6",
    )
    .await;
    store.migrate().await.unwrap();
    let left: i64 = sqlx::query_scalar(rows).fetch_one(&pool).await.unwrap();
    assert_eq!(left, 0);
}
