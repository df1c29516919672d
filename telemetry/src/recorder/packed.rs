//! A finished span as it is kept: in one piece of memory.
//!
//! As the SDK hands it over, a span is a dozen pieces all over the heap. Thousands of them would drive what the service works
//! with out of the processor's caches, when they are made and once more when they make room. Packed, it takes a third of
//! that, and nobody touches it until somebody looks.
//!
//! The encoding is [postcard](https://postcard.jamesmunns.com)'s. It never leaves the process.

use super::size::{HELD, Size};
use super::values::nanos;
use opentelemetry::trace::{Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{Array, InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Room for most spans.
const USUAL: usize = 1024;

/// A span with all that is known of it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    bytes: Arc<[u8]>,
    is_failure: bool,
}

impl Packed {
    pub(super) fn new(span: &SpanData) -> Self {
        let (record, mut room) = (Record::from(span), [0; USUAL]);
        let bytes = match postcard::to_slice(&record, &mut room) {
            Ok(bytes) => Arc::from(&*bytes),
            // It can only be too large; and what is empty is read as nothing.
            Err(_) => postcard::to_allocvec(&record).unwrap_or_default().into(),
        };
        Self { bytes, is_failure: span.is_failure() }
    }

    /// What it is, with all its texts where they lie.
    pub(super) fn read(&self) -> Option<Record<'_>> {
        postcard::from_bytes(&self.bytes).ok()
    }
}

impl Size for Packed {
    fn size(&self) -> usize {
        HELD + self.bytes.len()
    }

    fn is_failure(&self) -> bool {
        self.is_failure
    }
}

/// A span whose texts are somebody else's.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record<'a> {
    #[serde(borrow)]
    context: Place<'a>,
    parent: [u8; 8],
    parent_is_remote: bool,
    kind: u8,
    pub(super) name: &'a str,
    /// Nanoseconds since the epoch.
    pub(super) start: u64,
    pub(super) end: u64,
    attributes: Attributes<'a>,
    dropped_attributes: u32,
    events: Vec<Happened<'a>>,
    dropped_events: u32,
    links: Vec<Linked<'a>>,
    dropped_links: u32,
    status: End<'a>,
    #[serde(borrow)]
    scope: Scope<'a>,
}

type Attributes<'a> = Vec<(&'a str, Held<'a>)>;

#[derive(Debug, Serialize, Deserialize)]
struct Place<'a> {
    trace: [u8; 16],
    span: [u8; 8],
    flags: u8,
    is_remote: bool,
    #[serde(borrow)]
    state: Cow<'a, str>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Happened<'a> {
    name: &'a str,
    at: u64,
    #[serde(borrow)]
    attributes: Attributes<'a>,
    dropped_attributes: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Linked<'a> {
    #[serde(borrow)]
    to: Place<'a>,
    #[serde(borrow)]
    attributes: Attributes<'a>,
    dropped_attributes: u32,
}

#[derive(Debug, Serialize, Deserialize)]
enum End<'a> {
    Unset,
    Ok,
    Error(&'a str),
}

#[derive(Debug, Serialize, Deserialize)]
struct Scope<'a> {
    name: &'a str,
    version: Option<&'a str>,
    schema_url: Option<&'a str>,
    #[serde(borrow)]
    attributes: Attributes<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Held<'a> {
    Bool(bool),
    I64(i64),
    F64(f64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
    Bools(Vec<bool>),
    I64s(Vec<i64>),
    F64s(Vec<f64>),
    Texts(Vec<&'a str>),
}

impl Record<'_> {
    pub(super) fn is_failure(&self) -> bool {
        matches!(self.status, End::Error(_))
    }

    /// Whether nothing in this process is above it.
    pub(super) fn is_root(&self) -> bool {
        self.parent_is_remote || self.parent == SpanId::INVALID.to_bytes()
    }

    /// An attribute's text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        text(&self.attributes, name)
    }

    /// The same, of each of its events that has it.
    pub(super) fn texts_of_events(&self, name: &str) -> impl Iterator<Item = &str> {
        self.events.iter().filter_map(move |event| text(&event.attributes, name))
    }

    pub(super) fn links_to(&self, trace: TraceId) -> bool {
        self.links.iter().any(|link| link.to.trace == trace.to_bytes())
    }
}

fn text<'a>(attributes: &'a Attributes<'_>, name: &str) -> Option<&'a str> {
    match attributes.iter().rev().find(|(key, _)| *key == name) {
        Some((_, Held::Text(text))) => Some(text),
        _ => None,
    }
}

