-- What the migration of a newer program may do without asking older ones to stop: see `compatibility` in 0001_first.sql.
-- No program brings it; tests do.

ALTER TABLE jobs       ADD COLUMN mood text COLLATE "C" NOT NULL DEFAULT 'calm', ADD COLUMN seen_at_ms bigint;
ALTER TABLE jobs_done  ADD COLUMN mood text COLLATE "C" NOT NULL DEFAULT 'calm';
ALTER TABLE schedules  ADD COLUMN mood text COLLATE "C" NOT NULL DEFAULT 'calm';
ALTER TABLE channels   ADD COLUMN mood text COLLATE "C" NOT NULL DEFAULT 'calm';
ALTER TABLE deliveries ADD COLUMN mood text COLLATE "C" NOT NULL DEFAULT 'calm';
ALTER TABLE attempts   ADD COLUMN mood text COLLATE "C" NOT NULL DEFAULT 'calm';
ALTER TABLE tenants    ADD COLUMN mood text COLLATE "C" NOT NULL DEFAULT 'calm';
ALTER TABLE requests   ADD COLUMN mood text COLLATE "C" NOT NULL DEFAULT 'calm';

CREATE INDEX jobs_mood ON jobs (mood, created_at_ms) WHERE state <> 'running';

CREATE TABLE moods (
    mood   text COLLATE "C" NOT NULL,
    change text NOT NULL
);

CREATE FUNCTION jobs_mood() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO moods (mood, change) VALUES (coalesce(NEW.mood, OLD.mood), TG_OP);
    RETURN NULL;
END $$;

CREATE TRIGGER jobs_mood AFTER INSERT OR UPDATE OR DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION jobs_mood();

INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
VALUES (999, 'of a newer program', true, ''::bytea, 0);
