//! `/v1/channels`: a tenant's ways out of the house. What went through them is in `deliveries.rs`.

use std::time::Duration;

use actors::channels::{slack, telegram, webhook};
use actors::model::TenantId;
use actors::store::{Before, Channel, DeliveryState, NewChannel, NewDelivery};
use axum::extract::State;
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderName, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use telemetry::context::remaining;
use tokio::time::Instant;
use utoipa::ToSchema;
use uuid::Uuid;

use super::ApiState;
use super::deliveries::{DeliveryDetail, detail};
use super::idempotency::Effect;
use super::json::Json;
use super::page::{Page, Query};
use super::problem::Problem;
use super::resource::{Caller, Faults, Id, time};

/// What a test message says.
const TEST_TEXT: &str = "A test of this channel.";

/// The share of what is left of a request's time in which a test waits for its end.
const TEST_SHARE: f64 = 0.8;

/// Time between two looks at a test message.
const TEST_LOOK: Duration = Duration::from_millis(50);

/// Why a channel is disabled, if its tenant wanted it.
const BY_TENANT: &str = "by its tenant";

/// What `POST /v1/channels` takes: what else is needed follows from the kind.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewChannelBody {
    /// `webhook`, `slack` or `telegram`.
    kind: String,
    /// Webhook: where to send to. Slack: the incoming webhook, `https://hooks.slack.com/services/...`, a secret.
    #[schema(value_type = Option<String>)]
    url: Option<SecretString>,
    /// Telegram: the bot's token, a secret.
    #[schema(value_type = Option<String>)]
    bot_token: Option<SecretString>,
    /// Telegram: the chat's number, or the `@name` of a public channel or group.
    chat_id: Option<ChatId>,
}

/// Telegram writes numbers, people write names.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
enum ChatId {
    Number(i64),
    Name(String),
}

/// A channel as its tenant sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChannelResource {
    id: Uuid,
    tenant: String,
    kind: String,
    /// Where it leads; of a Slack webhook all but the last part. A Telegram channel has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// Telegram: which chat.
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_id: Option<String>,
    /// What a webhook is signed with. Shown once, when the channel is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    /// Why it is disabled; null while it is in use.
    disabled: Option<String>,
    /// Nothing is sent before this time, because the receiver asked for it.
    #[schema(format = DateTime)]
    not_before: Option<String>,
    /// Since when nothing has arrived; null after each success.
    #[schema(format = DateTime)]
    failing_since: Option<String>,
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
    let destination = destination(&state, &mut faults, &body);
    faults.check()?;
    if let Some(channel) = effect.earlier(state.store.get_channel(&tenant, effect.id())).await? {
        return Ok(created(channel));
    }
    let Destination { url, secret, chat } = destination.unwrap_or_default();
    let channel = NewChannel { id: effect.id(), tenant, kind: body.kind, url, secret, chat };
    Ok(created(state.store.create_channel(channel).await?))
}

type Created = (StatusCode, [(HeaderName, String); 2], Json<ChannelResource>);

/// Shows the secret, so nobody on the way may keep it. Of all kinds, only a webhook's is ours to tell.
fn created(channel: Channel) -> Created {
    let secret = (channel.kind == webhook::KIND).then(|| channel.secret.expose_secret().to_owned());
    let headers = [(LOCATION, format!("/v1/channels/{}", channel.id)), (CACHE_CONTROL, "no-store".to_owned())];
    (StatusCode::CREATED, headers, Json(ChannelResource { secret, ..channel.into() }))
}

/// Shows the channels of a tenant, the newest first.
///
/// # Errors
/// 422 for parameters that make no sense, 503 if the store is away.
#[utoipa::path(get, path = "/v1/channels",
    params(("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "Channels of a page; 50 if absent"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before")),
    responses((status = 200, description = "A page", body = Page<ChannelResource>)))]
pub async fn list(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    mut query: Query,
) -> Result<Json<Page<ChannelResource>>, Problem> {
    let wanted = query.page::<Uuid>("channels");
    query.finish()?;
    let channels = state.store.list_channels(&tenant, Before { id: wanted.after, limit: wanted.rows() }).await?;
    Ok(Json(wanted.page(channels, |channel| channel.id)))
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

/// Forgets a channel with all its deliveries.
///
/// # Errors
/// 404 if the tenant has no such channel, 503 if the store is away.
#[utoipa::path(delete, path = "/v1/channels/{id}", params(Id), responses((status = 204, description = "It is forgotten")))]
pub async fn delete(State(state): State<ApiState>, Caller(tenant): Caller, Id(id): Id) -> Result<StatusCode, Problem> {
    let deleted = state.store.delete_channel(&tenant, id).await?;
    if deleted { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found("channel")) }
}

/// Disables a channel: what it has not sent is dead and can be sent again later, new notifications are refused.
///
/// # Errors
/// 404 if the tenant has no such channel, 503 if the store is away.
#[utoipa::path(post, path = "/v1/channels/{id}/disable", params(Id),
    responses((status = 200, description = "The channel; one that was disabled keeps its reason", body = ChannelResource)))]
pub async fn disable(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    Id(id): Id,
) -> Result<Json<ChannelResource>, Problem> {
    if state.store.get_channel(&tenant, id).await?.is_none() {
        return Err(Problem::not_found("channel"));
    }
    state.store.disable_channel(id, BY_TENANT).await?;
    get(State(state), Caller(tenant), Id(id)).await
}

