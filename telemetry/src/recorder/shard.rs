//! The state, split by trace id, so that threads seldom want the same lock.

use super::groups::{Class, Gone, Groups, Held, Kept};
use super::keys::{Map, Trace};
use super::open::Open;
use super::packed::Packed;
use super::size::Size as _;
use super::{RecorderSettings, Stats};
use crate::lock;
use opentelemetry::trace::{Span as _, SpanId, TraceId};
use opentelemetry_sdk::logs::SdkLogRecord;
use opentelemetry_sdk::trace::{Span, SpanData};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Bytes of open spans, beside their number: strangers say how long some of their texts are. One more may be taken by each thread.
const OPEN_BYTES_MAX: usize = 4 << 20;

/// How many there are. Each has its part of every limit.
const SHARDS: usize = 8;

/// All of them.
pub(super) struct Shards {
    shards: [Mutex<Shard>; SHARDS],
    /// Log records of no trace.
    loose: Mutex<Groups<Arc<SdkLogRecord>>>,
    /// Trace ids come from clients too: which shard they lead to must not be theirs to choose.
    hasher: RandomState,
    open: AtomicUsize,
    open_bytes: AtomicUsize,
    open_max: usize,
    slow: Duration,
}

/// Whatever has to do with some of the traces.
struct Shard {
    /// By the number that its span id is: those are our own, and random.
    open: Map<u64, Arc<Open>>,
    /// Spans that have started so far.
    started: u64,
    spans: Groups<Packed>,
    logs: Groups<Arc<SdkLogRecord>>,
}

/// What had to make room for a span.
#[derive(Default)]
pub(super) struct GoneForSpan {
    pub(super) spans: Gone<Packed>,
    pub(super) logs: Gone<Arc<SdkLogRecord>>,
}

impl Shards {
    pub(super) fn new(settings: &RecorderSettings) -> Self {
        // An eighth is for those of no trace, which are one group: it takes half of its ring.
        let eighth = settings.log_max_bytes / 8;
        let (healthy_logs, kept_logs) = (3 * eighth / SHARDS, 4 * eighth / SHARDS);
        let (recent_max, kept_max) = (settings.recent_max_bytes / SHARDS, settings.kept_max_bytes / SHARDS);
        let shard = || Shard {
            open: Map::default(),
            started: 0,
            spans: Groups::new(recent_max, kept_max),
            logs: Groups::new(healthy_logs, kept_logs),
        };
        Self {
            shards: std::array::from_fn(|_| Mutex::new(shard())),
            loose: Mutex::new(Groups::new(2 * eighth, 0)),
            hasher: RandomState::new(),
            open: AtomicUsize::new(0),
            open_bytes: AtomicUsize::new(0),
            open_max: settings.open_max,
            slow: settings.slow,
        }
    }

    /// The trace with its hash, and its shard. The shard is chosen by other bits of the hash than a map looks at first.
    fn of(&self, id: TraceId) -> (Trace, &Mutex<Shard>) {
        let hash = self.hasher.hash_one(id);
        (Trace { id, hash }, &self.shards[(hash >> 32) as usize % SHARDS])
    }

    /// Answers false if there are too many open already.
    pub(super) fn start(&self, span: &Span) -> bool {
        if self.open.load(Relaxed) >= self.open_max || self.open_bytes.load(Relaxed) >= OPEN_BYTES_MAX {
            return false;
        }
        let Some(data) = span.exported_data() else { return true };
        let context = span.span_context();
        let ((_, shard), id) = (self.of(context.trace_id()), number(context.span_id()));
        let open = Arc::new(Open::from(data));
        let size = open.size;
        let mut shard = lock(shard);
        shard.started += 1;
        let before = shard.open.insert(id, open);
        drop(shard);
        self.open.fetch_add(1, Relaxed);
        self.open_bytes.fetch_add(size, Relaxed);
        self.closed(before);
        true
    }

