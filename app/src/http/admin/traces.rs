//! What the flight recorder holds: the latest traces, the spans that are still open, the log records. It is kept in this
//! process only, and is gone with it; see [`telemetry::recorder`].

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use telemetry::context::parse_trace_id;
use telemetry::recorder::{LogLevel, LogQuery, LogView, OpenView, Recorder, Summary, TraceQuery, TraceView};

use super::AdminState;
use crate::http::json::Json;
use crate::http::page::{Page, Query, Wanted};
use crate::http::problem::Problem;

/// Open spans and log records of one answer if nobody says otherwise, and at most.
pub(super) const LIMIT_DEFAULT: usize = 200;
const LIMIT_MAX: usize = 5_000;

/// The routes of this page.
pub fn routes() -> Router<AdminState> {
    Router::new()
        .route("/admin/traces", get(list))
        .route("/admin/traces/{trace_id}", get(one))
        .route("/admin/traces/{trace_id}/otlp", get(otlp))
        .route("/admin/spans/open", get(open))
        .route("/admin/logs", get(logs))
}

/// Newest first, page by page.
async fn list(State(state): State<AdminState>, mut query: Query) -> Result<Json<Page<Summary>>, Problem> {
    let wanted: Wanted<(u64, String)> = query.page("traces");
    let text = |text: &str| Ok::<_, &str>(text.to_owned());
    let asked = TraceQuery {
        errors: query.one("errors", yes_or_no).unwrap_or(false),
        name: query.one("name", text),
        tenant: query.one("tenant", text),
        min_ms: query.one("min_ms", whole),
        since_ms: query.one("since_ms", whole),
        after: wanted.after.clone(),
        limit: wanted.rows() as usize,
    };
    query.finish()?;
    let found = recorder(&state)?.traces(&asked);
    Ok(Json(wanted.page(found, Summary::place)))
}

async fn one(State(state): State<AdminState>, Path(id): Path<String>) -> Result<Json<TraceView>, Problem> {
    let recorder = recorder(&state)?;
    parse_trace_id(&id).and_then(|id| recorder.trace(id)).map(Json).ok_or_else(gone)
}

/// As a collector takes it at `/v1/traces`.
async fn otlp(State(state): State<AdminState>, Path(id): Path<String>) -> Result<Response, Problem> {
    let recorder = recorder(&state)?;
    let document = parse_trace_id(&id).and_then(|id| recorder.otlp(id)).ok_or_else(gone)?;
    Ok(([(CONTENT_TYPE, "application/json")], document).into_response())
}

#[derive(Serialize)]
struct OpenSpans {
    items: Vec<OpenView>,
    /// How many there are, also those that are not shown.
    total: usize,
}

/// Oldest first.
async fn open(State(state): State<AdminState>, mut query: Query) -> Result<Json<OpenSpans>, Problem> {
    let limit = limit(&mut query);
    query.finish()?;
    let (items, total) = recorder(&state)?.open(limit);
    Ok(Json(OpenSpans { items, total }))
}

#[derive(Serialize)]
struct Logs {
    items: Vec<LogView>,
}

/// Newest first.
async fn logs(State(state): State<AdminState>, mut query: Query) -> Result<Json<Logs>, Problem> {
    let asked = LogQuery {
        trace: query.one("trace_id", |text| parse_trace_id(text).ok_or("must be 32 hex digits")),
        level: query.one("level", str::parse).unwrap_or(LogLevel::Trace),
        limit: limit(&mut query),
    };
    query.finish()?;
    Ok(Json(Logs { items: recorder(&state)?.logs(&asked) }))
}

/// How many of a list that has no pages.
pub(super) fn limit(query: &mut Query) -> usize {
    let read = |text: &str| {
        let within = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        within.ok_or_else(|| format!("must be from 1 to {LIMIT_MAX}"))
    };
    query.one("limit", read).unwrap_or(LIMIT_DEFAULT)
}

fn yes_or_no(text: &str) -> Result<bool, &'static str> {
    text.parse().map_err(|_| "must be true or false")
}

fn whole(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "must be a whole number of milliseconds")
}

fn gone() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "this process keeps no such trace, or no longer")
}

fn recorder(state: &AdminState) -> Result<&Recorder, Problem> {
    let off = || Problem::new(StatusCode::NOT_FOUND, "nothing is recorded: telemetry.recorder.enabled is false");
    state.reporting.recorder.as_ref().ok_or_else(off)
}
