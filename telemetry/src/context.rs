//! How a trace, the id of a request and its deadline cross a mailbox, a header, a row in a table.
//!
//! Two ways, and no third:
//!
//! - One message in process, or a request from outside: the receiver's span is a **child** of the sender's
//!   ([`as_child`], [`adopt`]).
//! - A batch, a timer, a retry, a persistent queue: a **new root** with a link back ([`as_follower`], [`follow`]). It bears
//!   the attribute `origin.trace_id`, the trace where the story began, so that one search finds all of it. A follower of a
//!   follower keeps the first origin.
//!
//! Both carry the [`RequestId`] on, to the last delivery of the last job: all spans and log records below bear it as
//! [`REQUEST_ID_FIELD`]. The [`deadline`] is a child's too, but no follower's: a follower is what outlives its cause. It
//! is never stored; what runs a follower gives it a deadline of its own ([`with_deadline`]).
//!
//! Origin, request id and deadline live in the OpenTelemetry context beside the span, so everything below inherits them.

mod deadline;
mod given;
mod headers;
mod request_id;
mod traceparent;

pub use deadline::{HOP_RESERVE_MAX, OutOfTime, budget, deadline, remaining, with_deadline};
#[cfg(feature = "export")]
pub(crate) use given::GivenOrRandom;
pub use given::{Ids, as_follower_with};
#[cfg(feature = "export")]
pub(crate) use headers::use_global_propagator;
pub use headers::{BadTimeout, REQUEST_ID, REQUEST_TIMEOUT, extract, inject, requested_timeout};
pub use request_id::{REQUEST_ID_FIELD, RequestId};
pub use traceparent::parse_trace_id;

use futures_util::future::Either;
use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::{SpanContext, TraceContextExt as _, TraceId};
use opentelemetry::{Context, KeyValue};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::Instant;
use tracing::{Instrument as _, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Attribute of every span made by [`as_follower`]: the trace where the story began.
pub const ORIGIN_TRACE_ID: &str = "origin.trace_id";

/// Where we are in a trace, for which request, and until when: small enough to travel with every message. Empty when there
/// is nothing of it.
///
/// Serialized as `{"traceparent": ..., "origin": ..., "request_id": ...}`, all optional; what cannot be read back is empty.
/// The deadline stays in the process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct TraceContext {
    span: Option<SpanContext>,
    origin: Option<TraceId>,
    request_id: Option<RequestId>,
    deadline: Option<Instant>,
}

impl TraceContext {
    /// Of the span that is current for OpenTelemetry, whichever API made it, with all that is in force.
    pub fn current() -> Self {
        Context::map_current(Self::of)
    }

    /// Of the innermost span of `context`, with all that is in force there.
    pub fn of(context: &Context) -> Self {
        let span = context.span().span_context().clone();
        Self {
            span: span.is_valid().then_some(span),
            origin: context.get::<Origin>().map(|origin| origin.0),
            request_id: context.get::<RequestId>().cloned(),
            deadline: deadline::of(context),
        }
    }

    /// From what a row or a message stored: a W3C `traceparent` and the trace id of the origin (32 hex digits). What cannot
    /// be read counts as absent: a broken trace must not break the work.
    pub fn from_parts(traceparent: Option<&str>, origin: Option<&str>) -> Self {
        Self {
            span: traceparent.and_then(traceparent::parse),
            origin: origin.and_then(traceparent::parse_trace_id),
            ..Self::default()
        }
    }

    /// The same, for this request.
    #[must_use]
    pub fn with_request_id(mut self, id: Option<RequestId>) -> Self {
        self.request_id = id;
        self
    }

    /// The W3C header value, to be stored or sent.
    pub fn traceparent(&self) -> Option<String> {
        self.span.as_ref().map(traceparent::format)
    }

    /// The trace id, 32 hex digits.
    pub fn trace_id(&self) -> Option<String> {
        self.span.as_ref().map(|span| span.trace_id().to_string())
    }

    /// The span id, 16 hex digits.
    pub fn span_id(&self) -> Option<String> {
        self.span.as_ref().map(|span| span.span_id().to_string())
    }

    /// The trace where the story began, 32 hex digits: the origin in force, else this trace itself.
    pub fn origin(&self) -> Option<String> {
        self.origin_id().map(|id| id.to_string())
    }

    /// The request that it all began with, if it began with one.
    pub fn request_id(&self) -> Option<&RequestId> {
        self.request_id.as_ref()
    }

    /// Nothing at all.
    pub fn is_empty(&self) -> bool {
        self.span.is_none() && self.origin.is_none() && self.request_id.is_none() && self.deadline.is_none()
    }

    /// Whether spans of the trace are kept anywhere. If not, it needs its ids, and no spans.
    pub fn is_recorded(&self) -> bool {
        self.span.as_ref().is_some_and(|span| span.is_sampled() || ALL_IS_RECORDED.load(Ordering::Relaxed))
    }

    /// Does something that is told as a part of this span, also when that has ended: log records bear its ids.
    pub fn scope<T>(&self, work: impl FnOnce() -> T) -> T {
        let _within = self.parent_context().attach();
        work()
    }

