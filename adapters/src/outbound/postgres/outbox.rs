use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use belfry_application::ports::{
    Outbox, OutboxBacklog, OutboxEntry, OutboxId, OutboxLease, Page, PageLimit, PortError,
};
use chrono::{DateTime, Utc};
use sqlx::postgres::{PgListener, PgPool, PgPoolOptions};

use super::commit_notifier::{CommitSignals, LeaderFlag};
use super::failure::PgFailure;
use super::installation::Installation;
use super::read_floor::{ReadFloor, TransactionIds};
use super::session::{self, Purpose};
use super::store::PostgresStore;
use crate::outbound::relational::{
    BacklogRow, OutboxRow, SizedRow, UnreadableEntry, clamped, one_more, page, parse_entries,
};

/// The key of the advisory lock of the outbox lease in the schema `public`: the bytes of `BelfryOb` as a number.
/// Another schema has another key. In `pg_stat_activity`, the holder's application name is `belfry outbox`.
pub const OUTBOX_LOCK: i64 = i64::from_be_bytes(*b"BelfryOb");

/// Entries after the id `$1`, at most `$2`, whose events have at most `$3` bytes together; a larger one alone. With
/// the ids of transactions at that time: `age` is the distance to the next id that the server will assign.
const PENDING: &str = "
    SELECT id, event, name, user_id, revision, traceparent, written_at, found,
        (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint) AS oldest_running,
        (SELECT latest::text::bigint + age(latest::xid)
            FROM pg_snapshot_xmax(pg_current_snapshot()) AS latest) AS next
    FROM (
        SELECT entry.*, count(*) OVER () AS found,
            sum(entry.bytes) OVER (ORDER BY entry.id) AS running_bytes
        FROM (
            SELECT id, event::text AS event, name, user_id, revision, traceparent, written_at,
                octet_length(event::text) AS bytes
            FROM outbox WHERE id > $1 ORDER BY id LIMIT $2
        ) entry
    ) entry
    WHERE running_bytes <= $3 OR running_bytes = bytes
    ORDER BY id";

/// Both ends of the age are the database's time.
const BACKLOG: &str = "
    SELECT count(*) AS entries,
        coalesce((extract(epoch FROM clock_timestamp() - min(written_at)) * 1000)::bigint, 0) AS age
    FROM outbox";

const REMOVE: &str = "DELETE FROM outbox WHERE id = ANY($1)";

const SET_ASIDE: &str = "
    WITH unreadable AS (DELETE FROM outbox WHERE id = $1 RETURNING *)
    INSERT INTO outbox_unreadable (id, event, traceparent, written_at, reason)
    SELECT id, event, traceparent, written_at, $2 FROM unreadable";

/// Shared, so that two nodes can check at once; released at the end of the statement.
const LOCK_IS_FREE: &str = "SELECT pg_try_advisory_xact_lock_shared($1)";

const TRY_LOCK: &str = "SELECT pg_try_advisory_lock($1)";

/// A row of [`PENDING`].
#[derive(Debug, sqlx::FromRow)]
struct PendingRow {
    #[sqlx(flatten)]
    sized: SizedRow<OutboxRow<DateTime<Utc>>>,
    #[sqlx(flatten)]
    transactions: TransactionIds,
}

#[async_trait]
impl Outbox for PostgresStore {
    async fn acquire_lease(&self) -> Result<Option<Box<dyn OutboxLease>>, PortError> {
        // First on a connection of the pool: standby nodes check several times a second, and each
        // new connection costs the server a process.
        let installation = self.installation().await?;
        let key = installation.lock_key(OUTBOX_LOCK);
        let is_free: bool =
            self.fetch_scalar(|| sqlx::query_scalar(LOCK_IS_FREE).bind(key)).await?;
        if !is_free {
            return Ok(None);
        }
        let lease = PgOutboxLease::acquire(self, installation).await?;
        Ok(lease.map(|lease| Box::new(lease) as Box<dyn OutboxLease>))
    }

    async fn backlog(&self) -> Result<OutboxBacklog, PortError> {
        let row: Option<BacklogRow> = self.fetch_optional(|| sqlx::query_as(BACKLOG)).await?;
        Ok(row.as_ref().map(BacklogRow::to_backlog).transpose()?.unwrap_or_default())
    }
}

/// The outbox lease. It lasts as long as its connection, which holds the lock, runs the statements
/// and listens for commits. The first failure on this connection ends the lease, so a node that has
/// lost the lock cannot remove entries.
struct PgOutboxLease {
    listener: PgListener,
    /// Contains only the listener's connection. The pool is kept to close it.
    pool: PgPool,
    signals: Arc<CommitSignals>,
    /// Set while the lock is held: commits of this process then notify no other node.
    leader: Option<LeaderFlag>,
    /// Where the next read of the outbox starts.
    floor: ReadFloor,
    /// The limit for one statement.
    timeout: Duration,
    lost: bool,
}

