use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use belfry_application::ports::PortError;
use sqlx::{Connection, PgConnection};
use tracing::debug;

use super::PostgresStore;
use super::failure::Failure;

/// A change to inboxes: read, planned in Rust, and written if nobody came between.
pub(super) trait Change: Sync {
    type Outcome: Send;

    /// Whose inboxes it may change.
    fn users(&self) -> Vec<&str>;

    /// Reads and plans, and writes by one statement that does nothing unless each inbox still has
    /// the revision that was read.
    fn attempt(
        &self,
        connection: &mut PgConnection,
    ) -> impl Future<Output = Result<Attempt<Self::Outcome>, Failure>> + Send;
}

/// What came of an attempt.
#[derive(Debug)]
pub(super) enum Attempt<T> {
    /// It is written.
    Written(T),
    /// There was nothing to write.
    Unwritten(T),
    /// Somebody else has changed one of the inboxes, or is about to. Nothing was written.
    Overtaken,
}

impl<T> Attempt<T> {
    /// How an attempt to write came out.
    pub(super) fn written(held: bool, outcome: T) -> Self {
        if held { Self::Written(outcome) } else { Self::Overtaken }
    }
}

/// Locks what there is of these inboxes: in the order of their users, so that two who want several
/// of the same never wait for each other in a circle.
pub(super) const LOCK: &str =
    "SELECT FROM inboxes WHERE user_id = ANY($1) ORDER BY user_id FOR UPDATE";

/// The first attempt holds nothing; the others hold the inboxes, so that they fail only by accidents:
/// a deadlock (inboxes that are just being made are not locked in order), a key used twice at once.
const ATTEMPTS: u32 = 6;

impl PostgresStore {
    /// Makes a change, and calls the lead of the outbox once it is committed.
    pub(super) async fn change<C: Change>(&self, change: &C) -> Result<C::Outcome, PortError> {
        let call = self.waker.call_when_dropped();
        for attempt in 0..ATTEMPTS {
            let tried = self
                .with_connection(async |connection| match attempt {
                    0 => change.attempt(connection).await,
                    _ => holding(change, connection).await,
                })
                .await;
            match tried {
                Ok(Attempt::Written(outcome)) => return Ok(outcome),
                Ok(Attempt::Unwritten(outcome)) => {
                    call.spare();
                    return Ok(outcome);
                }
                Ok(Attempt::Overtaken) => {}
                Err(failure) if failure.is_transient() => {
                    debug!(error = %failure, attempt, "a change is tried again");
                    tokio::time::sleep(a_moment(attempt)).await;
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(Failure::Overtaken.into())
    }
}

/// Makes the attempt with the inboxes locked.
async fn holding<C: Change>(
    change: &C,
    connection: &mut PgConnection,
) -> Result<Attempt<C::Outcome>, Failure> {
    let mut transaction = connection.begin().await?;
    sqlx::query(LOCK).bind(change.users()).execute(&mut *transaction).await?;
    let attempt = change.attempt(&mut transaction).await?;
    transaction.commit().await?;
    Ok(attempt)
}

/// Longer with each attempt, and by chance, so that those who met do not meet again.
fn a_moment(attempt: u32) -> Duration {
    let chance = RandomState::new().hash_one(attempt);
    Duration::from_millis(1 + chance % (8 << attempt.min(4)))
}
