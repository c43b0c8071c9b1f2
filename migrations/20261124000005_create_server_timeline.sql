-- additive: yes
-- Ids of events and users that a failover or a restore has lost are not given again.

-- The server that has given the last ids: one row.
CREATE TABLE server_timeline (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    server  text NOT NULL
);

-- This server: the identifier of its cluster, which a new one does not share, and its timeline, of which each promotion and
-- each restore to an earlier moment begins another one.
CREATE FUNCTION server_with_timeline() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system()
$$;

INSERT INTO server_timeline (server) VALUES (server_with_timeline());

-- If another server has given the last ids, continues with the microseconds since 1970, or 1,000,000,000 above the last id if that
-- is more: the other one may have given more than this one knows. A restore that is repeated, or of an older backup, thus
-- continues above what followed the one before. Each new connection calls it, so that no id is given before.
CREATE FUNCTION skip_lost_ids() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    present text;
    microseconds bigint := extract(epoch FROM clock_timestamp()) * 1000000;
BEGIN
    IF pg_is_in_recovery() THEN RETURN; END IF;
    present := server_with_timeline();
    IF EXISTS (SELECT FROM server_timeline WHERE server = present) THEN RETURN; END IF;
    PERFORM FROM server_timeline WHERE server <> present FOR UPDATE;
    IF FOUND THEN
        PERFORM setval('events_id_seq', greatest(nextval('events_id_seq') + 1000000000, microseconds));
        PERFORM setval('users_id_seq', greatest(nextval('users_id_seq') + 1000000000, microseconds));
        UPDATE server_timeline SET server = present;
        -- All connections wait for this one. It need not wait for a standby, whose promotion would change the timeline again.
        SET LOCAL synchronous_commit = local;
    END IF;
END $$;

-- Only the owner, and whom the owner lets. The fixed search path keeps out temporary tables of the same names.
REVOKE EXECUTE ON FUNCTION skip_lost_ids FROM PUBLIC;
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION skip_lost_ids SET search_path = %I, pg_temp', current_schema());
END $$;
