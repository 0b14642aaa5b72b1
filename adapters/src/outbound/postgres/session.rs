use std::time::Duration;

use sqlx::PgConnection;

use super::settings::PostgresSettings;

/// The use of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Reads and writes.
    Store,
    OutboxLease,
    Migration,
}

/// Run-time parameters of the server for one session, set when the connection is opened.
#[derive(Debug, Clone)]
pub(super) struct SessionParameters {
    parameters: Vec<(&'static str, String)>,
    durable: bool,
}

/// The parameters that this use needs. They override the database's own defaults.
pub(super) fn parameters(purpose: Purpose, settings: &PostgresSettings) -> SessionParameters {
    let millis = |duration: Duration| duration.as_millis().to_string();
    let mut parameters = vec![
        // A write detects a concurrent change by the inbox's revision. At a stricter level it would
        // fail instead.
        ("default_transaction_isolation", "read committed".to_owned()),
        // The server detects a dead client within four seconds and releases its locks: those on
        // inboxes, and the outbox lease. Unix sockets ignore these.
        ("tcp_keepalives_idle", "1".to_owned()),
        ("tcp_keepalives_interval", "1".to_owned()),
        ("tcp_keepalives_count", "3".to_owned()),
        ("tcp_user_timeout", "4000".to_owned()),
    ];
    if purpose != Purpose::Migration {
        let transaction = millis(settings.work_timeout());
        parameters.push(("statement_timeout", millis(settings.statement_timeout)));
        parameters.push(("idle_in_transaction_session_timeout", transaction));
        // Each statement has one good plan for all parameters: by index. Otherwise PostgreSQL plans
        // statements with array parameters on every call, which takes longer than running them. It
        // also keeps sequential scans of tables that were small at planning time, long after they
        // have grown.
        parameters.push(("plan_cache_mode", "force_generic_plan".to_owned()));
        parameters.push(("enable_seqscan", "off".to_owned()));
        // The cost of a table that has no index for a scan is then so high that PostgreSQL would compile each
        // statement that reads it, which takes a thousand times longer than running it.
        parameters.push(("jit", "off".to_owned()));
    }
    if purpose == Purpose::OutboxLease {
        // The lease only deletes published entries. If the server crashes before a delete is on
        // disk, the event is published again, and devices drop it by its revision.
        parameters.push(("synchronous_commit", "off".to_owned()));
    }
    let durable = purpose != Purpose::OutboxLease;
    SessionParameters { parameters, durable }
}

impl SessionParameters {
    /// Sets the parameters. For durable work it also turns `synchronous_commit` on where the
    /// database turns it off: otherwise a server crash would lose writes that were confirmed.
    pub(super) async fn apply(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let (names, values): (Vec<_>, Vec<_>) = self.parameters.into_iter().unzip();
        sqlx::query(
            "SELECT set_config(name, value, false)
             FROM unnest($1::text[], $2::text[]) AS wanted (name, value)
             UNION ALL
             SELECT set_config('synchronous_commit', 'on', false)
             WHERE $3 AND current_setting('synchronous_commit') = 'off'",
        )
        .bind(names)
        .bind(values)
        .bind(self.durable)
        .persistent(false)
        .execute(connection)
        .await?;
        Ok(())
    }
}
