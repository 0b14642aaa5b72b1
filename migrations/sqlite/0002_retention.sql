-- For the sweep of what has grown old.
CREATE INDEX notifications_age ON notifications (created_at) WHERE deleted_at IS NULL;

-- For the sweep of tombstones.
CREATE INDEX notifications_deleted ON notifications (deleted_at) WHERE deleted_at IS NOT NULL;
