//! `/v1/events`: publish to everyone who listens now, and listen as Server-Sent Events. What is refused is refused here;
//! how a stream goes on is the business of `sse.rs`.

use actors::broadcast::Topic;
use actors::bus::{self, BusError};
use actors::model::{Event, TenantId, TraceContext, now_ms};
use actors::store::KeyHash;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::allowance::SocketQuota;
use super::idempotency::Effect;
use super::json::Json;
use super::page::Query;
use super::problem::{FieldError, Problem};
use super::resource::{Caller, Faults};
use super::serve::Hangup;
use super::sse::{self, Returning};
use super::upgrade::{self, refused};
use super::{ApiState, auth};

/// Events of one request.
pub(super) const BATCH_MAX: usize = 100;

/// When to come again while the bus is away, in seconds.
const BUS_RETRY_AFTER_S: u32 = 2;

/// What a browser sends when it comes back.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Keeps nginx from holding the stream back.
const NO_BUFFERING: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// What `POST /v1/events` takes: one event (`topic`, `data`, perhaps `id`), or up to 100 as `events`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishBody {
    /// Who gets it: 1 to 128 of `a-z A-Z 0-9 _ . : / -`.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128, pattern = "^[a-zA-Z0-9_.:/-]+$")]
    topic: Option<Topic>,
    /// What happened; any JSON, also null.
    #[serde(default, deserialize_with = "given")]
    data: Option<Value>,
    /// As in `events`.
    id: Option<Uuid>,
    /// Several events, published in this order; all are checked before the first is.
    #[schema(min_items = 1, max_items = 100)]
    events: Option<Vec<NewEvent>>,
}

/// One event of several.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEvent {
    /// Who gets it: 1 to 128 of `a-z A-Z 0-9 _ . : / -`.
    #[schema(value_type = String, min_length = 1, max_length = 128, pattern = "^[a-zA-Z0-9_.:/-]+$")]
    topic: Topic,
    /// What happened; any JSON.
    data: Value,
    /// The same for every repetition of the same fact, so that a receiver can drop the second one; made if absent.
    id: Option<Uuid>,
}

/// What was published.
#[derive(Debug, Serialize, ToSchema)]
pub struct Published {
    /// The id of the event, if it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Uuid>,
    /// The ids of the events in their order, if they came as `events`.
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<Vec<Uuid>>,
}

/// Publishes events to everyone who listens at this moment. They are not kept: what must arrive is a job of the kind
/// `publish`, which is tried again.
///
/// # Errors
/// 413 for an event of more than 256 KiB, 422 with the fields that make no sense, 503 if the bus is away; of several events
/// some may have been published then, and the same ids sent again do no harm.
#[utoipa::path(post, path = "/v1/events", request_body = PublishBody,
    responses((status = 202, description = "Published", body = Published),
        (status = 413, description = "The body, or one event in it, is too long")))]
pub async fn publish(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    effect: Effect,
    Json(body): Json<PublishBody>,
) -> Result<(StatusCode, Json<Published>), Problem> {
    let is_batch = body.events.is_some();
    let events = body.events()?.into_iter().enumerate();
    let events: Vec<Event> = events.map(|(index, event)| event.of(&tenant, effect.nth(index))).collect();
    for (index, event) in events.iter().enumerate() {
        let field = if is_batch { format!("events[{index}]") } else { "data".to_owned() };
        bus::check(event).map_err(|error| refused_event(&error, field))?;
    }
    let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
    for event in events {
        state.bus.publish(event).await.map_err(|error| refused_event(&error, String::new()))?;
    }
    let published = if is_batch {
        Published { id: None, ids: Some(ids) }
    } else {
        Published { id: ids.first().copied(), ids: None }
    };
    Ok((StatusCode::ACCEPTED, Json(published)))
}

/// Events as they happen, as Server-Sent Events. Each is a `message` with the same JSON as on a socket; besides there are
/// `welcome`, `gap` (events are missing here) and `reconnect`. What was missed before is not replayed: a client that sends
/// `Last-Event-ID` is welcomed with `"recovered": false`.
///
/// # Errors
/// 406 if the client does not accept a stream, 422 without a topic, with one that is none or one too many, 429 at the tenant's limit of
/// open streams and sockets, 503 while draining or full.
#[utoipa::path(get, path = "/v1/events",
    params(
        ("topic" = Vec<String>, Query, description = "What to listen to; as often as there are topics", explode),
        ("last-event-id" = Option<String>, Header, description = "The last event that was seen"),
    ),
    responses((status = 200, description = "Server-Sent Events", body = String, content_type = "text/event-stream"),
        (status = 406, description = "The client does not accept `text/event-stream`")))]
