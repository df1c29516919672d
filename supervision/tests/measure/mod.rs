//! What a process says and takes: its log, its metrics, its memory.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "test code outside of a test function")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use opentelemetry_sdk::metrics::{
    InMemoryMetricExporter, PeriodicReader, SdkMeterProvider,
    data::{AggregatedMetrics, MetricData, ResourceMetrics},
};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// The log of this process from level `info` on, counted.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<BTreeMap<String, Lines>>>);

/// Lines of one text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    pub written: u64,
    /// The sum of what they say was left out.
    pub suppressed: u64,
}

impl Log {
    /// Becomes the subscriber of the process.
    pub fn install() -> Self {
        let log = Self::default();
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(log.clone())).unwrap();
        log
    }

    /// Lines so far, by their text up to its first colon.
    pub fn lines(&self) -> BTreeMap<String, Lines> {
        self.0.lock().unwrap().clone()
    }

    pub fn written(&self) -> u64 {
        self.lines().values().map(|lines| lines.written).sum()
    }
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() > Level::INFO {
            return;
        }
        let mut read = Reading::default();
        event.record(&mut read);
        let text = read.message.split(':').next().unwrap_or_default().to_owned();
        let mut lines = self.0.lock().unwrap();
        let lines = lines.entry(text).or_default();
        lines.written += 1;
        lines.suppressed += read.suppressed;
    }
}

#[derive(Default)]
struct Reading {
    message: String,
    suppressed: u64,
}

impl Visit for Reading {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "suppressed" {
            self.suppressed = value;
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == "suppressed" {
            self.suppressed = value.unsigned_abs();
        }
    }
}

/// The metrics of this process.
pub struct Metrics {
    provider: SdkMeterProvider,
    exporter: InMemoryMetricExporter,
}

impl Metrics {
    /// Becomes the provider of the process.
    pub fn install() -> Self {
        let exporter = InMemoryMetricExporter::default();
        let provider =
            SdkMeterProvider::builder().with_reader(PeriodicReader::builder(exporter.clone()).build()).build();
        opentelemetry::global::set_meter_provider(provider.clone());
        telemetry::metrics::provider_installed();
        Self { provider, exporter }
    }

    /// The sum of a counter over all its labels.
    pub fn sum(&self, name: &str) -> u64 {
        self.exporter.reset();
        self.provider.force_flush().unwrap();
        let all = self.exporter.get_finished_metrics().unwrap();
        all.last().map_or(0, |latest| sum_of(latest, name))
    }
}

fn sum_of(metrics: &ResourceMetrics, name: &str) -> u64 {
    let named = metrics.scope_metrics().flat_map(|scope| scope.metrics()).filter(|metric| metric.name() == name);
    let points = named.flat_map(|metric| match metric.data() {
        AggregatedMetrics::U64(MetricData::Sum(sum)) => sum.data_points().map(|point| point.value()).collect(),
        _ => Vec::new(),
    });
    points.sum()
}

/// Resident memory of this process, in bytes.
pub fn memory() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
