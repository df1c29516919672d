//! What has come of traces that may not be complete.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use otlp::{Attributes, Log, Span};

/// A trace of which nothing came for so long is complete, if no parent is missing.
const QUIET: Duration = Duration::from_secs(1);

/// And for so long if one is: exporters send every 5 s unless told otherwise, log records more often than spans.
const PATIENCE: Duration = Duration::from_secs(7);

/// One that goes on and on is shown in parts.
const LONGEST: Duration = Duration::from_secs(30);

/// About so many bytes are kept. Of what is not complete half as many: beyond them the oldest traces are shown as they are.
const BYTES_MAX: usize = 64 << 20;

/// What came of one trace. Without an id: records that belong to none.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) id: String,
    pub(super) spans: Vec<Span>,
    pub(super) logs: Vec<Log>,
    first: Instant,
    last: Instant,
    bytes: usize,
}

impl Trace {
    pub(super) fn has_failed(&self) -> bool {
        self.spans.iter().any(|span| span.failed)
    }

    fn is_complete(&self, now: Instant) -> bool {
        let quiet = now.duration_since(self.last);
        let is_whole = || self.id.is_empty() || self.has_its_parents();
        quiet >= PATIENCE || quiet >= QUIET && is_whole() || now.duration_since(self.first) >= LONGEST
    }

    /// A parent ends after its children: where all are there, nothing is missing but what a child does on its own.
    fn has_its_parents(&self) -> bool {
        let ids: HashSet<&str> = self.spans.iter().map(|span| span.span_id.as_str()).collect();
        let is_there = |id: &str| id.is_empty() || ids.contains(id);
        !self.spans.is_empty()
            && self.spans.iter().all(|span| is_there(&span.parent_id))
            && self.logs.iter().all(|log| is_there(&log.span_id))
    }

    /// Nanoseconds since 1970.
    pub(super) fn start_ns(&self) -> u64 {
        let spans = self.spans.iter().map(|span| span.start_ns);
        let logs = self.logs.iter().map(|log| log.time_ns).filter(|time_ns| *time_ns > 0);
        spans.chain(logs).min().unwrap_or_default()
    }
}

/// All of them, bounded.
#[derive(Debug, Default)]
pub(super) struct Pending {
    traces: HashMap<String, Trace>,
    /// Of all, also of those that are pushed out.
    bytes: usize,
    /// To be shown before their time, to make room.
    pushed_out: Vec<Trace>,
    bytes_pushed_out: usize,
}

impl Pending {
    /// Whether nothing more should come before some of it is shown.
    pub(super) fn is_full(&self) -> bool {
        self.bytes > BYTES_MAX
    }

    pub(super) fn span(&mut self, span: Span, now: Instant) {
        let events = span.events.iter().map(|event| event.name.len() + weight(&event.attributes)).sum::<usize>();
        let bytes = size_of::<Span>() + span.name.len() + weight(&span.attributes) + events;
        self.of(&span.trace_id.clone(), bytes, now).spans.push(span);
        self.make_room();
    }

    pub(super) fn log(&mut self, log: Log, now: Instant) {
        let bytes = size_of::<Log>() + log.body.len() + weight(&log.attributes);
        self.of(&log.trace_id.clone(), bytes, now).logs.push(log);
        self.make_room();
    }

    fn of(&mut self, id: &str, bytes: usize, now: Instant) -> &mut Trace {
        self.bytes += bytes;
        let new = || Trace { id: id.to_owned(), spans: Vec::new(), logs: Vec::new(), first: now, last: now, bytes: 0 };
        let trace = self.traces.entry(id.to_owned()).or_insert_with(new);
        trace.last = now;
        trace.bytes += bytes;
        trace
    }

    fn make_room(&mut self) {
        while self.bytes - self.bytes_pushed_out > BYTES_MAX / 2 {
            let oldest = self.traces.values().min_by_key(|trace| trace.first).map(|trace| trace.id.clone());
            let Some(trace) = oldest.and_then(|id| self.traces.remove(&id)) else { return };
            self.bytes_pushed_out += trace.bytes;
            self.pushed_out.push(trace);
        }
    }

