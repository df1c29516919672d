//! The columns that are read, by name. A statement that is prepared refuses to run once `*` means more than it did, and a newer
//! program may add columns while this one runs.

macro_rules! job {
    () => {
        "id, tenant, queue, kind, payload, state, priority, attempt, refunds, crashes, max_attempts, timeout_ms, run_at_ms,
         created_at_ms, claimed_at_ms, last_error, schedule_id, fire_at_ms, traceparent, origin_trace_id, request_id,
         unique_key, redrives, snoozes, progress, keep_ms, run_traceparent"
    };
}

macro_rules! finished_job {
    () => {
        concat!($crate::store::postgres::columns::job!(), ", finished_at_ms, result")
    };
}

macro_rules! schedule {
    () => {
        "id, tenant, every_ms, cron, time_zone, queue, kind, payload, jitter_ms, max_attempts, next_fire_at_ms,
         last_fire_at_ms, created_at_ms, last_error, traceparent, origin_trace_id, paused_at_ms, request_id, misfire, overlap,
         misfire_max, catch_up_window_ms, start_at_ms, end_at_ms, remaining_fires, anchor_ms, buffered_fire_at_ms, fires,
         missed, overlapped, priority, timeout_ms, keep_ms"
    };
}

macro_rules! channel {
    () => {
        "id, tenant, kind, url, secret, created_at_ms, disabled, chat, not_before_ms, failing_since_ms"
    };
}

macro_rules! delivery {
    () => {
        "id, tenant, channel_id, job_id, data, state, attempt, refunds, due_at_ms, created_at_ms, finished_at_ms, last_status,
         last_error, provider_id, traceparent, origin_trace_id, text, attempts_max, request_id"
    };
}

macro_rules! tenant {
    () => {
        "id, key_hash, created_at_ms, disabled_at_ms, requests_per_s, requests_burst, requests_at_once, sockets,
         subscriptions, version, key_version, job_weight, jobs_running, jobs_queued, job_starts_per_s"
    };
}

pub(super) use {channel, delivery, finished_job, job, schedule, tenant};
