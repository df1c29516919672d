-- Who waits in a queue is kept in the order of virtual times, so that a claim reads about as many tenants as it serves,
-- however many wait.

-- Nobody makes jobs ready meanwhile, for of those nobody would be told.
LOCK TABLE jobs, shares IN ACCESS EXCLUSIVE MODE;

-- Claims alone change it still, and what says nothing any more is forgotten. An older program's claims know nothing of the
-- new columns: what they write waits and is not held, and a claim of a newer one finds out.
ALTER TABLE shares
    -- Jobs of it may be ready.
    ADD COLUMN waits         boolean NOT NULL DEFAULT true,
    -- Not claimed from before this time. 0: need not wait. The largest number: until something of the tenant changes.
    ADD COLUMN held_until_ms bigint  NOT NULL DEFAULT 0;

CREATE INDEX shares_next ON shares (queue, vtime, tenant) WHERE waits AND held_until_ms = 0;
CREATE INDEX shares_held ON shares (tenant) WHERE held_until_ms > 0;
CREATE INDEX shares_held_until ON shares (held_until_ms) WHERE held_until_ms > 0 AND held_until_ms < 9223372036854775807;

-- What the claims are told, by whoever makes jobs ready (here), and whoever ends one or changes a tenant's limits (there).
-- A row is in the same transaction as what it tells of, and nobody waits for anybody: a claim takes the rows that it sees,
-- 20,000 at once, and with them it sees the jobs.
CREATE TABLE arrivals (
    queue  text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL
);

CREATE TABLE departures (
    tenant text COLLATE "C" NOT NULL
);

INSERT INTO shares (queue, tenant, vtime)
SELECT DISTINCT queue, tenant, 0 FROM jobs WHERE state = 'ready' AND NOT suspect
ON CONFLICT (queue, tenant) DO NOTHING;

-- As before, and it tells of what has come.
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
    INSERT INTO arrivals (queue, tenant)
    SELECT DISTINCT queue, tenant FROM new_rows WHERE state = 'ready' AND NOT suspect;
    INSERT INTO loads AS kept (tenant, part, queued)
    SELECT tenant, pg_backend_pid() % 16, count(*) FROM new_rows WHERE state <> 'running' GROUP BY tenant ORDER BY tenant
    ON CONFLICT (tenant, part) DO UPDATE SET queued = kept.queued + excluded.queued;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION jobs_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO departures (tenant) SELECT DISTINCT tenant FROM old_rows WHERE state = 'running';
    INSERT INTO loads AS kept (tenant, part, queued)
    SELECT tenant, pg_backend_pid() % 16, -count(*) FROM old_rows WHERE state <> 'running' GROUP BY tenant ORDER BY tenant
    ON CONFLICT (tenant, part) DO UPDATE SET queued = kept.queued + excluded.queued;
    RETURN NULL;
END $$;

-- Whoever has more queued than before has fewer that run: a live job does the one or the other.
CREATE OR REPLACE FUNCTION jobs_on() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO arrivals (queue, tenant)
    SELECT DISTINCT queue, tenant FROM new_rows WHERE state = 'ready' AND NOT suspect;
    WITH changes AS MATERIALIZED (
        SELECT tenant, sum(change) AS change FROM (
            SELECT tenant, 1 AS change FROM new_rows WHERE state <> 'running'
            UNION ALL SELECT tenant, -1 FROM old_rows WHERE state <> 'running') AS each
        GROUP BY tenant HAVING sum(change) <> 0
    ), freed AS (
        INSERT INTO departures (tenant) SELECT tenant FROM changes WHERE change > 0
    )
    INSERT INTO loads AS kept (tenant, part, queued)
    SELECT tenant, pg_backend_pid() % 16, change FROM changes ORDER BY tenant
    ON CONFLICT (tenant, part) DO UPDATE SET queued = kept.queued + excluded.queued;
    RETURN NULL;
END $$;

CREATE FUNCTION tenants_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO departures (tenant) VALUES (NEW.id);
    RETURN NULL;
END $$;

CREATE TRIGGER tenants_change AFTER INSERT OR UPDATE ON tenants FOR EACH ROW EXECUTE FUNCTION tenants_change();

-- How many of one tenant run is asked of those who are served. Few run at a time, so whose lease is over is found by this
-- index too; and a heartbeat then changes no index.
DROP INDEX jobs_running;
DROP INDEX jobs_lease;
CREATE INDEX jobs_running ON jobs (tenant) WHERE state = 'running';

ALTER TABLE arrivals   SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
ALTER TABLE departures SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
