//! `/admin/tree/...`: what an operator does to one child of the tree, named by its path with dots or slashes.

use axum::extract::{Path, State};
use http::StatusCode;
use serde::Serialize;
use supervision::{OperationError, StartOutcome};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{AdminState, standing};
use crate::http::json::Json;
use crate::http::problem::Problem;

/// The child that serves this page: it would have to end before it could answer.
const OURSELVES: &str = "admin";

/// The routes of this page.
pub fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new().routes(routes!(restart)).routes(routes!(stop)).routes(routes!(start))
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
pub struct Operated {
    /// The child.
    path: String,
    /// What became of it: `started`, `stopped`, or `ignored` if it declined to start.
    outcome: &'static str,
    /// Which of its incarnations serves now; null if none does.
    incarnation: Option<u64>,
}

/// Stops the child if it runs, forgets its failures and starts it.
#[utoipa::path(post, path = "/admin/tree/restart/{*path}", tag = "tree", params(("path" = String, Path)), responses(
    (status = 200, description = "It serves again", body = Operated),
    (status = 404, description = "There is no such child"),
    (status = 409, description = "The tree refuses, and says why"),
))]
async fn restart(State(state): State<AdminState>, Path(path): Path<String>) -> Result<Json<Operated>, Problem> {
    let path = not_ourselves(&path)?;
    started(&path, standing(&state)?.restart(path.clone()).await)
}

/// Stops the child, until it is started by hand.
#[utoipa::path(post, path = "/admin/tree/stop/{*path}", tag = "tree", params(("path" = String, Path)), responses(
    (status = 200, description = "It is down", body = Operated),
    (status = 404, description = "There is no such child"),
    (status = 409, description = "The tree refuses, and says why"),
))]
async fn stop(State(state): State<AdminState>, Path(path): Path<String>) -> Result<Json<Operated>, Problem> {
    let path = not_ourselves(&path)?;
    let stopped = standing(&state)?.stop_child(path.clone()).await;
    stopped.map_err(|error| refused(&path, &error))?;
    Ok(Json(Operated { path: path.to_string(), outcome: "stopped", incarnation: None }))
}

/// Starts a child that is not running.
#[utoipa::path(post, path = "/admin/tree/start/{*path}", tag = "tree", params(("path" = String, Path)), responses(
    (status = 200, description = "It serves", body = Operated),
    (status = 404, description = "There is no such child"),
    (status = 409, description = "The tree refuses, and says why"),
))]
async fn start(State(state): State<AdminState>, Path(path): Path<String>) -> Result<Json<Operated>, Problem> {
    let path = supervision::Path::from(path.as_str());
    started(&path, standing(&state)?.start_child(path.clone()).await)
}

fn started(path: &supervision::Path, outcome: Result<StartOutcome, OperationError>) -> Result<Json<Operated>, Problem> {
    let (outcome, incarnation) = match outcome.map_err(|error| refused(path, &error))? {
        StartOutcome::Started { incarnation, .. } => ("started", Some(incarnation)),
        StartOutcome::Ignored => ("ignored", None),
    };
    Ok(Json(Operated { path: path.to_string(), outcome, incarnation }))
}

fn not_ourselves(path: &str) -> Result<supervision::Path, Problem> {
    let path = supervision::Path::from(path);
    match path.as_str() {
        OURSELVES => Err(Problem::new(StatusCode::CONFLICT, "`admin` answers this request, and cannot end before it")),
        _ => Ok(path),
    }
}

/// What the tree says to an operation that it does not carry out.
pub(super) fn refused(path: &supervision::Path, error: &OperationError) -> Problem {
    match error {
        OperationError::NotFound | OperationError::IsRoot => {
            Problem::new(StatusCode::NOT_FOUND, format!("there is no child `{path}` in the tree"))
        }
        OperationError::Timeout => Problem::new(StatusCode::GATEWAY_TIMEOUT, format!("`{path}`: {error}")),
        other => Problem::new(StatusCode::CONFLICT, format!("`{path}`: {other}")),
    }
}