/// Enables a channel: its failures are forgotten, and it need not wait. What died stays dead until it is redelivered.
///
/// # Errors
/// 404 if the tenant has no such channel, 503 if the store is away.
#[utoipa::path(post, path = "/v1/channels/{id}/enable", params(Id),
    responses((status = 200, description = "The channel", body = ChannelResource)))]
pub async fn enable(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    Id(id): Id,
) -> Result<Json<ChannelResource>, Problem> {
    if !state.store.enable_channel(&tenant, id).await? {
        return Err(Problem::not_found("channel"));
    }
    state.channels.forget_failures(id);
    state.channels.poke();
    get(State(state), Caller(tenant), Id(id)).await
}

/// Sends one real message, tries it once, and waits for its end.
///
/// # Errors
/// 404 if the tenant has no such channel, 409 if it is disabled, 429 if it has too many deliveries to send, 503 if the
/// store is away.
#[utoipa::path(post, path = "/v1/channels/{id}/test", params(Id),
    responses(
        (status = 200, description = "It was tried: what the receiver said is in `attempts`", body = DeliveryDetail),
        (status = 202, description = "Its turn has not come within the time of a request", body = DeliveryDetail),
        (status = 409, description = "The channel is disabled")))]
pub async fn test(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    Id(id): Id,
    effect: Effect,
) -> Result<(StatusCode, Json<DeliveryDetail>), Problem> {
    if state.store.get_channel(&tenant, id).await?.is_none() {
        return Err(Problem::not_found("channel"));
    }
    let mut delivery = match effect.earlier(state.store.get_delivery(&tenant, effect.id())).await? {
        Some(earlier) => earlier,
        None => state.store.create_delivery(test_message(&tenant, id, &effect)).await?,
    };
    state.channels.poke();
    let until = Instant::now() + remaining().unwrap_or(state.limits.request).mul_f64(TEST_SHARE);
    while is_under_way(delivery.state) && Instant::now() < until {
        tokio::time::sleep(TEST_LOOK).await;
        let now = state.store.get_delivery(&tenant, delivery.id).await?;
        // Deleted with its channel, meanwhile.
        delivery = now.ok_or_else(|| Problem::not_found("channel"))?;
    }
    let status = if is_under_way(delivery.state) { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, Json(detail(&state, delivery).await?)))
}

fn test_message(tenant: &TenantId, channel: Uuid, effect: &Effect) -> NewDelivery {
    let data = json!({ "test": true, "text": TEST_TEXT });
    NewDelivery {
        id: effect.id(),
        text: Some(TEST_TEXT.to_owned()),
        attempts_max: Some(1),
        ..NewDelivery::new(tenant.clone(), channel, data)
    }
}

fn is_under_way(state: DeliveryState) -> bool {
    matches!(state, DeliveryState::Pending | DeliveryState::Sending)
}

/// What a kind needs to be reached.
#[derive(Default)]
struct Destination {
    url: String,
    secret: SecretString,
    chat: Option<String>,
}

/// Checks what was given against what the kind needs. Reasons never repeat a value: most of them are secrets.
fn destination(state: &ApiState, faults: &mut Faults, body: &NewChannelBody) -> Option<Destination> {
    let fields = [
        ("url", body.url.is_some(), [webhook::KIND, slack::KIND].as_slice()),
        ("bot_token", body.bot_token.is_some(), &[telegram::KIND]),
        ("chat_id", body.chat_id.is_some(), &[telegram::KIND]),
    ];
    let kinds = [slack::KIND, telegram::KIND, webhook::KIND];
    if !kinds.contains(&body.kind.as_str()) {
        faults.require("kind", false, || format!("is unknown, must be one of: {}", kinds.join(", ")));
        return None;
    }
    for (field, given, kinds) in fields {
        match (given, kinds.contains(&body.kind.as_str())) {
            (false, true) => faults.require(field, false, || format!("is needed for the kind {}", body.kind)),
            (true, false) => faults.require(field, false, || format!("is not for the kind {}", body.kind)),
            _ => {}
        }
    }
    let rules = state.channels.target_rules();
    match body.kind.as_str() {
        telegram::KIND => {
            let (token, chat) = (body.bot_token.clone(), body.chat_id.as_ref().map(ChatId::text));
            let shape = token.as_ref().is_none_or(|token| telegram::is_token(token.expose_secret()));
            faults.require("bot_token", shape, || "must be a bot's token: digits, a colon, letters".to_owned());
            let shape = chat.as_deref().is_none_or(telegram::is_chat);
            faults.require("chat_id", shape, || "must be a number other than 0, or a @name".to_owned());
            Some(Destination { url: String::new(), secret: token?, chat: Some(chat?) })
        }
        slack::KIND => {
            let checked = slack::check(&rules, &state.channels.bases().slack, body.url.as_ref()?.expose_secret());
            let hook = faults.keep("url", checked)?;
            Some(Destination { url: hook.shown, secret: hook.url, chat: None })
        }
        _ => {
            let url = faults.keep("url", rules.check(body.url.as_ref()?.expose_secret()))?;
            Some(Destination { url: url.into(), secret: webhook::new_secret(), chat: None })
        }
    }
}

impl ChatId {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Name(name) => name.clone(),
        }
    }
}

impl From<Channel> for ChannelResource {
    fn from(channel: Channel) -> Self {
        Self {
            id: channel.id,
            tenant: channel.tenant.to_string(),
            kind: channel.kind,
            url: (!channel.url.is_empty()).then_some(channel.url),
            chat_id: channel.chat,
            secret: None,
            created_at: time(channel.created_at_ms),
            disabled: channel.disabled,
            not_before: channel.not_before_ms.map(time),
            failing_since: channel.failing_since_ms.map(time),
        }
    }
}
