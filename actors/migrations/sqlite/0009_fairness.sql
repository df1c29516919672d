-- Whose turn it is, read from a few rows, however many jobs and tenants wait; and how much each tenant has, without counting.

-- Each queue's virtual time: the one at which its last job was taken.
CREATE TABLE queues (
    queue TEXT    NOT NULL PRIMARY KEY,
    vtime INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row for each tenant with jobs in a queue. One without live jobs goes when its time is over.
CREATE TABLE shares (
    tenant        TEXT    NOT NULL,
    queue         TEXT    NOT NULL,
    -- Grows with each job that is taken, by more the less the tenant weighs.
    vtime         INTEGER NOT NULL DEFAULT 0,
    -- Jobs that may be claimed: ready and not suspect.
    ready         INTEGER NOT NULL DEFAULT 0,
    -- Jobs that are not finished.
    live          INTEGER NOT NULL DEFAULT 0,
    -- Not claimed from before this time. 0: need not wait. The largest number: until something of the tenant changes.
    held_until_ms INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, queue)
) STRICT, WITHOUT ROWID;

CREATE INDEX shares_next ON shares (queue, vtime, tenant) WHERE ready > 0 AND held_until_ms = 0;
CREATE INDEX shares_held ON shares (held_until_ms) WHERE held_until_ms > 0 AND held_until_ms < 9223372036854775807;
CREATE INDEX shares_idle ON shares (queue, vtime) WHERE live = 0;

-- One row for each tenant that ever had a job.
CREATE TABLE loads (
    tenant        TEXT    NOT NULL PRIMARY KEY,
    live          INTEGER NOT NULL DEFAULT 0,
    running       INTEGER NOT NULL DEFAULT 0,
    -- Of a tenant with a rate: when all its starts so far are paid for, in microseconds.
    paid_until_us INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

INSERT INTO shares (tenant, queue, ready, live)
SELECT tenant, queue, sum(state = 'ready' AND suspect = 0), count(*) FROM jobs GROUP BY tenant, queue;

INSERT INTO loads (tenant, live, running)
SELECT tenant, count(*), sum(state = 'running') FROM jobs GROUP BY tenant;

DROP TABLE turns;
-- How many run stands in `loads`.
DROP INDEX jobs_running;

-- The counters are kept by the table itself, so that no statement can forget them. Whoever makes `jobs` anew makes these
-- anew too.
CREATE TRIGGER jobs_in AFTER INSERT ON jobs BEGIN
    INSERT INTO loads (tenant, live, running) VALUES (NEW.tenant, 1, NEW.state = 'running')
    ON CONFLICT (tenant) DO UPDATE SET live = live + 1, running = running + excluded.running;
    INSERT INTO shares (tenant, queue, ready, live)
    VALUES (NEW.tenant, NEW.queue, NEW.state = 'ready' AND NEW.suspect = 0, 1)
    ON CONFLICT (tenant, queue) DO UPDATE SET ready = ready + excluded.ready, live = live + 1;
END;

CREATE TRIGGER jobs_out AFTER DELETE ON jobs BEGIN
    UPDATE loads SET live = live - 1, running = running - (OLD.state = 'running') WHERE tenant = OLD.tenant;
    UPDATE shares SET ready = ready - (OLD.state = 'ready' AND OLD.suspect = 0), live = live - 1
    WHERE tenant = OLD.tenant AND queue = OLD.queue;
END;

CREATE TRIGGER jobs_on AFTER UPDATE OF state, suspect ON jobs
WHEN (NEW.state = 'ready' AND NEW.suspect = 0) <> (OLD.state = 'ready' AND OLD.suspect = 0) BEGIN
    UPDATE shares SET ready = ready + CASE WHEN NEW.state = 'ready' AND NEW.suspect = 0 THEN 1 ELSE -1 END
    WHERE tenant = NEW.tenant AND queue = NEW.queue;
END;

CREATE TRIGGER jobs_starts AFTER UPDATE OF state ON jobs WHEN NEW.state = 'running' AND OLD.state <> 'running' BEGIN
    UPDATE loads SET running = running + 1 WHERE tenant = NEW.tenant;
END;

CREATE TRIGGER jobs_stops AFTER UPDATE OF state ON jobs WHEN OLD.state = 'running' AND NEW.state <> 'running' BEGIN
    UPDATE loads SET running = running - 1 WHERE tenant = NEW.tenant;
END;

-- One fewer runs: a tenant that waits because it is at its limit need not wait any more.
CREATE TRIGGER loads_room AFTER UPDATE OF running ON loads WHEN NEW.running < OLD.running BEGIN
    UPDATE shares SET held_until_ms = 0 WHERE tenant = NEW.tenant AND held_until_ms = 9223372036854775807;
END;

-- A tenant's own numbers; NULL is the default.
ALTER TABLE tenants ADD COLUMN job_weight       INTEGER CHECK (job_weight BETWEEN 1 AND 1000);
ALTER TABLE tenants ADD COLUMN jobs_running     INTEGER CHECK (jobs_running > 0);
ALTER TABLE tenants ADD COLUMN jobs_queued      INTEGER CHECK (jobs_queued >= 0);
ALTER TABLE tenants ADD COLUMN job_starts_per_s INTEGER CHECK (job_starts_per_s > 0);

-- It may do something else than before: nothing of it is held, and what a rate that it had before has it wait for is over.
CREATE TRIGGER tenants_changed AFTER UPDATE OF disabled_at_ms, jobs_running, job_starts_per_s ON tenants BEGIN
    UPDATE shares SET held_until_ms = 0 WHERE tenant = NEW.id AND held_until_ms > 0;
    UPDATE loads SET paid_until_us = 0 WHERE tenant = NEW.id AND NEW.job_starts_per_s IS NOT OLD.job_starts_per_s;
END;
