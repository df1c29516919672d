-- A job that is claimed leaves the list of its tenant: one index less for each claim to change. What runs is found by
-- `jobs_running`. An older program lists jobs still, without an index.
DROP INDEX jobs_list;
CREATE INDEX jobs_list ON jobs (tenant, created_at_ms, id) WHERE state <> 'running';
