//! The statements that read an inbox.
//!
//! **Pages.** `?4` limits the rows and `?5` the bytes. `found` counts the rows before the cut by
//! bytes, and `running_bytes` sums over the few rows that the row limit leaves, so the cost of a
//! page depends on its size only. The first row is always on the page: its running sum is its own
//! size. `Notification::text_bytes` counts the same bytes.
//!
//! **Limits.** The plus in `LIMIT +?4` makes the limit an expression. SQLite plans a statement again whenever a bare
//! parameter there gets a new value (or the same one again), because the best plan may depend on it.

pub(super) const GET: &str = "
    SELECT n.user_id, n.id, n.created_revision, n.revision, n.created_at, n.expires_at, n.read_at,
        n.priority, n.kind, n.title, n.message, n.link, n.data
    FROM notifications n
    WHERE n.user_id = ?1 AND n.id = ?2 AND n.deleted_at IS NULL";

/// `?2` is the revision before which the page starts, `?3` an optional kind. There is one statement
/// for each filter by read state, because each has an index of its own.
pub(super) const LIST_ALL: &str = "
    SELECT * FROM (
        SELECT n.*, count(*) OVER () AS found,
            sum(n.bytes) OVER (ORDER BY n.created_revision DESC) AS running_bytes
        FROM (
            SELECT n.user_id, n.id, n.created_revision, n.revision, n.created_at, n.expires_at,
                n.read_at, n.priority, n.kind, n.title, n.message, n.link, n.data,
                octet_length(n.id) + octet_length(n.kind) + octet_length(n.title)
                + octet_length(n.message) + coalesce(octet_length(n.link), 0)
                + coalesce(octet_length(n.data), 0) AS bytes
            FROM notifications n
            WHERE n.user_id = ?1 AND n.created_revision < ?2 AND n.deleted_at IS NULL
                AND (?3 IS NULL OR n.kind = ?3)
            ORDER BY n.created_revision DESC LIMIT +?4
        ) n
    ) n
    WHERE n.running_bytes <= ?5 OR n.running_bytes = n.bytes
    ORDER BY n.created_revision DESC";

pub(super) const LIST_UNREAD: &str = "
    SELECT * FROM (
        SELECT n.*, count(*) OVER () AS found,
            sum(n.bytes) OVER (ORDER BY n.created_revision DESC) AS running_bytes
        FROM (
            SELECT n.user_id, n.id, n.created_revision, n.revision, n.created_at, n.expires_at,
                n.read_at, n.priority, n.kind, n.title, n.message, n.link, n.data,
                octet_length(n.id) + octet_length(n.kind) + octet_length(n.title)
                + octet_length(n.message) + coalesce(octet_length(n.link), 0)
                + coalesce(octet_length(n.data), 0) AS bytes
            FROM notifications n
            WHERE n.user_id = ?1 AND n.created_revision < ?2 AND n.deleted_at IS NULL
                AND (?3 IS NULL OR n.kind = ?3)
                AND n.read_at IS NULL
            ORDER BY n.created_revision DESC LIMIT +?4
        ) n
    ) n
    WHERE n.running_bytes <= ?5 OR n.running_bytes = n.bytes
    ORDER BY n.created_revision DESC";

pub(super) const LIST_READ: &str = "
    SELECT * FROM (
        SELECT n.*, count(*) OVER () AS found,
            sum(n.bytes) OVER (ORDER BY n.created_revision DESC) AS running_bytes
        FROM (
            SELECT n.user_id, n.id, n.created_revision, n.revision, n.created_at, n.expires_at,
                n.read_at, n.priority, n.kind, n.title, n.message, n.link, n.data,
                octet_length(n.id) + octet_length(n.kind) + octet_length(n.title)
                + octet_length(n.message) + coalesce(octet_length(n.link), 0)
                + coalesce(octet_length(n.data), 0) AS bytes
            FROM notifications n
            WHERE n.user_id = ?1 AND n.created_revision < ?2 AND n.deleted_at IS NULL
                AND (?3 IS NULL OR n.kind = ?3)
                AND n.read_at IS NOT NULL
            ORDER BY n.created_revision DESC LIMIT +?4
        ) n
    ) n
    WHERE n.running_bytes <= ?5 OR n.running_bytes = n.bytes
    ORDER BY n.created_revision DESC";

/// Created after revision `?2`, up to and including `?3`.
pub(super) const CREATED_IN: &str = "
    SELECT * FROM (
        SELECT n.*, count(*) OVER () AS found,
            sum(n.bytes) OVER (ORDER BY n.created_revision) AS running_bytes
        FROM (
            SELECT n.user_id, n.id, n.created_revision, n.revision, n.created_at, n.expires_at,
                n.read_at, n.priority, n.kind, n.title, n.message, n.link, n.data,
                octet_length(n.id) + octet_length(n.kind) + octet_length(n.title)
                + octet_length(n.message) + coalesce(octet_length(n.link), 0)
                + coalesce(octet_length(n.data), 0) AS bytes
            FROM notifications n
            WHERE n.user_id = ?1 AND n.created_revision > ?2 AND n.created_revision <= ?3
                AND n.deleted_at IS NULL
            ORDER BY n.created_revision LIMIT +?4
        ) n
    ) n
    WHERE n.running_bytes <= ?5 OR n.running_bytes = n.bytes
    ORDER BY n.created_revision";

/// One statement, so that the state and the counts belong to the same moment. An inbox that does not exist
/// is empty, and starts where erased inboxes ended.
pub(super) const HISTORY: &str = "
    SELECT coalesce(inbox.revision, store.erased_revision) AS revision,
        coalesce(inbox.unread, 0) AS unread,
        coalesce(inbox.history_floor, store.erased_revision) AS history_floor,
        count(missed.revision) AS changed,
        count(*) FILTER (WHERE missed.created_revision > ?2 AND missed.deleted_at IS NULL) AS created
    FROM store LEFT JOIN inboxes inbox ON inbox.user_id = ?1 LEFT JOIN (
        SELECT revision, created_revision, deleted_at FROM notifications changed
        WHERE changed.user_id = ?1 AND changed.revision > ?2
        ORDER BY changed.revision LIMIT +?3
    ) missed ON ?2 >= inbox.history_floor
    GROUP BY store.only_row";

/// One statement, so that retention cannot purge a change between the read of the changes and that
/// of the floor. An inbox without such changes has one row of nulls. The range ends with the
/// revision of the last row within the limit `?5`; all rows of that revision are returned.
pub(super) const CHANGED_IN: &str = "
    SELECT coalesce(inbox.history_floor, store.erased_revision) AS history_floor,
        n.id, n.revision, n.read_at, n.deleted_at IS NOT NULL AS deleted
    FROM store LEFT JOIN inboxes inbox ON inbox.user_id = ?1 LEFT JOIN (
        SELECT id, revision, read_at, deleted_at FROM notifications changed
        WHERE changed.user_id = ?1 AND changed.revision > ?2 AND changed.revision <= ?3
            AND CASE WHEN changed.deleted_at IS NULL THEN changed.read_at IS NOT NULL
                ELSE changed.created_revision <= ?4 END
            AND changed.revision <= coalesce((
                SELECT changed.revision FROM notifications changed
                WHERE changed.user_id = ?1 AND changed.revision > ?2 AND changed.revision <= ?3
                    AND CASE WHEN changed.deleted_at IS NULL THEN changed.read_at IS NOT NULL
                        ELSE changed.created_revision <= ?4 END
                ORDER BY changed.revision LIMIT 1 OFFSET ?5 - 1
            ), ?3)
    ) n
    ORDER BY n.revision";
