-- Finished deliveries are counted and forgotten channel by channel: one with much to send must not push out another's.
CREATE INDEX deliveries_finished_of ON deliveries (channel_id, finished_at_ms) WHERE finished_at_ms IS NOT NULL;
