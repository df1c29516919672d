-- What a schedule does about fires that were missed, and about jobs of earlier fires that have not ended.

-- An older program made these schedules, or makes them still: they allow overlaps, as they always have.
ALTER TABLE schedules ADD COLUMN misfire    TEXT NOT NULL DEFAULT 'latest' CHECK (misfire IN ('skip', 'latest', 'all'));
ALTER TABLE schedules ADD COLUMN overlap    TEXT NOT NULL DEFAULT 'allow'
    CHECK (overlap IN ('skip', 'buffer_one', 'allow', 'cancel_previous'));
-- With 'all': so many at most.
ALTER TABLE schedules ADD COLUMN misfire_max         INTEGER CHECK (misfire_max > 0);
-- NULL is the scheduler's own.
ALTER TABLE schedules ADD COLUMN catch_up_window_ms  INTEGER CHECK (catch_up_window_ms >= 0);
ALTER TABLE schedules ADD COLUMN start_at_ms         INTEGER;
ALTER TABLE schedules ADD COLUMN end_at_ms           INTEGER;
ALTER TABLE schedules ADD COLUMN remaining_fires     INTEGER CHECK (remaining_fires >= 0);
-- From where distances count; NULL is the time of creation.
ALTER TABLE schedules ADD COLUMN anchor_ms           INTEGER;
-- A fire that waits for the end of the job before.
ALTER TABLE schedules ADD COLUMN buffered_fire_at_ms INTEGER;
-- 1: it need not wait any more.
ALTER TABLE schedules ADD COLUMN released            INTEGER NOT NULL DEFAULT 0 CHECK (released IN (0, 1));
-- Counts its changes, so that nobody fires what was changed meanwhile.
ALTER TABLE schedules ADD COLUMN revision            INTEGER NOT NULL DEFAULT 0;
-- Counters of its whole life.
ALTER TABLE schedules ADD COLUMN fires               INTEGER NOT NULL DEFAULT 0;
ALTER TABLE schedules ADD COLUMN missed              INTEGER NOT NULL DEFAULT 0;
ALTER TABLE schedules ADD COLUMN overlapped          INTEGER NOT NULL DEFAULT 0;

UPDATE schedules SET anchor_ms = coalesce(next_fire_at_ms, last_fire_at_ms, created_at_ms);

CREATE INDEX schedules_due_by_tenant ON schedules (tenant, next_fire_at_ms) WHERE next_fire_at_ms IS NOT NULL;
CREATE INDEX schedules_released ON schedules (id) WHERE released = 1;
-- Whether a fire has made a job that is finished by now.
CREATE INDEX jobs_done_fire ON jobs_done (schedule_id, fire_at_ms) WHERE schedule_id IS NOT NULL;
