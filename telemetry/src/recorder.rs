//! The flight recorder: what this process did lately, kept in its memory, for whoever asks why.
//!
//! Finished spans and log records are kept by trace, in rings that are bounded in bytes, and become JSON only when somebody
//! looks. A trace with a failure, or with a span slower than a threshold, is kept apart, so that healthy
//! traffic does not push it out. Spans that are still open are listed too: what hangs now.
//!
//! It sees every trace. If the sampler drops one, it is recorded and not exported.
//!
//! It stands in the way of every span, so it is split by trace id into shards, each behind a lock that is held for some
//! hundred nanoseconds; what had to make room is dropped outside of it. It never waits for anything else, and says nothing
//! itself but numbers.

mod groups;
mod keys;
mod logs;
mod open;
mod otlp;
mod packed;
pub(crate) mod sampler;
mod shard;
pub(crate) mod size;
mod spans;
mod traces;
mod values;

#[cfg(test)]
mod tests;

pub use groups::Held;
pub use logs::{LogLevel, LogQuery, LogView};
pub use open::OpenView;
pub use opentelemetry::trace::TraceId;
pub use spans::{EventView, LinkView, SpanView, Status};
pub use traces::{LeftOff, Summary, TraceQuery, TraceRing, TraceView};
pub use values::Attributes;

use crate::metrics::BoundCounter;
use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord};
use opentelemetry_sdk::trace::{Span, SpanData};
use shard::Shards;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

crate::labels! {
    /// Where records are kept.
    struct InRing { ring: Ring }
    /// What was pushed out of one of them.
    struct PushedOut { ring: Full }
    /// What was not taken in.
    struct Unkept { what: What }
}

crate::label_values! {
    /// What makes room for what comes later.
    enum Full { Recent = "recent", Kept = "kept", Logs = "logs" }
}

crate::label_values! {
    /// What is bounded by itself.
    enum Ring { Recent = "recent", Kept = "kept", Logs = "logs", Open = "open" }
}

crate::label_values! {
    /// What may be refused.
    enum What { Span = "span", Log = "log", Open = "open" }
}

crate::declare_metrics! {
    /// Bytes that the flight recorder holds, as it estimates them.
    static HELD: ObservableGauge<InRing> = ("telemetry.recorder.held", "By");
    /// Spans that the flight recorder holds, and log records.
    static ITEMS: ObservableGauge<InRing> = ("telemetry.recorder.items", "{item}");
    /// What had to make room in the flight recorder for what came later.
    static EVICTED: Counter<PushedOut> = ("telemetry.recorder.evicted", "{item}");
    /// What the flight recorder did not take: too large for its ring, or one open span too many.
    static REFUSED: Counter<Unkept> = ("telemetry.recorder.refused", "{item}");
}

/// How much is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecorderSettings {
    /// Without it nothing is kept, and what the sampler drops is not even recorded.
    pub enabled: bool,
    /// Spans of healthy traces, in bytes.
    pub recent_max_bytes: usize,
    /// Spans of traces that failed or were slow, in bytes.
    pub kept_max_bytes: usize,
    /// Log records, in bytes: half of them of healthy traces and of none, half of the others.
    pub log_max_bytes: usize,
    /// Spans that are still open.
    pub open_max: usize,
    /// A trace with a span that took at least this long is slow.
    pub slow: Duration,
}

impl Default for RecorderSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            recent_max_bytes: 4 << 20,
            kept_max_bytes: 4 << 20,
            log_max_bytes: 4 << 20,
            open_max: 4096,
            slow: Duration::from_secs(1),
        }
    }
}

/// What is kept of this process. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Recorder(Arc<Inner>);

struct Inner {
    shards: Shards,
    resource: OnceLock<Resource>,
    counters: Counters,
}