impl<'a> From<&'a SpanData> for Record<'a> {
    fn from(span: &'a SpanData) -> Self {
        Self {
            context: Place::from(&span.span_context),
            parent: span.parent_span_id.to_bytes(),
            parent_is_remote: span.parent_span_is_remote,
            kind: number(&span.span_kind),
            name: &span.name,
            start: nanos(span.start_time),
            end: nanos(span.end_time),
            attributes: held(&span.attributes),
            dropped_attributes: span.dropped_attributes_count,
            events: span.events.iter().map(Happened::from).collect(),
            dropped_events: span.events.dropped_count,
            links: span.links.iter().map(Linked::from).collect(),
            dropped_links: span.links.dropped_count,
            status: match &span.status {
                Status::Unset => End::Unset,
                Status::Ok => End::Ok,
                Status::Error { description } => End::Error(description),
            },
            scope: Scope::from(&span.instrumentation_scope),
        }
    }
}

impl From<Record<'_>> for SpanData {
    fn from(record: Record<'_>) -> Self {
        let (mut events, mut links) = (SpanEvents::default(), SpanLinks::default());
        events.events = record.events.into_iter().map(Event::from).collect();
        events.dropped_count = record.dropped_events;
        links.links = record.links.into_iter().map(Link::from).collect();
        links.dropped_count = record.dropped_links;
        Self {
            span_context: record.context.into(),
            parent_span_id: SpanId::from_bytes(record.parent),
            parent_span_is_remote: record.parent_is_remote,
            span_kind: kind(record.kind),
            name: record.name.to_owned().into(),
            start_time: time(record.start),
            end_time: time(record.end),
            attributes: owned(record.attributes),
            dropped_attributes_count: record.dropped_attributes,
            events,
            links,
            status: match record.status {
                End::Unset => Status::Unset,
                End::Ok => Status::Ok,
                End::Error(description) => Status::error(description.to_owned()),
            },
            instrumentation_scope: record.scope.into(),
        }
    }
}

impl From<&SpanContext> for Place<'_> {
    fn from(context: &SpanContext) -> Self {
        Self {
            trace: context.trace_id().to_bytes(),
            span: context.span_id().to_bytes(),
            flags: context.trace_flags().to_u8(),
            is_remote: context.is_remote(),
            state: match context.trace_state() {
                // Nearly all, and this is cheaper.
                state if *state == TraceState::NONE => "".into(),
                state => state.header().into(),
            },
        }
    }
}

impl From<Place<'_>> for SpanContext {
    fn from(place: Place<'_>) -> Self {
        let (trace, span) = (TraceId::from_bytes(place.trace), SpanId::from_bytes(place.span));
        let state = place.state.parse().unwrap_or_default();
        Self::new(trace, span, TraceFlags::new(place.flags), place.is_remote, state)
    }
}

impl<'a> From<&'a Event> for Happened<'a> {
    fn from(event: &'a Event) -> Self {
        let dropped_attributes = event.dropped_attributes_count;
        Self { name: &event.name, at: nanos(event.timestamp), attributes: held(&event.attributes), dropped_attributes }
    }
}

impl From<Happened<'_>> for Event {
    fn from(event: Happened<'_>) -> Self {
        Self::new(event.name.to_owned(), time(event.at), owned(event.attributes), event.dropped_attributes)
    }
}

impl<'a> From<&'a Link> for Linked<'a> {
    fn from(link: &'a Link) -> Self {
        let dropped_attributes = link.dropped_attributes_count;
        Self { to: Place::from(&link.span_context), attributes: held(&link.attributes), dropped_attributes }
    }
}

impl From<Linked<'_>> for Link {
    fn from(link: Linked<'_>) -> Self {
        Self::new(link.to.into(), owned(link.attributes), link.dropped_attributes)
    }
}

impl<'a> From<&'a InstrumentationScope> for Scope<'a> {
    fn from(scope: &'a InstrumentationScope) -> Self {
        let attributes = scope.attributes().map(pair).collect();
        Self { name: scope.name(), version: scope.version(), schema_url: scope.schema_url(), attributes }
    }
}

impl From<Scope<'_>> for InstrumentationScope {
    fn from(scope: Scope<'_>) -> Self {
        let mut builder = Self::builder(scope.name.to_owned()).with_attributes(owned(scope.attributes));
        if let Some(version) = scope.version {
            builder = builder.with_version(version.to_owned());
        }
        if let Some(url) = scope.schema_url {
            builder = builder.with_schema_url(url.to_owned());
        }
        builder.build()
    }
}

fn held(attributes: &[KeyValue]) -> Attributes<'_> {
    attributes.iter().map(pair).collect()
}

