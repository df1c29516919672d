//! What the collector did not take is counted. The SDK counts what it hands to an exporter, and not how that ends.

use opentelemetry::logs::Severity;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use std::time::Duration;

crate::labels! {
    /// Of one signal.
    struct OfSignal { signal: Lossy }
}

crate::label_values! {
    /// Signals whose items are sent once. A number is sent again with the next ones.
    enum Lossy { Traces = "traces", Logs = "logs" }
}

crate::declare_metrics! {
    /// Spans and log records that the collector did not take in the time that an export has. What found no room to wait for one
    /// is in `otel.sdk.processor.*.processed`, with the label `error.type`.
    static LOST: Counter<OfSignal> = ("telemetry.export.lost", "{item}");
}

/// An exporter whose failures are counted.
#[derive(Debug)]
pub(super) struct Counted<E>(E);

impl<E> Counted<E> {
    pub(super) fn new(exporter: E) -> Self {
        Lossy::ALL.into_iter().for_each(|signal| LOST.born(OfSignal { signal }));
        Self(exporter)
    }
}

fn count(signal: Lossy, items: usize, outcome: OTelSdkResult) -> OTelSdkResult {
    if outcome.is_err() {
        LOST.add(items as u64, OfSignal { signal });
    }
    outcome
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let items = batch.len();
        count(Lossy::Traces, items, self.0.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

impl<E: LogExporter> LogExporter for Counted<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let items = batch.iter().count();
        count(Lossy::Logs, items, self.0.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn event_enabled(&self, level: Severity, target: &str, name: Option<&str>) -> bool {
        self.0.event_enabled(level, target, name)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}
