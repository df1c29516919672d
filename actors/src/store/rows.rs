//! From rows to what the port speaks of, for every backend. A row that this program cannot have written is told as damage,
//! never guessed.

use secrecy::SecretString;
use serde_json::Value;
use telemetry::context::RequestId;
use uuid::Uuid;

use super::error::{Inner, Trouble};
use super::{
    Before, Channel, Delivery, DeliveryState, Job, JobState, KeptAnswer, LoggedAttempt, Misfire, NewAttempt, Policies,
    Quotas, Schedule, Tally, Tenant,
};
use crate::jobs::{Cadence, Progress};
use crate::model::{Millis, TenantId, TraceContext};

/// A row, whose columns are asked for by name.
pub(super) trait Columns {
    /// A text, or NULL.
    fn text_or_none(&self, name: &str) -> Inner<Option<&str>>;
    /// A whole number, or NULL.
    fn integer_or_none(&self, name: &str) -> Inner<Option<i64>>;
    /// An id, or NULL.
    fn id_or_none(&self, name: &str) -> Inner<Option<Uuid>>;
    /// What is true or false.
    fn flag(&self, name: &str) -> Inner<bool>;
    /// Bytes.
    fn bytes(&self, name: &str) -> Inner<Vec<u8>>;

    /// A text.
    fn text(&self, name: &str) -> Inner<&str> {
        self.text_or_none(name)?.ok_or_else(|| absent(name))
    }

    /// A text of one's own, or NULL.
    fn string_or_none(&self, name: &str) -> Inner<Option<String>> {
        Ok(self.text_or_none(name)?.map(str::to_owned))
    }

    /// A text of one's own.
    fn string(&self, name: &str) -> Inner<String> {
        Ok(self.text(name)?.to_owned())
    }

    /// A number that fits, or NULL.
    fn number_or_none<T: TryFrom<i64>>(&self, name: &str) -> Inner<Option<T>> {
        let fit = |kept| T::try_from(kept).map_err(|_| Trouble::Corrupt(format!("{name} is {kept}, out of its range")));
        self.integer_or_none(name)?.map(fit).transpose()
    }

    /// A number that fits.
    fn number<T: TryFrom<i64>>(&self, name: &str) -> Inner<T> {
        self.number_or_none(name)?.ok_or_else(|| absent(name))
    }

    /// An id.
    fn id(&self, name: &str) -> Inner<Uuid> {
        self.id_or_none(name)?.ok_or_else(|| absent(name))
    }
}

fn absent(name: &str) -> Trouble {
    Trouble::Corrupt(format!("{name} is missing"))
}

