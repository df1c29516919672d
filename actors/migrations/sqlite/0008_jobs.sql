-- What a job can do beside running: be the only one of its kind, be redriven, snooze, report progress, be kept for as
-- long as it says, and name the run before.

ALTER TABLE jobs ADD COLUMN unique_key TEXT;
ALTER TABLE jobs ADD COLUMN redrives INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN snoozes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN progress TEXT CHECK (progress IS NULL OR json_valid(progress));
-- How long it is kept when it has ended; NULL: as long as the operator says.
ALTER TABLE jobs ADD COLUMN keep_ms INTEGER;
-- The span of its last run.
ALTER TABLE jobs ADD COLUMN run_traceparent TEXT;

ALTER TABLE jobs_done ADD COLUMN unique_key TEXT;
ALTER TABLE jobs_done ADD COLUMN redrives INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs_done ADD COLUMN snoozes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs_done ADD COLUMN progress TEXT;
ALTER TABLE jobs_done ADD COLUMN keep_ms INTEGER;
ALTER TABLE jobs_done ADD COLUMN run_traceparent TEXT;
-- finished_at_ms + keep_ms, if the job says how long.
ALTER TABLE jobs_done ADD COLUMN forget_at_ms INTEGER;

-- Which job has a unique key. The row lives as long as the job, in whichever table that is.
CREATE TABLE job_keys (
    tenant   TEXT NOT NULL,
    key      TEXT NOT NULL,
    job_id   TEXT NOT NULL,
    -- In which states of the job another one with its key is a duplicate, and until when; NULL: without an end.
    states   TEXT NOT NULL CHECK (states IN ('incomplete', 'successful', 'all')),
    until_ms INTEGER,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;

-- One index for forgetting by either rule and for counting.
DROP INDEX jobs_done_finished;
DROP INDEX jobs_done_state;
CREATE INDEX jobs_done_finished ON jobs_done (state, forget_at_ms, finished_at_ms);
-- The oldest of a tenant that has too many.
CREATE INDEX jobs_done_tenant ON jobs_done (tenant, finished_at_ms);
