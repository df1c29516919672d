//! The HTTP surface: one router for tenants, one for operators, and the server that serves them.
//!
//! ```text
//! serve ── edge: id, span, metrics, panics, problem documents
//!            ├── probes
//!            └── /v1: gate (places, time) ── tenant (key) ── handler: extract, check, one call, answer
//! ```
//!
//! A handler is thin: it reads a checked body, asks a port one thing, and answers. Every error is a problem document,
//! also those of the router itself.

pub mod admin;
pub mod auth;
mod channels;
pub mod edge;
mod jobs;
mod json;
pub mod lifecycle;
mod limits;
pub mod listener;
pub mod probes;
mod problem;
mod request_id;
mod resource;
mod schedules;
pub mod serve;
pub mod socket;
mod upgrade;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use actors::broadcast::{Hub, Limits as SocketLimits};
use actors::channels::target::TargetRules;
use actors::scheduler::Scheduler;
use actors::store::SharedStore;
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use supervision::TaskGroup;

use auth::DemoKey;

use crate::settings::{Limits, WhileDraining};
use json::BodyLimit;
use limits::Gate;
use probes::{Detail, Probes};

/// What the API serves from. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// Everything durable.
    pub store: SharedStore,
    /// Whether the key that everyone knows opens anything.
    pub demo_key: DemoKey,
    /// Takes jobs and schedules, and knows what can run here.
    pub scheduler: Scheduler,
    /// Where sockets connect to.
    pub hub: Arc<Hub>,
    /// What one tenant may have of sockets and subscriptions.
    pub socket_limits: SocketLimits,
    /// Where the tasks of sockets belong.
    pub sockets: TaskGroup,
    /// Where a tenant's receivers may be.
    pub targets: TargetRules,
    /// The probes.
    pub probes: Probes,
    /// What requests may take.
    pub limits: Limits,
    /// What becomes of requests while the process drains.
    pub while_draining: WhileDraining,
}

impl BodyLimit for ApiState {
    fn body_bytes_max(&self) -> usize {
        self.limits.body_bytes
    }
}

/// The router of the tenants' listener.
pub fn router(state: ApiState) -> Router {
    let tenants = auth::Tenants::new(Arc::clone(&state.store), state.demo_key);
    let lifecycle = Arc::clone(&state.probes.lifecycle);
    let gate = Gate::new(state.limits.concurrency, state.limits.request, lifecycle, state.while_draining);
    let probes = state.probes.router(Detail::WordOnly);
    Router::new()
        .route("/v1/jobs", post(jobs::create))
        .route("/v1/jobs/{id}", get(jobs::get))
        .route("/v1/schedules", post(schedules::create))
        .route("/v1/schedules/{id}", get(schedules::get))
        .route("/v1/channels", post(channels::create))
        .route("/v1/channels/{id}", get(channels::get))
        .route("/v1/channels/{id}/deliveries", get(channels::deliveries))
        .route("/v1/socket", get(upgrade::open))
        .route_layer(from_fn_with_state(tenants, auth::tenant))
        .route_layer(from_fn_with_state(gate, limits::gate))
        .with_state(state)
        .merge(probes)
        .layer(from_fn_with_state("api", edge::edge))
}
