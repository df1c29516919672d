//! The operators' views: who beats, what the tree looks like, what went wrong, all metrics. In the development profile
//! also the demo of it all: `POST /dev/panic/{path}` makes a child panic, and
//! `POST /dev/hang/{path}` makes it stand still, `POST /dev/block/{path}` makes it keep its thread.

use std::{sync::Arc, time::Duration};

use actors::liveness_monitor::view::{Liveness, LivenessView};
use axum::Router;
use axum::extract::{Path, State};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use secrecy::SecretString;
use serde::Serialize;
use supervision::{NodeSnapshot, OperationError, Tree};
use telemetry::incidents::{self, Incident, IncidentId};

use super::json::Json;
use super::probes::{Detail, Probes, TreeSlot};
use super::problem::Problem;
use super::{auth, edge};

/// The text format of Prometheus.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// When to come again while the tree is not there yet, in seconds.
const BOOT_RETRY_AFTER_S: u32 = 1;

/// What the admin listener serves from. Cheap to clone.
#[derive(Clone)]
pub struct AdminState {
    /// Asked for on everything but the probes, if there is one.
    pub token: Option<SecretString>,
    /// Whether `/dev/*` is there.
    pub dev: Dev,
    /// The tree, as soon as it stands.
    pub tree: TreeSlot,
    /// The heartbeats.
    pub liveness: LivenessView,
    /// The probes.
    pub probes: Probes,
    /// Writes all metrics in the text format of Prometheus.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// Whether `/dev/*` is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dev {
    /// In the development profile.
    Served,
    /// Everywhere else: 404, as if it did not exist.
    Absent,
}

/// The router of the admin listener.
pub fn router(state: AdminState) -> Router {
    let mut views = Router::new()
        .route("/metrics", get(metrics))
        .route("/admin/liveness", get(liveness))
        .route("/admin/tree", get(tree))
        .route("/admin/incidents", get(incident_list))
        .route("/admin/incidents/{id}", get(incident));
    if state.dev == Dev::Served {
        views = views
            .route("/dev/panic/{*path}", post(panic))
            .route("/dev/hang/{*path}", post(hang))
            .route("/dev/block/{*path}", post(block));
    }
    let probes = Router::from(state.probes.router(Detail::Reasons));
    views
        .route_layer(from_fn_with_state(state.token.clone(), auth::operator))
        .with_state(state)
        .merge(probes)
        .layer(from_fn_with_state("admin", edge::edge))
}

async fn metrics(State(state): State<AdminState>) -> Response {
    ([(CONTENT_TYPE, PROMETHEUS_TEXT)], (state.metrics)()).into_response()
}

async fn liveness(State(state): State<AdminState>) -> Json<Liveness> {
    Json(state.liveness.snapshot())
}

async fn tree(State(state): State<AdminState>) -> Result<Json<NodeSnapshot>, Problem> {
    Ok(Json(standing(&state)?.snapshot()))
}

#[derive(Serialize)]
struct Incidents {
    items: Vec<Arc<Incident>>,
}

/// Newest first, all that are kept.
async fn incident_list() -> Json<Incidents> {
    Json(Incidents { items: incidents::recent(incidents::KEPT_MAX) })
}

async fn incident(Path(id): Path<String>) -> Result<Json<Arc<Incident>>, Problem> {
    let found = id.parse::<IncidentId>().ok().and_then(incidents::get);
    found.map(Json).ok_or_else(|| Problem::not_found("incident"))
}

#[derive(Serialize)]
struct Injected {
    path: String,
    injected: &'static str,
}

/// Any child, a leaf or a supervisor, by its path with dots or slashes.
async fn panic(
    State(state): State<AdminState>,
    Path(path): Path<String>,
) -> Result<(StatusCode, Json<Injected>), Problem> {
    let named = supervision::Path::from(path.as_str());
    injected("panic", &named, standing(&state)?.inject_panic(named.clone()).await)
}

/// Any child stands still, deaf to all but a kill.
async fn hang(
    State(state): State<AdminState>,
    Path(path): Path<String>,
) -> Result<(StatusCode, Json<Injected>), Problem> {
    let named = supervision::Path::from(path.as_str());
    injected("hang", &named, standing(&state)?.inject_hang(named.clone()).await)
}

/// For how long a drill keeps a thread.
const BLOCK: Duration = Duration::from_secs(5);

/// Any child keeps its thread for [`BLOCK`], and then panics.
async fn block(
    State(state): State<AdminState>,
    Path(path): Path<String>,
) -> Result<(StatusCode, Json<Injected>), Problem> {
    let named = supervision::Path::from(path.as_str());
    injected("block", &named, standing(&state)?.inject_block(named.clone(), BLOCK).await)
}

fn injected(
    fault: &'static str,
    named: &supervision::Path,
    outcome: Result<(), OperationError>,
) -> Result<(StatusCode, Json<Injected>), Problem> {
    match outcome {
        Ok(()) => Ok((StatusCode::ACCEPTED, Json(Injected { path: named.to_string(), injected: fault }))),
        Err(OperationError::NotFound | OperationError::IsRoot) => {
            Err(Problem::new(StatusCode::NOT_FOUND, format!("there is no child `{named}` in the tree")))
        }
        Err(other) => Err(Problem::new(StatusCode::CONFLICT, format!("`{named}`: {other}"))),
    }
}

fn standing(state: &AdminState) -> Result<&Tree, Problem> {
    state.tree.get().ok_or_else(|| Problem::unavailable("the tree does not stand yet", BOOT_RETRY_AFTER_S))
}
