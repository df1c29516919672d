//! Makes jobs: one, or up to 1000 in one request.

use std::collections::HashSet;

use actors::model::TenantId;
use actors::store::{Job, KEY_MAX_CHARS, NewJob, PERIOD_MAX_MS, StoreError, Unique, UniqueStates};
use axum::extract::State;
use http::header::LOCATION;
use http::{HeaderName, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{JobResource, Work};
use crate::http::ApiState;
use crate::http::idempotency::Effect;
use crate::http::json::Json;
use crate::http::problem::Problem;
use crate::http::resource::{Caller, Faults};

/// Jobs of one request.
const BATCH_MAX: usize = 1_000;

/// What `POST /v1/jobs` takes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewJobBody {
    /// A kind that runs here.
    kind: String,
    /// What the kind takes.
    payload: Value,
    /// Not before this time; now if it is not said.
    #[schema(value_type = Option<String>, format = DateTime)]
    run_at: Option<Timestamp>,
    /// The line it waits in: one that is served.
    queue: Option<String>,
    /// Lower runs first.
    priority: Option<i32>,
    /// How often it is tried before it is dead; 10, unless its kind says otherwise.
    #[schema(minimum = 1, maximum = 100)]
    max_attempts: Option<u32>,
    /// How long one attempt may take; otherwise as its kind or the operator says.
    #[schema(minimum = 1, maximum = 3_600_000)]
    timeout_ms: Option<u64>,
    /// What makes it the only one: while another job has its key, that one is answered, and nothing is made.
    unique: Option<UniqueBody>,
    /// How long it is kept when it has ended; otherwise as long as the operator says.
    #[schema(maximum = 7_776_000_000u64)]
    keep_for_ms: Option<u64>,
}

/// What makes a job the only one. What the first with a key has said holds until the key is free.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UniqueBody {
    /// Your own name for what is to be done once.
    #[schema(min_length = 1, max_length = 255)]
    key: String,
    /// For how long, from when the first was accepted. Without it there is no end but that of the states.
    #[schema(minimum = 1, maximum = 2_592_000_000u64)]
    period_ms: Option<u64>,
    /// In which states of the first: `incomplete` (until it has ended), `successful` (also when it is done), `all` (also when
    /// it is dead or cancelled). If it is not said: `successful` with a period, `incomplete` without.
    #[schema(value_type = Option<String>)]
    states: Option<UniqueStates>,
}

/// What `POST /v1/jobs/batch` takes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewJobsBody {
    /// Each as `POST /v1/jobs` takes it.
    #[schema(min_items = 1, max_items = 1000)]
    jobs: Vec<NewJobBody>,
}

/// A job that is kept.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeptJob {
    #[serde(flatten)]
    job: JobResource,
    /// `true` if it was there before, and has the unique key that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate: Option<bool>,
}

/// Jobs that are kept.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeptJobs {
    /// In the order of the request.
    ids: Vec<Uuid>,
    /// Which of them were there before, and have the unique key that was asked for: their places, from 0.
    duplicates: Vec<usize>,
}

/// Makes a job: on 201 it is kept and will run at least once.
///
/// # Errors
/// 422 with the fields that make no sense, 503 if the store is away.
#[utoipa::path(post, path = "/v1/jobs",
    request_body(content = NewJobBody, example = json!({"kind": "publish", "payload": {"topic": "hello", "data": 1}})),
    responses((status = 201, description = "The job, as it is kept", body = KeptJob,
        headers(("location" = String, description = "Where it is shown"))),
        (status = 200, description = "Another job has the unique key: this one. Nothing was made", body = KeptJob,
        headers(("location" = String, description = "Where it is shown")))))]
pub async fn create(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    effect: Effect,
    Json(body): Json<NewJobBody>,
) -> Result<Created, Problem> {
    let mut faults = Faults::default();
    body.check(&state, &mut faults);
    faults.check()?;
    if let Some(job) = effect.earlier(state.store.get_job(&tenant, effect.id())).await? {
        return Ok(created(job, effect.id()));
    }
    let kept = state.scheduler.enqueue(vec![body.job(&state, tenant, effect.id())]).await?.into_iter().next();
    let job = kept.ok_or_else(|| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the job was not kept"))?;
    Ok(created(job, effect.id()))
}

type Created = (StatusCode, [(HeaderName, String); 1], Json<KeptJob>);

fn created(job: Job, asked: Uuid) -> Created {
    let (status, duplicate) = if job.id == asked { (StatusCode::CREATED, None) } else { (StatusCode::OK, Some(true)) };
    let place = format!("/v1/jobs/{}", job.id);
    (status, [(LOCATION, place)], Json(KeptJob { job: job.into(), duplicate }))
}

/// Makes up to 1000 jobs, all or none: on 201 each is kept and will run at least once. The body may be as long as any
/// (1 MiB, unless the operator says otherwise).
///
/// # Errors
/// 413 for a body that is too long, 422 with the fields that make no sense, as `jobs[3].payload.topic`, 503 if the store is
/// away.
#[utoipa::path(post, path = "/v1/jobs/batch",
    request_body(content = NewJobsBody,
        example = json!({"jobs": [{"kind": "publish", "payload": {"topic": "hello", "data": 1}}]})),
    responses((status = 201, description = "All are kept, or were there before", body = KeptJobs)))]
