-- What a tenant may say of a job it may say of a schedule's jobs.
ALTER TABLE schedules
    ADD COLUMN priority   bigint NOT NULL DEFAULT 0,
    ADD COLUMN timeout_ms bigint,
    ADD COLUMN keep_ms    bigint;
