-- Requests that came with a key of their own (the header Idempotency-Key), each with its answer once it has one.
-- Neither the key nor the request is kept, only their hashes.
CREATE TABLE requests (
    tenant         TEXT    NOT NULL,
    key_hash       TEXT    NOT NULL,
    fingerprint    TEXT    NOT NULL,
    -- The id of what the request makes: the same at every try.
    effect         TEXT    NOT NULL,
    attempt        INTEGER NOT NULL DEFAULT 1,
    -- Nobody else may try before. 0: the last try has ended.
    lease_until_ms INTEGER NOT NULL,
    expires_at_ms  INTEGER NOT NULL,
    -- All three, or none while there is no answer to repeat.
    status         INTEGER,
    headers        TEXT    CHECK (headers IS NULL OR json_valid(headers)),
    body           BLOB,
    PRIMARY KEY (tenant, key_hash),
    CHECK ((status IS NULL) = (headers IS NULL) AND (status IS NULL) = (body IS NULL))
) STRICT;

CREATE INDEX requests_expired ON requests (expires_at_ms);

-- How many each tenant has, so that a limit costs no counting.
CREATE TABLE requests_held (
    tenant TEXT    NOT NULL PRIMARY KEY,
    held   INTEGER NOT NULL CHECK (held >= 0)
) STRICT, WITHOUT ROWID;
