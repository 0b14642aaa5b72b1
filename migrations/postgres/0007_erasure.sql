-- The highest revision of all inboxes that were erased. A new inbox starts there: a device may come back with
-- a position in an erased inbox, and must not be taken for up to date. One number for all users, so that
-- nothing of an erased user is kept.
ALTER TABLE store ADD COLUMN erased_revision bigint NOT NULL DEFAULT 0;

-- For nodes of the previous version, which create inboxes without a revision. They then find another revision
-- than zero and try again. FOR SHARE waits for an erasure that is about to raise the revision.
CREATE FUNCTION erased_revision() RETURNS bigint LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT store.erased_revision FROM store FOR SHARE;
END;

ALTER TABLE inboxes
    ALTER COLUMN revision SET DEFAULT erased_revision(),
    ALTER COLUMN history_floor SET DEFAULT erased_revision();
