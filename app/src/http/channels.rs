//! `/v1/channels`: a tenant's ways out of the house, and what became of what went through them.

use actors::channels::webhook;
use actors::store::{Channel, Delivery, NewChannel};
use axum::extract::State;
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderName, StatusCode};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::ApiState;
use super::idempotency::Effect;
use super::json::Json;
use super::problem::Problem;
use super::resource::{Caller, Faults, Id, time};

/// How many deliveries a list shows, newest first.
const DELIVERIES_MAX: u32 = 100;

/// What `POST /v1/channels` takes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewChannelBody {
    /// `webhook`.
    kind: String,
    /// Where to send, from outside our own network.
    #[schema(format = "uri")]
    url: String,
}

/// A channel as its tenant sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChannelResource {
    id: Uuid,
    tenant: String,
    kind: String,
    url: String,
    /// Shown once, when the channel is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    /// Why it is disabled; null while it is in use.
    disabled: Option<String>,
}

/// A delivery as its tenant sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryResource {
    id: Uuid,
    channel: Uuid,
    job: Option<Uuid>,
    state: &'static str,
    attempt: u32,
    last_status: Option<u16>,
    last_error: Option<String>,
    #[schema(format = DateTime)]
    next_at: String,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    finished_at: Option<String>,
    origin_trace_id: Option<String>,
}

/// A list in an object, so that it can grow a cursor without breaking anyone.
#[derive(Debug, Serialize, ToSchema)]
pub struct Items<T> {
    items: Vec<T>,
}

/// Makes a channel.
///
/// # Errors
/// 422 with the fields that make no sense (a URL that we may not call is one), 503 if the store is away.
#[utoipa::path(post, path = "/v1/channels",
    request_body(content = NewChannelBody, example = json!({"kind": "webhook", "url": "https://example.com/hook"})),
    responses((status = 201, description = "The channel, as it is kept", body = ChannelResource,
        headers(("location" = String, description = "Where it is shown")))))]
pub async fn create(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    effect: Effect,
    Json(body): Json<NewChannelBody>,
) -> Result<Created, Problem> {
    let mut faults = Faults::default();
    faults.require("kind", body.kind == webhook::KIND, || format!("is unknown, must be `{}`", webhook::KIND));
    let url = faults.keep("url", state.targets.check(&body.url)).map(String::from);
    faults.check()?;

    if let Some(channel) = effect.earlier(state.store.get_channel(&tenant, effect.id())).await? {
        return Ok(created(channel));
    }
    let url = url.unwrap_or(body.url);
    let channel = NewChannel { id: effect.id(), tenant, kind: body.kind, url, secret: webhook::new_secret() };
    Ok(created(state.store.create_channel(channel).await?))
}

type Created = (StatusCode, [(HeaderName, String); 2], Json<ChannelResource>);

/// Shows the secret, so nobody on the way may keep it.
fn created(channel: Channel) -> Created {
    let secret = Some(channel.secret.expose_secret().to_owned());
    let headers = [(LOCATION, format!("/v1/channels/{}", channel.id)), (CACHE_CONTROL, "no-store".to_owned())];
    (StatusCode::CREATED, headers, Json(ChannelResource { secret, ..channel.into() }))
}

/// Shows a channel.
///
/// # Errors
/// 404 if the tenant has no such channel, 503 if the store is away.
#[utoipa::path(get, path = "/v1/channels/{id}", params(Id),
    responses((status = 200, description = "The channel", body = ChannelResource)))]
pub async fn get(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    Id(id): Id,
) -> Result<Json<ChannelResource>, Problem> {
    let channel = state.store.get_channel(&tenant, id).await?;
    channel.map(|channel| Json(channel.into())).ok_or_else(|| Problem::not_found("channel"))
}

/// Shows the newest deliveries of a channel.
///
/// # Errors
/// 404 if the tenant has no such channel, 503 if the store is away.
#[utoipa::path(get, path = "/v1/channels/{id}/deliveries", params(Id),
    responses((status = 200, description = "The newest deliveries", body = Items<DeliveryResource>)))]
pub async fn deliveries(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    Id(id): Id,
) -> Result<Json<Items<DeliveryResource>>, Problem> {
    if state.store.get_channel(&tenant, id).await?.is_none() {
        return Err(Problem::not_found("channel"));
    }
    let deliveries = state.store.list_deliveries(&tenant, id, DELIVERIES_MAX).await?;
    Ok(Json(Items { items: deliveries.into_iter().map(DeliveryResource::from).collect() }))
}

impl From<Channel> for ChannelResource {
    fn from(channel: Channel) -> Self {
        Self {
            id: channel.id,
            tenant: channel.tenant.to_string(),
            kind: channel.kind,
            url: channel.url,
            secret: None,
            created_at: time(channel.created_at_ms),
            disabled: channel.disabled,
        }
    }
}

impl From<Delivery> for DeliveryResource {
    fn from(delivery: Delivery) -> Self {
        Self {
            attempt: delivery.charged(),
            id: delivery.id,
            channel: delivery.channel,
            job: delivery.job,
            state: delivery.state.as_str(),
            last_status: delivery.last_status,
            last_error: delivery.last_error,
            next_at: time(delivery.next_at_ms),
            created_at: time(delivery.created_at_ms),
            finished_at: delivery.finished_at_ms.map(time),
            origin_trace_id: delivery.context.origin(),
        }
    }
}
