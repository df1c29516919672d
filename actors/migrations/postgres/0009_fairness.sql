-- Whose turn it is by virtual time, and how many jobs each tenant has queued, without counting them.

-- Each queue's virtual time: the one at which its last job was taken.
CREATE TABLE queues (
    queue text   COLLATE "C" NOT NULL PRIMARY KEY,
    vtime bigint NOT NULL
);

-- Each tenant's virtual time in a queue. It is written by claims only, which follow one another: whoever adds a job or ends
-- one does not wait for it.
CREATE TABLE shares (
    queue  text   COLLATE "C" NOT NULL,
    tenant text   COLLATE "C" NOT NULL,
    vtime  bigint NOT NULL,
    PRIMARY KEY (queue, tenant)
);

-- Of a tenant with a rate: when all its starts so far are paid for, in microseconds.
CREATE TABLE paces (
    tenant        text   COLLATE "C" NOT NULL PRIMARY KEY,
    paid_until_us bigint NOT NULL
);

DROP TABLE turns;

-- Jobs of each tenant that are not finished and do not run, in 16 parts whose sum counts: so two that change the number at
-- the same time seldom wait for each other. A part may be below zero.
CREATE TABLE loads (
    tenant text   COLLATE "C" NOT NULL,
    part   bigint NOT NULL,
    queued bigint NOT NULL,
    PRIMARY KEY (tenant, part)
);

INSERT INTO loads (tenant, part, queued)
SELECT tenant, 0, count(*) FILTER (WHERE state <> 'running') FROM jobs GROUP BY tenant;

-- The counters are kept by the table itself, so that no statement can forget them. Each statement changes them once, in the
-- order of the tenants.
CREATE FUNCTION jobs_in() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO loads AS kept (tenant, part, queued)
    SELECT tenant, pg_backend_pid() % 16, count(*) FROM new_rows WHERE state <> 'running' GROUP BY tenant ORDER BY tenant
    ON CONFLICT (tenant, part) DO UPDATE SET queued = kept.queued + excluded.queued;
    RETURN NULL;
END $$;

CREATE FUNCTION jobs_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO loads AS kept (tenant, part, queued)
    SELECT tenant, pg_backend_pid() % 16, -count(*) FROM old_rows WHERE state <> 'running' GROUP BY tenant ORDER BY tenant
    ON CONFLICT (tenant, part) DO UPDATE SET queued = kept.queued + excluded.queued;
    RETURN NULL;
END $$;

CREATE FUNCTION jobs_on() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO loads AS kept (tenant, part, queued)
    SELECT tenant, pg_backend_pid() % 16, sum(change) FROM (
        SELECT tenant, 1 AS change FROM new_rows WHERE state <> 'running'
        UNION ALL SELECT tenant, -1 FROM old_rows WHERE state <> 'running') AS changes
    GROUP BY tenant HAVING sum(change) <> 0 ORDER BY tenant
    ON CONFLICT (tenant, part) DO UPDATE SET queued = kept.queued + excluded.queued;
    RETURN NULL;
END $$;

CREATE TRIGGER jobs_in AFTER INSERT ON jobs REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION jobs_in();
CREATE TRIGGER jobs_out AFTER DELETE ON jobs REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION jobs_out();
CREATE TRIGGER jobs_on AFTER UPDATE ON jobs REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION jobs_on();

-- A tenant's own numbers; NULL is the default.
ALTER TABLE tenants ADD COLUMN job_weight       bigint CHECK (job_weight BETWEEN 1 AND 1000),
                    ADD COLUMN jobs_running     bigint CHECK (jobs_running > 0),
                    ADD COLUMN jobs_queued      bigint CHECK (jobs_queued >= 0),
                    ADD COLUMN job_starts_per_s bigint CHECK (job_starts_per_s > 0);

ALTER TABLE loads  SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);
ALTER TABLE shares SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);
ALTER TABLE queues SET (fillfactor = 10);

UPDATE compatibility SET oldest_program = 9;
