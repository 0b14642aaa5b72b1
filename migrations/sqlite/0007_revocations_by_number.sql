-- Readers follow revocations by number, because the clock can go back: see migrations/postgres. A process reads all
-- revocations when it starts, so those that the previous version writes need no number.
CREATE TABLE revocation_state (
    only_row               INTEGER PRIMARY KEY DEFAULT 1 CHECK (only_row = 1),
    last_number            INTEGER NOT NULL DEFAULT 0,
    everyone_issued_before INTEGER,
    everyone_written_at    INTEGER
) STRICT;

INSERT INTO revocation_state DEFAULT VALUES;

ALTER TABLE revocations ADD COLUMN number INTEGER NOT NULL DEFAULT 0;

CREATE INDEX revocations_number ON revocations (number);
