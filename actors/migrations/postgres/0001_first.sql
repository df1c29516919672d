-- Times are milliseconds since 1970 UTC, numbers are bigint, JSON is text as it was given: jsonb would lose the order of keys,
-- numbers beyond its own and \u0000.
-- Names are compared byte by byte (COLLATE "C"), as this program compares them.
-- A partial index is used only by a query whose condition implies its own, in plain words.

-- The time by which everything is decided: one clock for all processes.
CREATE FUNCTION now_ms() RETURNS bigint LANGUAGE sql VOLATILE
    AS $$ SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;

-- The oldest program that may still use this schema, by the number of its newest migration. A migration that only adds
-- what older programs do not miss leaves it alone; any other raises it, in the same transaction.
CREATE TABLE compatibility (
    id             bigint NOT NULL PRIMARY KEY CHECK (id = 1),
    oldest_program bigint NOT NULL
);
INSERT INTO compatibility (id, oldest_program) VALUES (1, 1);

-- Only jobs that are not finished. A claim must not wade through the past.
CREATE TABLE jobs (
    id              uuid    NOT NULL PRIMARY KEY,
    tenant          text    COLLATE "C" NOT NULL,
    queue           text    COLLATE "C" NOT NULL,
    kind            text    COLLATE "C" NOT NULL,
    payload         text    NOT NULL,
    -- waiting: for its time. ready: may be claimed. running: claimed.
    state           text    COLLATE "C" NOT NULL CHECK (state IN ('waiting', 'ready', 'running')),
    priority        bigint  NOT NULL,
    attempt         bigint  NOT NULL DEFAULT 0,
    refunds         bigint  NOT NULL DEFAULT 0,
    crashes         bigint  NOT NULL DEFAULT 0,
    -- It lost its runner so often that once more would end it. It may only have been beside the culprit.
    suspect         boolean NOT NULL DEFAULT false,
    max_attempts    bigint  NOT NULL CHECK (max_attempts > 0),
    timeout_ms      bigint,
    run_at_ms       bigint  NOT NULL,
    created_at_ms   bigint  NOT NULL,
    claimed_at_ms   bigint,
    owner           uuid,
    lease_until_ms  bigint,
    last_error      text,
    schedule_id     uuid,
    fire_at_ms      bigint,
    traceparent     text,
    origin_trace_id text,
    request_id      text
);

CREATE INDEX jobs_waiting ON jobs (run_at_ms) WHERE state = 'waiting';
CREATE INDEX jobs_ready ON jobs (queue, tenant, priority, run_at_ms, id) WHERE state = 'ready' AND NOT suspect;
CREATE INDEX jobs_suspect ON jobs (state, queue, claimed_at_ms, id) WHERE suspect;
CREATE INDEX jobs_running ON jobs (queue, tenant) WHERE state = 'running';
CREATE INDEX jobs_lease ON jobs (lease_until_ms) WHERE state = 'running';
CREATE INDEX jobs_list ON jobs (tenant, created_at_ms, id);
-- One fire of a schedule makes one job, whoever fires it.
CREATE UNIQUE INDEX jobs_fire ON jobs (schedule_id, fire_at_ms) WHERE schedule_id IS NOT NULL;

CREATE TABLE jobs_done (
    id              uuid   NOT NULL PRIMARY KEY,
    tenant          text   COLLATE "C" NOT NULL,
    queue           text   COLLATE "C" NOT NULL,
    kind            text   COLLATE "C" NOT NULL,
    payload         text   NOT NULL,
    state           text   COLLATE "C" NOT NULL CHECK (state IN ('done', 'dead', 'cancelled')),
    priority        bigint NOT NULL,
    attempt         bigint NOT NULL,
    refunds         bigint NOT NULL,
    crashes         bigint NOT NULL,
    max_attempts    bigint NOT NULL,
    timeout_ms      bigint,
    run_at_ms       bigint NOT NULL,
    created_at_ms   bigint NOT NULL,
    claimed_at_ms   bigint,
    finished_at_ms  bigint NOT NULL,
    last_error      text,
    result          text,
    schedule_id     uuid,
    fire_at_ms      bigint,
    traceparent     text,
    origin_trace_id text,
    request_id      text
);