    /// Takes out what can be shown now.
    pub(super) fn complete(&mut self, now: Instant) -> Vec<Trace> {
        let complete: Vec<_> =
            self.traces.extract_if(|_, trace| trace.is_complete(now)).map(|(_, trace)| trace).collect();
        self.in_order(complete)
    }

    /// Takes out everything.
    pub(super) fn all(&mut self) -> Vec<Trace> {
        let all = self.traces.drain().map(|(_, trace)| trace).collect();
        self.in_order(all)
    }

    /// Those that failed first, else as they began.
    fn in_order(&mut self, complete: Vec<Trace>) -> Vec<Trace> {
        let mut shown = std::mem::take(&mut self.pushed_out);
        shown.extend(complete);
        self.bytes_pushed_out = 0;
        self.bytes -= shown.iter().map(|trace| trace.bytes).sum::<usize>();
        shown.iter_mut().for_each(|trace| trace.logs.sort_by_key(|log| log.time_ns));
        shown.sort_by_key(|trace| (!trace.has_failed(), trace.start_ns()));
        shown
    }
}

fn weight(attributes: &Attributes) -> usize {
    attributes.iter().map(|(key, value)| key.len() + value.len() + 2 * size_of::<String>()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tree::tests::span;

    fn names(traces: &[Trace]) -> Vec<&str> {
        traces.iter().map(|trace| trace.id.as_str()).collect()
    }

    #[test]
    fn a_trace_is_shown_when_nothing_more_comes_of_it_and_one_that_failed_is_shown_first() {
        let (mut pending, began) = (Pending::default(), Instant::now());
        pending.span(Span { trace_id: "good".into(), start_ns: 1, ..span("1", "") }, began);
        pending.span(Span { trace_id: "bad".into(), start_ns: 2, failed: true, ..span("1", "") }, began);
        pending.span(Span { trace_id: "late".into(), start_ns: 0, ..span("1", "") }, began + QUIET / 2);
        pending.span(Span { trace_id: "waits".into(), start_ns: 0, ..span("2", "1") }, began);
        assert!(pending.complete(began + QUIET / 2).is_empty());
        assert_eq!(names(&pending.complete(began + QUIET)), ["bad", "good"]);
        assert_eq!(names(&pending.complete(began + 2 * QUIET)), ["late"]);
        assert_eq!(
            names(&pending.complete(began + PATIENCE)),
            ["waits"],
            "for its parent, until it cannot come any more"
        );
        assert_eq!(pending.bytes, 0);
    }

    #[test]
    fn a_trace_that_goes_on_for_ever_is_shown_in_parts() {
        let (mut pending, began) = (Pending::default(), Instant::now());
        let steps = (0..=30).map(|n| began + Duration::from_secs(n));
        let shown: usize = steps
            .map(|now| {
                pending.span(span("1", ""), now);
                pending.complete(now).len()
            })
            .sum();
        assert_eq!(shown, 1);
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for_and_nothing_is_lost() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        let (large, mut shown) = ("x".repeat(1 << 20), 0);
        for n in 0..200 {
            if pending.is_full() {
                shown += pending.complete(now).len();
            }
            let attributes = [("large".to_owned(), large.clone())].into();
            pending.span(Span { trace_id: n.to_string(), attributes, ..span("1", "") }, now + Duration::from_millis(n));
            let held = pending.traces.values().chain(&pending.pushed_out).map(|trace| trace.bytes).sum::<usize>();
            assert_eq!(pending.bytes, held);
            assert!(held <= BYTES_MAX + 2 * (1 << 20), "{held}");
        }
        assert!((1..200).contains(&shown), "{shown}");
        assert_eq!(shown + pending.all().len(), 200);
    }
}
