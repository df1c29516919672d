//! From rows to what the port speaks of. A row that this program cannot have written is told as damage, never guessed.

use secrecy::SecretString;
use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use telemetry::context::RequestId;
use uuid::Uuid;

use super::Inner;
use crate::jobs::{Cadence, Progress};
use crate::model::{Millis, TenantId, TraceContext};
use crate::store::error::Trouble;
use crate::store::{
    Before, Channel, Delivery, DeliveryState, Job, JobState, LoggedAttempt, Misfire, NewAttempt, Policies, Schedule,
    Tally,
};

/// A job of `jobs`, whose states depend on the time.
pub(super) fn live_job(row: &SqliteRow, now: Millis) -> Inner<Job> {
    let mut job = common_job(row)?;
    job.state = match row.try_get("state")? {
        "running" => JobState::Running,
        "ready" => JobState::Ready,
        "waiting" if job.run_at_ms <= now => JobState::Ready,
        "waiting" if job.charged() > 0 => JobState::Retrying,
        "waiting" => JobState::Scheduled,
        other => return Err(unknown_state("job", job.id, other)),
    };
    Ok(job)
}

/// A job of `jobs_done`.
pub(super) fn finished_job(row: &SqliteRow) -> Inner<Job> {
    let mut job = common_job(row)?;
    job.finished_at_ms = row.try_get("finished_at_ms")?;
    job.result = row.try_get::<Option<&str>, _>("result")?.map(json).transpose()?;
    job.state = match row.try_get("state")? {
        "done" => JobState::Done,
        "dead" => JobState::Dead,
        "cancelled" => JobState::Cancelled,
        other => return Err(unknown_state("job", job.id, other)),
    };
    Ok(job)
}

fn common_job(row: &SqliteRow) -> Inner<Job> {
    let schedule = row.try_get::<Option<&str>, _>("schedule_id")?.map(id).transpose()?;
    let fire_at: Option<Millis> = row.try_get("fire_at_ms")?;
    Ok(Job {
        id: id(row.try_get("id")?)?,
        tenant: tenant(row.try_get("tenant")?)?,
        queue: row.try_get("queue")?,
        kind: row.try_get("kind")?,
        payload: json(row.try_get("payload")?)?,
        state: JobState::Ready,
        priority: row.try_get("priority")?,
        attempt: row.try_get("attempt")?,
        refunds: row.try_get("refunds")?,
        crashes: row.try_get("crashes")?,
        max_attempts: row.try_get("max_attempts")?,
        timeout_ms: row.try_get::<Option<i64>, _>("timeout_ms")?.map(unsigned),
        run_at_ms: row.try_get("run_at_ms")?,
        created_at_ms: row.try_get("created_at_ms")?,
        claimed_at_ms: row.try_get("claimed_at_ms")?,
        finished_at_ms: None,
        last_error: row.try_get("last_error")?,
        result: None,
        fired: schedule.zip(fire_at),
        progress: row.try_get::<Option<&str>, _>("progress")?.map(progress).transpose()?,
        last_run: TraceContext::from_parts(row.try_get("run_traceparent")?, None),
        unique_key: row.try_get("unique_key")?,
        redrives: row.try_get("redrives")?,
        snoozes: row.try_get("snoozes")?,
        keep_ms: row.try_get::<Option<i64>, _>("keep_ms")?.map(unsigned),
        context: context(row)?,
    })
}

/// A row of `schedules`.
pub(super) fn schedule(row: &SqliteRow) -> Inner<Schedule> {
    let created_at_ms = row.try_get("created_at_ms")?;
    Ok(Schedule {
        id: id(row.try_get("id")?)?,
        tenant: tenant(row.try_get("tenant")?)?,
        cadence: cadence(row)?,
        policies: policies(row)?,
        queue: row.try_get("queue")?,
        kind: row.try_get("kind")?,
        payload: json(row.try_get("payload")?)?,
        jitter_ms: unsigned(row.try_get("jitter_ms")?),
        max_attempts: row.try_get("max_attempts")?,
        next_fire_at_ms: row.try_get("next_fire_at_ms")?,
        last_fire_at_ms: row.try_get("last_fire_at_ms")?,
        anchor_ms: row.try_get::<Option<Millis>, _>("anchor_ms")?.unwrap_or(created_at_ms),
        buffered_fire_at_ms: row.try_get("buffered_fire_at_ms")?,
        tally: Tally {
            fires: unsigned(row.try_get("fires")?),
            missed: unsigned(row.try_get("missed")?),
            overlapped: unsigned(row.try_get("overlapped")?),
        },
        created_at_ms,
        paused_at_ms: row.try_get("paused_at_ms")?,
        last_error: row.try_get("last_error")?,
        context: context(row)?,
    })
}

fn policies(row: &SqliteRow) -> Inner<Policies> {
    let misfire = Misfire::from_parts(row.try_get("misfire")?, row.try_get("misfire_max")?);
    let overlap = row.try_get::<&str, _>("overlap")?.parse();
    let unknown = |policy: &str, why: String| Trouble::Corrupt(format!("the policy {policy} {why}"));
    Ok(Policies {
        misfire: misfire.map_err(|why| unknown("misfire", why))?,
        catch_up_window_ms: row.try_get::<Option<i64>, _>("catch_up_window_ms")?.map(unsigned),
        overlap: overlap.map_err(|why| unknown("overlap", why))?,
        start_at_ms: row.try_get("start_at_ms")?,
        end_at_ms: row.try_get("end_at_ms")?,
        remaining_fires: row.try_get::<Option<i64>, _>("remaining_fires")?.map(unsigned),
    })
}

