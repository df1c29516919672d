-- What a tenant may have beyond the defaults, whether it may do anything at all, and a feed of what changed.

ALTER TABLE tenants ADD COLUMN disabled_at_ms   INTEGER;
-- Its own limits; NULL is the default of whoever asks.
ALTER TABLE tenants ADD COLUMN requests_per_s   INTEGER CHECK (requests_per_s > 0);
ALTER TABLE tenants ADD COLUMN requests_burst   INTEGER CHECK (requests_burst > 0);
ALTER TABLE tenants ADD COLUMN requests_at_once INTEGER CHECK (requests_at_once > 0);
ALTER TABLE tenants ADD COLUMN sockets          INTEGER CHECK (sockets >= 0);
ALTER TABLE tenants ADD COLUMN subscriptions    INTEGER CHECK (subscriptions >= 0);
-- Each change of any tenant takes the next number, so that a process can ask what changed since it looked last.
ALTER TABLE tenants ADD COLUMN version          INTEGER NOT NULL DEFAULT 0;
-- The number of the change that gave it its present key.
ALTER TABLE tenants ADD COLUMN key_version      INTEGER NOT NULL DEFAULT 0;

CREATE INDEX tenants_version ON tenants (version);
