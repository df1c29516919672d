//! `Idempotency-Key` on every POST: whoever got no answer sends the same request with the same key again, and nothing is
//! done twice ([draft-ietf-httpapi-idempotency-key-header](https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header)).
//!
//! A success is kept and answered again, with `idempotency-replayed: true`. A refusal (4xx) has done nothing, so its key
//! is free. After a 408 or 5xx, a client that went away, or a crash nobody knows what was done: the same request may try
//! again (after a crash when the lease is over), and nothing else under that key.
//!
//! What such a second try does twice: nothing, if the handler takes the id of what it makes from its [`Effect`] and
//! looks with [`Effect::earlier`] whether it is there, as all that make jobs, schedules and channels do. Effect and key do
//! not commit together, but the key remembers the id of the effect before there is one, which comes to the same. A
//! handler that does not may do again what it did before a crash.
//!
//! Neither key nor request is kept, only their hashes; and an answer with `cache-control: no-store`, one that shows a
//! secret, never is. It is made anew from what the first try has made, by the same `earlier`. Keys should be random all
//! the same: within the time that is set, who has the tenant's key and this one sees that answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actors::model::{Millis, TenantId, new_id};
use actors::store::{
    BeginRequest, BegunRequest, Fingerprint, KeptAnswer, RequestEnd, RequestTicket, SharedStore, StoreError,
};
use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use supervision::{Errand, TaskGroup};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::ApiState;
use super::json;
use super::problem::{FieldError, Problem};
use super::resource::Caller;

telemetry::labels! {
    /// What became of a request with a key.
    pub struct Begun { outcome: BegunOutcome }
}

telemetry::label_values! {
    /// What became of a request with a key.
    pub enum BegunOutcome {
        First = "first",
        Again = "again",
        Replayed = "replayed",
        Pending = "pending",
        Differs = "differs",
        Full = "full",
    }
}

telemetry::declare_metrics! {
    /// Requests with a key of their own, by what became of them.
    pub static IDEMPOTENT: Counter<Begun> = ("http.server.idempotent", "{request}");
}

/// The key, in.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Out, if the answer is that of an earlier try.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The longest key, in characters.
pub const KEY_MAX: usize = 255;

/// A longer answer is not kept, but made anew.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// The headers of an answer that are kept with it.
const KEPT_HEADERS: [HeaderName; 2] = [CONTENT_TYPE, LOCATION];

/// When to come again while the first try goes on, in seconds.
const PENDING_RETRY_AFTER_S: u32 = 1;

/// When to come again with one key too many, in seconds.
const FULL_RETRY_AFTER_S: u32 = 60;

/// The name of the tasks that help a request.
const TASK: &str = "idempotency";

/// The middleware. Requests without the header, and those that are no POST, pass.
pub async fn idempotent(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    request: Request,
    next: Next,
) -> Response {
    let key = if request.method() == Method::POST { key(request.headers()) } else { Ok(None) };
    let answer = match key {
        Ok(Some(key)) => once(&state, tenant, &key, request, next).await,
        Ok(None) => return next.run(request).await,
        Err(malformed) => Err(malformed),
    };
    answer.unwrap_or_else(Problem::into_response)
}

