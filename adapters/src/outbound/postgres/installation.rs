use sqlx::PgPool;
use tokio::sync::OnceCell;

use super::failure::PgFailure;

/// The tables of one installation, identified by their schema. Advisory locks and `NOTIFY` channels
/// belong to the whole database, so each installation in it has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Installation {
    /// The schema's object id. `None` is the schema `public`, whose names are those of earlier
    /// versions, so that nodes of both versions exclude each other during an upgrade.
    schema: Option<u32>,
}

/// The name is resolved by the session's `search_path`, as in all other statements.
const SCHEMA: &str = "
    SELECT nullif(namespace.oid, to_regnamespace('public')::oid)::bigint
    FROM pg_class JOIN pg_namespace namespace ON namespace.oid = relnamespace
    WHERE pg_class.oid = 'outbox'::regclass";

/// The `NOTIFY` channel on which nodes announce commits.
const CHANNEL: &str = "belfry_outbox";

impl Installation {
    /// The key of this installation's advisory lock. The low 16 bits of `lock`, by which the locks
    /// differ, stay as they are.
    pub(super) fn lock_key(self, lock: i64) -> i64 {
        lock ^ (i64::from(self.schema.unwrap_or(0)) << 16)
    }

    /// The channel on which the nodes of this installation announce commits.
    pub(super) fn channel(self) -> String {
        match self.schema {
            None => CHANNEL.to_owned(),
            Some(schema) => format!("{CHANNEL}_{schema}"),
        }
    }
}

/// An installation that is looked up when it is first needed. Before the first migration there is
/// none.
#[derive(Debug, Default)]
pub(super) struct InstallationCell(OnceCell<Installation>);

impl InstallationCell {
    pub(super) async fn get(&self, pool: &PgPool) -> Result<Installation, PgFailure> {
        let find = async || {
            let schema: Option<i64> = sqlx::query_scalar(SCHEMA).fetch_one(pool).await?;
            Ok(Installation { schema: schema.and_then(|oid| u32::try_from(oid).ok()) })
        };
        self.0.get_or_try_init(find).await.copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_installation_has_its_own_locks_and_channel() {
        let (outbox, retention) =
            (i64::from_be_bytes(*b"BelfryOb"), i64::from_be_bytes(*b"BelfryRt"));
        let public = Installation { schema: None };
        assert_eq!(public.lock_key(outbox), outbox);
        assert_eq!(public.channel(), "belfry_outbox");
        let mut keys = Vec::new();
        for schema in [1, 786, 16_384, u32::MAX] {
            let other = Installation { schema: Some(schema) };
            assert_eq!(other.channel(), format!("belfry_outbox_{schema}"));
            keys.extend([other.lock_key(outbox), other.lock_key(retention)]);
        }
        keys.extend([outbox, retention]);
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }
}
