-- Readers follow revocations by number, because the database's clock can go back.
--
-- A revocation takes the next number from the only row of this table, whose lock it holds until its commit. So the
-- numbers become visible in their order, and a reader that has seen a number has seen all numbers before it.
CREATE TABLE revocation_state (
    only_row               boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    last_number            bigint NOT NULL DEFAULT 0,
    -- The revocation for all users, if there is one.
    everyone_issued_before timestamptz,
    everyone_written_at    timestamptz
);

INSERT INTO revocation_state DEFAULT VALUES;

-- Existing revocations have the number 0. A node reads all revocations when it starts.
ALTER TABLE revocations ADD COLUMN number bigint NOT NULL DEFAULT 0;

CREATE INDEX revocations_number ON revocations (number);

-- A trigger, so that nodes of the previous version take numbers too. The schema is named, so that the function does not
-- depend on the session's search_path.
CREATE FUNCTION number_revocation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        'UPDATE %I.revocation_state SET last_number = last_number + 1 RETURNING last_number', TG_TABLE_SCHEMA
    ) INTO STRICT NEW.number;
    RETURN NEW;
END
$$;

CREATE TRIGGER number_revocation BEFORE INSERT OR UPDATE ON revocations
FOR EACH ROW EXECUTE FUNCTION number_revocation();
