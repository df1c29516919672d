//! What waits to be exported has bounds, in number and in bytes, and what is lost is counted.
//!
//! The SDK's queues are bounded in number only, while strangers say how long a span's texts are. And it counts what it hands to
//! an exporter, not how that ends.

use crate::recorder::size::Size;
use opentelemetry::logs::Severity;
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter, LogProcessor, SdkLogRecord};
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Bytes that may wait, of each signal.
const BYTES_MAX: usize = 16 << 20;

crate::labels! {
    /// Why of which signal.
    struct Why { signal: Lossy, reason: Reason }
}

crate::label_values! {
    /// Signals whose items are sent once. A number is sent again with the next ones.
    pub(super) enum Lossy { Traces = "traces", Logs = "logs" }
}

crate::label_values! {
    /// No room to wait, or not taken by the collector.
    enum Reason { QueueFull = "queue_full", Refused = "refused" }
}

crate::declare_metrics! {
    /// Spans and log records that were not exported: there was no room to wait, or the collector did not take them in the time
    /// that an export has.
    static LOST: Counter<Why> = ("telemetry.export.lost", "{item}");
}

/// The room for what waits, of one signal.
#[derive(Debug)]
pub(super) struct Room {
    signal: Lossy,
    items_max: usize,
    items: AtomicUsize,
    bytes: AtomicUsize,
    /// Since something was last exported there was none left.
    is_full: AtomicBool,
}

impl Room {
    /// For so many. The SDK's own queue must not be shorter: what it refuses would keep its place here.
    pub(super) fn new(signal: Lossy, items_max: usize) -> Arc<Self> {
        Reason::ALL.into_iter().for_each(|reason| LOST.born(Why { signal, reason }));
        let [items, bytes] = [AtomicUsize::new(0), AtomicUsize::new(0)];
        Arc::new(Self { signal, items_max, items, bytes, is_full: AtomicBool::new(false) })
    }

    /// Takes a place, if there is one. Never waits.
    fn take(&self, bytes: usize) -> bool {
        let (items, held) = (self.items.fetch_add(1, Relaxed), self.bytes.fetch_add(bytes, Relaxed));
        if items < self.items_max && held.saturating_add(bytes) <= BYTES_MAX {
            return true;
        }
        self.leave(1, bytes);
        LOST.add(1, Why { signal: self.signal, reason: Reason::QueueFull });
        if !self.is_full.swap(true, Relaxed) {
            let signal = self.signal.as_str();
            tracing::warn!(name: "QueueFull", target: "opentelemetry", signal, "no room is left for what is to be exported");
        }
        false
    }

    /// Items that are waiting or under way.
    pub(super) fn waiting(&self) -> usize {
        self.items.load(Relaxed)
    }

    fn leave(&self, items: usize, bytes: usize) {
        self.items.fetch_sub(items, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    /// What has left the queue gives up its place when it is gone from memory, too.
    fn exported(&self, items: usize, bytes: usize, outcome: OTelSdkResult) -> OTelSdkResult {
        self.leave(items, bytes);
        match &outcome {
            Ok(()) => self.is_full.store(false, Relaxed),
            Err(_) => LOST.add(items as u64, Why { signal: self.signal, reason: Reason::Refused }),
        }
        outcome
    }
}

/// An exporter or a processor of batches, with the room between them.
#[derive(Debug)]
pub(super) struct Bounded<T> {
    pub(super) inner: T,
    pub(super) room: Arc<Room>,
}

impl<P: SpanProcessor> SpanProcessor for Bounded<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.room.take(span.size()) {
            self.inner.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E: SpanExporter> SpanExporter for Bounded<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (items, bytes) = (batch.len(), batch.iter().map(Size::size).sum());
        self.room.exported(items, bytes, self.inner.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<P: LogProcessor> LogProcessor for Bounded<P> {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if self.room.take(record.size()) {
            self.inner.emit(record, scope);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn event_enabled(&self, level: Severity, target: &str, name: Option<&str>) -> bool {
        self.inner.event_enabled(level, target, name)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E: LogExporter> LogExporter for Bounded<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let (items, bytes) = (batch.iter().count(), batch.iter().map(|(record, _)| record.size()).sum());
        self.room.exported(items, bytes, self.inner.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn event_enabled(&self, level: Severity, target: &str, name: Option<&str>) -> bool {
        self.inner.event_enabled(level, target, name)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_number_and_in_bytes_and_given_back_by_what_is_exported_or_lost() {
        let room = Room::new(Lossy::Traces, 2);
        assert!(room.take(10) && room.take(10), "two places");
        assert!(!room.take(10) && !room.take(10), "and no third, however often it is asked for");
        assert!(room.exported(1, 10, Ok(())).is_ok());
        assert!(!room.take(BYTES_MAX), "all bytes but those that are taken");
        assert!(room.take(BYTES_MAX - 10));
        let failed = Err(opentelemetry_sdk::error::OTelSdkError::AlreadyShutdown);
        assert!(room.exported(2, BYTES_MAX, failed).is_err());
        assert!(room.take(BYTES_MAX) && !room.take(1));
    }
}
