//! `/admin/log-filter`: what is logged, changed for a while. It reverts by itself: a forgotten `trace` fills a disk. Spans
//! are kept as ever, and what is audited is always logged.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use telemetry::export::{LogFilterState, StartError};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::AdminState;
use crate::audit::{self, Subject};
use crate::http::json::Json;
use crate::http::problem::{FieldError, Problem};
use crate::http::resource::Faults;

/// For how long a filter is in force if nobody says: 10 minutes.
const FOR_MS: u64 = 600_000;

/// And at most: 24 hours.
const FOR_MS_MAX: u64 = 86_400_000;

/// The routes of this page.
pub fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(get, set, revert))
}

/// A filter for a while.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogFilterBody {
    /// Levels by target, in the syntax of RUST_LOG: `info,scheduler=debug`.
    filter: String,
    /// For how long, in milliseconds; 10 minutes if it is left out.
    #[schema(minimum = 1, maximum = 86_400_000)]
    for_ms: Option<u64>,
}

/// What is logged now.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogFilterResource {
    /// The filter in force.
    filter: String,
    /// The one of the settings.
    configured: String,
    /// In how many milliseconds the configured one comes back; null if it is in force.
    reverts_in_ms: Option<u64>,
}

impl From<LogFilterState> for LogFilterResource {
    fn from(state: LogFilterState) -> Self {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self { filter: state.filter, configured: state.configured, reverts_in_ms: state.reverts_in.map(ms) }
    }
}

/// What is logged now.
#[utoipa::path(get, path = "/admin/log-filter", tag = "log", responses(
    (status = 200, description = "The filter in force", body = LogFilterResource),
))]
async fn get(State(state): State<AdminState>) -> Json<LogFilterResource> {
    Json(state.reporting.log_filter.state().into())
}

/// Logs by another filter for a while. One that is in force already is replaced, with its time.
#[utoipa::path(put, path = "/admin/log-filter", tag = "log", request_body = LogFilterBody, responses(
    (status = 200, description = "The filter in force", body = LogFilterResource),
    (status = 422, description = "The filter cannot be read, or the time makes no sense"),
))]
async fn set(
    State(state): State<AdminState>,
    Extension(subject): Extension<Subject>,
    Json(body): Json<LogFilterBody>,
) -> Result<Json<LogFilterResource>, Problem> {
    subject.is(&body.filter);
    let mut faults = Faults::default();
    faults.within("for_ms", body.for_ms, 1, FOR_MS_MAX);
    faults.require("filter", !body.filter.trim().is_empty(), || "must not be empty".to_owned());
    faults.check()?;
    let time = Duration::from_millis(body.for_ms.unwrap_or(FOR_MS));
    let log_filter = &state.reporting.log_filter;
    let configured = log_filter.state().configured;
    let reverted = move || audit::by_itself("log_filter.revert", &configured);
    let changed = log_filter.set(&body.filter, time, reverted).map_err(|error| {
        let reason = match error {
            StartError::Filter { reason, .. } => reason,
            other => other.to_string(),
        };
        Problem::invalid(vec![FieldError { field: "filter".to_owned(), reason }])
    })?;
    Ok(Json(changed.into()))
}

/// Logs by the configured filter again, now.
#[utoipa::path(delete, path = "/admin/log-filter", tag = "log", responses(
    (status = 200, description = "The filter in force", body = LogFilterResource),
))]
async fn revert(State(state): State<AdminState>) -> Json<LogFilterResource> {
    Json(state.reporting.log_filter.revert().into())
}