async fn once(
    state: &ApiState,
    tenant: TenantId,
    key: &str,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let body = json::read(body, state).await?;
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let begin = BeginRequest {
        tenant,
        key: Fingerprint::of(&[key.as_bytes()]),
        fingerprint: Fingerprint::of(&[parts.method.as_str().as_bytes(), target.as_bytes(), &body]),
        effect: new_id(),
        lease_ms: ms(state.idempotency.lease),
        keep_ms: ms(state.idempotency.keep),
        held_max: state.idempotency.keys_max,
    };
    let (begun, attempt) = Try::begin(state, begin).await?;
    let begun = begun?;
    IDEMPOTENT.add(1, Begun { outcome: outcome(&begun) });
    let (effect, history) = match begun {
        BegunRequest::First(ticket) => (ticket.effect, History::First),
        BegunRequest::Again(ticket) => (ticket.effect, History::Again(Arc::default())),
        BegunRequest::Answered(kept) => return repeated(kept),
        BegunRequest::Pending => return Err(pending()),
        BegunRequest::Differs => return Err(differs()),
        BegunRequest::Full => return Err(full(state.idempotency.keys_max)),
    };
    parts.extensions.insert(Effect { id: effect, history: history.clone() });
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    let (mut response, end) = end_of(response, &history).await;
    attempt.end(end).await;
    if history.was_found() {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// What the answer of a handler means for its key.
async fn end_of(response: Response, history: &History) -> (Response, RequestEnd) {
    let status = response.status();
    if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT && matches!(history, History::First) {
        return (response, RequestEnd::Undone);
    }
    let is_secret = response.headers().get(CACHE_CONTROL).is_some_and(|value| value.as_bytes() == b"no-store");
    let is_short = response.body().size_hint().upper().is_some_and(|bytes| bytes <= ANSWER_BYTES_MAX);
    if status.is_client_error() || status.is_server_error() || is_secret || !is_short {
        return (response, RequestEnd::Open);
    }
    let (parts, body) = response.into_parts();
    // Its size is known, and it is in memory: nothing can be lost here.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let text = |name: &HeaderName| {
        let value = parts.headers.get(name)?.to_str().ok()?;
        Some((name.as_str().to_owned(), value.to_owned()))
    };
    let kept = KeptAnswer {
        status: status.as_u16(),
        headers: KEPT_HEADERS.iter().filter_map(text).collect(),
        body: body.to_vec(),
    };
    (Response::from_parts(parts, Body::from(body)), RequestEnd::Answered(kept))
}

fn repeated(kept: KeptAnswer) -> Result<Response, Problem> {
    let unreadable = || Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the kept answer cannot be read");
    let mut response = Response::new(Body::from(kept.body));
    *response.status_mut() = StatusCode::from_u16(kept.status).map_err(|_| unreadable())?;
    for (name, value) in kept.headers {
        let name = HeaderName::try_from(name).map_err(|_| unreadable())?;
        response.headers_mut().insert(name, HeaderValue::try_from(value).map_err(|_| unreadable())?);
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

/// One try. Whatever cuts it short (a timeout, a panic, a client that goes away) leaves the request open, at once.
struct Try {
    store: SharedStore,
    tasks: TaskGroup,
    ticket: Option<RequestTicket>,
}

impl Try {
    async fn begin(state: &ApiState, begin: BeginRequest) -> Result<(Result<BegunRequest, StoreError>, Self), Problem> {
        let mut attempt = Self { store: Arc::clone(&state.store), tasks: state.sockets.clone(), ticket: None };
        let tenant = begin.tenant.clone();
        apart(&state.sockets, &tenant, async move {
            let begun = attempt.store.begin_request(begin).await;
            if let Ok(BegunRequest::First(ticket) | BegunRequest::Again(ticket)) = &begun {
                attempt.ticket = Some(ticket.clone());
            }
            (begun, attempt)
        })
        .await
    }

    /// The answer is given in any case: if its end cannot be written down, a second try finds the effect.
    async fn end(mut self, end: RequestEnd) {
        let Some(ticket) = &self.ticket else { return };
        match self.store.end_request(ticket, end).await {
            Ok(_) => self.ticket = None,
            Err(error) => tracing::warn!(%error, "the end of a request with a key is not written down"),
        }
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let store = Arc::clone(&self.store);
            let errand = errand(&ticket.tenant, "the key is held until its lease is over");
            self.tasks.spawn_errand(TASK, errand, async move {
                // If the store is away the lease ends by itself.
                let _ = store.end_request(&ticket, RequestEnd::Open).await;
            });
        }
    }
}

/// Begins a request in a task of its own: a client that goes away in the middle of the commit must not take the ticket with it.
async fn apart<T: Send + 'static>(
    tasks: &TaskGroup,
    tenant: &TenantId,
    begin: impl Future<Output = T> + Send + 'static,
) -> Result<T, Problem> {
    let (tell, told) = oneshot::channel();
    tasks.spawn_errand(TASK, errand(tenant, "the request was answered 503, nothing of it was done"), async move {
        // If nobody listens any more, what has begun is dropped here.
        let _ = tell.send(begin.await);
    });
    // It panicked, or the process is stopping.
    told.await.map_err(|_| Problem::unavailable("nothing of this request was done, try again", PENDING_RETRY_AFTER_S))
}

fn errand(tenant: &TenantId, if_it_panics: &'static str) -> Errand {
    Errand { tenant: Some(tenant.to_string()), if_it_panics: Some(if_it_panics), ..Errand::default() }
}

/// What a request is going to make: the same at every try of a request with a key.
#[derive(Debug, Clone)]
pub struct Effect {
    id: Uuid,
    history: History,
}

#[derive(Debug, Clone)]
enum History {
    First,
    /// Whether the effect of an earlier try was found.
    Again(Arc<AtomicBool>),
}

impl Effect {
    /// The id to give it.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The id to give the `n`th of several; the first has [`Effect::id`]. Where all are made or none,
    /// it is enough to look for that one.
    pub fn nth(&self, n: usize) -> Uuid {
        Uuid::from_u128(self.id.as_u128().wrapping_add(n as u128))
    }

    /// When the first try of this request began, by its process's clock, in milliseconds since 1970.
    pub fn since_ms(&self) -> Millis {
        let (seconds, nanos) = self.id.get_timestamp().map_or((0, 0), |at| at.to_unix());
        i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000).saturating_add(i64::from(nanos / 1_000_000))
    }

    /// What an earlier try of this request has made, if there was one; otherwise nobody is asked.
    ///
    /// # Errors
    /// What `look` says.
    pub async fn earlier<T>(
        &self,
        look: impl Future<Output = Result<Option<T>, StoreError>>,
    ) -> Result<Option<T>, StoreError> {
        let History::Again(was_found) = &self.history else { return Ok(None) };
        let found = look.await?;
        was_found.store(found.is_some(), Ordering::Relaxed);
        Ok(found)
    }
}

