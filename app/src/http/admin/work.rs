//! What the service works on, as operators see it: `/admin/work` and `/admin/sockets` are what this process knows by itself,
//! and below `/admin/tenants/{id}` are the rows of one tenant, a page at a time, as the tenant sees them. Only
//! `/admin/backlog` looks at all tenants, and says who has the most: it costs the more, the more there is.

use std::sync::Arc;

use actors::broadcast::{ClosedConnection, OpenConnection};
use actors::channels::board::{Entry, OpenBreaker};
use actors::health_sweep::status::Status;
use actors::model::TenantId;
use actors::store::{Before, Channel, JobFilter, JobState, Overview, Place, Tenant};
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use serde::Serialize;
use uuid::Uuid;

use super::AdminState;
use super::traces::limit;
use crate::http::channels::ChannelResource;
use crate::http::jobs::{ExplanationResource, JobResource, listed};
use crate::http::json::Json;
use crate::http::page::{NoQuery, Page, Query};
use crate::http::problem::Problem;
use crate::http::schedules::ScheduleResource;

/// Tenants that are named with their sockets.
const TENANTS: usize = 20;

/// Channels that are named because their breaker is open.
const BREAKERS: usize = 20;

/// Tenants and channels that are named with what waits for them.
const MOST: u32 = 20;

/// The routes of this page.
pub fn routes() -> Router<AdminState> {
    Router::new()
        .route("/admin/work", get(work))
        .route("/admin/sockets", get(sockets))
        .route("/admin/backlog", get(backlog))
        .route("/admin/tenants/{id}/jobs", get(jobs))
        .route("/admin/tenants/{id}/jobs/{job}/explain", get(explain))
        .route("/admin/tenants/{id}/schedules", get(schedules))
        .route("/admin/tenants/{id}/channels", get(channels))
}

/// What is known without asking anybody.
#[derive(Serialize)]
struct Work {
    /// What the service stands on, each with its last checks.
    health: Arc<Vec<Status>>,
    sockets: Sockets,
    channels: InUse,
}

/// Of this process.
#[derive(Serialize)]
struct Sockets {
    open: usize,
    subscriptions: usize,
    tenants: usize,
    draining: bool,
    /// Those with the most, most first.
    top: Vec<OfTenant>,
}

#[derive(Serialize)]
struct OfTenant {
    tenant: TenantId,
    sockets: usize,
    subscriptions: usize,
}

/// Channels that this process sends to, of all tenants.
#[derive(Serialize)]
struct InUse {
    in_use: usize,
    /// Whose breaker is open: nothing is sent there until it has rested.
    open: usize,
    /// Those of them that have been so for the longest, the longest first.
    longest_open: Vec<Opened>,
}

#[derive(Serialize)]
struct Opened {
    tenant: TenantId,
    channel: Uuid,
    open_ms: u64,
}

impl From<OpenBreaker> for Opened {
    fn from(OpenBreaker { tenant, channel, open_for }: OpenBreaker) -> Self {
        Self { tenant, channel, open_ms: u64::try_from(open_for.as_millis()).unwrap_or(u64::MAX) }
    }
}

async fn work(State(state): State<AdminState>, _: NoQuery) -> Json<Work> {
    let (stats, tally) = (state.hub.stats(), state.board.tally());
    let top = state.hub.busiest(TENANTS).into_iter();
    let longest_open = state.board.longest_open(BREAKERS).into_iter().map(Opened::from).collect();
    Json(Work {
        health: state.probes.health.statuses(),
        sockets: Sockets {
            open: stats.sockets,
            subscriptions: stats.subscriptions,
            tenants: stats.tenants,
            draining: stats.draining,
            top: top.map(|(tenant, sockets, subscriptions)| OfTenant { tenant, sockets, subscriptions }).collect(),
        },
        channels: InUse { in_use: tally.in_use, open: tally.open, longest_open },
    })
}

#[derive(Serialize)]
struct Connections {
    /// Of those that are open.
    furthest_behind: Vec<OpenConnection>,
    /// By this process, newest first.
    closed: Vec<ClosedConnection>,
}

