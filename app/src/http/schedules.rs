//! `/v1/schedules`: jobs again and again, every so often or by a cron pattern.

use actors::jobs::{Cadence, time_zone};
use actors::model::now_ms;
use actors::store::{NewSchedule, Place, Schedule};
use axum::extract::State;
use http::header::LOCATION;
use http::{HeaderName, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::ApiState;
use super::idempotency::Effect;
use super::jobs::{ATTEMPTS_MAX, check_work};
use super::json::Json;
use super::page::{Page, Query};
use super::problem::Problem;
use super::resource::{Caller, Faults, Id, time};

/// The clock of a cron pattern if nobody says otherwise.
const TIME_ZONE_DEFAULT: &str = "UTC";

/// What `POST /v1/schedules` takes: either `every_ms` or `cron`, the latter with an optional `time_zone`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewScheduleBody {
    /// A kind that runs here.
    kind: String,
    /// What the kind takes, each time.
    payload: Value,
    #[schema(minimum = 1_000, maximum = 31_622_400_000_u64)]
    every_ms: Option<u64>,
    /// Five fields: minute, hour, day, month, weekday.
    #[schema(max_length = 200)]
    cron: Option<String>,
    /// A name of the IANA database; UTC if it is not said.
    time_zone: Option<String>,
    /// The line its jobs wait in: one that is served here.
    queue: Option<String>,
    /// How often each job is tried before it is dead.
    #[schema(minimum = 1, maximum = 100)]
    max_attempts: Option<u32>,
}

/// A schedule as its tenant sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ScheduleResource {
    id: Uuid,
    tenant: String,
    kind: String,
    payload: Value,
    queue: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    every_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cron: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<String>,
    max_attempts: u32,
    #[schema(format = DateTime)]
    next_fire_at: Option<String>,
    #[schema(format = DateTime)]
    last_fire_at: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    /// Since when it is paused, if it is.
    #[schema(format = DateTime)]
    paused_at: Option<String>,
    last_error: Option<String>,
    origin_trace_id: Option<String>,
}

/// Makes a schedule.
///
/// # Errors
/// 422 with the fields that make no sense, 503 if the store is away.
#[utoipa::path(post, path = "/v1/schedules",
    request_body(content = NewScheduleBody,
        example = json!({"kind": "publish", "payload": {"topic": "hello", "data": 1}, "cron": "0 3 * * *", "time_zone": "Europe/Berlin"})),
    responses((status = 201, description = "The schedule, as it is kept", body = ScheduleResource,
        headers(("location" = String, description = "Where it is shown")))))]
pub async fn create(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    effect: Effect,
    Json(body): Json<NewScheduleBody>,
) -> Result<Created, Problem> {
    let mut faults = Faults::default();
    check_work(&state, &mut faults, &body.kind, &body.payload, body.queue.as_deref());
    faults.within("max_attempts", body.max_attempts, 1, ATTEMPTS_MAX);
    let cadence = cadence(&body, &mut faults);
    faults.check()?;
    let cadence = cadence.ok_or_else(|| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "no cadence"))?;

    if let Some(schedule) = effect.earlier(state.store.get_schedule(&tenant, effect.id())).await? {
        return Ok(created(schedule));
    }

    let mut schedule = NewSchedule::new(tenant, cadence, body.kind, body.payload);
    schedule.id = effect.id();
    schedule.queue = body.queue.unwrap_or(schedule.queue);
    schedule.max_attempts = body.max_attempts.unwrap_or(schedule.max_attempts);
    let schedule = state.scheduler.create_schedule(schedule).await?;
    Ok(created(schedule))
}

type Created = (StatusCode, [(HeaderName, String); 1], Json<ScheduleResource>);

fn created(schedule: Schedule) -> Created {
    (StatusCode::CREATED, [(LOCATION, format!("/v1/schedules/{}", schedule.id))], Json(schedule.into()))
}

/// Shows a schedule.
///
/// # Errors
/// 404 if the tenant has no such schedule, 503 if the store is away.
#[utoipa::path(get, path = "/v1/schedules/{id}", params(Id),
    responses((status = 200, description = "The schedule", body = ScheduleResource)))]
pub async fn get(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    Id(id): Id,
) -> Result<Json<ScheduleResource>, Problem> {
    let schedule = state.store.get_schedule(&tenant, id).await?;
    found(schedule)
}

