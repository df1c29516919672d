-- The id of the request that each row began with, beside its trace. Rows that were written before have none.
ALTER TABLE jobs ADD COLUMN request_id TEXT;
ALTER TABLE jobs_done ADD COLUMN request_id TEXT;
ALTER TABLE schedules ADD COLUMN request_id TEXT;
ALTER TABLE deliveries ADD COLUMN request_id TEXT;
