//! Traces as they are shown: summaries of many, and one with all that is known of it.

use super::groups::Class;
use super::open::{Open, OpenView};
use super::packed::{Packed, Record};
use super::spans::{SpanView, place};
use super::values::{nanos, text_of};
use super::{LogLevel, LogQuery, LogView, Recorder};
use crate::context::ORIGIN_TRACE_ID;
use opentelemetry::trace::TraceId;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

/// Of one trace, so much is shown at most, of each kind.
const SHOWN_MAX: usize = 5_000;

/// And so many traces that follow from it.
const FOLLOWERS_MAX: usize = 200;

/// Components that a summary names.
const COMPONENTS_MAX: usize = 16;

/// Which traces are asked for. What is left out, or false, asks nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceQuery {
    /// Only those with a span that failed.
    pub errors: bool,
    /// The name of the root contains it, in whatever case.
    pub name: Option<String>,
    /// Whose work it was.
    pub tenant: Option<String>,
    /// It took at least so many milliseconds.
    pub min_ms: Option<u64>,
    /// It began at this time or later, in milliseconds since the epoch.
    pub since_ms: Option<u64>,
    /// Only those behind this one, in the order of the list.
    pub after: Option<(u64, String)>,
    /// So many at most.
    pub limit: usize,
}

/// Where a trace is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceRing {
    /// Among the healthy ones: until there are enough later ones.
    Recent,
    /// Among those that failed or were slow.
    Kept,
}

/// A trace in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Its id, 32 hex digits.
    pub trace_id: String,
    /// The name of its root, or of the span nearest to it.
    pub name: String,
    /// When it began, nanoseconds since the epoch.
    pub start_unix_nano: u64,
    /// Until the end of what has ended last, or until now if something of it is open, in nanoseconds.
    pub duration_ns: u64,
    /// Spans that have ended and are kept.
    pub spans: usize,
    /// How many of them failed.
    pub errors: usize,
    /// Whether any did.
    pub error: bool,
    /// The direct children of the root of the tree that had to do with it, by name.
    pub components: Vec<String>,
    /// Whose work it was.
    pub tenant: Option<String>,
    /// The trace in which the story began, if that is another one.
    pub origin_trace_id: Option<String>,
    /// Where it is kept.
    pub ring: TraceRing,
    /// Spans of it that are still open.
    pub open: usize,
}

impl Summary {
    /// Where it stands in the list.
    pub fn place(&self) -> (u64, String) {
        (self.start_unix_nano, self.trace_id.clone())
    }
}

/// All that is known of a trace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TraceView {
    /// In one line.
    #[serde(flatten)]
    pub summary: Summary,
    /// What has ended, by the time of its start, each with its log records.
    #[serde(rename = "items")]
    pub spans: Vec<SpanView>,
    /// What has not, oldest first.
    #[serde(rename = "open_spans")]
    pub open: Vec<OpenView>,
    /// Log records of the trace that belong to none of the spans shown, newest first.
    pub logs: Vec<LogView>,
    /// Traces that link to it or name it as their origin, newest first.
    pub followers: Vec<Summary>,
    /// How much is not shown because there is too much.
    pub left_off: LeftOff,
}

/// What an answer has no room for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LeftOff {
    /// Spans.
    pub spans: usize,
    /// Log records, the oldest.
    pub logs: usize,
    /// Traces.
    pub followers: usize,
}

impl Recorder {
    /// Traces, newest first, also those of which nothing has ended yet.
    pub fn traces(&self, query: &TraceQuery) -> Vec<Summary> {
        let open = self.open_by_trace();
        let name = query.name.as_deref().map(str::to_lowercase);
        let is_asked = |summary: &Summary| {
            (!query.errors || summary.error)
                && name.as_deref().is_none_or(|name| summary.name.to_lowercase().contains(name))
                && query.tenant.as_ref().is_none_or(|tenant| summary.tenant.as_ref() == Some(tenant))
                && query.min_ms.is_none_or(|ms| summary.duration_ns >= ms.saturating_mul(1_000_000))
                && query.since_ms.is_none_or(|ms| summary.start_unix_nano >= ms.saturating_mul(1_000_000))
                && query.after.as_ref().is_none_or(|after| summary.place() < *after)
        };
        let mut begun: HashSet<TraceId> = open.keys().copied().collect();
        let mut found = Vec::new();
        for (id, class, packed) in self.shards().traces() {
            begun.remove(&id);
            found.extend(Some(summarized(id, class, &read(&packed), &open)).filter(is_asked));
        }
        let begun = begun.into_iter().map(|id| summarized(id, Class::Healthy, &[], &open));
        found.extend(begun.filter(is_asked));
        newest(found, query.limit).0
    }