/// The tenant's schedules, newest first, a page at a time.
///
/// # Errors
/// 422 with the parameters that make no sense, 503 if the store is away.
#[utoipa::path(get, path = "/v1/schedules",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "Schedules of a page; 50 if absent"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "A page", body = Page<ScheduleResource>)))]
pub async fn list(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    mut query: Query,
) -> Result<Json<Page<ScheduleResource>>, Problem> {
    let wanted = query.page("schedules");
    query.finish()?;
    let schedules = state.store.list_schedules(&tenant, wanted.after, wanted.rows()).await?;
    Ok(Json(wanted.page(schedules, |schedule| Place { at_ms: schedule.created_at_ms, id: schedule.id })))
}

/// Forgets a schedule. Jobs that it has made stay, also those that run.
///
/// # Errors
/// 404 if the tenant has no such schedule, 503 if the store is away.
#[utoipa::path(delete, path = "/v1/schedules/{id}", params(Id),
    responses((status = 204, description = "It is gone")))]
pub async fn delete(State(state): State<ApiState>, Caller(tenant): Caller, Id(id): Id) -> Result<StatusCode, Problem> {
    let was_there = state.store.delete_schedule(&tenant, id).await?;
    if was_there { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found("schedule")) }
}

/// Stops a schedule from firing until it is resumed. One that is paused already stays as it is.
///
/// # Errors
/// 404 if the tenant has no such schedule, 503 if the store is away.
#[utoipa::path(post, path = "/v1/schedules/{id}/pause", params(Id),
    responses((status = 200, description = "The schedule, paused", body = ScheduleResource)))]
pub async fn pause(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    Id(id): Id,
) -> Result<Json<ScheduleResource>, Problem> {
    found(state.store.pause_schedule(&tenant, id).await?)
}

/// Lets a paused schedule fire again, as one that is made now; nothing is made up for. One that is not paused stays as it
/// is.
///
/// # Errors
/// 404 if the tenant has no such schedule, 503 if the store is away.
#[utoipa::path(post, path = "/v1/schedules/{id}/resume", params(Id),
    responses((status = 200, description = "The schedule, firing again", body = ScheduleResource)))]
pub async fn resume(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    Id(id): Id,
) -> Result<Json<ScheduleResource>, Problem> {
    found(state.scheduler.resume_schedule(&tenant, id).await?)
}

fn found(schedule: Option<Schedule>) -> Result<Json<ScheduleResource>, Problem> {
    schedule.map(|schedule| Json(schedule.into())).ok_or_else(|| Problem::not_found("schedule"))
}

fn cadence(body: &NewScheduleBody, faults: &mut Faults) -> Option<Cadence> {
    let no_zone = body.cron.is_some() || body.time_zone.is_none();
    faults.require("time_zone", no_zone, || "belongs to cron only".to_owned());
    match (body.every_ms, &body.cron) {
        (Some(every_ms), None) => faults.keep("every_ms", Cadence::every(every_ms)),
        (None, Some(pattern)) => {
            let zone = body.time_zone.as_deref().unwrap_or(TIME_ZONE_DEFAULT);
            // A pattern is judged whether there is such a place or not.
            let zone = faults.keep("time_zone", time_zone(zone)).map_or(TIME_ZONE_DEFAULT, |_| zone);
            faults.keep("cron", Cadence::cron(pattern, zone, now_ms()))
        }
        _ => {
            faults.require("every_ms", false, || "exactly one of every_ms and cron is needed".to_owned());
            None
        }
    }
}

impl From<Schedule> for ScheduleResource {
    fn from(schedule: Schedule) -> Self {
        let line = schedule.cadence.cron_line().map(|(cron, zone)| (cron.to_owned(), zone.to_owned()));
        let (cron, time_zone) = line.unzip();
        Self {
            id: schedule.id,
            tenant: schedule.tenant.to_string(),
            kind: schedule.kind,
            payload: schedule.payload,
            queue: schedule.queue,
            every_ms: schedule.cadence.every_ms(),
            cron,
            time_zone,
            max_attempts: schedule.max_attempts,
            next_fire_at: schedule.next_fire_at_ms.map(time),
            last_fire_at: schedule.last_fire_at_ms.map(time),
            created_at: time(schedule.created_at_ms),
            paused_at: schedule.paused_at_ms.map(time),
            last_error: schedule.last_error,
            origin_trace_id: schedule.context.origin(),
        }
    }
}
