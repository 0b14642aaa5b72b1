-- The highest revision of all inboxes that were erased. A new inbox starts there: see migrations/postgres.
ALTER TABLE store ADD COLUMN erased_revision INTEGER NOT NULL DEFAULT 0;
