//! Spans that have started and not ended: what hangs now.

use super::Recorder;
use super::size::{HELD, attributes, owned};
use super::values::{Attributes, cut, kind, nanos};
use opentelemetry::trace::{SpanId, SpanKind, TraceId};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;
use serde::Serialize;
use std::borrow::Cow;
use std::mem::size_of;
use std::time::{Duration, SystemTime};

/// Attributes of an open span that are kept, and the bytes of each text among them. What comes later is seen at its end.
const ATTRIBUTES_MAX: usize = 16;
const TEXT_MAX: usize = 256;

/// What was known of a span when it started.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) name: Cow<'static, str>,
    kind: SpanKind,
    pub(super) start: SystemTime,
    pub(super) attributes: Vec<KeyValue>,
    /// What it takes, in bytes, as [`super::size`] counts.
    pub(super) size: usize,
}

impl From<SpanData> for Open {
    fn from(span: SpanData) -> Self {
        let mut kept = span.attributes;
        kept.truncate(ATTRIBUTES_MAX);
        let mut size = attributes(&kept);
        // Cheaper than a look at each, and enough for nearly all.
        if size > TEXT_MAX * ATTRIBUTES_MAX {
            kept.iter_mut().for_each(shorten);
            size = attributes(&kept);
        }
        Self {
            size: HELD + size_of::<Self>() + owned(&span.name) + size,
            trace: span.span_context.trace_id(),
            span: span.span_context.span_id(),
            parent: Some(span.parent_span_id).filter(|id| *id != SpanId::INVALID),
            name: span.name,
            kind: span.span_kind,
            start: span.start_time,
            attributes: kept,
        }
    }
}

fn shorten(attribute: &mut KeyValue) {
    match &attribute.value {
        Value::String(text) if text.as_str().len() <= TEXT_MAX => {}
        Value::String(text) => attribute.value = cut(text.as_str(), TEXT_MAX).to_owned().into(),
        Value::Array(_) => attribute.value = "...".into(),
        _ => {}
    }
}

/// A span that has not ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OpenView {
    /// Its trace.
    pub trace_id: String,
    /// Its own id.
    pub span_id: String,
    /// The span above it; null for a root.
    pub parent_span_id: Option<String>,
    /// Its name.
    pub name: String,
    /// `internal`, `server`, `client`, `producer` or `consumer`.
    pub kind: &'static str,
    /// When it started, nanoseconds since the epoch.
    pub start_unix_nano: u64,
    /// For how long it has been open, in milliseconds.
    pub age_ms: u64,
    /// What was known of it when it started.
    pub attributes: Attributes,
}

impl Open {
    fn view(&self, now: SystemTime) -> OpenView {
        let age = now.duration_since(self.start).unwrap_or(Duration::ZERO);
        OpenView {
            trace_id: self.trace.to_string(),
            span_id: self.span.to_string(),
            parent_span_id: self.parent.map(|id| id.to_string()),
            name: self.name.to_string(),
            kind: kind(&self.kind),
            start_unix_nano: nanos(self.start),
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            attributes: Attributes::from(&self.attributes),
        }
    }
}

impl Recorder {
    /// Spans that have not ended, oldest first, at most `limit`, and how many there are.
    pub fn open(&self, limit: usize) -> (Vec<OpenView>, usize) {
        let mut open = self.shards().open();
        open.sort_by_key(|span| span.start);
        let now = SystemTime::now();
        (open.iter().take(limit).map(|span| span.view(now)).collect(), open.len())
    }

    /// The open spans of one trace, oldest first.
    pub(super) fn open_of(&self, trace: TraceId, limit: usize) -> Vec<OpenView> {
        let mut open = self.shards().open_of(trace);
        open.sort_by_key(|span| span.start);
        let now = SystemTime::now();
        open.iter().take(limit).map(|span| span.view(now)).collect()
    }
}