    fn origin_id(&self) -> Option<TraceId> {
        self.origin.or_else(|| self.span.as_ref().map(SpanContext::trace_id))
    }

    /// As a parent: what is made under it becomes a child and inherits everything.
    fn parent_context(&self) -> Context {
        let context = self.context(self.origin);
        let context = match self.deadline {
            Some(deadline) => deadline::tightened(&context, deadline),
            None => context,
        };
        match &self.span {
            Some(span) => context.with_remote_span_context(span.clone()),
            None => context,
        }
    }

    /// Above a new root: no span and no deadline, only where it all began.
    fn origin_context(&self) -> Context {
        self.context(self.origin_id())
    }

    fn context(&self, origin: Option<TraceId>) -> Context {
        let context = match origin {
            Some(origin) => Context::new().with_value(Origin(origin)),
            None => Context::new(),
        };
        match &self.request_id {
            Some(id) => context.with_value(id.clone()),
            None => context,
        }
    }
}

/// Two contexts are equal when they name the same span, origin and request, wherever they came from.
impl PartialEq for TraceContext {
    fn eq(&self, other: &Self) -> bool {
        let same_span = self.traceparent() == other.traceparent();
        same_span && self.origin == other.origin && self.request_id == other.request_id
    }
}

impl Eq for TraceContext {}

/// Runs `future` inside `span`, as a child of the sender. Make the span just before: a parent can be set only until the span
/// is entered. An empty parent leaves the span as it is.
pub fn as_child<F: Future>(span: Span, parent: &TraceContext, future: F) -> impl Future<Output = F::Output> {
    let context = parent.parent_context();
    let adopted = adopt(&span, parent);
    inside(span, adopted, context, future)
}

/// Runs `future` inside `span`, a new root that links back to `origin`. Make the span with `parent: None`.
pub fn as_follower<F: Future>(span: Span, origin: &TraceContext, future: F) -> impl Future<Output = F::Output> {
    let context = origin.origin_context();
    let following = follow(&span, origin);
    inside(span, following, context, future)
}

/// Makes `span` a child of `parent`, if there is one, and starts it. Answers whether the span is traced at all: it is
/// not if it is filtered out or nobody subscribes. A span that was already entered keeps the parent it has.
pub fn adopt(span: &Span, parent: &TraceContext) -> bool {
    if !parent.is_empty() {
        // Too late or not traced; the answer below tells.
        let _ = span.set_parent(parent.parent_context());
    }
    is_traced(span)
}

/// Makes `span` a new root that links back to `origin` and bears its trace id. Answers as [`adopt`] does.
pub fn follow(span: &Span, origin: &TraceContext) -> bool {
    let _ = span.set_parent(origin.origin_context());
    link(span, origin);
    if let Some(id) = origin.origin_id() {
        span.set_attribute(ORIGIN_TRACE_ID, id.to_string());
    }
    is_traced(span)
}

/// Links `span` to one more that it has to do with, as a retry to the attempt before.
pub fn link(span: &Span, other: &TraceContext) {
    if let Some(linked) = &other.span {
        span.add_link(linked.clone());
    }
}

fn is_traced(span: &Span) -> bool {
    span.context().span().span_context().is_valid()
}

/// Whether traces are recorded in this process also when they are not sampled.
static ALL_IS_RECORDED: AtomicBool = AtomicBool::new(false);

/// Says so.
#[cfg(feature = "export")]
pub(crate) fn all_is_recorded() {
    ALL_IS_RECORDED.store(true, Ordering::Relaxed);
}

/// The origin in force, as a value of the OpenTelemetry context.
#[derive(Debug, Clone, Copy)]
struct Origin(TraceId);

/// Whether what is made there belongs to a story that has begun elsewhere.
#[cfg(feature = "export")]
pub(crate) fn is_follower(context: &Context) -> bool {
    context.get::<Origin>().is_some()
}

/// A traced span brings its own context along; for any other the context is put in place by hand, so that the ids still
/// reach what lies below.
fn inside<F: Future>(span: Span, traced: bool, context: Context, future: F) -> impl Future<Output = F::Output> {
    let instrumented = future.instrument(span);
    match traced {
        true => Either::Left(instrumented),
        false => Either::Right(instrumented.with_context(context)),
    }
}

/// The attribute that [`follow`] sets, for spans made with the OpenTelemetry API.
pub fn origin_attribute(origin: &TraceContext) -> Option<KeyValue> {
    origin.origin().map(|id| KeyValue::new(ORIGIN_TRACE_ID, id))
}

#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

impl From<Stored> for TraceContext {
    fn from(stored: Stored) -> Self {
        Self::from_parts(stored.traceparent.as_deref(), stored.origin.as_deref())
            .with_request_id(stored.request_id.as_deref().and_then(RequestId::parse))
    }
}

impl From<TraceContext> for Stored {
    fn from(context: TraceContext) -> Self {
        Self {
            traceparent: context.traceparent(),
            origin: context.origin.map(|id| id.to_string()),
            request_id: context.request_id.map(|id| id.to_string()),
        }
    }
}

#[cfg(all(test, feature = "export"))]
mod tests;
