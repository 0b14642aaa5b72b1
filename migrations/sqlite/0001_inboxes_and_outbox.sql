-- Inboxes, the notifications in them, and the outbox that tells of every change. The same tables as
-- in migrations/postgres, where each is explained; instants are milliseconds since 1970 began, the
-- database's own by way of the Julian day.

CREATE TABLE store (
    only_row INTEGER PRIMARY KEY DEFAULT 1 CHECK (only_row = 1),
    epoch    TEXT NOT NULL
) STRICT;

INSERT INTO store (epoch) VALUES (lower(hex(randomblob(16))));

CREATE TABLE inboxes (
    user_id       TEXT PRIMARY KEY,
    revision      INTEGER NOT NULL DEFAULT 0,
    unread        INTEGER NOT NULL DEFAULT 0,
    history_floor INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT inboxes_unread CHECK (unread BETWEEN 0 AND revision),
    CONSTRAINT inboxes_history_floor CHECK (history_floor BETWEEN 0 AND revision)
) STRICT, WITHOUT ROWID;

CREATE TABLE notifications (
    user_id          TEXT NOT NULL,
    id               TEXT NOT NULL,
    created_revision INTEGER NOT NULL,
    revision         INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    expires_at       INTEGER,
    read_at          INTEGER,
    deleted_at       INTEGER,
    dedupe_key       TEXT,
    priority         TEXT NOT NULL,
    kind             TEXT NOT NULL,
    title            TEXT NOT NULL,
    message          TEXT NOT NULL,
    link             TEXT,
    data             TEXT,
    PRIMARY KEY (user_id, id),
    CONSTRAINT notifications_revisions CHECK (created_revision > 0 AND revision >= created_revision),
    CONSTRAINT notifications_priority CHECK (priority IN ('low', 'normal', 'high', 'urgent'))
) STRICT;

CREATE UNIQUE INDEX notifications_dedupe_key ON notifications (user_id, dedupe_key)
    WHERE dedupe_key IS NOT NULL;

CREATE INDEX notifications_changes ON notifications (user_id, revision);

CREATE UNIQUE INDEX notifications_newest ON notifications (user_id, created_revision DESC)
    WHERE deleted_at IS NULL;

CREATE INDEX notifications_unread ON notifications (user_id, created_revision DESC)
    WHERE deleted_at IS NULL AND read_at IS NULL;

CREATE INDEX notifications_expiring ON notifications (expires_at)
    WHERE expires_at IS NOT NULL AND deleted_at IS NULL;

-- AUTOINCREMENT: without it the id of a row that was told could be given again.
CREATE TABLE outbox (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    event       TEXT NOT NULL,
    traceparent TEXT,
    written_at  INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))
) STRICT;

CREATE TABLE outbox_unreadable (
    id           INTEGER PRIMARY KEY,
    event        TEXT NOT NULL,
    traceparent  TEXT,
    written_at   INTEGER NOT NULL,
    set_aside_at INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)),
    reason       TEXT NOT NULL
) STRICT;

-- led_to: [[userId, notificationId], …]
CREATE TABLE idempotency_keys (
    caller      TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    led_to      TEXT NOT NULL,
    created_at  INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)),
    PRIMARY KEY (caller, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);
