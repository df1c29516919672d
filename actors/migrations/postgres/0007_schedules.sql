-- What a schedule does about fires that were missed, and about jobs of earlier fires that have not ended.

-- An older program made these schedules, or makes them still: they allow overlaps, as they always have.
ALTER TABLE schedules
    ADD COLUMN misfire             text COLLATE "C" NOT NULL DEFAULT 'latest' CHECK (misfire IN ('skip', 'latest', 'all')),
    ADD COLUMN overlap             text COLLATE "C" NOT NULL DEFAULT 'allow'
        CHECK (overlap IN ('skip', 'buffer_one', 'allow', 'cancel_previous')),
    -- With 'all': so many at most.
    ADD COLUMN misfire_max         bigint CHECK (misfire_max > 0),
    -- NULL is the scheduler's own.
    ADD COLUMN catch_up_window_ms  bigint CHECK (catch_up_window_ms >= 0),
    ADD COLUMN start_at_ms         bigint,
    ADD COLUMN end_at_ms           bigint,
    ADD COLUMN remaining_fires     bigint CHECK (remaining_fires >= 0),
    -- From where distances count; NULL is the time of creation.
    ADD COLUMN anchor_ms           bigint,
    -- A fire that waits for the end of the job before. Whether that has ended is looked up, and not written here: whoever
    -- ends a job would wait for whoever fires its schedule.
    ADD COLUMN buffered_fire_at_ms bigint,
    -- Counters of its whole life.
    ADD COLUMN fires               bigint NOT NULL DEFAULT 0,
    ADD COLUMN missed              bigint NOT NULL DEFAULT 0,
    ADD COLUMN overlapped          bigint NOT NULL DEFAULT 0;

UPDATE schedules SET anchor_ms = coalesce(next_fire_at_ms, last_fire_at_ms, created_at_ms);

CREATE INDEX schedules_due_by_tenant ON schedules (tenant, next_fire_at_ms) WHERE next_fire_at_ms IS NOT NULL;
CREATE INDEX schedules_buffered ON schedules (id) WHERE buffered_fire_at_ms IS NOT NULL;
-- Whether a fire has made a job that is finished by now.
CREATE INDEX jobs_done_fire ON jobs_done (schedule_id, fire_at_ms) WHERE schedule_id IS NOT NULL;