CREATE INDEX jobs_done_finished ON jobs_done (finished_at_ms);
CREATE INDEX jobs_done_state ON jobs_done (state);
-- A finished job keeps its state, so the state may stand in the index; a live one changes it with every claim.
CREATE INDEX jobs_done_list ON jobs_done (tenant, state, created_at_ms, id);

-- When each tenant had its last turn in a queue: the one who waits longest comes first.
CREATE TABLE turns (
    queue  text   COLLATE "C" NOT NULL,
    tenant text   COLLATE "C" NOT NULL,
    turn   bigint NOT NULL,
    PRIMARY KEY (queue, tenant)
);

CREATE INDEX turns_latest ON turns (queue, turn);

CREATE TABLE schedules (
    id              uuid   NOT NULL PRIMARY KEY,
    tenant          text   COLLATE "C" NOT NULL,
    every_ms        bigint,
    cron            text,
    time_zone       text,
    queue           text   COLLATE "C" NOT NULL,
    kind            text   COLLATE "C" NOT NULL,
    payload         text   NOT NULL,
    jitter_ms       bigint NOT NULL,
    max_attempts    bigint NOT NULL CHECK (max_attempts > 0),
    next_fire_at_ms bigint,
    last_fire_at_ms bigint,
    created_at_ms   bigint NOT NULL,
    last_error      text,
    traceparent     text,
    origin_trace_id text,
    -- Since when it does not fire because its tenant said so; its next fire is unknown meanwhile.
    paused_at_ms    bigint,
    request_id      text,
    CHECK ((every_ms IS NULL) = (cron IS NOT NULL AND time_zone IS NOT NULL))
);

CREATE INDEX schedules_due ON schedules (next_fire_at_ms) WHERE next_fire_at_ms IS NOT NULL;
CREATE INDEX schedules_list ON schedules (tenant, created_at_ms, id);

CREATE TABLE channels (
    id               uuid   NOT NULL PRIMARY KEY,
    tenant           text   COLLATE "C" NOT NULL,
    kind             text   COLLATE "C" NOT NULL,
    url              text   NOT NULL,
    secret           text   NOT NULL,
    created_at_ms    bigint NOT NULL,
    disabled         text,
    -- Telegram: which chat. Its token, like the whole URL of a Slack webhook, is the channel's `secret`.
    chat             text,
    -- Nothing is sent before this time: the receiver asked for it.
    not_before_ms    bigint,
    -- Since when nothing has arrived; NULL after each success.
    failing_since_ms bigint,
    -- How often in a row the receiver would have nothing of us.
    refusals         bigint NOT NULL DEFAULT 0
);

CREATE INDEX channels_tenant ON channels (tenant, id);
CREATE INDEX channels_held ON channels (not_before_ms) WHERE not_before_ms IS NOT NULL;

CREATE TABLE deliveries (
    id              uuid   NOT NULL PRIMARY KEY,
    tenant          text   COLLATE "C" NOT NULL,
    channel_id      uuid   NOT NULL REFERENCES channels (id),
    job_id          uuid,
    data            text   NOT NULL,
    state           text   COLLATE "C" NOT NULL CHECK (state IN ('pending', 'sending', 'sent', 'dead')),
    attempt         bigint NOT NULL DEFAULT 0,
    refunds         bigint NOT NULL DEFAULT 0,
    -- Pending: when it is due. Sending: when its lease ends, for then it is due again.
    due_at_ms       bigint NOT NULL,
    created_at_ms   bigint NOT NULL,
    finished_at_ms  bigint,
    owner           uuid,
    last_status     bigint,
    last_error      text,
    provider_id     text,
    traceparent     text,
    origin_trace_id text,
    -- What a chat is told.
    text            text,
    -- How often it is tried at most; NULL is the channel manager's own number.
    attempts_max    bigint,
    request_id      text
);