/// A job of `jobs`, whose states depend on the time.
pub(super) fn live_job(row: &impl Columns, now: Millis) -> Inner<Job> {
    let mut job = common_job(row)?;
    job.state = match row.text("state")? {
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
pub(super) fn finished_job(row: &impl Columns) -> Inner<Job> {
    let mut job = common_job(row)?;
    job.finished_at_ms = row.number_or_none("finished_at_ms")?;
    job.result = row.text_or_none("result")?.map(json).transpose()?;
    job.state = match row.text("state")? {
        "done" => JobState::Done,
        "dead" => JobState::Dead,
        "cancelled" => JobState::Cancelled,
        other => return Err(unknown_state("job", job.id, other)),
    };
    Ok(job)
}

fn common_job(row: &impl Columns) -> Inner<Job> {
    let schedule = row.id_or_none("schedule_id")?;
    let fire_at: Option<Millis> = row.integer_or_none("fire_at_ms")?;
    Ok(Job {
        id: row.id("id")?,
        tenant: tenant(row.text("tenant")?)?,
        queue: row.string("queue")?,
        kind: row.string("kind")?,
        payload: json(row.text("payload")?)?,
        state: JobState::Ready,
        priority: row.number("priority")?,
        attempt: row.number("attempt")?,
        refunds: row.number("refunds")?,
        crashes: row.number("crashes")?,
        max_attempts: row.number("max_attempts")?,
        timeout_ms: row.integer_or_none("timeout_ms")?.map(unsigned),
        run_at_ms: row.number("run_at_ms")?,
        created_at_ms: row.number("created_at_ms")?,
        claimed_at_ms: row.number_or_none("claimed_at_ms")?,
        finished_at_ms: None,
        last_error: row.string_or_none("last_error")?,
        result: None,
        fired: schedule.zip(fire_at),
        progress: row.text_or_none("progress")?.map(progress).transpose()?,
        last_run: TraceContext::from_parts(row.text_or_none("run_traceparent")?, None),
        unique_key: row.string_or_none("unique_key")?,
        redrives: row.number("redrives")?,
        snoozes: row.number("snoozes")?,
        keep_ms: row.integer_or_none("keep_ms")?.map(unsigned),
        context: context(row)?,
    })
}

/// A row of `schedules`.
pub(super) fn schedule(row: &impl Columns) -> Inner<Schedule> {
    let created_at_ms = row.number("created_at_ms")?;
    Ok(Schedule {
        id: row.id("id")?,
        tenant: tenant(row.text("tenant")?)?,
        cadence: cadence(row)?,
        queue: row.string("queue")?,
        kind: row.string("kind")?,
        payload: json(row.text("payload")?)?,
        jitter_ms: unsigned(row.number("jitter_ms")?),
        max_attempts: row.number("max_attempts")?,
        priority: row.number("priority")?,
        timeout_ms: row.integer_or_none("timeout_ms")?.map(unsigned),
        keep_ms: row.integer_or_none("keep_ms")?.map(unsigned),
        next_fire_at_ms: row.number_or_none("next_fire_at_ms")?,
        last_fire_at_ms: row.number_or_none("last_fire_at_ms")?,
        policies: policies(row)?,
        anchor_ms: row.number_or_none("anchor_ms")?.unwrap_or(created_at_ms),
        buffered_fire_at_ms: row.number_or_none("buffered_fire_at_ms")?,
        tally: Tally {
            fires: unsigned(row.number("fires")?),
            missed: unsigned(row.number("missed")?),
            overlapped: unsigned(row.number("overlapped")?),
        },
        created_at_ms,
        paused_at_ms: row.number_or_none("paused_at_ms")?,
        last_error: row.string_or_none("last_error")?,
        context: context(row)?,
    })
}

fn policies(row: &impl Columns) -> Inner<Policies> {
    let misfire = Misfire::from_parts(row.text("misfire")?, row.number_or_none("misfire_max")?);
    let overlap = row.text("overlap")?.parse();
    let unknown = |policy: &str, why: String| Trouble::Corrupt(format!("the policy {policy} {why}"));
    Ok(Policies {
        misfire: misfire.map_err(|why| unknown("misfire", why))?,
        catch_up_window_ms: row.integer_or_none("catch_up_window_ms")?.map(unsigned),
        overlap: overlap.map_err(|why| unknown("overlap", why))?,
        start_at_ms: row.number_or_none("start_at_ms")?,
        end_at_ms: row.number_or_none("end_at_ms")?,
        remaining_fires: row.integer_or_none("remaining_fires")?.map(unsigned),
    })
}

fn cadence(row: &impl Columns) -> Inner<Cadence> {
    if let Some(every_ms) = row.integer_or_none("every_ms")? {
        return Ok(Cadence::Every { every_ms: unsigned(every_ms) });
    }
    Cadence::cron_unchecked(row.text("cron")?, row.text("time_zone")?)
        .map_err(|error| Trouble::Corrupt(error.to_string()))
}

/// A row of `channels`.
pub(super) fn channel(row: &impl Columns) -> Inner<Channel> {
    Ok(Channel {
        id: row.id("id")?,
        tenant: tenant(row.text("tenant")?)?,
        kind: row.string("kind")?,
        url: row.string("url")?,
        secret: SecretString::from(row.string("secret")?),
        chat: row.string_or_none("chat")?,
        created_at_ms: row.number("created_at_ms")?,
        disabled: row.string_or_none("disabled")?,
        not_before_ms: row.number_or_none("not_before_ms")?,
        failing_since_ms: row.number_or_none("failing_since_ms")?,
    })
}

/// A row of `deliveries`.
pub(super) fn delivery(row: &impl Columns) -> Inner<Delivery> {
    let delivery_id = row.id("id")?;
    let state = match row.text("state")? {
        "pending" => DeliveryState::Pending,
        "sending" => DeliveryState::Sending,
        "sent" => DeliveryState::Sent,
        "dead" => DeliveryState::Dead,
        other => return Err(unknown_state("delivery", delivery_id, other)),
    };
    Ok(Delivery {
        id: delivery_id,
        tenant: tenant(row.text("tenant")?)?,
        channel: row.id("channel_id")?,
        job: row.id_or_none("job_id")?,
        text: row.string_or_none("text")?,
        data: json(row.text("data")?)?,
        attempts_max: row.number_or_none("attempts_max")?,
        state,
        attempt: row.number("attempt")?,
        refunds: row.number("refunds")?,
        next_at_ms: row.number("due_at_ms")?,
        created_at_ms: row.number("created_at_ms")?,
        finished_at_ms: row.number_or_none("finished_at_ms")?,
        last_status: row.number_or_none("last_status")?,
        last_error: row.string_or_none("last_error")?,
        provider_id: row.string_or_none("provider_id")?,
        context: context(row)?,
    })
}

/// A row of `attempts`.
pub(super) fn attempt(row: &impl Columns) -> Inner<LoggedAttempt> {
    let kept = NewAttempt {
        took_ms: unsigned(row.number("took_ms")?),
        outcome: row.string("outcome")?,
        class: row.string_or_none("class")?,
        status: row.number_or_none("status")?,
        error: row.string_or_none("error")?,
        answer: row.string_or_none("answer")?,
    };
    Ok(LoggedAttempt { attempt: row.number("attempt")?, at_ms: row.number("at_ms")?, kept })
}

/// A row of `tenants`.
pub(super) fn tenant_row(row: &impl Columns) -> Inner<Tenant> {
    Ok(Tenant {
        id: tenant(row.text("id")?)?,
        created_at_ms: row.number("created_at_ms")?,
        disabled_at_ms: row.number_or_none("disabled_at_ms")?,
        quotas: Quotas {
            requests_per_s: row.number_or_none("requests_per_s")?,
            requests_burst: row.number_or_none("requests_burst")?,
            requests_at_once: row.number_or_none("requests_at_once")?,
            sockets: row.number_or_none("sockets")?,
            subscriptions: row.number_or_none("subscriptions")?,
            job_weight: row.number_or_none("job_weight")?,
            jobs_running: row.number_or_none("jobs_running")?,
            jobs_queued: row.number_or_none("jobs_queued")?,
            job_starts_per_s: row.number_or_none("job_starts_per_s")?,
        },
        version: row.number("version")?,
        key_version: row.number("key_version")?,
    })
}

/// The answer in a row of `requests`, if it has one.
pub(super) fn kept_answer(row: &impl Columns) -> Inner<Option<KeptAnswer>> {
    let Some(status) = row.number_or_none("status")? else { return Ok(None) };
    let headers = serde_json::from_str(row.text("headers")?);
    let headers = headers.map_err(|error| Trouble::Corrupt(format!("the headers of an answer: {error}")))?;
    Ok(Some(KeptAnswer { status, headers, body: row.bytes("body")? }))
}

fn context(row: &impl Columns) -> Inner<TraceContext> {
    let request_id = row.text_or_none("request_id")?.and_then(RequestId::parse);
    Ok(TraceContext::from_parts(row.text_or_none("traceparent")?, row.text_or_none("origin_trace_id")?)
        .with_request_id(request_id))
}

/// A tenant's name as it is kept.
pub(super) fn tenant(text: &str) -> Inner<TenantId> {
    TenantId::new(text).map_err(|error| Trouble::Corrupt(error.to_string()))
}

fn progress(text: &str) -> Inner<Progress> {
    serde_json::from_str(text).map_err(|error| Trouble::Corrupt(format!("progress that is none: {error}")))
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

/// A span of time as a store can keep it.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// What the ids of a page are below. A bound that may be absent would cost a walk from the newest row on, page after page.
pub(super) fn before(page: Before) -> Uuid {
    page.id.unwrap_or(Uuid::max())
}

/// How long until `due`, 0 if it is past.
pub(super) fn until(due: Option<Millis>, now: Millis) -> Option<u64> {
    due.map(|due| unsigned(due.saturating_sub(now).max(0)))
}
