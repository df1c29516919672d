//! `/admin/tenants`: making tenants, and changing what they may do. What is changed here holds in this process with the
//! answer, and in others a few seconds later.

use actors::model::TenantId;
use actors::store::{JOB_WEIGHT_DEFAULT, KeyHash, Quotas, Tenant, new_key};
use axum::Extension;
use axum::extract::{Path, State};
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderName, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::AdminState;
use crate::audit::Subject;
use crate::http::allowance::Bounds;
use crate::http::json::Json;
use crate::http::page::{Page, Query, Wanted};
use crate::http::problem::Problem;
use crate::http::resource::{Faults, time};

/// The routes of this page.
pub fn routes() -> OpenApiRouter<AdminState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get))
        .routes(routes!(rotate_key))
        .routes(routes!(disable))
        .routes(routes!(enable))
        .routes(routes!(set_quotas))
}

/// What makes a tenant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTenantBody {
    /// 1 to 64 of a-z, 0-9, _ and -
    #[schema(value_type = String, pattern = "^[a-z0-9_-]{1,64}$")]
    id: TenantId,
}

/// A tenant as operators see it.
#[derive(Debug, Serialize, ToSchema)]
pub struct TenantResource {
    /// Its name.
    #[schema(value_type = String)]
    pub id: TenantId,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// Since when it may do nothing, RFC 3339; null while it may.
    pub disabled_at: Option<String>,
    /// Its own limits; null is the default.
    pub quotas: QuotasBody,
    /// What it may have, all told.
    pub in_force: InForce,
}

/// A tenant with a new key.
#[derive(Debug, Serialize, ToSchema)]
pub struct TenantWithKey {
    /// The tenant.
    #[serde(flatten)]
    tenant: TenantResource,
    /// Its key, shown this once: only a hash of it is kept.
    key: String,
}

/// Limits of a tenant's own. What is left out or null is the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotasBody {
    /// Requests in a second, on average.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub requests_per_s: Option<u32>,
    /// Requests that may come at once after a rest.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub requests_burst: Option<u32>,
    /// Requests worked on at once in one process.
    #[schema(minimum = 1, maximum = 100_000)]
    pub requests_at_once: Option<u32>,
    /// Sockets open in one process.
    #[schema(maximum = 1_000_000)]
    pub sockets: Option<u32>,
    /// Subscriptions of all its sockets in one process.
    #[schema(maximum = 10_000_000)]
    pub subscriptions: Option<u32>,
    /// How much of the claims is its beside other tenants that wait: twice the weight, twice the jobs.
    #[schema(minimum = 1, maximum = 1_000)]
    pub job_weight: Option<u32>,
    /// Jobs that run at a time, in all processes and queues together.
    #[schema(minimum = 1, maximum = 100_000)]
    pub jobs_running: Option<u32>,
    /// Jobs that are not finished and do not run.
    #[schema(maximum = 100_000_000)]
    pub jobs_queued: Option<u32>,
    /// Jobs that start in a second, on average; those of one second at once after a rest. None by default.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub job_starts_per_s: Option<u32>,
}

/// Limits in force.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct InForce {
    requests_per_s: u32,
    requests_burst: u32,
    requests_at_once: u32,
    sockets: usize,
    subscriptions: usize,
    job_weight: u32,
    jobs_running: u32,
    jobs_queued: u32,
    /// Null is no limit.
    job_starts_per_s: Option<u32>,
}

impl TenantResource {
    /// With what it may have if its row does not say otherwise.
    pub fn new(tenant: &Tenant, defaults: Bounds) -> Self {
        let bounds = defaults.of(&tenant.quotas);
        Self {
            id: tenant.id.clone(),
            created_at: time(tenant.created_at_ms),
            disabled_at: tenant.disabled_at_ms.map(time),
            quotas: QuotasBody::from(tenant.quotas),
            in_force: InForce {
                requests_per_s: bounds.requests_per_s,
                requests_burst: bounds.requests_burst,
                requests_at_once: bounds.requests_at_once,
                sockets: bounds.sockets.sockets_max,
                subscriptions: bounds.sockets.subscriptions_max,
                job_weight: tenant.quotas.job_weight.unwrap_or(JOB_WEIGHT_DEFAULT),
                jobs_running: bounds.jobs_running,
                jobs_queued: bounds.jobs_queued,
                job_starts_per_s: tenant.quotas.job_starts_per_s,
            },
        }
    }
}