CREATE INDEX deliveries_due ON deliveries (channel_id, due_at_ms, id) WHERE state IN ('pending', 'sending');
CREATE INDEX deliveries_next ON deliveries (due_at_ms) WHERE state IN ('pending', 'sending');
CREATE INDEX deliveries_log ON deliveries (channel_id, id);
CREATE INDEX deliveries_by_state ON deliveries (channel_id, state, id);
CREATE INDEX deliveries_finished ON deliveries (finished_at_ms) WHERE finished_at_ms IS NOT NULL;

-- One row for each attempt that was made. It goes with its delivery.
CREATE TABLE attempts (
    delivery_id uuid   NOT NULL REFERENCES deliveries (id) ON DELETE CASCADE,
    -- Which claim of the delivery made it.
    attempt     bigint NOT NULL,
    at_ms       bigint NOT NULL,
    took_ms     bigint NOT NULL,
    outcome     text   NOT NULL,
    class       text,
    status      bigint,
    error       text,
    answer      text,
    PRIMARY KEY (delivery_id, attempt)
);

CREATE TABLE tenants (
    id               text   COLLATE "C" NOT NULL PRIMARY KEY,
    key_hash         text   COLLATE "C" NOT NULL UNIQUE,
    created_at_ms    bigint NOT NULL,
    disabled_at_ms   bigint,
    -- Its own limits; NULL is the default of whoever asks.
    requests_per_s   bigint CHECK (requests_per_s > 0),
    requests_burst   bigint CHECK (requests_burst > 0),
    requests_at_once bigint CHECK (requests_at_once > 0),
    sockets          bigint CHECK (sockets >= 0),
    subscriptions    bigint CHECK (subscriptions >= 0),
    -- Each change of any tenant takes the next number, so that a process can ask what changed since it looked last.
    version          bigint NOT NULL DEFAULT 0,
    -- The number of the change that gave it its present key.
    key_version      bigint NOT NULL DEFAULT 0
);

CREATE INDEX tenants_version ON tenants (version);

-- Requests that came with a key of their own (the header Idempotency-Key), each with its answer once it has one.
-- Neither the key nor the request is kept, only their hashes.
CREATE TABLE requests (
    tenant         text   COLLATE "C" NOT NULL,
    key_hash       text   COLLATE "C" NOT NULL,
    fingerprint    text   COLLATE "C" NOT NULL,
    -- The id of what the request makes: the same at every try.
    effect         uuid   NOT NULL,
    attempt        bigint NOT NULL DEFAULT 1,
    -- Nobody else may try before. 0: the last try has ended.
    lease_until_ms bigint NOT NULL,
    expires_at_ms  bigint NOT NULL,
    -- All three, or none while there is no answer to repeat.
    status         bigint,
    headers        text,
    body           bytea,
    PRIMARY KEY (tenant, key_hash),
    CHECK ((status IS NULL) = (headers IS NULL) AND (status IS NULL) = (body IS NULL))
);

CREATE INDEX requests_expired ON requests (expires_at_ms);

-- How many each tenant has, so that a limit costs no counting.
CREATE TABLE requests_held (
    tenant text   COLLATE "C" NOT NULL PRIMARY KEY,
    held   bigint NOT NULL CHECK (held >= 0)
);

-- One row that a probe writes to.
CREATE TABLE pings (
    id    bigint NOT NULL PRIMARY KEY CHECK (id = 1),
    at_ms bigint NOT NULL
);

-- Rows of these are changed several times and then deleted: what is left behind must not pile up until a fifth of the
-- table is dead.
ALTER TABLE jobs          SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
ALTER TABLE deliveries    SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
ALTER TABLE requests      SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
ALTER TABLE turns         SET (fillfactor = 50, autovacuum_vacuum_threshold = 200);
ALTER TABLE requests_held SET (fillfactor = 50, autovacuum_vacuum_threshold = 200);
ALTER TABLE pings         SET (fillfactor = 10);