pub async fn listen(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    SocketQuota(limits): SocketQuota,
    Extension(key): Extension<KeyHash>,
    mut query: Query,
    hangup: Option<Extension<Hangup>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if !accepts_stream(&headers) {
        return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "events are served as text/event-stream only"));
    }
    let topics = query.all("topic", str::parse::<Topic>);
    query.finish()?;
    if topics.is_empty() {
        return Err(invalid("topic", "is missing, at least one is needed"));
    }
    let cancel = state.sockets.token();
    if cancel.is_cancelled() {
        // This incarnation of the listener is at its end: its streams would end before they began.
        return Err(Problem::unavailable("the listener is being started again", 1));
    }
    let subscriber = state.hub.connect(tenant, &topics, limits).map_err(refused)?;
    // As with a socket: whoever closed those of a revoked key has not found this one.
    auth::confirm(&state.tenants, &key).await?;
    let returning = if headers.contains_key(LAST_EVENT_ID) { Returning::Yes } else { Returning::No };
    let errand = upgrade::errand(&subscriber);
    let (stream, body) = sse::open(subscriber, cancel, hangup.map(|found| found.0).unwrap_or_default());
    state.sockets.spawn_errand("sse", errand, stream.run(returning));
    let kind = (CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    let cache = (CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(([kind, cache, NO_BUFFERING], body).into_response())
}

impl PublishBody {
    /// The events, one or several.
    fn events(self) -> Result<Vec<NewEvent>, Problem> {
        let Self { topic, data, id, events } = self;
        let Some(events) = events else {
            let mut faults = Faults::default();
            faults.require("topic", topic.is_some(), || "is missing".to_owned());
            faults.require("data", data.is_some(), || "is missing".to_owned());
            faults.check()?;
            return Ok(topic.zip(data).map(|(topic, data)| NewEvent { topic, data, id }).into_iter().collect());
        };
        let mut faults = Faults::default();
        let alone = topic.is_none() && data.is_none() && id.is_none();
        faults.require("events", alone, || "cannot stand beside topic, data or id".to_owned());
        let count = (1..=BATCH_MAX).contains(&events.len());
        faults.require("events", count, || format!("must have from 1 to {BATCH_MAX} entries"));
        faults.check().map(|()| events)
    }
}

impl NewEvent {
    fn of(self, tenant: &TenantId, id: Uuid) -> Event {
        Event {
            id: self.id.unwrap_or(id),
            tenant: tenant.clone(),
            topic: self.topic.to_string(),
            data: self.data,
            context: TraceContext::current(),
            at_ms: now_ms(),
        }
    }
}

/// Tells a null from what is absent.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn invalid(field: &str, reason: &str) -> Problem {
    Problem::invalid(vec![FieldError { field: field.to_owned(), reason: reason.to_owned() }])
}

fn refused_event(error: &BusError, field: String) -> Problem {
    match error {
        BusError::TooLarge { bytes_max, .. } => {
            let reason = format!("may have {bytes_max} bytes at most, topic and data together");
            let problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("an event {reason}"));
            problem.with_errors(vec![FieldError { field, reason }])
        }
        BusError::Encode(error) => invalid(&field, &error.to_string()),
        BusError::Unavailable(_) | BusError::TimedOut { .. } => {
            tracing::warn!(%error, kind = error.kind(), "the bus did not take an event");
            Problem::unavailable("the bus does not answer, try again", BUS_RETRY_AFTER_S)
        }
    }
}

/// No `Accept` at all accepts everything: <https://www.rfc-editor.org/rfc/rfc9110#name-accept>.
fn accepts_stream(headers: &HeaderMap) -> bool {
    let mut ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    !headers.contains_key(ACCEPT) || ranges.any(is_our_range)
}

fn is_our_range(range: &str) -> bool {
    let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
    let kind = parts.next().unwrap_or_default();
    let refused = parts.any(|parameter| parameter.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)));
    matches!(kind.as_str(), "text/event-stream" | "text/*" | "*/*") && !refused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(values: &[&'static str]) -> bool {
        let headers = values.iter().map(|value| (ACCEPT, HeaderValue::from_static(value)));
        accepts_stream(&headers.collect())
    }

    #[test]
    fn a_stream_goes_to_whoever_accepts_it_or_says_nothing() {
        for good in [&[][..], &["text/event-stream"], &["*/*"], &["application/json, TEXT/*;q=0.5"], &["a/b", "*/*"]] {
            assert!(accepts(good), "{good:?}");
        }
        for bad in
            [&["application/json"][..], &["text/html, text/event-stream;q=0"], &["text/event-stream; q=0.0"], &[""]]
        {
            assert!(!accepts(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_bus_that_is_away_is_503_with_the_time_to_come_again() {
        let problem = refused_event(&BusError::Unavailable("10.0.0.7 refused".to_owned()), String::new());
        assert_eq!(
            (problem.status().as_u16(), problem.write("r").headers()["retry-after"].to_str().unwrap()),
            (503, "2")
        );
        assert!(!problem.detail().contains("10.0"));
    }
}
