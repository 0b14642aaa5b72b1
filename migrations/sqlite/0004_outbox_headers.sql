-- The fields of an event that are published beside it. As in migrations/postgres.
ALTER TABLE outbox ADD COLUMN name TEXT;
ALTER TABLE outbox ADD COLUMN user_id TEXT;
ALTER TABLE outbox ADD COLUMN revision INTEGER;
