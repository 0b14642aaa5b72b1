-- Inboxes, the notifications in them, and the outbox that tells of every change.
--
-- Texts that are compared as bytes have the collation "C": ids are never sorted for people, a
-- comparison is a memcmp, rows are locked in the same order in which Rust sorts, and an upgrade of
-- the system's collations cannot corrupt an index.

-- One row that names this store. Revisions mean something only together with its epoch: after going
-- back to a backup, give it a new one, so that devices start over instead of seeing the past twice.
CREATE TABLE store (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch    text    NOT NULL
);

INSERT INTO store (epoch) VALUES (gen_random_uuid()::text);

-- Where each inbox stands. Every change updates its row, so a row is never deleted (its revision
-- must not start anew) and the table is kept small and hot:
-- fillfactor leaves room in each page for the next version of its rows; as no indexed column
-- changes, such an update touches no index (HOT) and its leftovers are pruned on the way.
CREATE TABLE inboxes (
    user_id       text COLLATE "C" PRIMARY KEY,
    -- The latest change.
    revision      bigint NOT NULL DEFAULT 0,
    unread        bigint NOT NULL DEFAULT 0,
    -- What changed up to this revision is not kept completely any more; retention raises it.
    history_floor bigint NOT NULL DEFAULT 0,
    -- Each unread one took a revision of its own.
    CONSTRAINT inboxes_unread CHECK (unread BETWEEN 0 AND revision),
    CONSTRAINT inboxes_history_floor CHECK (history_floor BETWEEN 0 AND revision)
) WITH (
    fillfactor = 70,
    -- A fifth of the table, the default, is a long wait where all rows change all the time.
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.1
);

-- Ids are unique within an inbox and are texts: a service that keeps its own notifications brings
-- its own ids. There is no foreign key to inboxes: it would lock the inbox row once more for every
-- notification, and the row is there before the first of them by the way they are written.
CREATE TABLE notifications (
    user_id          text COLLATE "C" NOT NULL,
    id               text COLLATE "C" NOT NULL,
    -- The change of the inbox that brought it, and the latest one that concerned it.
    created_revision bigint NOT NULL,
    revision         bigint NOT NULL,
    created_at       timestamptz NOT NULL,
    expires_at       timestamptz,
    read_at          timestamptz,
    -- A deleted one stays as a tombstone, for devices that were away and senders that try again.
    deleted_at       timestamptz,
    dedupe_key       text COLLATE "C",
    priority         text NOT NULL,
    kind             text NOT NULL,
    title            text NOT NULL,
    message          text NOT NULL,
    link             text,
    -- json, not jsonb: it goes out as it came in, byte for byte, and is never looked into.
    data             json,
    PRIMARY KEY (user_id, id),
    CONSTRAINT notifications_revisions CHECK (created_revision > 0 AND revision >= created_revision),
    CONSTRAINT notifications_priority CHECK (priority IN ('low', 'normal', 'high', 'urgent'))
) WITH (
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05
);

-- A second draft with the same key in the same inbox is the same notification, also when the first
-- has been deleted.
CREATE UNIQUE INDEX notifications_dedupe_key ON notifications (user_id, dedupe_key)
    WHERE dedupe_key IS NOT NULL;

-- What changed since a revision, tombstones included.
CREATE INDEX notifications_changes ON notifications (user_id, revision);

-- Lists, newest first. Unique, as no change brings two.
CREATE UNIQUE INDEX notifications_newest ON notifications (user_id, created_revision DESC)
    WHERE deleted_at IS NULL;

-- Lists of what is unread, and reading all of it: both cost what is unread, not what is kept.
CREATE INDEX notifications_unread ON notifications (user_id, created_revision DESC)
    WHERE deleted_at IS NULL AND read_at IS NULL;

-- For the sweep of what has expired.
CREATE INDEX notifications_expiring ON notifications (expires_at)
    WHERE expires_at IS NOT NULL AND deleted_at IS NULL;

-- The events that are stored and not yet told. A row gets its id while its inbox is locked, so the
-- entries of one inbox stand in the order of its revisions.
CREATE TABLE outbox (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event       json NOT NULL,
    -- The W3C trace that the change was a part of.
    traceparent text,
    -- The database's clock, so that the ages of entries that several nodes wrote can be compared.
    written_at  timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (
    -- Rows live for milliseconds. Dead ones lie before the first living one, where each look for
    -- pending entries has to pass them: clear them away after a fixed number and without rests, and
    -- do not lock everybody out to give the pages back, as they are needed again at once.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 10000,
    vacuum_truncate = false
);

-- Entries whose event the relay could not read; it says so in the log and goes on. To try one again
-- (after an upgrade, say):
--   WITH again AS (DELETE FROM outbox_unreadable WHERE id = … RETURNING event, traceparent)
--   INSERT INTO outbox (event, traceparent) SELECT event, traceparent FROM again;
CREATE TABLE outbox_unreadable (
    id           bigint PRIMARY KEY,
    event        json NOT NULL,
    traceparent  text,
    written_at   timestamptz NOT NULL,
    set_aside_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason       text NOT NULL
);

-- Requests that must take effect once, and what they led to: the nth of user_ids and the nth of
-- notification_ids are one notification.
CREATE TABLE idempotency_keys (
    caller           text COLLATE "C" NOT NULL,
    key              text COLLATE "C" NOT NULL,
    fingerprint      text NOT NULL,
    user_ids         text[] NOT NULL,
    notification_ids text[] NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (caller, key),
    CONSTRAINT idempotency_keys_pairs CHECK (cardinality(user_ids) = cardinality(notification_ids))
);

-- For the sweep of old keys.
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);