pub async fn create_batch(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    effect: Effect,
    Json(body): Json<NewJobsBody>,
) -> Result<(StatusCode, Json<KeptJobs>), Problem> {
    let mut faults = Faults::default();
    let count = (1..=BATCH_MAX).contains(&body.jobs.len());
    faults.require("jobs", count, || format!("must have from 1 to {BATCH_MAX} entries"));
    if count {
        for (n, job) in body.jobs.iter().enumerate() {
            faults.within_item(&format!("jobs[{n}]"), |faults| job.check(&state, faults));
        }
    }
    faults.check()?;
    let jobs: Vec<NewJob> =
        body.jobs.into_iter().enumerate().map(|(n, job)| job.job(&state, tenant.clone(), effect.nth(n))).collect();
    let asked: Vec<Uuid> = jobs.iter().map(|job| job.id).collect();
    let there = effect.earlier(kept_before(&state, &tenant, &asked)).await?.unwrap_or_default();
    let (_, missing): (Vec<NewJob>, Vec<NewJob>) = jobs.into_iter().partition(|job| there.contains(&job.id));
    let mut kept = state.scheduler.enqueue(missing).await?.into_iter().map(|job| job.id);
    let ids: Vec<Uuid> =
        asked.iter().map(|id| if there.contains(id) { *id } else { kept.next().unwrap_or(*id) }).collect();
    let duplicates = (0..ids.len()).filter(|n| ids[*n] != asked[*n]).collect();
    Ok((StatusCode::CREATED, Json(KeptJobs { ids, duplicates })))
}

/// Those that an earlier try has kept. What is missing then was a duplicate, and is asked for again.
async fn kept_before(state: &ApiState, tenant: &TenantId, asked: &[Uuid]) -> Result<Option<HashSet<Uuid>>, StoreError> {
    let mut there = HashSet::new();
    for id in asked {
        there.extend(state.store.get_job(tenant, *id).await?.map(|job| job.id));
    }
    Ok(Some(there).filter(|there| !there.is_empty()))
}

impl NewJobBody {
    fn check(&self, state: &ApiState, faults: &mut Faults) {
        let work = Work {
            kind: &self.kind,
            payload: &self.payload,
            queue: self.queue.as_deref(),
            max_attempts: self.max_attempts,
            timeout_ms: self.timeout_ms,
            keep_for_ms: self.keep_for_ms,
        };
        work.check(state, faults);
        if let Some(UniqueBody { key, period_ms, .. }) = &self.unique {
            let fits = (1..=KEY_MAX_CHARS).contains(&key.chars().count());
            faults.require("unique.key", fits, || format!("must have from 1 to {KEY_MAX_CHARS} characters"));
            faults.within("unique.period_ms", *period_ms, 1, PERIOD_MAX_MS);
        }
    }

    fn job(self, state: &ApiState, tenant: TenantId, id: Uuid) -> NewJob {
        let of_kind = state.scheduler.handlers().max_attempts(&self.kind);
        let job = NewJob::new(tenant, self.kind, self.payload);
        NewJob {
            id,
            queue: self.queue.unwrap_or(job.queue),
            priority: self.priority.unwrap_or(job.priority),
            max_attempts: self.max_attempts.or(of_kind).unwrap_or(job.max_attempts),
            timeout_ms: self.timeout_ms,
            run_at_ms: self.run_at.map(Timestamp::as_millisecond),
            unique: self.unique.map(UniqueBody::unique),
            keep_ms: self.keep_for_ms,
            ..job
        }
    }
}

impl UniqueBody {
    fn unique(self) -> Unique {
        let unique = Unique::new(self.key, self.period_ms);
        Unique { states: self.states.unwrap_or(unique.states), ..unique }
    }
}
