//! Why a job does not run now.

use actors::scheduler::{Explanation, ReasonCode};
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::ApiState;
use crate::http::json::Json;
use crate::http::problem::Problem;
use crate::http::resource::{Caller, Id, time};

/// Why a job is where it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplanationResource {
    id: Uuid,
    state: &'static str,
    /// When this was so, by the clock that the service goes by.
    #[schema(format = DateTime)]
    at: String,
    /// All that is to say; what must be over first comes first.
    reasons: Vec<ReasonResource>,
}

/// One thing that is so about a job.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReasonResource {
    /// `done`, `dead`, `cancelled`, `running`, `runner_lost`, `not_due`, `backoff`, `snoozed`, `tenant_disabled`, `kind_unknown`,
    /// `queue_not_served`, `tenant_at_limit`, `tenant_at_rate`, `suspect`, `behind_others`, `claimer_down`, `claimer_parked`, `process_full` or `next_in_line`.
    #[schema(value_type = String)]
    code: ReasonCode,
    /// In words.
    detail: String,
    /// When it is over by itself, if that is known.
    #[schema(format = DateTime)]
    over_at: Option<String>,
}

/// Why does my job not run? All that stands in its way, as the store and the process that answers see it.
///
/// # Errors
/// 404 if the tenant has no such job, 503 if the store is away.
#[utoipa::path(get, path = "/v1/jobs/{id}/explain", params(Id),
    responses((status = 200, description = "The reasons", body = ExplanationResource)))]
pub async fn explain(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    Id(id): Id,
) -> Result<Json<ExplanationResource>, Problem> {
    let explained = state.scheduler.explain(&tenant, id).await?.ok_or_else(|| Problem::not_found("job"))?;
    Ok(Json(explained.into()))
}

impl From<Explanation> for ExplanationResource {
    fn from(explanation: Explanation) -> Self {
        let reasons = explanation.reasons.into_iter().map(|reason| ReasonResource {
            code: reason.code,
            detail: reason.detail,
            over_at: reason.until_ms.map(time),
        });
        let job = explanation.standing.job;
        Self { id: job.id, state: job.state.as_str(), at: time(explanation.standing.at_ms), reasons: reasons.collect() }
    }
}
