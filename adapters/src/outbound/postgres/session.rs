use std::time::Duration;

use sqlx::PgConnection;

use super::PostgresSettings;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Changes and questions.
    Store,
    /// The lead of the outbox.
    Lead,
    /// Migrations.
    Migration,
}

/// Settings for the server's side of a connection, applied when it is opened.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    wanted: Vec<(&'static str, String)>,
    durable: bool,
}

/// What a connection for that purpose must be like, whatever the database's own defaults are.
pub(super) fn setup(purpose: Purpose, settings: &PostgresSettings) -> Setup {
    let millis = |duration: Duration| duration.as_millis().to_string();
    let mut wanted = vec![
        // Changes recognise by an inbox's revision that somebody came between. At a stricter level
        // they would fail instead.
        ("default_transaction_isolation", "read committed".to_owned()),
        // A peer that is gone without a word is noticed within four seconds, and with it goes what it
        // held: locks on inboxes, and the lead of the outbox. Nothing to a Unix socket.
        ("tcp_keepalives_idle", "1".to_owned()),
        ("tcp_keepalives_interval", "1".to_owned()),
        ("tcp_keepalives_count", "3".to_owned()),
        ("tcp_user_timeout", "4000".to_owned()),
    ];
    if purpose != Purpose::Migration {
        let transaction = millis(settings.patience());
        wanted.push(("statement_timeout", millis(settings.statement_timeout)));
        wanted.push(("idle_in_transaction_session_timeout", transaction));
        // Each statement has one good plan, whatever its parameters are: by index. Left to itself
        // PostgreSQL plans those with arrays anew each time, which takes longer than running them, and
        // walks through tables that were small when it planned, long after they have grown.
        wanted.push(("plan_cache_mode", "force_generic_plan".to_owned()));
        wanted.push(("enable_seqscan", "off".to_owned()));
    }
    if purpose == Purpose::Lead {
        // The lead only forgets what has been told. Should the server crash before that is on disk,
        // it is told once more, which devices recognise by its revision.
        wanted.push(("synchronous_commit", "off".to_owned()));
    }
    let durable = purpose != Purpose::Lead;
    Setup { wanted, durable }
}

impl Setup {
    /// Applies it. Where the work must last, a database whose commits do not wait for the disk is
    /// overruled: what was answered with success would be lost with its next crash.
    pub(super) async fn apply(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let (names, values): (Vec<_>, Vec<_>) = self.wanted.into_iter().unzip();
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