/// What the recorder holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Spans of healthy traces.
    pub recent: Held,
    /// Spans of failed and slow ones.
    pub kept: Held,
    /// Log records.
    pub logs: Held,
    /// Spans that are open.
    pub open: Held,
    /// Spans that have started so far. Unlike what is held, this and the next two only grow.
    pub started: u64,
    /// Spans that have ended so far, also those that had to make room.
    pub ended: u64,
    /// Log records so far, also those that had to make room.
    pub logged: u64,
}

impl Stats {
    fn rings(&self) -> impl Iterator<Item = (Ring, Held)> {
        let rings = [(Ring::Recent, self.recent), (Ring::Kept, self.kept), (Ring::Logs, self.logs)];
        rings.into_iter().chain([(Ring::Open, self.open)])
    }
}

impl Recorder {
    /// An empty one.
    pub fn new(settings: &RecorderSettings) -> Self {
        Self(Arc::new(Inner { shards: Shards::new(settings), resource: OnceLock::new(), counters: Counters::new() }))
    }

    /// Reports by the metrics from now on what this recorder holds.
    pub(crate) fn report(&self) {
        let of_bytes = self.clone();
        HELD.observe_with(move |seen| {
            let stats = of_bytes.stats();
            stats.rings().for_each(|(ring, held)| seen.value(held.bytes as f64, InRing { ring }));
        });
        let of_items = self.clone();
        ITEMS.observe_with(move |seen| {
            let stats = of_items.stats();
            stats.rings().for_each(|(ring, held)| seen.value(held.items as f64, InRing { ring }));
        });
    }

    /// How much is held now.
    pub fn stats(&self) -> Stats {
        self.0.shards.stats()
    }

    /// A span has started.
    pub(crate) fn start(&self, span: &Span) {
        if !self.0.shards.start(span) {
            self.0.counters.refused_open.add(1);
        }
    }

    /// A span has ended.
    pub(crate) fn end(&self, span: &SpanData) {
        let gone = self.0.shards.end(span);
        self.0.counters.count_spans(&gone.spans);
        self.0.counters.count_logs(&gone.logs);
    }

    /// Whose spans they are; the first one counts.
    pub(crate) fn set_resource(&self, resource: &Resource) {
        // A second one would be the same: all providers of a process have one.
        let _ = self.0.resource.set(resource.clone());
    }

    fn shards(&self) -> &Shards {
        &self.0.shards
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recorder").field(&self.stats()).finish()
    }
}

impl LogProcessor for Recorder {
    fn emit(&self, record: &mut SdkLogRecord, _: &InstrumentationScope) {
        let gone = self.0.shards.log(record.clone());
        self.0.counters.count_logs(&gone);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// What is lost is counted, each kind of it apart.
struct Counters {
    evicted: [BoundCounter; 2],
    evicted_logs: BoundCounter,
    refused_span: BoundCounter,
    refused_log: BoundCounter,
    refused_open: BoundCounter,
}

impl Counters {
    fn new() -> Self {
        let evicted = |ring| {
            EVICTED.born(PushedOut { ring });
            EVICTED.bind(PushedOut { ring })
        };
        let refused = |what| {
            REFUSED.born(Unkept { what });
            REFUSED.bind(Unkept { what })
        };
        Self {
            evicted: [Full::Recent, Full::Kept].map(evicted),
            evicted_logs: evicted(Full::Logs),
            refused_span: refused(What::Span),
            refused_log: refused(What::Log),
            refused_open: refused(What::Open),
        }
    }

    fn count_spans(&self, gone: &groups::Gone<packed::Packed>) {
        let [healthy, slow, failed] = gone.evicted;
        for (counter, evicted) in self.evicted.iter().zip([healthy, slow + failed]) {
            add(counter, evicted);
        }
        add(&self.refused_span, u64::from(gone.refused));
    }

    fn count_logs(&self, gone: &groups::Gone<Arc<SdkLogRecord>>) {
        add(&self.evicted_logs, gone.evicted.iter().sum());
        add(&self.refused_log, u64::from(gone.refused));
    }
}

fn add(counter: &BoundCounter, value: u64) {
    if value > 0 {
        counter.add(value);
    }
}