impl QuotasBody {
    fn checked(self) -> Result<Quotas, Problem> {
        let mut faults = Faults::default();
        faults.within("requests_per_s", self.requests_per_s, 1, 1_000_000);
        faults.within("requests_burst", self.requests_burst, 1, 1_000_000);
        faults.within("requests_at_once", self.requests_at_once, 1, 100_000);
        faults.within("sockets", self.sockets, 0, 1_000_000);
        faults.within("subscriptions", self.subscriptions, 0, 10_000_000);
        faults.within("job_weight", self.job_weight, 1, 1_000);
        faults.within("jobs_running", self.jobs_running, 1, 100_000);
        faults.within("jobs_queued", self.jobs_queued, 0, 100_000_000);
        faults.within("job_starts_per_s", self.job_starts_per_s, 1, 1_000_000);
        faults.check()?;
        Ok(Quotas {
            requests_per_s: self.requests_per_s,
            requests_burst: self.requests_burst,
            requests_at_once: self.requests_at_once,
            sockets: self.sockets,
            subscriptions: self.subscriptions,
            job_weight: self.job_weight,
            jobs_running: self.jobs_running,
            jobs_queued: self.jobs_queued,
            job_starts_per_s: self.job_starts_per_s,
        })
    }
}

impl From<Quotas> for QuotasBody {
    fn from(quotas: Quotas) -> Self {
        Self {
            requests_per_s: quotas.requests_per_s,
            requests_burst: quotas.requests_burst,
            requests_at_once: quotas.requests_at_once,
            sockets: quotas.sockets,
            subscriptions: quotas.subscriptions,
            job_weight: quotas.job_weight,
            jobs_running: quotas.jobs_running,
            jobs_queued: quotas.jobs_queued,
            job_starts_per_s: quotas.job_starts_per_s,
        }
    }
}

/// Tenants by name, a page at a time.
#[utoipa::path(get, path = "/admin/tenants", tag = "tenants",
    params(("cursor" = Option<String>, Query), ("limit" = Option<u32>, Query)), responses(
    (status = 200, description = "A page of tenants", body = Page<TenantResource>),
    (status = 422, description = "A parameter makes no sense"),
))]
async fn list(State(state): State<AdminState>, mut query: Query) -> Result<Json<Page<TenantResource>>, Problem> {
    let wanted: Wanted<TenantId> = query.page("tenants");
    query.finish()?;
    let tenants = state.store.list_tenants(wanted.after.as_ref(), wanted.rows()).await?;
    let tenants: Vec<_> = tenants.iter().map(|tenant| TenantResource::new(tenant, state.bounds)).collect();
    Ok(Json(wanted.page(tenants, |last| last.id.clone())))
}

/// Makes a tenant and its key.
#[utoipa::path(post, path = "/admin/tenants", tag = "tenants", request_body = NewTenantBody, responses(
    (status = 201, description = "The tenant, with its key, which is shown this once", body = TenantWithKey),
    (status = 409, description = "There is a tenant of this name"),
    (status = 422, description = "The name makes no sense"),
))]
async fn create(
    State(state): State<AdminState>,
    Extension(subject): Extension<Subject>,
    Json(body): Json<NewTenantBody>,
) -> Result<(StatusCode, [(HeaderName, String); 1], ShownOnce), Problem> {
    subject.is(body.id.as_str());
    let key = new_key();
    let tenant = state.store.create_tenant(&body.id, &KeyHash::of(key.expose_secret())).await?;
    let location = format!("/admin/tenants/{}", tenant.id);
    let tenant = TenantResource::new(&tenant, state.bounds);
    Ok((StatusCode::CREATED, [(LOCATION, location)], shown_once(tenant, &key)))
}

