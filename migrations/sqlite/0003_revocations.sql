-- Whose tokens hold no more if they were issued before an instant.
CREATE TABLE revocations (
    user_id       TEXT PRIMARY KEY,
    issued_before INTEGER NOT NULL,
    written_at    INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))
) STRICT, WITHOUT ROWID;

CREATE INDEX revocations_written ON revocations (written_at);
