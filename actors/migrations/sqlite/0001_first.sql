-- Times are milliseconds since 1970 UTC, ids are UUIDs in lower case text, JSON is text.
-- A partial index is used only by a query that repeats its condition word for word.

-- Only jobs that are not finished. A claim must not wade through the past.
CREATE TABLE jobs (
    id              TEXT    NOT NULL PRIMARY KEY,
    tenant          TEXT    NOT NULL,
    queue           TEXT    NOT NULL,
    kind            TEXT    NOT NULL,
    payload         TEXT    NOT NULL CHECK (json_valid(payload)),
    -- waiting: for its time. ready: may be claimed. running: claimed.
    state           TEXT    NOT NULL CHECK (state IN ('waiting', 'ready', 'running')),
    priority        INTEGER NOT NULL,
    attempt         INTEGER NOT NULL DEFAULT 0,
    refunds         INTEGER NOT NULL DEFAULT 0,
    crashes         INTEGER NOT NULL DEFAULT 0,
    -- 1: it lost its runner so often that once more would end it. It may only have been beside the culprit.
    suspect         INTEGER NOT NULL DEFAULT 0 CHECK (suspect IN (0, 1)),
    max_attempts    INTEGER NOT NULL CHECK (max_attempts > 0),
    timeout_ms      INTEGER,
    run_at_ms       INTEGER NOT NULL,
    created_at_ms   INTEGER NOT NULL,
    claimed_at_ms   INTEGER,
    owner           TEXT,
    lease_until_ms  INTEGER,
    last_error      TEXT,
    schedule_id     TEXT,
    fire_at_ms      INTEGER,
    traceparent     TEXT,
    origin_trace_id TEXT
) STRICT;

CREATE INDEX jobs_waiting ON jobs (run_at_ms) WHERE state = 'waiting';
CREATE INDEX jobs_ready ON jobs (queue, tenant, priority, run_at_ms, id) WHERE state = 'ready' AND suspect = 0;
CREATE INDEX jobs_suspect ON jobs (state, queue, claimed_at_ms, id) WHERE suspect = 1;
CREATE INDEX jobs_running ON jobs (queue, tenant) WHERE state = 'running';
CREATE INDEX jobs_lease ON jobs (lease_until_ms) WHERE state = 'running';
-- One fire of a schedule makes one job, whoever fires it.
CREATE UNIQUE INDEX jobs_fire ON jobs (schedule_id, fire_at_ms) WHERE schedule_id IS NOT NULL;

CREATE TABLE jobs_done (
    id              TEXT    NOT NULL PRIMARY KEY,
    tenant          TEXT    NOT NULL,
    queue           TEXT    NOT NULL,
    kind            TEXT    NOT NULL,
    payload         TEXT    NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('done', 'dead')),
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

CREATE INDEX jobs_done_finished ON jobs_done (finished_at_ms);
CREATE INDEX jobs_done_state ON jobs_done (state);

-- When each tenant had its last turn in a queue: the one who waits longest comes first.
CREATE TABLE turns (
    queue  TEXT    NOT NULL,
    tenant TEXT    NOT NULL,
    turn   INTEGER NOT NULL,
    PRIMARY KEY (queue, tenant)
) STRICT, WITHOUT ROWID;

CREATE INDEX turns_latest ON turns (queue, turn);

CREATE TABLE schedules (
    id              TEXT    NOT NULL PRIMARY KEY,
    tenant          TEXT    NOT NULL,
    every_ms        INTEGER,
    cron            TEXT,
    time_zone       TEXT,
    queue           TEXT    NOT NULL,
    kind            TEXT    NOT NULL,
    payload         TEXT    NOT NULL CHECK (json_valid(payload)),
    jitter_ms       INTEGER NOT NULL,
    max_attempts    INTEGER NOT NULL CHECK (max_attempts > 0),
    next_fire_at_ms INTEGER,
    last_fire_at_ms INTEGER,
    created_at_ms   INTEGER NOT NULL,
    last_error      TEXT,
    traceparent     TEXT,
    origin_trace_id TEXT,
    CHECK ((every_ms IS NULL) = (cron IS NOT NULL AND time_zone IS NOT NULL))
) STRICT;

CREATE INDEX schedules_due ON schedules (next_fire_at_ms) WHERE next_fire_at_ms IS NOT NULL;

CREATE TABLE channels (
    id            TEXT    NOT NULL PRIMARY KEY,
    tenant        TEXT    NOT NULL,
    kind          TEXT    NOT NULL,
    url           TEXT    NOT NULL,
    secret        TEXT    NOT NULL,
    created_at_ms INTEGER NOT NULL,
    disabled      TEXT
) STRICT;

CREATE INDEX channels_tenant ON channels (tenant, id);

CREATE TABLE deliveries (
    id              TEXT    NOT NULL PRIMARY KEY,
    tenant          TEXT    NOT NULL,
    channel_id      TEXT    NOT NULL REFERENCES channels (id),
    job_id          TEXT,
    data            TEXT    NOT NULL CHECK (json_valid(data)),
    state           TEXT    NOT NULL CHECK (state IN ('pending', 'sending', 'sent', 'dead')),
    attempt         INTEGER NOT NULL DEFAULT 0,
    refunds         INTEGER NOT NULL DEFAULT 0,
    -- Pending: when it is due. Sending: when its lease ends, for then it is due again.
    due_at_ms       INTEGER NOT NULL,
    created_at_ms   INTEGER NOT NULL,
    finished_at_ms  INTEGER,
    owner           TEXT,
    last_status     INTEGER,
    last_error      TEXT,
    provider_id     TEXT,
    traceparent     TEXT,
    origin_trace_id TEXT
) STRICT;

CREATE INDEX deliveries_due ON deliveries (channel_id, due_at_ms) WHERE state IN ('pending', 'sending');
CREATE INDEX deliveries_next ON deliveries (due_at_ms, channel_id) WHERE state IN ('pending', 'sending');
CREATE INDEX deliveries_log ON deliveries (channel_id, id);

CREATE TABLE tenants (
    id            TEXT    NOT NULL PRIMARY KEY,
    key_hash      TEXT    NOT NULL UNIQUE,
    created_at_ms INTEGER NOT NULL
) STRICT;

-- One row that a probe writes to.
CREATE TABLE pings (
    id    INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    at_ms INTEGER NOT NULL
) STRICT;