fn pair(attribute: &KeyValue) -> (&str, Held<'_>) {
    let value = match &attribute.value {
        Value::Bool(value) => Held::Bool(*value),
        Value::I64(value) => Held::I64(*value),
        Value::F64(value) => Held::F64(*value),
        Value::String(text) => Held::Text(text.as_str().into()),
        Value::Array(Array::Bool(values)) => Held::Bools(values.clone()),
        Value::Array(Array::I64(values)) => Held::I64s(values.clone()),
        Value::Array(Array::F64(values)) => Held::F64s(values.clone()),
        Value::Array(Array::String(values)) => Held::Texts(values.iter().map(StringValue::as_str).collect()),
        other => Held::Text(other.to_string().into()),
    };
    (attribute.key.as_str(), value)
}

fn owned(attributes: Attributes<'_>) -> Vec<KeyValue> {
    let own = |(key, value): (&str, Held<'_>)| KeyValue::new(key.to_owned(), Value::from(value));
    attributes.into_iter().map(own).collect()
}

impl From<Held<'_>> for Value {
    fn from(value: Held<'_>) -> Self {
        match value {
            Held::Bool(value) => value.into(),
            Held::I64(value) => value.into(),
            Held::F64(value) => value.into(),
            Held::Text(text) => text.into_owned().into(),
            Held::Bools(values) => Self::Array(Array::Bool(values)),
            Held::I64s(values) => Self::Array(Array::I64(values)),
            Held::F64s(values) => Self::Array(Array::F64(values)),
            Held::Texts(texts) => {
                let texts = texts.into_iter().map(|text| text.to_owned().into());
                Self::Array(Array::String(texts.collect()))
            }
        }
    }
}

const KINDS: [SpanKind; 5] =
    [SpanKind::Internal, SpanKind::Client, SpanKind::Server, SpanKind::Producer, SpanKind::Consumer];

fn number(kind: &SpanKind) -> u8 {
    KINDS.iter().zip(0..).find_map(|(known, number)| (known == kind).then_some(number)).unwrap_or_default()
}

fn kind(number: u8) -> SpanKind {
    KINDS.get(usize::from(number)).cloned().unwrap_or(SpanKind::Internal)
}

fn time(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes() -> Vec<KeyValue> {
        vec![
            KeyValue::new("text", "schräg \u{1f600}"),
            KeyValue::new("flag", true),
            KeyValue::new("count", -3_i64),
            KeyValue::new("share", 0.1),
            KeyValue::new("texts", Value::Array(Array::String(vec!["a".into(), "".into()]))),
            KeyValue::new("flags", Value::Array(Array::Bool(vec![true, false]))),
            KeyValue::new("counts", Value::Array(Array::I64(vec![i64::MIN, i64::MAX]))),
            KeyValue::new("shares", Value::Array(Array::F64(vec![f64::MAX]))),
        ]
    }

    fn context(number: u64, is_remote: bool) -> SpanContext {
        let state = "vendor=x,other=y".parse().unwrap();
        SpanContext::new(u128::from(number).into(), number.into(), TraceFlags::SAMPLED, is_remote, state)
    }

    fn span(kind: SpanKind, status: Status) -> SpanData {
        let at = |nanos| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
        let (mut events, mut links) = (SpanEvents::default(), SpanLinks::default());
        events.events = vec![Event::new("panic.recovered", at(1_700_000_000_123_456_789), attributes(), 1)];
        events.dropped_count = 2;
        links.links = vec![Link::new(context(9, true), attributes(), 3)];
        links.dropped_count = 4;
        SpanData {
            span_context: context(7, false),
            parent_span_id: SpanId::from(8),
            parent_span_is_remote: true,
            span_kind: kind,
            name: "GET /v1/jobs/{id}".into(),
            start_time: at(1_700_000_000_000_000_001),
            end_time: at(1_700_000_001_000_000_002),
            attributes: attributes(),
            dropped_attributes_count: 5,
            events,
            links,
            status,
            instrumentation_scope: InstrumentationScope::builder("lib")
                .with_version("1.0")
                .with_schema_url("https://example.com/1")
                .with_attributes([KeyValue::new("a", 1_i64)])
                .build(),
        }
    }

    #[test]
    fn a_span_comes_out_as_it_went_in() {
        let statuses = [Status::Unset, Status::Ok, Status::error("no luck"), Status::error("x".repeat(10 * USUAL))];
        for (kind, status) in KINDS.iter().flat_map(|kind| statuses.iter().map(move |status| (kind, status))) {
            let span = span(kind.clone(), status.clone());
            let packed = Packed::new(&span);
            assert_eq!(packed.is_failure(), span.is_failure());
            assert_eq!(SpanData::from(packed.read().unwrap()), span);
        }
    }

    #[test]
    fn a_span_takes_less_than_half_of_what_it_took() {
        let span = span(SpanKind::Server, Status::Ok);
        let (packed, before) = (Packed::new(&span).size(), span.size());
        assert!(2 * packed < before, "{packed} of {before} bytes");
    }
}
