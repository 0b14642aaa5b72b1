-- Whose tokens hold no more if they were issued before an instant. Every node reads what is new, by
-- the time at which it was written.
CREATE TABLE revocations (
    user_id       text COLLATE "C" PRIMARY KEY,
    issued_before timestamptz NOT NULL,
    written_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX revocations_written ON revocations (written_at);