impl History {
    fn was_found(&self) -> bool {
        matches!(self, Self::Again(found) if found.load(Ordering::Relaxed))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Effect {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let given = parts.extensions.get::<Self>().cloned();
        Ok(given.unwrap_or_else(|| Self { id: new_id(), history: History::First }))
    }
}

/// The key: visible ASCII, bare or as a string of RFC 8941, which is what the draft asks for. `"a"` and `a` are the same.
fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let read =
        value.to_str().ok().and_then(|text| if text.starts_with('"') { unquoted(text) } else { Some(text.into()) });
    let good = read.filter(|key| {
        (1..=KEY_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) && values.next().is_none()
    });
    good.map(Some).ok_or_else(|| {
        let reason = format!("must be one key of 1 to {KEY_MAX} visible ASCII characters, with or without quotes");
        of_key(StatusCode::BAD_REQUEST, reason)
    })
}

/// A string of RFC 8941 without its quotes; `\"` and `\\` are its only escapes.
fn unquoted(text: &str) -> Option<String> {
    let mut inner = text.strip_prefix('"')?.strip_suffix('"')?.chars();
    let mut key = String::new();
    while let Some(next) = inner.next() {
        match next {
            '\\' => key.push(inner.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            '"' => return None,
            plain => key.push(plain),
        }
    }
    Some(key)
}

fn pending() -> Problem {
    let reason = "belongs to a request that is still being worked on".to_owned();
    of_key(StatusCode::CONFLICT, reason).with_header(RETRY_AFTER, HeaderValue::from(PENDING_RETRY_AFTER_S))
}

fn differs() -> Problem {
    of_key(StatusCode::UNPROCESSABLE_ENTITY, "belongs to another request: other path or other body".to_owned())
}

fn full(keys_max: u32) -> Problem {
    let reason = format!("is one too many: a tenant may have {keys_max} at a time");
    of_key(StatusCode::TOO_MANY_REQUESTS, reason).with_header(RETRY_AFTER, HeaderValue::from(FULL_RETRY_AFTER_S))
}

fn of_key(status: StatusCode, reason: String) -> Problem {
    let field = IDEMPOTENCY_KEY.as_str().to_owned();
    Problem::new(status, format!("`{field}`: {reason}")).with_errors(vec![FieldError { field, reason }])
}

fn outcome(begun: &BegunRequest) -> BegunOutcome {
    match begun {
        BegunRequest::First(_) => BegunOutcome::First,
        BegunRequest::Again(_) => BegunOutcome::Again,
        BegunRequest::Answered(_) => BegunOutcome::Replayed,
        BegunRequest::Pending => BegunOutcome::Pending,
        BegunRequest::Differs => BegunOutcome::Differs,
        BegunRequest::Full => BegunOutcome::Full,
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
