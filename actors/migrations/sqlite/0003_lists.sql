-- Lists, newest first, and what a tenant may do to its own jobs and schedules: cancel, pause.

-- A CHECK cannot be changed in place: the table is made anew, with its rows.
CREATE TABLE jobs_ended (
    id              TEXT    NOT NULL PRIMARY KEY,
    tenant          TEXT    NOT NULL,
    queue           TEXT    NOT NULL,
    kind            TEXT    NOT NULL,
    payload         TEXT    NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('done', 'dead', 'cancelled')),
    priority        INTEGER NOT NULL,
    attempt         INTEGER NOT NULL,
    refunds         INTEGER NOT NULL,
    crashes         INTEGER NOT NULL,
    max_attempts    INTEGER NOT NULL,
    timeout_ms      INTEGER,
    run_at_ms       INTEGER NOT NULL,
    created_at_ms   INTEGER NOT NULL,
    claimed_at_ms   INTEGER,
    finished_at_ms  INTEGER NOT NULL,
    last_error      TEXT,
    result          TEXT,
    schedule_id     TEXT,
    fire_at_ms      INTEGER,
    traceparent     TEXT,
    origin_trace_id TEXT
) STRICT;

INSERT INTO jobs_ended (id, tenant, queue, kind, payload, state, priority, attempt, refunds, crashes, max_attempts,
                        timeout_ms, run_at_ms, created_at_ms, claimed_at_ms, finished_at_ms, last_error, result,
                        schedule_id, fire_at_ms, traceparent, origin_trace_id)
SELECT id, tenant, queue, kind, payload, state, priority, attempt, refunds, crashes, max_attempts,
       timeout_ms, run_at_ms, created_at_ms, claimed_at_ms, finished_at_ms, last_error, result,
       schedule_id, fire_at_ms, traceparent, origin_trace_id
FROM jobs_done ORDER BY rowid;

DROP TABLE jobs_done;
ALTER TABLE jobs_ended RENAME TO jobs_done;

CREATE INDEX jobs_done_finished ON jobs_done (finished_at_ms);
CREATE INDEX jobs_done_state ON jobs_done (state);
-- A finished job keeps its state, so the state may stand in the index; a live one changes it with every claim.
CREATE INDEX jobs_done_list ON jobs_done (tenant, state, created_at_ms, id);
CREATE INDEX jobs_list ON jobs (tenant, created_at_ms, id);

CREATE INDEX schedules_list ON schedules (tenant, created_at_ms, id);
-- Since when it does not fire because its tenant said so; its next fire is unknown meanwhile.
ALTER TABLE schedules ADD COLUMN paused_at_ms INTEGER;
