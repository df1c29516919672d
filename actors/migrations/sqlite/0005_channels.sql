-- Telegram: which chat. Its token, like the whole URL of a Slack webhook, is the channel's `secret`.
ALTER TABLE channels ADD COLUMN chat TEXT;
-- Nothing is sent before this time: the receiver asked for it.
ALTER TABLE channels ADD COLUMN not_before_ms INTEGER;
-- Since when nothing has arrived; NULL after each success.
ALTER TABLE channels ADD COLUMN failing_since_ms INTEGER;
-- How often in a row the receiver would have nothing of us.
ALTER TABLE channels ADD COLUMN refusals INTEGER NOT NULL DEFAULT 0;

CREATE INDEX channels_held ON channels (not_before_ms) WHERE not_before_ms IS NOT NULL;

-- What a chat is told.
ALTER TABLE deliveries ADD COLUMN text TEXT;
-- How often it is tried at most; NULL is the channel manager's own number.
ALTER TABLE deliveries ADD COLUMN attempts_max INTEGER;

CREATE INDEX deliveries_by_state ON deliveries (channel_id, state, id);
CREATE INDEX deliveries_finished ON deliveries (finished_at_ms) WHERE finished_at_ms IS NOT NULL;

-- One row for each attempt that was made. It goes with its delivery.
CREATE TABLE attempts (
    delivery_id TEXT    NOT NULL REFERENCES deliveries (id) ON DELETE CASCADE,
    -- Which claim of the delivery made it.
    attempt     INTEGER NOT NULL,
    at_ms       INTEGER NOT NULL,
    took_ms     INTEGER NOT NULL,
    outcome     TEXT    NOT NULL,
    class       TEXT,
    status      INTEGER,
    error       TEXT,
    answer      TEXT,
    PRIMARY KEY (delivery_id, attempt)
) STRICT, WITHOUT ROWID;