    pub(super) fn end(&self, span: &SpanData) -> GoneForSpan {
        let id = number(span.span_context.span_id());
        let (trace, shard) = self.of(span.span_context.trace_id());
        let took = span.end_time.duration_since(span.start_time).unwrap_or_default();
        let class = match (span.is_failure(), took >= self.slow) {
            (true, _) => Class::Failed,
            (false, true) => Class::Slow,
            (false, false) => Class::Healthy,
        };
        let span = Packed::new(span);
        let size = span.size();
        let mut gone = GoneForSpan::default();
        let mut shard = lock(shard);
        let open = shard.open.remove(&id);
        gone.spans = shard.spans.push(trace, class, (span, size));
        if class > Class::Healthy {
            gone.logs = shard.logs.promote(trace, class);
        }
        drop(shard);
        self.closed(open);
        gone
    }

    fn closed(&self, open: Option<Arc<Open>>) {
        if let Some(open) = open {
            self.open.fetch_sub(1, Relaxed);
            self.open_bytes.fetch_sub(open.size, Relaxed);
        }
    }

    pub(super) fn log(&self, record: SdkLogRecord) -> Gone<Arc<SdkLogRecord>> {
        let (trace, shard) = self.of(trace_of(&record));
        let size = record.size();
        let record = (Arc::new(record), size);
        if trace.id == TraceId::INVALID {
            return lock(&self.loose).push(trace, Class::Healthy, record);
        }
        let mut shard = lock(shard);
        let class = shard.spans.class_of(trace);
        shard.logs.push(trace, class, record)
    }

    pub(super) fn stats(&self) -> Stats {
        let loose = lock(&self.loose);
        let ([logs, _], logged) = (loose.held(), loose.taken);
        drop(loose);
        let open = Held { items: self.open.load(Relaxed), bytes: self.open_bytes.load(Relaxed) };
        let mut stats = Stats { open, logs, logged, ..Stats::default() };
        for shard in &self.shards {
            let shard = lock(shard);
            let ([recent, kept], [of_healthy, of_kept]) = (shard.spans.held(), shard.logs.held());
            stats.recent += recent;
            stats.kept += kept;
            stats.logs += of_healthy;
            stats.logs += of_kept;
            stats.started += shard.started;
            stats.ended += shard.spans.taken;
            stats.logged += shard.logs.taken;
        }
        stats
    }

    /// The open spans of one trace.
    pub(super) fn open_of(&self, trace: TraceId) -> Vec<Arc<Open>> {
        let shard = lock(self.of(trace).1);
        shard.open.values().filter(|open| open.trace == trace).cloned().collect()
    }

    /// All open spans.
    pub(super) fn open(&self) -> Vec<Arc<Open>> {
        self.shards.iter().flat_map(|shard| lock(shard).open.values().cloned().collect::<Vec<_>>()).collect()
    }

    /// The spans of one trace.
    pub(super) fn trace(&self, trace: TraceId) -> Option<(Class, Vec<Packed>)> {
        let (trace, shard) = self.of(trace);
        lock(shard).spans.get(trace)
    }

    /// The log records of one trace.
    pub(super) fn logs_of(&self, trace: TraceId) -> Vec<Arc<SdkLogRecord>> {
        let (trace, shard) = self.of(trace);
        lock(shard).logs.get(trace).map(|(_, logs)| logs).unwrap_or_default()
    }

    /// One shard after the other: nobody waits for whoever looks at all of them.
    pub(super) fn traces(&self) -> impl Iterator<Item = Kept<Packed>> {
        self.shards.iter().flat_map(|shard| lock(shard).spans.all())
    }

    /// All log records.
    pub(super) fn logs(&self) -> impl Iterator<Item = Arc<SdkLogRecord>> {
        let loose = lock(&self.loose).all();
        let of_traces = self.shards.iter().flat_map(|shard| lock(shard).logs.all());
        loose.into_iter().chain(of_traces).flat_map(|(_, _, logs)| logs)
    }
}

fn number(id: SpanId) -> u64 {
    u64::from_be_bytes(id.to_bytes())
}

fn trace_of(record: &SdkLogRecord) -> TraceId {
    record.trace_context().map_or(TraceId::INVALID, |context| context.trace_id)
}
