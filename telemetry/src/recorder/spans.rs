//! One span of a trace as it is shown.

use super::LogView;
use super::values::{Attributes, kind, nanos};
use opentelemetry::trace::{Event, Link, SpanId, Status as SdkStatus};
use opentelemetry_sdk::trace::SpanData;
use serde::Serialize;
use std::collections::HashMap;

/// A span that has ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpanView {
    /// Its id, 16 hex digits.
    pub span_id: String,
    /// The span above it; null for a root.
    pub parent_span_id: Option<String>,
    /// Whether that is in another process.
    pub parent_is_remote: bool,
    /// Its name.
    pub name: String,
    /// `internal`, `server`, `client`, `producer` or `consumer`.
    pub kind: &'static str,
    /// When it started, nanoseconds since the epoch.
    pub start_unix_nano: u64,
    /// When it ended.
    pub end_unix_nano: u64,
    /// When it started, in nanoseconds since the trace began: small enough for any reader of JSON.
    pub offset_ns: u64,
    /// How long it took.
    pub duration_ns: u64,
    /// How it went.
    pub status: Status,
    /// What is known of it.
    pub attributes: Attributes,
    /// What happened in it.
    pub events: Vec<EventView>,
    /// What else it has to do with.
    pub links: Vec<LinkView>,
    /// Its log records, oldest first.
    pub logs: Vec<LogView>,
    /// Whether the sampler lets it out of the process.
    pub sampled: bool,
    /// Attributes, events and links beyond the SDK's limits.
    pub dropped: u32,
}

/// How a span went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// `unset`, `ok` or `error`.
    pub code: &'static str,
    /// What was wrong.
    pub message: Option<String>,
}

/// Something that happened in a span.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventView {
    /// What: `panic.recovered`.
    pub name: String,
    /// When, nanoseconds since the epoch.
    pub time_unix_nano: u64,
    /// The same, in nanoseconds since the trace began.
    pub offset_ns: u64,
    /// What is known of it.
    pub attributes: Attributes,
}

/// Another span that a span has to do with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LinkView {
    /// Its trace.
    pub trace_id: String,
    /// Its id.
    pub span_id: String,
    /// What is known of the link.
    pub attributes: Attributes,
}

impl SpanView {
    /// In a trace that began then.
    pub(super) fn new(span: &SpanData, began: u64) -> Self {
        let (start, end) = (nanos(span.start_time), nanos(span.end_time));
        Self {
            span_id: span.span_context.span_id().to_string(),
            parent_span_id: Some(span.parent_span_id).filter(|id| *id != SpanId::INVALID).map(|id| id.to_string()),
            parent_is_remote: span.parent_span_is_remote,
            name: span.name.to_string(),
            kind: kind(&span.span_kind),
            start_unix_nano: start,
            end_unix_nano: end,
            offset_ns: start.saturating_sub(began),
            duration_ns: end.saturating_sub(start),
            status: Status::from(&span.status),
            attributes: Attributes::from(&span.attributes),
            events: span.events.iter().map(|event| EventView::new(event, began)).collect(),
            links: span.links.iter().map(LinkView::from).collect(),
            logs: Vec::new(),
            sampled: span.span_context.is_sampled(),
            dropped: span.dropped_attributes_count + span.events.dropped_count + span.links.dropped_count,
        }
    }
}

impl EventView {
    fn new(event: &Event, began: u64) -> Self {
        let at = nanos(event.timestamp);
        let attributes = Attributes::from(&event.attributes);
        Self { name: event.name.to_string(), time_unix_nano: at, offset_ns: at.saturating_sub(began), attributes }
    }
}

impl From<&Link> for LinkView {
    fn from(link: &Link) -> Self {
        Self {
            trace_id: link.span_context.trace_id().to_string(),
            span_id: link.span_context.span_id().to_string(),
            attributes: Attributes::from(&link.attributes),
        }
    }
}

impl From<&SdkStatus> for Status {
    fn from(status: &SdkStatus) -> Self {
        match status {
            SdkStatus::Unset => Self { code: "unset", message: None },
            SdkStatus::Ok => Self { code: "ok", message: None },
            SdkStatus::Error { description } => {
                let message = Some(description.to_string()).filter(|text| !text.is_empty());
                Self { code: "error", message }
            }
        }
    }
}

/// Gives each span its log records, which come newest first; those of other spans are left.
pub(super) fn place(logs: &mut Vec<LogView>, spans: &mut [SpanView]) {
    let at: HashMap<String, usize> = spans.iter().enumerate().map(|(at, span)| (span.span_id.clone(), at)).collect();
    let place = |log: &LogView| log.span_id.as_ref().and_then(|id| at.get(id)).copied();
    let mine: Vec<_> = logs.extract_if(.., |log| place(log).is_some()).collect();
    for log in mine.into_iter().rev() {
        if let Some(at) = place(&log) {
            spans[at].logs.push(log);
        }
    }
}
