//! The statements that read an inbox.
//!
//! Each statement has one index that fits. A partial index is used only if the statement repeats
//! the index's condition, even where it is true for all rows: `revision > 0` and
//! `created_revision > 0` (see the migration `0004_indexes_for_young_tables.sql`).
//!
//! **Pages.** `$4` limits the rows and `$5` the bytes. `found` counts the rows before the cut by
//! bytes, and `running_bytes` sums over the few rows that the row limit leaves, so the cost of a
//! page depends on its size only. The first row is always on the page: its running sum is its own
//! size. `Notification::text_bytes` counts the same bytes.

pub(super) const GET: &str = "
    SELECT n.user_id, n.id, n.created_revision, n.revision, n.created_at, n.expires_at, n.read_at,
        n.priority, n.kind, n.title, n.message, n.link, n.data::text AS data
    FROM notifications n
    WHERE n.user_id = $1 AND n.id = $2 AND n.deleted_at IS NULL";

/// `$2` is the revision before which the page starts, `$3` an optional kind. There is one statement
/// for each filter by read state, because the filter decides which index fits.
pub(super) const LIST_ALL: &str = "
    SELECT * FROM (
        SELECT n.*, count(*) OVER () AS found,
            sum(n.bytes) OVER (ORDER BY n.created_revision DESC) AS running_bytes
        FROM (
            SELECT n.user_id, n.id, n.created_revision, n.revision, n.created_at, n.expires_at,
                n.read_at, n.priority, n.kind, n.title, n.message, n.link, n.data::text AS data,
                octet_length(n.id) + octet_length(n.kind) + octet_length(n.title)
                + octet_length(n.message) + coalesce(octet_length(n.link), 0)
                + coalesce(octet_length(n.data::text), 0) AS bytes
            FROM notifications n
            WHERE n.user_id = $1 AND n.created_revision < $2 AND n.deleted_at IS NULL
                AND ($3::text IS NULL OR n.kind = $3)
                AND n.created_revision > 0
            ORDER BY n.created_revision DESC LIMIT $4
        ) n
    ) n
    WHERE n.running_bytes <= $5 OR n.running_bytes = n.bytes
    ORDER BY n.created_revision DESC";

pub(super) const LIST_UNREAD: &str = "
    SELECT * FROM (
        SELECT n.*, count(*) OVER () AS found,
            sum(n.bytes) OVER (ORDER BY n.created_revision DESC) AS running_bytes
        FROM (
            SELECT n.user_id, n.id, n.created_revision, n.revision, n.created_at, n.expires_at,
                n.read_at, n.priority, n.kind, n.title, n.message, n.link, n.data::text AS data,
                octet_length(n.id) + octet_length(n.kind) + octet_length(n.title)
                + octet_length(n.message) + coalesce(octet_length(n.link), 0)
                + coalesce(octet_length(n.data::text), 0) AS bytes
            FROM notifications n
            WHERE n.user_id = $1 AND n.created_revision < $2 AND n.deleted_at IS NULL
                AND ($3::text IS NULL OR n.kind = $3)
                AND n.read_at IS NULL
            ORDER BY n.created_revision DESC LIMIT $4
        ) n
    ) n
    WHERE n.running_bytes <= $5 OR n.running_bytes = n.bytes
    ORDER BY n.created_revision DESC";

pub(super) const LIST_READ: &str = "
    SELECT * FROM (
        SELECT n.*, count(*) OVER () AS found,
            sum(n.bytes) OVER (ORDER BY n.created_revision DESC) AS running_bytes
        FROM (
            SELECT n.user_id, n.id, n.created_revision, n.revision, n.created_at, n.expires_at,
                n.read_at, n.priority, n.kind, n.title, n.message, n.link, n.data::text AS data,
                octet_length(n.id) + octet_length(n.kind) + octet_length(n.title)
                + octet_length(n.message) + coalesce(octet_length(n.link), 0)
                + coalesce(octet_length(n.data::text), 0) AS bytes
            FROM notifications n
            WHERE n.user_id = $1 AND n.created_revision < $2 AND n.deleted_at IS NULL
                AND ($3::text IS NULL OR n.kind = $3)
                AND n.created_revision > 0 AND n.read_at IS NOT NULL
            ORDER BY n.created_revision DESC LIMIT $4
        ) n
    ) n
    WHERE n.running_bytes <= $5 OR n.running_bytes = n.bytes
    ORDER BY n.created_revision DESC";

/// Created after revision `$2`, up to and including `$3`.
pub(super) const CREATED_IN: &str = "
    SELECT * FROM (
        SELECT n.*, count(*) OVER () AS found,
            sum(n.bytes) OVER (ORDER BY n.created_revision) AS running_bytes
        FROM (
            SELECT n.user_id, n.id, n.created_revision, n.revision, n.created_at, n.expires_at,
                n.read_at, n.priority, n.kind, n.title, n.message, n.link, n.data::text AS data,
                octet_length(n.id) + octet_length(n.kind) + octet_length(n.title)
                + octet_length(n.message) + coalesce(octet_length(n.link), 0)
                + coalesce(octet_length(n.data::text), 0) AS bytes
            FROM notifications n
            WHERE n.user_id = $1 AND n.created_revision > $2 AND n.created_revision <= $3
                AND n.deleted_at IS NULL
                AND n.created_revision > 0
            ORDER BY n.created_revision LIMIT $4
        ) n
    ) n
    WHERE n.running_bytes <= $5 OR n.running_bytes = n.bytes
    ORDER BY n.created_revision";

/// One statement, so that the state and the counts belong to the same moment. An inbox that does not exist
/// is empty, and starts where erased inboxes ended.
pub(super) const HISTORY: &str = "
    SELECT coalesce(inbox.revision, store.erased_revision) AS revision,
        coalesce(inbox.unread, 0) AS unread,
        coalesce(inbox.history_floor, store.erased_revision) AS history_floor,
        missed.changed, missed.created
    FROM (SELECT erased_revision FROM store LIMIT 1) store
    LEFT JOIN inboxes inbox ON inbox.user_id = $1
    CROSS JOIN LATERAL (
        SELECT count(*) AS changed,
            count(*) FILTER (WHERE created_revision > $2 AND deleted_at IS NULL) AS created
        FROM (
            SELECT created_revision, deleted_at FROM notifications
            WHERE user_id = inbox.user_id AND revision > $2 AND revision > 0
                AND $2 >= inbox.history_floor
            ORDER BY revision, created_revision LIMIT $3
        ) n
    ) missed";

/// One statement, so that retention cannot purge a change between the read of the changes and that
/// of the floor. An inbox without such changes has one row of nulls.
pub(super) const CHANGED_IN: &str = "
    SELECT coalesce(inbox.history_floor, store.erased_revision) AS history_floor,
        n.id, n.revision, n.read_at, n.deleted_at IS NOT NULL AS deleted
    FROM (SELECT erased_revision FROM store LIMIT 1) store
    LEFT JOIN inboxes inbox ON inbox.user_id = $1
    LEFT JOIN LATERAL (
        SELECT id, revision, read_at, deleted_at FROM notifications
        WHERE user_id = inbox.user_id AND revision > $2 AND revision <= $3 AND revision > 0
            AND CASE WHEN deleted_at IS NULL THEN read_at IS NOT NULL
                ELSE created_revision <= $4 END
        ORDER BY revision FETCH FIRST ($5) ROWS WITH TIES
    ) n ON true
    ORDER BY n.revision";
