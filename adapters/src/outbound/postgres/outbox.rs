use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use belfry_application::ports::{Outbox, OutboxEntry, OutboxId, OutboxLease, PortError};
use chrono::{DateTime, Utc};
use sqlx::postgres::{PgListener, PgPool, PgPoolOptions};
use tracing::error;

use super::PostgresStore;
use super::failure::Failure;
use super::session::{self, Purpose};
use super::waker::{CHANNEL, LedHere, Shared};
use crate::outbound::relational::{EntryRow, clamped, whole};
use crate::wire::InvalidEvent;

/// The advisory lock that the lead of the outbox holds, one for each database: the bytes of
/// `BelfryOb` as a number. In `pg_stat_activity` its holder is called `belfry outbox`.
pub const OUTBOX_LOCK: i64 = i64::from_be_bytes(*b"BelfryOb");

const PENDING: &str =
    "SELECT id, event::text, traceparent, written_at FROM outbox ORDER BY id LIMIT $1";

const FORGET: &str = "DELETE FROM outbox WHERE id = ANY($1)";

const SET_ASIDE: &str = "
    WITH unreadable AS (DELETE FROM outbox WHERE id = $1 RETURNING *)
    INSERT INTO outbox_unreadable (id, event, traceparent, written_at, reason)
    SELECT id, event, traceparent, written_at, $2 FROM unreadable";

#[async_trait]
impl Outbox for PostgresStore {
    async fn acquire_lease(&self) -> Result<Option<Box<dyn OutboxLease>>, PortError> {
        if !self.is_leaderless().await? {
            return Ok(None);
        }
        let lease = Lead::take(self).await?;
        Ok(lease.map(|lease| Box::new(lease) as Box<dyn OutboxLease>))
    }

    async fn backlog(&self) -> Result<u64, PortError> {
        let count: i64 = self
            .with_connection(async |connection| {
                let query = sqlx::query_scalar("SELECT count(*) FROM outbox");
                Ok(query.fetch_one(connection).await?)
            })
            .await?;
        Ok(whole(count).map_err(Failure::from)?)
    }
}

impl PostgresStore {
    /// Whether the lead seems to be free. Asked first, on a connection that is open anyway: those who
    /// stand by ask several times a second, and each connection costs the server a process.
    async fn is_leaderless(&self) -> Result<bool, Failure> {
        // Shared, so that two who ask are not in each other's way; let go at the statement's end.
        const ASK: &str = "SELECT pg_try_advisory_xact_lock_shared($1)";
        self.with_connection(async |connection| {
            let query = sqlx::query_scalar(ASK).bind(OUTBOX_LOCK);
            Ok(query.fetch_one(connection).await?)
        })
        .await
    }
}

/// The lead, which lasts as long as its connection: that holds the lock, reads, forgets and listens.
/// Whatever fails on it ends the lead, and nobody who has lost the lock can forget an entry.
struct Lead {
    listener: PgListener,
    /// Of the listener's connection alone; it is one so that it can be closed.
    pool: PgPool,
    shared: Arc<Shared>,
    /// Once the lock is had: commits of this process then call nobody elsewhere.
    led_here: Option<LedHere>,
    patience: Duration,
    lost: bool,
}

impl Lead {
    async fn take(store: &PostgresStore) -> Result<Option<Self>, Failure> {
        let options = store.options.clone().application_name("belfry outbox");
        let setup = session::setup(Purpose::Lead, &store.settings);
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(store.settings.acquire_timeout)
            .max_lifetime(None)
            .idle_timeout(None)
            .after_connect(move |connection, _| Box::pin(setup.clone().apply(connection)))
            .connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.ignore_pool_close_event(true);
        listener.eager_reconnect(false);
        // From here on a failure, or a lock that somebody else got first, closes the connection.
        let mut lease = Self {
            listener,
            pool,
            shared: store.waker.shared().clone(),
            led_here: None,
            patience: store.settings.patience(),
            lost: false,
        };
        lease.ask(async |listener| listener.listen(CHANNEL).await).await?;
        let mine: bool = lease
            .ask(async |listener| {
                sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
                    .bind(OUTBOX_LOCK)
                    .fetch_one(listener)
                    .await
            })
            .await?;
        if !mine {
            return Ok(None);
        }
        lease.led_here = Some(lease.shared.lead());
        Ok(Some(lease))
    }

    /// Asks on the lead's own connection. The listener would connect anew where it has to, but
    /// without the lock: so the first failure is the last question.
    async fn ask<T>(
        &mut self,
        question: impl AsyncFnOnce(&mut PgListener) -> Result<T, sqlx::Error>,
    ) -> Result<T, Failure> {
        if self.lost {
            return Err(Failure::LeadLost);
        }
        self.lost = true;
        let answer = tokio::time::timeout(self.patience, question(&mut self.listener)).await;
        let answer = answer.map_err(|_| Failure::NoAnswer(self.patience))??;
        self.lost = false;
        Ok(answer)
    }

    /// Moves an entry out of the way that cannot be told. Neither it nor those behind it may be lost:
    /// it is kept beside the outbox, and the device that it was for sees a gap in the revisions and
    /// reads its inbox.
    async fn set_aside(&mut self, id: i64, why: &InvalidEvent) -> Result<(), Failure> {
        error!(
            entry = id,
            error = why as &dyn std::error::Error,
            "an outbox entry cannot be read and is set aside in outbox_unreadable"
        );
        let reason = why.to_string();
        self.ask(async |listener| {
            let query = sqlx::query(SET_ASIDE).bind(id).bind(reason);
            query.execute(listener).await
        })
        .await?;
        Ok(())
    }
}

#[async_trait]
impl OutboxLease for Lead {
    async fn pending(&mut self, limit: usize) -> Result<Vec<OutboxEntry>, PortError> {
        loop {
            let rows: Vec<EntryRow<DateTime<Utc>>> = self
                .ask(async |listener| {
                    let query = sqlx::query_as(PENDING).bind(clamped(limit));
                    query.fetch_all(listener).await
                })
                .await?;
            let mut entries = Vec::with_capacity(rows.len());
            for row in &rows {
                match row.read() {
                    Ok(entry) => entries.push(entry),
                    Err(why) => self.set_aside(row.id, &why).await?,
                }
            }
            // Fewer would be understood as "no others wait".
            if entries.len() == rows.len() {
                return Ok(entries);
            }
        }
    }

    async fn remove(&mut self, entries: &[OutboxId]) -> Result<(), PortError> {
        let ids: Vec<_> = entries.iter().map(|OutboxId(id)| *id).collect();
        self.ask(async |listener| sqlx::query(FORGET).bind(ids).execute(listener).await).await?;
        Ok(())
    }

    async fn wait_for_entries(&mut self, patience: Duration) -> Result<(), PortError> {
        if self.lost {
            return Err(Failure::LeadLost.into());
        }
        let held = tokio::select! {
            () = self.shared.called() => Ok(true),
            () = tokio::time::sleep(patience) => Ok(true),
            heard = self.listener.try_recv() => heard.map(|call| call.is_some()),
        };
        // All calls that are here already are answered by the same look into the outbox.
        while self.listener.next_buffered().is_some() {}
        self.lost = !matches!(held, Ok(true));
        match held {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::LeadLost.into()),
            Err(error) => Err(Failure::from(error).into()),
        }
    }
}

impl Drop for Lead {
    /// Closes the connection in the background, and with it goes the lock.
    fn drop(&mut self) {
        self.led_here = None;
        let pool = self.pool.clone();
        tokio::spawn(async move { pool.close().await });
    }
}