/// One tenant.
#[utoipa::path(get, path = "/admin/tenants/{id}", tag = "tenants", params(("id" = String, Path)), responses(
    (status = 200, description = "The tenant", body = TenantResource),
    (status = 404, description = "There is none of this name"),
))]
async fn get(State(state): State<AdminState>, Path(id): Path<String>) -> Result<Json<TenantResource>, Problem> {
    let found = state.store.get_tenant(&named(&id)?).await?;
    let tenant = found.ok_or_else(|| Problem::not_found("tenant"))?;
    Ok(Json(TenantResource::new(&tenant, state.bounds)))
}

/// Gives a tenant a new key. The one before opens nothing any more, and the sockets it opened are closed.
#[utoipa::path(post, path = "/admin/tenants/{id}/rotate-key", tag = "tenants", params(("id" = String, Path)), responses(
    (status = 200, description = "The tenant, with its new key, which is shown this once", body = TenantWithKey),
    (status = 404, description = "There is none of this name"),
))]
async fn rotate_key(State(state): State<AdminState>, Path(id): Path<String>) -> Result<ShownOnce, Problem> {
    let key = new_key();
    let tenant = state.store.rotate_tenant_key(&named(&id)?, &KeyHash::of(key.expose_secret())).await?;
    Ok(shown_once(changed(&state, &tenant).await, &key))
}

/// Disables a tenant: its requests are answered 403, its sockets are closed, its jobs and deliveries wait, and its
/// schedules do not fire. What runs already runs on.
#[utoipa::path(post, path = "/admin/tenants/{id}/disable", tag = "tenants", params(("id" = String, Path)), responses(
    (status = 200, description = "The tenant", body = TenantResource),
    (status = 404, description = "There is none of this name"),
))]
async fn disable(State(state): State<AdminState>, Path(id): Path<String>) -> Result<Json<TenantResource>, Problem> {
    let tenant = state.store.disable_tenant(&named(&id)?).await?;
    Ok(Json(changed(&state, &tenant).await))
}

/// Enables a disabled tenant again; what waited goes on.
#[utoipa::path(post, path = "/admin/tenants/{id}/enable", tag = "tenants", params(("id" = String, Path)), responses(
    (status = 200, description = "The tenant", body = TenantResource),
    (status = 404, description = "There is none of this name"),
))]
async fn enable(State(state): State<AdminState>, Path(id): Path<String>) -> Result<Json<TenantResource>, Problem> {
    let tenant = state.store.enable_tenant(&named(&id)?).await?;
    Ok(Json(changed(&state, &tenant).await))
}

/// Replaces a tenant's own limits, all of them.
#[utoipa::path(put, path = "/admin/tenants/{id}/quotas", tag = "tenants", params(("id" = String, Path)),
    request_body = QuotasBody, responses(
    (status = 200, description = "The tenant", body = TenantResource),
    (status = 404, description = "There is none of this name"),
    (status = 422, description = "A limit makes no sense"),
))]
async fn set_quotas(
    State(state): State<AdminState>,
    Path(id): Path<String>,
    Json(body): Json<QuotasBody>,
) -> Result<Json<TenantResource>, Problem> {
    let tenant = state.store.set_tenant_quotas(&named(&id)?, body.checked()?).await?;
    Ok(Json(changed(&state, &tenant).await))
}

type ShownOnce = ([(HeaderName, &'static str); 1], Json<TenantWithKey>);

/// Nobody on the way may keep a key.
fn shown_once(tenant: TenantResource, key: &SecretString) -> ShownOnce {
    ([(CACHE_CONTROL, "no-store")], Json(TenantWithKey { tenant, key: key.expose_secret().to_owned() }))
}

/// Lets this process take note of a change at once.
async fn changed(state: &AdminState, tenant: &Tenant) -> TenantResource {
    state.tenants.catch_up().await;
    TenantResource::new(tenant, state.bounds)
}

/// What is no name of a tenant names none.
fn named(id: &str) -> Result<TenantId, Problem> {
    TenantId::new(id).map_err(|_| Problem::not_found("tenant"))
}