    /// One trace; none if nothing of it is kept or open.
    pub fn trace(&self, id: TraceId) -> Option<TraceView> {
        let (class, packed) = self.shards().trace(id).unwrap_or((Class::Healthy, Vec::new()));
        let mut kept = read(&packed);
        let open = self.open_of(id, SHOWN_MAX);
        let query = LogQuery { trace: Some(id), level: LogLevel::Trace, limit: usize::MAX };
        let mut logs = self.logs(&query);
        if kept.is_empty() && open.is_empty() && logs.is_empty() {
            return None;
        }
        kept.sort_by_key(|span| span.start);
        let all_open = HashMap::from([(id, self.shards().open_of(id))]);
        let mut summary = summarized(id, class, &kept, &all_open);
        if let Some(first) = logs.last().filter(|_| summary.start_unix_nano == 0) {
            // Its spans are gone, its log is not.
            summary.start_unix_nano = first.time_unix_nano;
        }
        let followers = self.followers(id);
        let beyond = |all: usize| all.saturating_sub(SHOWN_MAX);
        let left_off = LeftOff { spans: beyond(kept.len()), logs: beyond(logs.len()), followers: followers.1 };
        logs.truncate(SHOWN_MAX);
        let began = summary.start_unix_nano;
        let mut spans: Vec<_> =
            kept.into_iter().take(SHOWN_MAX).map(|span| SpanView::new(&span.into(), began)).collect();
        place(&mut logs, &mut spans);
        Some(TraceView { summary, spans, open, logs, followers: followers.0, left_off })
    }

    fn followers(&self, of: TraceId) -> (Vec<Summary>, usize) {
        let text = of.to_string();
        let follows = |span: &Record<'_>| span.links_to(of) || span.text(ORIGIN_TRACE_ID) == Some(&text);
        let open = self.open_by_trace();
        let followers = self.shards().traces().filter(|(id, ..)| *id != of).filter_map(|(id, class, packed)| {
            let spans = read(&packed);
            spans.iter().any(follows).then(|| summarized(id, class, &spans, &open))
        });
        newest(followers.collect(), FOLLOWERS_MAX)
    }

    fn open_by_trace(&self) -> HashMap<TraceId, Vec<Arc<Open>>> {
        let mut by_trace: HashMap<TraceId, Vec<Arc<Open>>> = HashMap::new();
        for open in self.shards().open() {
            by_trace.entry(open.trace).or_default().push(open);
        }
        by_trace
    }
}

/// The newest, at most `limit`, and how many more there are.
fn newest(mut found: Vec<Summary>, limit: usize) -> (Vec<Summary>, usize) {
    found.sort_by_cached_key(|summary| std::cmp::Reverse(summary.place()));
    let left_off = found.len().saturating_sub(limit);
    found.truncate(limit);
    (found, left_off)
}

fn read(packed: &[Packed]) -> Vec<Record<'_>> {
    packed.iter().filter_map(Packed::read).collect()
}

fn summarized(id: TraceId, class: Class, spans: &[Record<'_>], open: &HashMap<TraceId, Vec<Arc<Open>>>) -> Summary {
    let open = open.get(&id).map(Vec::as_slice).unwrap_or_default();
    let of_open = |name: &str| open.iter().find_map(|span| text_of(&span.attributes, name));
    let text = |name: &str| spans.iter().find_map(|span| span.text(name)).or_else(|| of_open(name));
    let text = |name: &str| text(name).map(str::to_owned);
    let now = SystemTime::now();
    let ended = spans.iter().map(|span| (span.start, span.end));
    let known = ended.chain(open.iter().map(|span| (nanos(span.start), nanos(now.max(span.start)))));
    let (start, end) = known.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or_default();
    let errors = spans.iter().filter(|span| span.is_failure()).count();
    Summary {
        trace_id: id.to_string(),
        name: root_name(spans, open),
        start_unix_nano: start,
        duration_ns: end.saturating_sub(start),
        spans: spans.len(),
        errors,
        error: errors > 0,
        components: components(spans),
        tenant: text("tenant"),
        origin_trace_id: text(ORIGIN_TRACE_ID).filter(|origin| *origin != id.to_string()),
        ring: if class == Class::Healthy { TraceRing::Recent } else { TraceRing::Kept },
        open: open.len(),
    }
}

/// The root may be gone already, or not have ended: then the oldest span speaks for it.
fn root_name(spans: &[Record<'_>], open: &[Arc<Open>]) -> String {
    let ended = || spans.iter().min_by_key(|span| span.start).map(|span| (span.start, span.name));
    let still_open = || open.iter().min_by_key(|span| span.start).map(|span| (nanos(span.start), span.name.as_ref()));
    let root = spans.iter().filter(|span| span.is_root()).min_by_key(|span| span.start).map(|span| span.name);
    let root = root.or_else(|| open.iter().find(|span| span.parent.is_none()).map(|span| span.name.as_ref()));
    let oldest = || ended().into_iter().chain(still_open()).min_by_key(|(start, _)| *start).map(|(_, name)| name);
    root.or_else(oldest).map(ToString::to_string).unwrap_or_default()
}

/// By the attribute `component` of spans and of what happened in them, or by the path of the actor.
fn components(spans: &[Record<'_>]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for span in spans {
        let of_events = span.texts_of_events("component");
        let of_paths = ["actor", "path"].into_iter().filter_map(|name| span.text(name));
        let first = of_paths.filter_map(|path| path.split('.').next());
        for name in span.text("component").into_iter().chain(of_events).chain(first) {
            if found.len() < COMPONENTS_MAX && !name.is_empty() && !found.iter().any(|known| known == name) {
                found.push(name.to_owned());
            }
        }
    }
    found.sort();
    found
}