/// With `tenant` only its own.
async fn sockets(State(state): State<AdminState>, mut query: Query) -> Result<Json<Connections>, Problem> {
    let tenant = query.one("tenant", |text| TenantId::new(text));
    let limit = limit(&mut query);
    query.finish()?;
    let is_wanted = |closed: &ClosedConnection| tenant.as_ref().is_none_or(|tenant| closed.tenant == *tenant);
    Ok(Json(Connections {
        furthest_behind: state.hub.furthest_behind(tenant.as_ref(), limit),
        closed: state.hub.closed_lately().into_iter().filter(is_wanted).take(limit).collect(),
    }))
}

/// Who has the most jobs, and which channels the most deliveries, that have not ended.
async fn backlog(State(state): State<AdminState>, _: NoQuery) -> Result<Json<Overview>, Problem> {
    Ok(Json(state.store.overview(MOST).await?))
}

/// Newest first; with `state` only those in it, as often as there are states.
async fn jobs(
    State(state): State<AdminState>,
    Path(id): Path<String>,
    mut query: Query,
) -> Result<Json<Page<JobResource>>, Problem> {
    let filter = JobFilter { states: query.all("state", str::parse::<JobState>), ..JobFilter::default() };
    let wanted = query.page("jobs");
    query.finish()?;
    let tenant = known(&state, &id).await?.id;
    let jobs = state.store.list_jobs(&tenant, &filter, wanted.after, wanted.rows()).await?;
    Ok(Json(listed(&wanted, jobs)))
}

/// Why it does not run, as its tenant is told by `GET /v1/jobs/{id}/explain`.
async fn explain(
    State(state): State<AdminState>,
    Path((id, job)): Path<(String, String)>,
) -> Result<Json<ExplanationResource>, Problem> {
    let absent = || Problem::not_found("job");
    let tenant = known(&state, &id).await?.id;
    let job = job.parse::<Uuid>().map_err(|_| absent())?;
    state.scheduler.explain(&tenant, job).await?.map(|explained| Json(explained.into())).ok_or_else(absent)
}

/// Newest first.
async fn schedules(
    State(state): State<AdminState>,
    Path(id): Path<String>,
    mut query: Query,
) -> Result<Json<Page<ScheduleResource>>, Problem> {
    let wanted = query.page("schedules");
    query.finish()?;
    let tenant = known(&state, &id).await?.id;
    let schedules = state.store.list_schedules(&tenant, wanted.after, wanted.rows()).await?;
    Ok(Json(wanted.page(schedules, |schedule| Place { at_ms: schedule.created_at_ms, id: schedule.id })))
}

/// A channel, and what this process knows of its receiver.
#[derive(Serialize)]
struct Sending {
    #[serde(flatten)]
    channel: ChannelResource,
    /// Null if this process does not send to it now.
    receiver: Option<Receiver>,
}

#[derive(Serialize)]
struct Receiver {
    /// Whether its breaker is open.
    open: bool,
    in_flight: usize,
}

impl From<(Channel, Option<Entry>)> for Sending {
    fn from((channel, entry): (Channel, Option<Entry>)) -> Self {
        let receiver = entry.map(|entry| Receiver { open: entry.is_open(), in_flight: entry.in_flight() });
        Self { channel: channel.into(), receiver }
    }
}

/// Newest first.
async fn channels(
    State(state): State<AdminState>,
    Path(id): Path<String>,
    mut query: Query,
) -> Result<Json<Page<Sending>>, Problem> {
    let wanted = query.page::<Uuid>("channels");
    query.finish()?;
    let tenant = known(&state, &id).await?.id;
    let channels = state.store.list_channels(&tenant, Before { id: wanted.after, limit: wanted.rows() }).await?;
    let sending = channels.into_iter().map(|channel| {
        let entry = state.board.find(channel.id);
        (channel, entry)
    });
    Ok(Json(wanted.page(sending.collect(), |(channel, _)| channel.id)))
}

async fn known(state: &AdminState, id: &str) -> Result<Tenant, Problem> {
    let absent = || Problem::not_found("tenant");
    let id = TenantId::new(id).map_err(|_| absent())?;
    state.store.get_tenant(&id).await?.ok_or_else(absent)
}
