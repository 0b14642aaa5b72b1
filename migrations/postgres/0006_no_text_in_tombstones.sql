-- Nothing of what a user has deleted, or of what has expired, stays. A tombstone has an id, a dedupe key, revisions and
-- times: deduplication and catch-up need no more. The word "deleted" fills the columns that must have a value, and is
-- valid in them, so that nodes of the previous version can read such a row.
UPDATE notifications
SET kind = 'deleted', title = 'deleted', message = '', link = NULL, data = NULL, priority = 'normal', expires_at = NULL
WHERE deleted_at IS NOT NULL;
