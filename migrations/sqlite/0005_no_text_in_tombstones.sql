-- Nothing of what a user has deleted, or of what has expired, stays: see migrations/postgres.
UPDATE notifications
SET kind = 'deleted', title = 'deleted', message = '', link = NULL, data = NULL, priority = 'normal', expires_at = NULL
WHERE deleted_at IS NOT NULL;
