//! Statements that are the same for PostgreSQL and SQLite. Both accept `$1` for the first
//! parameter.

/// The table is that of sqlx's migrator.
pub(crate) const APPLIED_MIGRATIONS: &str = "SELECT version FROM _sqlx_migrations WHERE success";

pub(crate) const EPOCH: &str = "SELECT epoch FROM store";

/// The state of an inbox. One that does not exist is empty, and starts where erased inboxes ended.
pub(crate) const STATE: &str = "
    SELECT coalesce(inbox.revision, store.erased_revision), coalesce(inbox.unread, 0)
    FROM (SELECT erased_revision FROM store LIMIT 1) store
    LEFT JOIN inboxes inbox ON inbox.user_id = $1";

/// Returns the epoch and the revision of the erasure, which is `$1` or later.
pub(crate) const RAISE_ERASED_REVISION: &str = "
    UPDATE store
    SET erased_revision = CASE WHEN erased_revision < $1 THEN $1 ELSE erased_revision END
    RETURNING epoch, erased_revision";

pub(crate) const ERASE_NOTIFICATIONS: &str = "DELETE FROM notifications WHERE user_id = $1";

pub(crate) const ERASE_INBOX: &str = "DELETE FROM inboxes WHERE user_id = $1";

/// The revocations with a number after `$1`. The first row is the state, in the same snapshot: the
/// latest number, no user, and the instant of the revocation for everyone.
pub(crate) const REVOCATIONS_AFTER: &str = "
    SELECT last_number AS number, NULL AS user_id, everyone_issued_before AS issued_before
    FROM revocation_state
    UNION ALL
    SELECT number, user_id, issued_before FROM revocations WHERE number > $1";

pub(crate) const PURGE_IDEMPOTENCY_KEYS: &str = "
    DELETE FROM idempotency_keys WHERE (caller, key) IN (
        SELECT caller, key FROM idempotency_keys
        WHERE created_at < $1 ORDER BY created_at LIMIT $2
    )";

/// `written_at` is the database's time, which may be wrong, and `issued_before` a node's.
pub(crate) const PURGE_REVOCATIONS: &str = "
    DELETE FROM revocations WHERE user_id IN (
        SELECT user_id FROM revocations
        WHERE written_at < $1 AND issued_before < $1 ORDER BY written_at LIMIT $2
    )";

pub(crate) const PURGE_REVOCATION_FOR_EVERYONE: &str = "
    UPDATE revocation_state SET everyone_issued_before = NULL, everyone_written_at = NULL
    WHERE everyone_written_at < $1 AND everyone_issued_before < $1 AND $2 > 0";
