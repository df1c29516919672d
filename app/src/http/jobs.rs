//! `/v1/jobs`: look at one or at many, cancel one. What else there is to do with them stands in files of their own.

mod enqueue;
mod explain;
mod redrive;

pub use enqueue::*;
pub use explain::*;
pub use redrive::*;

use actors::jobs::{CheckError, Progress};
use actors::model::Millis;
use actors::store::{Cancelled, Job, JobFilter, JobState, NewJob, Place};
use axum::extract::State;
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::ApiState;
use super::idempotency::Effect;
use super::json::Json;
use super::page::{Page, Query, Wanted};
use super::problem::Problem;
use super::resource::{Caller, Faults, Id, time};

/// How often a job may be tried at most.
const ATTEMPTS_MAX: u32 = 100;

/// How long one attempt may take at most, in milliseconds: one hour.
const TIMEOUT_MAX_MS: u64 = 3_600_000;

/// How long a finished job may be kept at most, in milliseconds: 90 days.
const KEEP_MAX_MS: u64 = 90 * 24 * 3_600_000;

/// The longest reason for a cancellation, in characters.
const REASON_MAX: usize = 500;

/// What `POST /v1/jobs/{id}/cancel` takes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelBody {
    /// Why, for whoever looks at the job later: it becomes a part of its `last_error`.
    #[schema(max_length = 500)]
    reason: Option<String>,
}

/// A job as its tenant sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobResource {
    id: Uuid,
    tenant: String,
    kind: String,
    /// What its handler is told. Lists leave it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Value>,
    queue: String,
    state: &'static str,
    attempt: u32,
    max_attempts: u32,
    priority: i32,
    #[schema(format = DateTime)]
    run_at: String,
    #[schema(format = DateTime)]
    created_at: String,
    /// When its last attempt was claimed.
    #[schema(format = DateTime)]
    claimed_at: Option<String>,
    #[schema(format = DateTime)]
    finished_at: Option<String>,
    /// How long one attempt may take, if it says so itself.
    timeout_ms: Option<u64>,
    /// How often its process was lost under it, or it panicked.
    crashes: u32,
    /// The schedule that made it, if one did.
    schedule_id: Option<Uuid>,
    /// For which of its fires.
    #[schema(format = DateTime)]
    fire_at: Option<String>,
    last_error: Option<String>,
    result: Option<Value>,
    /// The key that it was given to be the only one.
    unique_key: Option<String>,
    /// How often it was redriven; its attempts count anew from the last time on.
    redrives: u32,
    /// How far its last attempt is, or was: `done`, of `total` if that is known, and what it does in a `note`. Told to those who
    /// listen to the topic `jobs.{id}`, too.
    #[schema(value_type = Option<Object>)]
    progress: Option<Progress>,
    /// How often its handler put it off, which charges no attempt.
    snoozes: u32,
    /// How long it says to be kept when it has ended, in milliseconds.
    keep_for_ms: Option<u64>,
    origin_trace_id: Option<String>,
}

/// Shows a job.
///
/// # Errors
/// 404 if the tenant has no such job, 503 if the store is away.
#[utoipa::path(get, path = "/v1/jobs/{id}", params(Id),
    responses((status = 200, description = "The job", body = JobResource)))]
pub async fn get(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    Id(id): Id,
) -> Result<Json<JobResource>, Problem> {
    let job = state.store.get_job(&tenant, id).await?;
    job.map(|job| Json(job.into())).ok_or_else(|| Problem::not_found("job"))
}

/// The tenant's jobs, newest first, live and finished, a page at a time.
///
/// # Errors
/// 422 with the parameters that make no sense, 503 if the store is away.
#[utoipa::path(get, path = "/v1/jobs",
    params(
        ("state" = Option<Vec<String>>, Query, description = "Only in this state; as often as there are states", explode),
        ("kind" = Option<String>, Query, description = "Only of this kind"),
        ("queue" = Option<String>, Query, description = "Only of this queue"),
        ("schedule_id" = Option<String>, Query, format = Uuid, description = "Only those that this schedule has made"),
        ("created_after" = Option<String>, Query, format = DateTime, description = "Only accepted after this time"),
        ("created_before" = Option<String>, Query, format = DateTime, description = "Only accepted before this time"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "Jobs of a page; 50 if absent"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "A page", body = Page<JobResource>)))]
pub async fn list(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    mut query: Query,
) -> Result<Json<Page<JobResource>>, Problem> {
    let filter = filter(&mut query, str::parse::<JobState>);
    let wanted = query.page("jobs");
    query.finish()?;
    let jobs = state.store.list_jobs(&tenant, &filter, wanted.after, wanted.rows()).await?;
    Ok(Json(listed(&wanted, jobs)))
}

/// One among many.
struct Listed(Job);

impl From<Listed> for JobResource {
    fn from(Listed(job): Listed) -> Self {
        Self { payload: None, ..job.into() }
    }
}

/// A page of a list.
pub(super) fn listed(wanted: &Wanted<Place>, jobs: Vec<Job>) -> Page<JobResource> {
    let jobs = jobs.into_iter().map(Listed).collect();
    wanted.page(jobs, |Listed(job)| Place { at_ms: job.created_at_ms, id: job.id })
}

