//! `/v1/schedules`: jobs again and again, every so often or by a cron pattern.

mod body;
pub mod fires;

use actors::model::now_ms;
use actors::store::{Place, Schedule};
use axum::extract::State;
use http::header::LOCATION;
use http::{HeaderName, StatusCode};

pub use self::body::{NewScheduleBody, ScheduleResource};
use super::ApiState;
use super::idempotency::Effect;
use super::json::Json;
use super::page::{Page, Query};
use super::problem::Problem;
use super::resource::{Caller, Faults, Id};

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
    let schedule = body.read(&state, tenant, effect.id(), &mut faults);
    let fires = schedule.as_ref().is_none_or(|new| new.first_fire(now_ms()).is_some());
    faults.require("end_at", fires, || "leaves no time to fire, or it starts too late for its pattern".to_owned());
    faults.check()?;
    let schedule = schedule.ok_or_else(|| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "no cadence"))?;

    if let Some(schedule) = effect.earlier(state.store.get_schedule(&schedule.tenant, effect.id())).await? {
        return Ok(created(schedule));
    }
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

/// Changes a schedule into what the body says; what is not said gets its default. What has become of its fires stays. It
/// goes on as it was if its cadence and its start are the same, otherwise as one that is made now; a paused one stays paused.
///
/// # Errors
/// 404 if the tenant has no such schedule, 422 with the fields that make no sense, 503 if the store is away.
#[utoipa::path(put, path = "/v1/schedules/{id}", params(Id),
    request_body(content = NewScheduleBody,
        example = json!({"kind": "publish", "payload": {"topic": "hello", "data": 2}, "every_ms": 60_000, "overlap": "allow"})),
    responses((status = 200, description = "The schedule, as it is kept now", body = ScheduleResource)))]
pub async fn update(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    Id(id): Id,
    Json(body): Json<NewScheduleBody>,
) -> Result<Json<ScheduleResource>, Problem> {
    let mut faults = Faults::default();
    let schedule = body.read(&state, tenant, id, &mut faults);
    faults.check()?;
    let schedule = schedule.ok_or_else(|| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "no cadence"))?;
    found(state.scheduler.update_schedule(schedule).await?)
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
