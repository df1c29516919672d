//! Fires of a schedule: those to come, one now, those of a past range.

use actors::model::{Millis, new_id, now_ms};
use actors::store::{BACKFILL_MAX, Fence, Overlap, Triggered};
use axum::extract::State;
use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::ApiState;
use super::super::idempotency::Effect;
use super::super::json::Json;
use super::super::page::Query;
use super::super::problem::Problem;
use super::super::resource::{Caller, Faults, Id, time};
use super::body::{NewScheduleBody, OverlapName};

/// Fires of a preview if nobody says otherwise.
const COUNT_DEFAULT: usize = 10;

/// Fires of a preview at most.
const COUNT_MAX: usize = 100;

/// Fires to come.
#[derive(Debug, Serialize, ToSchema)]
pub struct Preview {
    /// In their order, as far as they are within 50 years. Jitter is not in them.
    fires: Vec<String>,
}

/// What `POST /v1/schedules/{id}/trigger` takes.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TriggerBody {
    /// What the fire does while the job of an earlier one has not ended; the schedule's own policy if it is not said.
    overlap: Option<OverlapName>,
}

/// What became of a fire that was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub struct TriggerResource {
    outcome: TriggerOutcome,
    #[schema(format = DateTime)]
    fire_at: String,
    /// The job that it made, if it has started.
    job: Option<Uuid>,
    /// Jobs that were cancelled for it.
    cancelled: Vec<Uuid>,
}

/// How far a fire has come.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TriggerOutcome {
    /// It has made its job.
    Started,
    /// It waits for the end of the job before.
    Buffered,
}

/// What `POST /v1/schedules/{id}/backfill` takes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackfillBody {
    /// The first time that counts.
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    /// The last time that counts, not in the future.
    #[schema(value_type = String, format = DateTime)]
    to: Timestamp,
    /// What these fires do while the job of another one has not ended; `allow` if it is not said, since any other policy
    /// drops most of them.
    overlap: Option<OverlapName>,
}

/// What became of the fires of a past range.
#[derive(Debug, Serialize, ToSchema)]
pub struct BackfillResource {
    /// The jobs that were made, oldest fire first.
    jobs: Vec<Uuid>,
    /// How many fires had made a job before.
    present: u64,
    /// How many made none, because the job of another one had not ended.
    overlapped: u64,
    /// The fire that waits for the end of such a job, if one of these does.
    #[schema(format = DateTime)]
    buffered_fire_at: Option<String>,
    /// Jobs that were cancelled for them.
    cancelled: Vec<Uuid>,
}

/// The next fires of a schedule; of a paused one, as if it were resumed now.
///
/// # Errors
/// 404 if the tenant has no such schedule, 422 for a count out of bounds, 503 if the store is away.
#[utoipa::path(get, path = "/v1/schedules/{id}/preview",
    params(Id, ("count" = Option<u32>, Query, minimum = 1, maximum = 100, description = "How many; 10 if absent")),
    responses((status = 200, description = "Its next fires", body = Preview)))]
pub async fn preview(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    Id(id): Id,
    mut query: Query,
) -> Result<Json<Preview>, Problem> {
    let count = count(&mut query);
    query.finish()?;
    let schedule = state.store.get_schedule(&tenant, id).await?.ok_or_else(|| Problem::not_found("schedule"))?;
    Ok(shown(schedule.upcoming(now_ms(), count)))
}

/// The next fires of a schedule that is not made: nothing is kept.
///
/// # Errors
/// 422 with the fields that make no sense.
#[utoipa::path(post, path = "/v1/schedules/preview",
    params(("count" = Option<u32>, Query, minimum = 1, maximum = 100, description = "How many; 10 if absent")),
    request_body(content = NewScheduleBody,
        example = json!({"kind": "publish", "payload": {"topic": "hello", "data": 1}, "cron": "30 2 * * *", "time_zone": "Europe/Berlin"})),
    responses((status = 200, description = "Its next fires, if it were made now", body = Preview)))]
pub async fn preview_new(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    mut query: Query,
    Json(body): Json<NewScheduleBody>,
) -> Result<Json<Preview>, Problem> {
    let count = count(&mut query);
    query.finish()?;
    let mut faults = Faults::default();
    let schedule = body.read(&state, tenant, new_id(), &mut faults);
    faults.check()?;
    Ok(shown(schedule.map(|schedule| schedule.upcoming(now_ms(), count)).unwrap_or_default()))
}

/// Fires a schedule now, also one that is paused or has ended. It goes on as it was.
///
/// # Errors
/// 404 if the tenant has no such schedule, 409 if the job of an earlier fire has not ended and the policy lets none start
/// or wait beside it, 503 if the store is away.
#[utoipa::path(post, path = "/v1/schedules/{id}/trigger", params(Id), request_body = Option<TriggerBody>,
    responses((status = 201, description = "It has made a job", body = TriggerResource,
            headers(("location" = String, description = "Where the job is shown"))),
        (status = 202, description = "It waits for the end of the job before", body = TriggerResource),
        (status = 409, description = "The job of an earlier fire has not ended, and the overlap policy says so; or the key \
                                      belongs to a request that is still being worked on")))]
