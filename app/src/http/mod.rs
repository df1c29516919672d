//! The HTTP surface: one router for tenants, one for operators, and the server that serves them.
//!
//! ```text
//! serve ── edge: id, span, metrics, panics, problem documents
//!            ├── probes
//!            └── /v1: gate (time) ── tenant (key) ── allow (its rate) ── place ── idempotency (POST) ── handler
//! ```
//!
//! A handler is thin: it reads a checked body, asks a port one thing, and answers. Every error is a problem document,
//! also those of the router itself.
//!
//! **To add a route**: write the handler with `#[utoipa::path(method, path = "/v1/...", ...)]` over it, which names its
//! body, its parameters and its good answer; derive `ToSchema` for the body and the resource; add a line
//! `.routes(routes!(things::create))` to [`of_tenants`] (two methods of one path stand in one line). The path is said
//! nowhere else, the document at `/openapi.json` is made of it, and `openapi.rs` adds the refusals that all routes share.
//! A handler that makes something takes its id from an `Effect` (`idempotency.rs`); one that answers 4xx has done nothing.

pub mod admin;
pub mod allowance;
pub mod auth;
mod channels;
mod deliveries;
mod docs;
pub mod edge;
mod events;
pub mod failures;
mod head;
mod idempotency;
mod jobs;
mod json;
pub mod lifecycle;
mod limits;
pub mod listener;
mod notifications;
mod openapi;
mod page;
pub mod probes;
mod problem;
mod progress;
pub mod resource;
mod schedules;
pub mod serve;
pub mod socket;
mod sse;
pub mod tenants;
mod transport;
mod upgrade;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use actors::broadcast::Hub;
use actors::bus::Bus;
use actors::channel_manager::ChannelManager;
use actors::scheduler::Scheduler;
use actors::store::SharedStore;
use axum::Router;
use axum::middleware::from_fn_with_state;
use supervision::TaskGroup;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::settings::{Idempotency, Limits, WhileDraining};
use allowance::{Allowances, Bounds};
use failures::Failures;
use json::BodyLimit;
use limits::Gate;
use probes::{Detail, Probes};
use tenants::Tenants;

/// What the API serves from. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// Everything durable.
    pub store: SharedStore,
    /// Who the tenants are.
    pub tenants: Tenants,
    /// What wrong keys cost.
    pub failures: Failures,
    /// What a tenant may have, if its row does not say otherwise.
    pub bounds: Bounds,
    /// Takes jobs and schedules, and knows what can run here.
    pub scheduler: Scheduler,
    /// Where events are published.
    pub bus: Arc<dyn Bus>,
    /// Where sockets connect to.
    pub hub: Arc<Hub>,
    /// Where the tasks of sockets belong.
    pub sockets: TaskGroup,
    /// Where a tenant's receivers may be, and who sends to them.
    pub channels: ChannelManager,
    /// The probes.
    pub probes: Probes,
    /// What requests may take.
    pub limits: Limits,
    /// What is kept of requests with a key of their own.
    pub idempotency: Idempotency,
    /// What becomes of requests while the process drains.
    pub while_draining: WhileDraining,
}

impl BodyLimit for ApiState {
    fn body_bytes_max(&self) -> usize {
        self.limits.body_bytes
    }

    fn body_within(&self) -> Duration {
        self.limits.request
    }
}

/// The router of the tenants' listener.
pub fn router(state: ApiState) -> Router {
    let door = auth::Door { tenants: state.tenants.clone(), failures: state.failures.clone() };
    let lifecycle = Arc::clone(&state.probes.lifecycle);
    let gate = Gate::new(state.limits.concurrency, state.limits.request, lifecycle, state.while_draining);
    let mut api = of_tenants();
    openapi::complete(api.get_openapi_mut());
    let api = api
        .route_layer(from_fn_with_state(state.clone(), idempotency::idempotent))
        .route_layer(from_fn_with_state(gate.clone(), limits::place))
        .route_layer(from_fn_with_state(Allowances::new(state.bounds), allowance::allow))
        .route_layer(from_fn_with_state(door, auth::tenant))
        .route_layer(from_fn_with_state(gate, limits::gate))
        .merge(state.probes.router(Detail::WordOnly));
    let (docs, of_docs) = docs::router().split_for_parts();
    let (api, mut document) = OpenApiRouter::with_openapi(openapi::frame()).merge(api).split_for_parts();
    document.merge(of_docs);
    openapi::finish(&mut document);
    api.with_state(state)
        .merge(docs.with_state(docs::Written::from(&document)))
        .layer(from_fn_with_state("api", edge::edge))
}

/// The routes for which a key is needed.
fn of_tenants() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(jobs::create, jobs::list))
        .routes(routes!(jobs::create_batch))
        .routes(routes!(jobs::redrive_many))
        .routes(routes!(jobs::get))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::redrive))
        .routes(routes!(jobs::explain))
        .routes(routes!(schedules::create, schedules::list))
        .routes(routes!(schedules::get, schedules::update, schedules::delete))
        .routes(routes!(schedules::pause))
        .routes(routes!(schedules::resume))
        .routes(routes!(schedules::fires::preview))
        .routes(routes!(schedules::fires::preview_new))
        .routes(routes!(schedules::fires::trigger))
        .routes(routes!(schedules::fires::backfill))
        .routes(routes!(events::publish, events::listen))
        .routes(routes!(channels::create, channels::list))
        .routes(routes!(channels::get, channels::delete))
        .routes(routes!(channels::test))
        .routes(routes!(channels::disable))
        .routes(routes!(channels::enable))
        .routes(routes!(deliveries::deliveries))
        .routes(routes!(deliveries::delivery))
        .routes(routes!(deliveries::redeliver))
        .routes(routes!(notifications::create))
        .routes(routes!(notifications::get))
        .routes(routes!(upgrade::open))
}