impl PgOutboxLease {
    async fn acquire(
        store: &PostgresStore,
        installation: Installation,
    ) -> Result<Option<Self>, PgFailure> {
        let options = store.options.clone().application_name("belfry outbox");
        let parameters = session::parameters(Purpose::OutboxLease, &store.settings);
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(store.settings.acquire_timeout)
            .max_lifetime(None)
            .idle_timeout(None)
            .after_connect(move |connection, _| Box::pin(parameters.clone().apply(connection)))
            .connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.ignore_pool_close_event(true);
        listener.eager_reconnect(false);
        // From here on, `Drop` closes the connection on a failure or if another node got the lock.
        let mut lease = Self {
            listener,
            pool,
            signals: store.notifier.signals().clone(),
            leader: None,
            floor: ReadFloor::default(),
            timeout: store.settings.work_timeout(),
            lost: false,
        };
        let channel = installation.channel();
        lease.run(async |listener| listener.listen(&channel).await).await?;
        let key = installation.lock_key(OUTBOX_LOCK);
        let is_locked: bool = lease
            .run(async |listener| sqlx::query_scalar(TRY_LOCK).bind(key).fetch_one(listener).await)
            .await?;
        if !is_locked {
            return Ok(None);
        }
        lease.leader = Some(lease.signals.set_leader());
        Ok(Some(lease))
    }

    /// Runs `work` on the lease's connection. After a failure the listener would reconnect, but
    /// without the lock. So nothing runs after the first failure.
    async fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut PgListener) -> Result<T, sqlx::Error>,
    ) -> Result<T, PgFailure> {
        if self.lost {
            return Err(PgFailure::LeaseLost);
        }
        self.lost = true;
        let done = tokio::time::timeout(self.timeout, work(&mut self.listener)).await;
        let done = done.map_err(|_| PgFailure::Timeout(self.timeout))??;
        self.lost = false;
        Ok(done)
    }

    async fn set_aside(&mut self, entry: &UnreadableEntry) -> Result<(), PgFailure> {
        entry.log();
        let query = sqlx::query(SET_ASIDE).bind(entry.id).bind(entry.reason());
        self.run(async |listener| query.execute(listener).await).await?;
        Ok(())
    }
}

#[async_trait]
impl OutboxLease for PgOutboxLease {
    async fn pending(&mut self, limit: PageLimit) -> Result<Page<OutboxEntry>, PortError> {
        loop {
            let query = sqlx::query_as(PENDING)
                .bind(self.floor.id())
                .bind(one_more(limit.rows))
                .bind(clamped(limit.bytes));
            let rows: Vec<PendingRow> =
                self.run(async |listener| query.fetch_all(listener).await).await?;
            let transactions = rows.first().map(|row| row.transactions);
            let sized = rows.into_iter().map(|row| row.sized).collect();
            let Page { items: rows, more } = page(sized, limit).map_err(PgFailure::from)?;
            if let (Some(first), Some(last), Some(ids)) = (rows.first(), rows.last(), transactions)
            {
                self.floor.raise(first.id..=last.id, ids);
            }
            let (items, unreadable) = parse_entries(rows);
            if unreadable.is_empty() {
                return Ok(Page { items, more });
            }
            for entry in &unreadable {
                self.set_aside(entry).await?;
            }
        }
    }

    async fn remove(&mut self, entries: &[OutboxId]) -> Result<(), PortError> {
        let ids: Vec<_> = entries.iter().map(|OutboxId(id)| *id).collect();
        self.run(async |listener| sqlx::query(REMOVE).bind(ids).execute(listener).await).await?;
        Ok(())
    }

    async fn wait_for_entries(&mut self, patience: Duration) -> Result<(), PortError> {
        if self.lost {
            return Err(PgFailure::LeaseLost.into());
        }
        let connected = tokio::select! {
            () = self.signals.local_commit() => Ok(true),
            () = tokio::time::sleep(patience) => {
                // Finds entries that were not written by Belfry and have an id below the floor.
                self.floor = ReadFloor::default();
                Ok(true)
            }
            received = self.listener.try_recv() => received.map(|notified| notified.is_some()),
        };
        // The next read of the outbox covers all notifications that have arrived.
        while self.listener.next_buffered().is_some() {}
        self.lost = !matches!(connected, Ok(true));
        match connected {
            Ok(true) => Ok(()),
            Ok(false) => Err(PgFailure::LeaseLost.into()),
            Err(error) => Err(PgFailure::from(error).into()),
        }
    }
}

impl Drop for PgOutboxLease {
    /// Closes the connection in the background, which releases the lock.
    fn drop(&mut self) {
        self.leader = None;
        let pool = self.pool.clone();
        tokio::spawn(async move { pool.close().await });
    }
}
