-- The fields of an event that are published beside it: its name, the owner of the inbox, and the
-- revision. With them the relay publishes the text in `event` unchanged, without parsing it.
--
-- All three are null in a row that a node of the previous version inserted, and in one that was moved
-- back from outbox_unreadable. The relay then parses `event` for them.
--
-- outbox_unreadable gets no such columns: an entry is moved there only if it has no valid header.
ALTER TABLE outbox
    ADD COLUMN name     text,
    ADD COLUMN user_id  text,
    ADD COLUMN revision bigint;
