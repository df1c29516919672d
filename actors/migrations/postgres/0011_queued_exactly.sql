-- How many jobs a tenant may have queued is held to exactly, however many add some at the same time.
--
-- Whoever adds few jobs far from the limit shares a lock with all others who do, and nobody waits: what is on its way so in
-- all connections of the server together is an eighth of the limit at most. Near to the limit, and with many jobs at once,
-- the lock is one's own: one looks at what all before have committed. Locks are taken in the order of the tenants, and
-- before the rows of `loads`.

-- The lock of a tenant, another one in each schema.
CREATE FUNCTION queued_lock(of_tenant text) RETURNS bigint LANGUAGE sql STABLE
    AS $$ SELECT hashtextextended(of_tenant, 'jobs'::regclass::oid::bigint) $$;

-- What a tenant may have that has no number of its own is said by the connection. One of an older program says nothing, and
-- has looked before.
CREATE OR REPLACE FUNCTION jobs_in() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    usual  bigint := nullif(current_setting('perennial.jobs_queued', true), '')::bigint;
    widest bigint := current_setting('max_connections')::bigint;
    added  record;
    most   bigint;
    few    bigint;
    before bigint;
    shared boolean;
BEGIN
    IF usual IS NOT NULL THEN
        FOR added IN
            SELECT tenant, count(*) AS number FROM new_rows WHERE state <> 'running' GROUP BY tenant ORDER BY tenant
        LOOP
            SELECT coalesce((SELECT jobs_queued FROM tenants WHERE id = added.tenant), usual),
                   coalesce((SELECT sum(queued) FROM loads WHERE tenant = added.tenant), 0)
            INTO most, before;
            few := most / (8 * widest);
            -- Twice as far: while the lock is waited for, others may come nearer.
            shared := added.number <= few AND before + added.number + 2 * few * widest <= most;
            IF shared THEN
                PERFORM pg_advisory_xact_lock_shared(queued_lock(added.tenant));
            ELSE
                PERFORM pg_advisory_xact_lock(queued_lock(added.tenant));
            END IF;
            -- What was committed until the lock was there.
            SELECT coalesce(sum(queued), 0) INTO before FROM loads WHERE tenant = added.tenant;
            IF shared AND before + added.number + few * widest > most THEN
                RAISE EXCEPTION USING ERRCODE = 'PN002', MESSAGE = 'the limit of queued jobs has come near';
            ELSIF before + added.number > most THEN
                RAISE EXCEPTION USING ERRCODE = 'PN001',
                    MESSAGE = format('the tenant may have %s jobs queued, it has %s', most, before);
            END IF;
        END LOOP;
    END IF;
    INSERT INTO loads AS kept (tenant, part, queued)
    SELECT tenant, pg_backend_pid() % 16, count(*) FROM new_rows WHERE state <> 'running' GROUP BY tenant ORDER BY tenant
    ON CONFLICT (tenant, part) DO UPDATE SET queued = kept.queued + excluded.queued;
    RETURN NULL;
END $$;