/// Ends a job at once and for good, whatever it does. If it runs, its handler is told to stop, and what it still answers
/// is refused; what it has done outside the store by then stays done.
///
/// # Errors
/// 404 if the tenant has no such job, 409 if it has ended, 422 for a reason that is too long, 503 if the store is away.
#[utoipa::path(post, path = "/v1/jobs/{id}/cancel", params(Id), request_body = Option<CancelBody>,
    responses((status = 200, description = "The job, cancelled", body = JobResource),
        (status = 409, description = "It had ended before, and stays as it is; or the key belongs to a request that is \
                                      still being worked on")))]
pub async fn cancel(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    Id(id): Id,
    effect: Effect,
    body: Option<Json<CancelBody>>,
) -> Result<Json<JobResource>, Problem> {
    let mut faults = Faults::default();
    let reason = body.and_then(|Json(body)| body.reason);
    let fits = reason.as_ref().is_none_or(|reason| reason.chars().count() <= REASON_MAX);
    faults.require("reason", fits, || format!("may have {REASON_MAX} characters at most"));
    faults.check()?;
    let cancelled = async {
        let job = state.store.get_job(&tenant, id).await?;
        Ok(job.filter(|job| job.state == JobState::Cancelled))
    };
    if let Some(job) = effect.earlier(cancelled).await? {
        return Ok(Json(job.into()));
    }
    let reason = reason.map_or_else(|| "cancelled".to_owned(), |reason| format!("cancelled: {reason}"));
    match state.scheduler.cancel(&tenant, id, &reason).await? {
        Some(Cancelled::Now(job)) => Ok(Json((*job).into())),
        Some(Cancelled::TooLate(job)) => {
            let detail = format!("the job has ended before, it is {}", job.state.as_str());
            Err(Problem::new(StatusCode::CONFLICT, detail))
        }
        None => Err(Problem::not_found("job")),
    }
}

/// What lists and what is done to many have in common.
fn filter(query: &mut Query, state: impl Fn(&str) -> Result<JobState, String>) -> JobFilter {
    JobFilter {
        states: query.all("state", state),
        kind: query.one("kind", str::parse),
        queue: query.one("queue", str::parse),
        schedule: query.one("schedule_id", |text| text.parse().map_err(|_| "is no UUID".to_owned())),
        created_after_ms: query.one("created_after", instant),
        created_before_ms: query.one("created_before", instant),
    }
}

fn instant(text: &str) -> Result<Millis, String> {
    let time = text.parse::<Timestamp>().map(Timestamp::as_millisecond);
    time.map_err(|_| "is no time, expected one such as 2026-01-31T12:00:00Z".to_owned())
}

/// What a tenant says of a job, and of the jobs of a schedule.
pub(super) struct Work<'a> {
    pub(super) kind: &'a str,
    pub(super) payload: &'a Value,
    pub(super) queue: Option<&'a str>,
    pub(super) max_attempts: Option<u32>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) keep_for_ms: Option<u64>,
}

impl Work<'_> {
    /// The kind must run here and read the payload, and the queue be served; the numbers have limits.
    pub(super) fn check(self, state: &ApiState, faults: &mut Faults) {
        match state.scheduler.handlers().check(self.kind, self.payload) {
            Ok(()) => {}
            Err(unknown @ CheckError::UnknownKind { .. }) => faults.require("kind", false, || unknown.to_string()),
            Err(CheckError::Payload(fault)) => faults.require(&fault.path, false, || fault.reason),
        }
        // A job in a line that nobody serves would be accepted and never run.
        let queues: Vec<&str> = state.scheduler.queues().collect();
        let served = queues.contains(&self.queue.unwrap_or(NewJob::QUEUE_DEFAULT));
        faults.require("queue", served, || format!("is not served, must be one of: {}", queues.join(", ")));
        faults.within("max_attempts", self.max_attempts, 1, ATTEMPTS_MAX);
        faults.within("timeout_ms", self.timeout_ms, 1, TIMEOUT_MAX_MS);
        faults.within("keep_for_ms", self.keep_for_ms, 0, KEEP_MAX_MS);
    }
}

impl From<Job> for JobResource {
    fn from(job: Job) -> Self {
        let (schedule_id, fire_at_ms) = job.fired.unzip();
        Self {
            attempt: job.charged(),
            id: job.id,
            tenant: job.tenant.to_string(),
            kind: job.kind,
            payload: Some(job.payload),
            queue: job.queue,
            state: job.state.as_str(),
            max_attempts: job.max_attempts,
            priority: job.priority,
            run_at: time(job.run_at_ms),
            created_at: time(job.created_at_ms),
            claimed_at: job.claimed_at_ms.map(time),
            finished_at: job.finished_at_ms.map(time),
            timeout_ms: job.timeout_ms,
            crashes: job.crashes,
            schedule_id,
            fire_at: fire_at_ms.map(time),
            last_error: job.last_error,
            result: job.result,
            unique_key: job.unique_key,
            redrives: job.redrives,
            progress: job.progress,
            snoozes: job.snoozes,
            keep_for_ms: job.keep_ms,
            origin_trace_id: job.context.origin(),
        }
    }
}
