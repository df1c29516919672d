//! The operators' views: who beats, what the tree looks like, what went wrong, all metrics, the latest traces; and what operators change:
//! tenants, children of the tree, the log filter. Each change leaves a record, see [`crate::audit`]. In the development
//! profile also the demo of it all: `POST /dev/panic/{path}` makes a child panic, and
//! `POST /dev/hang/{path}` makes it stand still, `POST /dev/block/{path}` makes it keep its thread.

mod console;
mod heap;
pub mod live;
mod log_filter;
mod tasks;
pub mod tenants;
mod traces;
mod tree;
mod work;

use std::{sync::Arc, time::Duration};

use actors::broadcast::Hub;
use actors::channels::board::Board;
use actors::liveness_monitor::view::{Liveness, LivenessView};
use actors::scheduler::Scheduler;
use actors::store::SharedStore;
use axum::Router;
use axum::extract::{Path, State};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use supervision::{NodeSnapshot, OperationError, Tree};
use telemetry::incidents::{self, Incident, IncidentId};

use super::allowance::Bounds;
use super::auth::Gatekeeper;
use super::json::{BodyLimit, Json};
use super::page::NoQuery;
use super::probes::{Detail, Probes, TreeSlot};
use super::problem::Problem;
use super::tenants::Tenants;
use super::{auth, edge};
use crate::audit::audit;
use crate::parts::Reporting;
use live::Live;

/// The text format of Prometheus.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// When to come again while the tree is not there yet, in seconds.
const BOOT_RETRY_AFTER_S: u32 = 1;

/// What the admin listener serves from. Cheap to clone.
#[derive(Clone)]
pub struct AdminState {
    /// Asked on everything but the probes.
    pub keeper: Gatekeeper,
    /// Whether `/dev/*` is there.
    pub dev: Dev,
    /// The tree, as soon as it stands.
    pub tree: TreeSlot,
    /// The heartbeats.
    pub liveness: LivenessView,
    /// The probes.
    pub probes: Probes,
    /// Where tenants are kept.
    pub store: SharedStore,
    /// Asked why a job does not run.
    pub scheduler: Scheduler,
    /// What this process knows of them.
    pub tenants: Tenants,
    /// What a tenant may have, if its row does not say otherwise.
    pub bounds: Bounds,
    /// The longest body.
    pub body_bytes_max: usize,
    /// How long a body may take to come.
    pub body_within: Duration,
    /// Metrics, and what is logged.
    pub reporting: Reporting,
    /// Who listens to events.
    pub hub: Arc<Hub>,
    /// How the channels in use are doing.
    pub board: Board,
    /// Who watches.
    pub live: Live,
}

impl BodyLimit for AdminState {
    fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }

    fn body_within(&self) -> Duration {
        self.body_within
    }
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
        .route("/admin/tree", get(whole_tree))
        .route("/admin/incidents", get(incident_list))
        .route("/admin/incidents/{id}", get(incident))
        .route("/debug/tasks", get(tasks::tasks))
        .route("/debug/pprof/heap", get(heap::heap))
        .merge(live::routes())
        .merge(work::routes())
        .merge(traces::routes())
        .merge(Router::from(tenants::routes()))
        .merge(Router::from(tree::routes()))
        .merge(Router::from(log_filter::routes()));
    if state.dev == Dev::Served {
        views = views
            .route("/dev/panic/{*path}", post(panic))
            .route("/dev/hang/{*path}", post(hang))
            .route("/dev/block/{*path}", post(block));
    }
    let probes = Router::from(state.probes.router(Detail::Reasons));
    views
        .route_layer(from_fn_with_state(state.keeper.clone(), auth::operator))
        .route_layer(from_fn(audit))
        .with_state(state)
        .merge(probes)
        .merge(console::router())
        .layer(from_fn_with_state("admin", edge::edge))
}

async fn metrics(State(state): State<AdminState>) -> Response {
    ([(CONTENT_TYPE, PROMETHEUS_TEXT)], (state.reporting.metrics)()).into_response()
}

async fn liveness(State(state): State<AdminState>, _: NoQuery) -> Json<Liveness> {
    Json(state.liveness.snapshot())
}

async fn whole_tree(State(state): State<AdminState>, _: NoQuery) -> Result<Json<NodeSnapshot>, Problem> {
    Ok(Json(standing(&state)?.snapshot()))
}

#[derive(Serialize)]
struct Incidents {
    items: Vec<Arc<Incident>>,
}

/// Newest first, all that are kept.
async fn incident_list(_: NoQuery) -> Json<Incidents> {
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
        Err(error) => Err(tree::refused(named, &error)),
    }
}

fn standing(state: &AdminState) -> Result<&Tree, Problem> {
    state.tree.get().ok_or_else(|| Problem::unavailable("the tree does not stand yet", BOOT_RETRY_AFTER_S))
}