pub async fn trigger(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    Id(id): Id,
    effect: Effect,
    body: Option<Json<TriggerBody>>,
) -> Result<(StatusCode, HeaderMap, Json<TriggerResource>), Problem> {
    if let Some(job) = effect.earlier(state.store.get_job(&tenant, effect.id())).await? {
        let fire_at = job.fired.map_or(job.created_at_ms, |(_, fire_at)| fire_at);
        return started(job.id, fire_at, &[]);
    }
    let overlap = body.and_then(|Json(body)| body.overlap).map(Overlap::from);
    match state.scheduler.trigger_schedule(&tenant, id, effect.id(), overlap).await? {
        Some(Triggered::Started { fired, cancelled }) => started(fired.job, fired.fire_at_ms, &cancelled),
        Some(Triggered::Buffered { fire_at_ms }) => {
            let (outcome, fire_at) = (TriggerOutcome::Buffered, time(fire_at_ms));
            let waits = TriggerResource { outcome, fire_at, job: None, cancelled: Vec::new() };
            Ok((StatusCode::ACCEPTED, HeaderMap::new(), Json(waits)))
        }
        Some(Triggered::Overlapped) => {
            let detail = "the job of an earlier fire has not ended; another overlap policy may be asked for";
            Err(Problem::new(StatusCode::CONFLICT, detail))
        }
        None => Err(Problem::not_found("schedule")),
    }
}

/// Makes the jobs of past fires, at most 1000, between the schedule's start and its end. One that has made a job before
/// makes no other, for as long as that job is kept.
///
/// # Errors
/// 404 if the tenant has no such schedule, 422 if there are too many fires or the range makes no sense, 503 if the store is
/// away.
#[utoipa::path(post, path = "/v1/schedules/{id}/backfill", params(Id),
    request_body(content = BackfillBody,
        example = json!({"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"})),
    responses((status = 200, description = "What became of them", body = BackfillResource)))]
pub async fn backfill(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    Id(id): Id,
    Json(body): Json<BackfillBody>,
) -> Result<Json<BackfillResource>, Problem> {
    let mut faults = Faults::default();
    faults.require("to", body.from <= body.to, || "is before from".to_owned());
    faults.require("to", body.to.as_millisecond() <= now_ms(), || "is in the future".to_owned());
    faults.check()?;
    let schedule = state.store.get_schedule(&tenant, id).await?.ok_or_else(|| Problem::not_found("schedule"))?;
    let mut faults = Faults::default();
    let fires = schedule.fires_between(body.from.as_millisecond(), body.to.as_millisecond());
    let too_many =
        |count: u64| format!("there are {count} fires in this range, {BACKFILL_MAX} are made at once at most");
    let fires = faults.keep("to", fires.map_err(too_many));
    faults.check()?;
    let overlap = body.overlap.map_or(Overlap::Allow, Overlap::from);
    let filled = state.scheduler.backfill_schedule(&tenant, id, &fires.unwrap_or_default(), overlap).await?;
    let filled = filled.ok_or_else(|| Problem::not_found("schedule"))?;
    Ok(Json(BackfillResource {
        jobs: filled.fired.iter().map(|fired| fired.job).collect(),
        present: filled.present,
        overlapped: filled.overlapped,
        buffered_fire_at: filled.buffered_fire_at_ms.map(time),
        cancelled: ids(&filled.cancelled),
    }))
}

fn started(
    job: Uuid,
    fire_at_ms: Millis,
    cancelled: &[Fence],
) -> Result<(StatusCode, HeaderMap, Json<TriggerResource>), Problem> {
    let mut headers = HeaderMap::new();
    if let Ok(location) = HeaderValue::try_from(format!("/v1/jobs/{job}")) {
        headers.insert(LOCATION, location);
    }
    let (outcome, fire_at) = (TriggerOutcome::Started, time(fire_at_ms));
    let resource = TriggerResource { outcome, fire_at, job: Some(job), cancelled: ids(cancelled) };
    Ok((StatusCode::CREATED, headers, Json(resource)))
}

fn ids(fences: &[Fence]) -> Vec<Uuid> {
    fences.iter().map(|fence| fence.id).collect()
}

fn shown(fires: Vec<Millis>) -> Json<Preview> {
    Json(Preview { fires: fires.into_iter().map(time).collect() })
}

fn count(query: &mut Query) -> usize {
    let count = query.one("count", |text| {
        let within = text.parse().ok().filter(|count| (1..=COUNT_MAX).contains(count));
        within.ok_or_else(|| format!("must be from 1 to {COUNT_MAX}"))
    });
    count.unwrap_or(COUNT_DEFAULT)
}
