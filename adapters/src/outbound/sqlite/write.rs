use belfry_application::ports::PortError;
use belfry_application::trace::TraceParent;
use belfry_domain::DomainEvent;
use sqlx::{Connection as _, SqliteConnection, SqliteTransaction};

use super::failure::SqliteFailure;
use super::store::SqliteStore;
use crate::outbound::relational::clamped;
use crate::wire::EventForm;

/// Adds the events of [`event_rows`] to the outbox, in order.
pub(super) const INSERT_EVENTS: &str = "
    INSERT INTO outbox (event, name, user_id, revision, traceparent)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?) ORDER BY key";

/// The result of the work in a transaction.
#[derive(Debug)]
pub(super) enum Work<T> {
    Written(T),
    /// There was nothing to write.
    Unchanged(T),
}

impl<T> Work<T> {
    pub(super) fn map<U>(self, map: impl FnOnce(T) -> U) -> Work<U> {
        match self {
            Self::Written(outcome) => Work::Written(map(outcome)),
            Self::Unchanged(outcome) => Work::Unchanged(map(outcome)),
        }
    }

    pub(super) fn outcome(self) -> T {
        match self {
            Self::Written(outcome) | Self::Unchanged(outcome) => outcome,
        }
    }
}

impl SqliteStore {
    /// As [`in_transaction`](Self::in_transaction), and wakes the outbox's leader afterwards, unless nothing was
    /// written. Also after a failure: the commit may have succeeded.
    pub(super) async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<Work<T>, SqliteFailure>,
    ) -> Result<T, PortError> {
        let wakeup = self.notifier.wakeup_on_drop();
        match self.in_transaction(work).await? {
            Work::Written(outcome) => Ok(outcome),
            Work::Unchanged(outcome) => {
                wakeup.cancel();
                Ok(outcome)
            }
        }
    }

    /// Runs `work` in an immediate transaction: one writer at a time, while readers continue.
    pub(super) async fn in_transaction<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<Work<T>, SqliteFailure>,
    ) -> Result<Work<T>, SqliteFailure> {
        self.with_writer(async |connection| {
            // Immediate: a deferred transaction that reads first may fail when it starts to write.
            let mut transaction: SqliteTransaction<'_> =
                connection.begin_with("BEGIN IMMEDIATE").await?;
            let done = work(&mut transaction).await?;
            match done {
                Work::Written(_) => transaction.commit().await?,
                Work::Unchanged(_) => transaction.rollback().await?,
            }
            Ok(done)
        })
        .await
    }
}

/// Events with their traces as the parameter of [`INSERT_EVENTS`]: event, name, user, revision and trace of
/// each. The event is JSON itself; it is encoded as a string so that its text does not change.
pub(super) fn event_rows<'a>(
    events: impl IntoIterator<Item = (&'a DomainEvent, Option<&'a TraceParent>)>,
) -> String {
    list(events.into_iter().map(|(event, trace)| {
        let revision = clamped(event.revision.get());
        let trace = trace.map(TraceParent::as_str);
        (EventForm::write(event), event.name(), event.user.as_str(), revision, trace)
    }))
}

/// Joins statements so that one call executes them in order, which saves a round trip to the connection's thread
/// for each. Use plain `?` for parameters: `?1` would be the first parameter of the whole sequence.
pub(super) fn in_sequence(statements: &[&str]) -> String {
    statements.join(";\n")
}

/// A list as one parameter, for `json_each`. So one statement handles the whole list.
pub(super) fn list<T: serde::Serialize>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().collect();
    serde_json::to_string(&items).expect("strings and numbers always serialize")
}
