//! `/v1/notifications`: say something through some of a tenant's channels, at once.

use actors::channels::{is_chat, words};
use actors::jobs::NotifyPayload;
use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::ApiState;
use super::deliveries::{DeliveryDetail, detail};
use super::idempotency::Effect;
use super::json::Json;
use super::problem::Problem;
use super::resource::{Caller, Faults, Id};

/// What `POST /v1/notifications` takes, for the document: what is read is [`NotifyPayload`], as a job of the kind `notify`
/// reads it.
///
/// A webhook gets `data`; without any, `{"text": text}`. A chat is told `text`; without one, `data` if they are a text, or
/// their field `text`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its shape matters")]
struct NotificationBody {
    /// One channel; or else
    channel: Option<Uuid>,
    /// several, 20 at most.
    #[schema(min_items = 1, max_items = 20)]
    channels: Option<Vec<Uuid>>,
    /// What is said in words, 40,000 characters at most. A provider that takes less gets it cut.
    text: Option<String>,
    /// What is sent to webhooks.
    data: Option<Value>,
}

/// What became of a notification at once: nothing is lost any more.
#[derive(Debug, Serialize, ToSchema)]
pub struct NotificationResource {
    /// One for each channel, in their order.
    deliveries: Vec<AcceptedDelivery>,
}

/// A delivery that will be sent.
#[derive(Debug, Serialize, ToSchema)]
pub struct AcceptedDelivery {
    id: Uuid,
    channel: Uuid,
}

/// Sends a notification: on 202 each delivery is kept and will be sent at least once.
///
/// # Errors
/// 409 if a channel is disabled, 422 with the fields that make no sense, 429 if a channel has too many deliveries to send,
/// 503 if the store is away. Then nothing is sent.
#[utoipa::path(post, path = "/v1/notifications", request_body = NotificationBody,
    responses(
        (status = 202, description = "The deliveries, one for each channel", body = NotificationResource),
        (status = 409, description = "A channel is disabled; nothing is sent")))]
pub async fn create(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    effect: Effect,
    Json(payload): Json<NotifyPayload>,
) -> Result<Accepted, Problem> {
    let mut faults = Faults::default();
    for (field, reason) in payload.faults() {
        faults.require(field, false, || reason);
    }
    faults.check()?;
    if effect.earlier(state.store.get_delivery(&tenant, effect.id())).await?.is_some() {
        return Ok(accepted(&effect, payload.targets()));
    }

    let mut faults = Faults::default();
    let data = payload.data();
    let is_speechless = words(payload.text.as_deref(), &data).is_none();
    for (n, id) in payload.targets().iter().enumerate() {
        let field = if payload.channels.is_some() { format!("channels[{n}]") } else { "channel".to_owned() };
        match state.store.get_channel(&tenant, *id).await? {
            None => faults.require(&field, false, || "is none of the tenant's channels".to_owned()),
            Some(channel) if is_speechless && is_chat(&channel.kind) => {
                faults.require("text", false, || format!("is needed, for {field} is of the kind {}", channel.kind));
            }
            Some(_) => {}
        }
    }
    faults.check()?;

    let mut deliveries = payload.deliveries(&tenant);
    for (n, delivery) in deliveries.iter_mut().enumerate() {
        delivery.id = effect.nth(n);
    }
    state.store.create_deliveries(deliveries).await?;
    state.channels.poke();
    Ok(accepted(&effect, payload.targets()))
}

type Accepted = (StatusCode, Json<NotificationResource>);

fn accepted(effect: &Effect, channels: &[Uuid]) -> Accepted {
    let one = |(n, channel): (usize, &Uuid)| AcceptedDelivery { id: effect.nth(n), channel: *channel };
    (StatusCode::ACCEPTED, Json(NotificationResource { deliveries: channels.iter().enumerate().map(one).collect() }))
}

/// Shows a delivery of a notification.
///
/// # Errors
/// 404 if the tenant has no such delivery, 503 if the store is away.
#[utoipa::path(get, path = "/v1/notifications/{id}", params(Id),
    responses((status = 200, description = "The delivery with the log of its attempts", body = DeliveryDetail)))]
pub async fn get(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    Id(id): Id,
) -> Result<Json<DeliveryDetail>, Problem> {
    let delivery = state.store.get_delivery(&tenant, id).await?.ok_or_else(|| Problem::not_found("delivery"))?;
    detail(&state, delivery).await.map(Json)
}
