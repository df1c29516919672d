//! `/v1/channels/{id}/deliveries`: what went through a channel, what did not and why, and sending it again.

use actors::store::{Before, Delivery, DeliveryState, LoggedAttempt};
use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::ApiState;
use super::idempotency::Effect;
use super::json::Json;
use super::page::{Page, Query};
use super::problem::Problem;
use super::resource::{Caller, Id, Ids, time};

/// A delivery as its tenant sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryResource {
    id: Uuid,
    channel: Uuid,
    job: Option<Uuid>,
    /// `pending`, `sending`, `sent` or `dead`.
    state: &'static str,
    attempt: u32,
    last_status: Option<u16>,
    /// Why the last attempt failed, or why it is dead.
    last_error: Option<String>,
    /// What the receiver calls it.
    provider_id: Option<String>,
    /// When it is tried next; null once it has ended.
    #[schema(format = DateTime)]
    next_at: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    finished_at: Option<String>,
    origin_trace_id: Option<String>,
}

/// A delivery with what it says and the log of its attempts.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeliveryDetail {
    #[serde(flatten)]
    delivery: DeliveryResource,
    text: Option<String>,
    data: Value,
    /// The oldest first; of very many the newest 50.
    attempts: Vec<AttemptResource>,
}

/// One attempt to deliver.
#[derive(Debug, Serialize, ToSchema)]
pub struct AttemptResource {
    /// When it ended.
    #[schema(format = DateTime)]
    at: String,
    /// How long it took, in milliseconds.
    took_ms: u64,
    /// `sent`, `retry`, `refused`, `dead`, `gone` or `ambiguous`.
    outcome: String,
    /// The kind of failure: `status`, `throttled`, `connect` ...
    class: Option<String>,
    /// The receiver's status.
    status: Option<u16>,
    /// What went wrong.
    error: Option<String>,
    /// The start of the receiver's answer.
    answer: Option<String>,
}

/// Shows the deliveries of a channel, the newest first.
///
/// # Errors
/// 404 if the tenant has no such channel, 422 for parameters that make no sense, 503 if the store is away.
#[utoipa::path(get, path = "/v1/channels/{id}/deliveries",
    params(Id, ("state" = Option<String>, Query, description = "Only `pending`, `sending`, `sent` or `dead` ones"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "Deliveries of a page; 50 if absent"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before")),
    responses((status = 200, description = "A page", body = Page<DeliveryResource>)))]
pub async fn deliveries(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    Id(id): Id,
    mut query: Query,
) -> Result<Json<Page<DeliveryResource>>, Problem> {
    let wanted = query.page::<Uuid>("deliveries");
    let only = query.one("state", |word| {
        let all = [DeliveryState::Pending, DeliveryState::Sending, DeliveryState::Sent, DeliveryState::Dead];
        let found = all.into_iter().find(|state| state.as_str() == word);
        found.ok_or_else(|| format!("must be one of: {}", all.map(DeliveryState::as_str).join(", ")))
    });
    query.finish()?;
    if state.store.get_channel(&tenant, id).await?.is_none() {
        return Err(Problem::not_found("channel"));
    }
    let page = Before { id: wanted.after, limit: wanted.rows() };
    let deliveries = state.store.list_deliveries(&tenant, id, only, page).await?;
    Ok(Json(wanted.page(deliveries, |delivery| delivery.id)))
}

/// Shows a delivery with the log of its attempts.
///
/// # Errors
/// 404 if the channel has no such delivery, 503 if the store is away.
#[utoipa::path(get, path = "/v1/channels/{id}/deliveries/{delivery}", params(Ids),
    responses((status = 200, description = "The delivery", body = DeliveryDetail)))]
pub async fn delivery(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    Ids(channel, id): Ids,
) -> Result<Json<DeliveryDetail>, Problem> {
    let found = state.store.get_delivery(&tenant, id).await?.filter(|delivery| delivery.channel == channel);
    let delivery = found.ok_or_else(|| Problem::not_found("delivery"))?;
    detail(&state, delivery).await.map(Json)
}

/// Sends a dead delivery again: under the same id, with all attempts anew.
///
/// # Errors
/// 404 if the channel has no such delivery, 409 if it is not dead or the channel is disabled, 429 if the channel has too
/// many to send, 503 if the store is away.
#[utoipa::path(post, path = "/v1/channels/{id}/deliveries/{delivery}/redeliver", params(Ids),
    responses(
        (status = 202, description = "It is due again", body = DeliveryResource),
        (status = 409, description = "It is not dead, or the channel is disabled")))]
pub async fn redeliver(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    Ids(channel, id): Ids,
    effect: Effect,
) -> Result<(StatusCode, Json<DeliveryResource>), Problem> {
    let revived = async {
        let found = state.store.get_delivery(&tenant, id).await?;
        // One that had ended before the first try began was not revived by it.
        let is_revived = |delivery: &Delivery| {
            delivery.state != DeliveryState::Dead && delivery.finished_at_ms.is_none_or(|at| at >= effect.since_ms())
        };
        Ok(found.filter(|delivery| delivery.channel == channel && is_revived(delivery)))
    };
    if let Some(delivery) = effect.earlier(revived).await? {
        return Ok((StatusCode::ACCEPTED, Json(delivery.into())));
    }
    let delivery = state.store.redeliver(&tenant, channel, id).await?;
    state.channels.poke();
    Ok((StatusCode::ACCEPTED, Json(delivery.into())))
}

/// A delivery with its log.
pub(super) async fn detail(state: &ApiState, delivery: Delivery) -> Result<DeliveryDetail, Problem> {
    let attempts = state.store.list_attempts(delivery.id).await?;
    Ok(DeliveryDetail {
        text: delivery.text.clone(),
        data: delivery.data.clone(),
        attempts: attempts.into_iter().map(AttemptResource::from).collect(),
        delivery: delivery.into(),
    })
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
            provider_id: delivery.provider_id,
            next_at: delivery.finished_at_ms.is_none().then(|| time(delivery.next_at_ms)),
            created_at: time(delivery.created_at_ms),
            finished_at: delivery.finished_at_ms.map(time),
            origin_trace_id: delivery.context.origin(),
        }
    }
}

impl From<LoggedAttempt> for AttemptResource {
    fn from(LoggedAttempt { at_ms, kept, .. }: LoggedAttempt) -> Self {
        Self {
            at: time(at_ms),
            took_ms: kept.took_ms,
            outcome: kept.outcome,
            class: kept.class,
            status: kept.status,
            error: kept.error,
            answer: kept.answer,
        }
    }
}
