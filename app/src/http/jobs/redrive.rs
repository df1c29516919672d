//! Sends jobs round again that are dead or were cancelled: one, or all that pass a filter, a page at a time.

use actors::store::{JobState, Place, Redriven};
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::{JobResource, filter};
use crate::http::ApiState;
use crate::http::idempotency::Effect;
use crate::http::json::Json;
use crate::http::page::{Query, Wanted};
use crate::http::problem::Problem;
use crate::http::resource::{Caller, Id};

/// What became of many jobs.
#[derive(Debug, Serialize, ToSchema)]
pub struct RedrivenJobs {
    /// So many are ready again.
    redriven: u32,
    /// So many stay as they are, because another job has their unique key.
    skipped: u32,
    /// If there may be more: the parameter `cursor` of the next request.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Makes a job that is dead or cancelled ready again: under the same id, with all attempts anew.
///
/// # Errors
/// 404 if the tenant has no such job, 409 if it is in another state or another job has its unique key, 503 if the store is
/// away.
#[utoipa::path(post, path = "/v1/jobs/{id}/redrive", params(Id),
    responses((status = 200, description = "The job, ready", body = JobResource),
        (status = 409, description = "It is neither dead nor cancelled, or another job has its unique key; or the key \
                                      belongs to a request that is still being worked on")))]
pub async fn redrive(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    Id(id): Id,
    effect: Effect,
) -> Result<Json<JobResource>, Problem> {
    let redriven = async {
        let job = state.store.get_job(&tenant, id).await?;
        Ok(job.filter(|job| job.redrives > 0 && !job.state.can_be_redriven()))
    };
    if let Some(job) = effect.earlier(redriven).await? {
        return Ok(Json(job.into()));
    }
    Ok(Json(state.scheduler.redrive(&tenant, id).await?.into()))
}

/// Does the same with all jobs that pass the filter, newest first, a page at a time.
///
/// # Errors
/// 422 with the parameters that make no sense, 503 if the store is away.
#[utoipa::path(post, path = "/v1/jobs/redrive",
    params(
        ("state" = Option<Vec<String>>, Query, description = "Only `dead`, or only `cancelled` ones", explode),
        ("kind" = Option<String>, Query, description = "Only of this kind"),
        ("queue" = Option<String>, Query, description = "Only of this queue"),
        ("schedule_id" = Option<String>, Query, format = Uuid, description = "Only those that this schedule has made"),
        ("created_after" = Option<String>, Query, format = DateTime, description = "Only accepted after this time"),
        ("created_before" = Option<String>, Query, format = DateTime, description = "Only accepted before this time"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "Jobs of a request; 50 if absent"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the request before"),
    ),
    responses((status = 200, description = "How many are ready again", body = RedrivenJobs)))]
pub async fn redrive_many(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    mut query: Query,
) -> Result<Json<RedrivenJobs>, Problem> {
    let filter = filter(&mut query, |word| match word.parse::<JobState>() {
        Ok(state) if state.can_be_redriven() => Ok(state),
        _ => Err("must be one of: dead, cancelled".to_owned()),
    });
    let wanted: Wanted<Place> = query.page("redriven");
    query.finish()?;
    let Redriven { count, skipped, next } =
        state.scheduler.redrive_many(&tenant, &filter, wanted.after, wanted.limit).await?;
    Ok(Json(RedrivenJobs { redriven: count, skipped, next_cursor: next.map(|place| wanted.cursor(&place)) }))
}
