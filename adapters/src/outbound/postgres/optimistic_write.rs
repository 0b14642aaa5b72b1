use std::time::Duration;

use belfry_application::Backoff;
use belfry_application::ports::PortError;
use sqlx::{Connection, PgConnection};
use tracing::debug;

use super::failure::PgFailure;
use super::store::{PostgresStore, with_retry};
use crate::outbound::relational::GroupError;

/// A write to inboxes under optimistic concurrency control: it reads, plans in Rust, and writes
/// only if no inbox has changed since the read.
pub(super) trait OptimisticWrite: Sync {
    type Outcome: Send;

    /// The owners of the inboxes that it may change.
    fn users(&self) -> Vec<&str>;

    /// Reads and plans, then writes with one statement that does nothing unless each inbox still
    /// has the revision that was read.
    fn attempt(
        &self,
        connection: &mut PgConnection,
    ) -> impl Future<Output = Result<Attempt<Self::Outcome>, PgFailure>> + Send;
}

/// The result of one attempt.
#[derive(Debug)]
pub(super) enum Attempt<T> {
    Written(T),
    /// There was nothing to write.
    Unchanged(T),
    /// Another transaction has changed one of the inboxes or holds its lock. Nothing was written.
    Conflict,
}

impl<T> Attempt<T> {
    /// The result of the writing statement, which returns whether the inboxes were unchanged.
    pub(super) fn written(inboxes_unchanged: bool, outcome: T) -> Self {
        if inboxes_unchanged { Self::Written(outcome) } else { Self::Conflict }
    }
}

/// Locks the existing ones of these inboxes. All writers lock in the order of user ids, so that two
/// that need several of the same inboxes cannot deadlock.
pub(super) const LOCK_INBOXES: &str =
    "SELECT FROM inboxes WHERE user_id = ANY($1) ORDER BY user_id FOR UPDATE";

/// The first attempt takes no locks; the later ones lock the inboxes first. So these fail only for
/// rare reasons: a deadlock (inboxes are not locked in order while they are created), or the same
/// idempotency key used twice at once.
const MAX_ATTEMPTS: u32 = 6;

const MIN_BACKOFF: Duration = Duration::from_millis(8);
const MAX_BACKOFF: Duration = Duration::from_millis(128);

impl PostgresStore {
    /// Runs a write, and wakes the outbox's leader after the commit.
    pub(super) async fn write<W: OptimisticWrite>(
        &self,
        write: &W,
    ) -> Result<W::Outcome, PortError> {
        let wakeup = self.notifier.wakeup_on_drop();
        // With full jitter, so that the writers of a conflict do not collide again.
        let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF).with_full_jitter();
        for attempt in 0..MAX_ATTEMPTS {
            let result = match attempt {
                // A failed attempt wrote nothing but empty inboxes.
                0 => with_retry!(self, async |connection| write.attempt(connection).await),
                _ => {
                    self.with_connection(async |connection| attempt_locked(write, connection).await)
                        .await
                }
            };
            match result {
                Ok(Attempt::Written(outcome)) => return Ok(outcome),
                Ok(Attempt::Unchanged(outcome)) => {
                    wakeup.cancel();
                    return Ok(outcome);
                }
                Ok(Attempt::Conflict) => {}
                Err(error) if error.is_write_conflict() => {
                    debug!(%error, attempt, "write conflict; retrying");
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                Err(error) => return Ok(self.observed(Err(error))?),
            }
        }
        Err(PgFailure::Conflict.into())
    }

    /// Runs a write once, and wakes the outbox's leader after the commit. Does not wait for locked inboxes.
    pub(super) async fn write_without_waiting<W: OptimisticWrite>(
        &self,
        write: &W,
    ) -> Result<W::Outcome, GroupError> {
        let wakeup = self.notifier.wakeup_on_drop();
        let attempt = with_retry!(self, async |connection| write.attempt(connection).await);
        match attempt {
            Ok(Attempt::Written(outcome)) => Ok(outcome),
            Ok(Attempt::Unchanged(outcome)) => {
                wakeup.cancel();
                Ok(outcome)
            }
            Ok(Attempt::Conflict) => Err(GroupError::Contended),
            Err(failure) if failure.is_write_conflict() => Err(GroupError::Contended),
            Err(failure) => Err(failure.into()),
        }
    }
}

/// Makes an attempt in a transaction that locks the inboxes first.
async fn attempt_locked<W: OptimisticWrite>(
    write: &W,
    connection: &mut PgConnection,
) -> Result<Attempt<W::Outcome>, PgFailure> {
    let mut transaction = connection.begin().await?;
    sqlx::query(LOCK_INBOXES).bind(write.users()).execute(&mut *transaction).await?;
    let attempt = write.attempt(&mut transaction).await?;
    transaction.commit().await?;
    Ok(attempt)
}