fn cadence(row: &SqliteRow) -> Inner<Cadence> {
    if let Some(every_ms) = row.try_get::<Option<i64>, _>("every_ms")? {
        return Ok(Cadence::Every { every_ms: unsigned(every_ms) });
    }
    Cadence::cron_unchecked(row.try_get("cron")?, row.try_get("time_zone")?)
        .map_err(|error| Trouble::Corrupt(error.to_string()))
}

/// A row of `channels`.
pub(super) fn channel(row: &SqliteRow) -> Inner<Channel> {
    Ok(Channel {
        id: id(row.try_get("id")?)?,
        tenant: tenant(row.try_get("tenant")?)?,
        kind: row.try_get("kind")?,
        url: row.try_get("url")?,
        secret: SecretString::from(row.try_get::<String, _>("secret")?),
        chat: row.try_get("chat")?,
        created_at_ms: row.try_get("created_at_ms")?,
        disabled: row.try_get("disabled")?,
        not_before_ms: row.try_get("not_before_ms")?,
        failing_since_ms: row.try_get("failing_since_ms")?,
    })
}

/// A row of `deliveries`.
pub(super) fn delivery(row: &SqliteRow) -> Inner<Delivery> {
    let delivery_id = id(row.try_get("id")?)?;
    let state = match row.try_get("state")? {
        "pending" => DeliveryState::Pending,
        "sending" => DeliveryState::Sending,
        "sent" => DeliveryState::Sent,
        "dead" => DeliveryState::Dead,
        other => return Err(unknown_state("delivery", delivery_id, other)),
    };
    Ok(Delivery {
        id: delivery_id,
        tenant: tenant(row.try_get("tenant")?)?,
        channel: id(row.try_get("channel_id")?)?,
        job: row.try_get::<Option<&str>, _>("job_id")?.map(id).transpose()?,
        text: row.try_get("text")?,
        data: json(row.try_get("data")?)?,
        attempts_max: row.try_get("attempts_max")?,
        state,
        attempt: row.try_get("attempt")?,
        refunds: row.try_get("refunds")?,
        next_at_ms: row.try_get("due_at_ms")?,
        created_at_ms: row.try_get("created_at_ms")?,
        finished_at_ms: row.try_get("finished_at_ms")?,
        last_status: row.try_get("last_status")?,
        last_error: row.try_get("last_error")?,
        provider_id: row.try_get("provider_id")?,
        context: context(row)?,
    })
}

/// A row of `attempts`.
pub(super) fn attempt(row: &SqliteRow) -> Inner<LoggedAttempt> {
    let kept = NewAttempt {
        took_ms: unsigned(row.try_get("took_ms")?),
        outcome: row.try_get("outcome")?,
        class: row.try_get("class")?,
        status: row.try_get("status")?,
        error: row.try_get("error")?,
        answer: row.try_get("answer")?,
    };
    Ok(LoggedAttempt { attempt: row.try_get("attempt")?, at_ms: row.try_get("at_ms")?, kept })
}

fn context(row: &SqliteRow) -> Inner<TraceContext> {
    let request_id = row.try_get::<Option<&str>, _>("request_id")?.and_then(RequestId::parse);
    Ok(TraceContext::from_parts(row.try_get("traceparent")?, row.try_get("origin_trace_id")?)
        .with_request_id(request_id))
}

/// An id as it is kept.
pub(super) fn id(text: &str) -> Inner<Uuid> {
    text.parse().map_err(|_| Trouble::Corrupt(format!("not an id: {text:?}")))
}

fn progress(text: &str) -> Inner<Progress> {
    serde_json::from_str(text).map_err(|error| Trouble::Corrupt(format!("progress that is none: {error}")))
}

/// A tenant's name as it is kept.
pub(super) fn tenant(text: &str) -> Inner<TenantId> {
    TenantId::new(text).map_err(|error| Trouble::Corrupt(error.to_string()))
}

fn json(text: &str) -> Inner<Value> {
    serde_json::from_str(text).map_err(|error| Trouble::Corrupt(format!("not JSON: {error}")))
}

fn unknown_state(what: &str, id: Uuid, state: &str) -> Trouble {
    Trouble::Corrupt(format!("{what} {id} has the unknown state {state:?}"))
}

/// A count or a span of time as it is kept. It was unsigned when it was written.
fn unsigned(kept: i64) -> u64 {
    u64::try_from(kept).unwrap_or(0)
}

/// A span of time as SQLite can keep it.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// What the ids of a page are below. A bound that may be absent would cost a walk from the newest row on, page after page.
pub(super) fn before(page: Before) -> String {
    page.id.unwrap_or(Uuid::max()).to_string()
}

/// How long until `due`, 0 if it is past.
pub(super) fn until(due: Option<Millis>, now: Millis) -> Option<u64> {
    due.map(|due| unsigned(due.saturating_sub(now).max(0)))
}
