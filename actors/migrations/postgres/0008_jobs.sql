-- What a job can do beside running: be the only one of its kind, be redriven, snooze, report progress, be kept for as
-- long as it says, and name the run before.
ALTER TABLE jobs
    ADD COLUMN unique_key      text COLLATE "C",
    ADD COLUMN redrives        bigint NOT NULL DEFAULT 0,
    ADD COLUMN snoozes         bigint NOT NULL DEFAULT 0,
    ADD COLUMN progress        text,
    -- How long it is kept when it has ended; NULL: as long as the operator says.
    ADD COLUMN keep_ms         bigint,
    -- The span of its last run.
    ADD COLUMN run_traceparent text;

ALTER TABLE jobs_done
    ADD COLUMN unique_key      text COLLATE "C",
    ADD COLUMN redrives        bigint NOT NULL DEFAULT 0,
    ADD COLUMN snoozes         bigint NOT NULL DEFAULT 0,
    ADD COLUMN progress        text,
    ADD COLUMN keep_ms         bigint,
    ADD COLUMN run_traceparent text,
    -- finished_at_ms + keep_ms, if the job says how long.
    ADD COLUMN forget_at_ms    bigint;

-- Which job has a unique key. The row lives as long as the job, in whichever table that is.
CREATE TABLE job_keys (
    tenant   text   COLLATE "C" NOT NULL,
    key      text   COLLATE "C" NOT NULL,
    job_id   uuid   NOT NULL,
    -- In which states of the job another one with its key is a duplicate, and until when; NULL: without an end.
    states   text   COLLATE "C" NOT NULL CHECK (states IN ('incomplete', 'successful', 'all')),
    until_ms bigint,
    PRIMARY KEY (tenant, key)
);

-- Indexes for forgetting by either rule and for counting.
DROP INDEX jobs_done_finished;
DROP INDEX jobs_done_state;
CREATE INDEX jobs_done_finished ON jobs_done (state, finished_at_ms) WHERE forget_at_ms IS NULL;
CREATE INDEX jobs_done_forget ON jobs_done (state, forget_at_ms) WHERE forget_at_ms IS NOT NULL;
-- The oldest of a tenant that has too many.
CREATE INDEX jobs_done_tenant ON jobs_done (tenant, finished_at_ms);
