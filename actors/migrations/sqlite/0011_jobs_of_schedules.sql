-- What a tenant may say of a job it may say of a schedule's jobs.
ALTER TABLE schedules ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE schedules ADD COLUMN timeout_ms INTEGER;
ALTER TABLE schedules ADD COLUMN keep_ms INTEGER;
