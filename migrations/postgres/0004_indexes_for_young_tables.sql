-- A connection plans each statement once, perhaps while the tables are still empty. All indexes seem
-- to cost the same then, and PostgreSQL may take one that fits a statement only in part: to find one
-- notification it walked through the inbox, or through all inboxes, until autovacuum had its first
-- look at a table that had long grown.
--
-- So each index but the primary key is for rows of which something holds that holds for all, and only
-- the statements that it is for say so. PostgreSQL does not consider an index whose condition a
-- statement does not imply.
--
-- A node of the previous version, which does not say it, reads such lists by the primary key until it
-- is replaced: slower in large inboxes, and as right as before.

-- What changed since a revision, tombstones included, in the order in which it is told: the first of
-- many can be had without sorting the rest.
DROP INDEX notifications_changes;
CREATE INDEX notifications_changes ON notifications (user_id, revision, created_revision)
    WHERE revision > 0;

-- Lists, newest first. Unique, as no change brings two.
DROP INDEX notifications_newest;
CREATE UNIQUE INDEX notifications_newest ON notifications (user_id, created_revision DESC)
    WHERE deleted_at IS NULL AND created_revision > 0;

-- For the sweep of what has grown old.
DROP INDEX notifications_age;
CREATE INDEX notifications_age ON notifications (created_at)
    WHERE deleted_at IS NULL AND created_at > '-infinity';
