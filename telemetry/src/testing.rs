//! For this crate's tests: a subscriber as in the product, with exporters that keep everything in memory.

#![allow(clippy::unwrap_used, reason = "the module exists in tests only")]

use crate::context::GivenOrRandom;
use crate::export::{Page, filter, log, stamps::Stamps};
use crate::{SCOPE, metrics};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Value, global};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::{InMemoryLogExporter, SdkLoggerProvider};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracer, SdkTracerProvider, SpanData};
use std::sync::OnceLock;
use std::time::SystemTime;
use tracing::Dispatch;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

/// The metrics page. One meter provider serves all tests of the process, for it is global: use labels of your own.
pub(crate) fn scrape() -> String {
    static PAGE: OnceLock<Page> = OnceLock::new();
    let page = PAGE.get_or_init(|| {
        let (page, reader) = Page::new().unwrap();
        global::set_meter_provider(SdkMeterProvider::builder().with_reader(reader).build());
        metrics::provider_installed();
        page
    });
    page.render()
}

/// A subscriber that hands spans to a tracer, and log records to a logger.
pub(crate) struct Subscribed {
    dispatch: Dispatch,
}

impl Subscribed {
    pub(crate) fn new(tracer: SdkTracer, logger: &SdkLoggerProvider) -> Self {
        let layer = log::traces(tracer).with_filter(filter::traces());
        let bridge = OpenTelemetryTracingBridge::new(logger).with_filter(filter::logs("info").unwrap().0);
        Self { dispatch: Dispatch::new(tracing_subscriber::registry().with(layer).with(bridge)) }
    }

    /// Runs `work` under this subscriber, on this thread.
    pub(crate) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        tracing::dispatcher::with_default(&self.dispatch, work)
    }
}

/// A subscriber and what it saw.
pub(crate) struct Recording {
    pub(crate) dispatch: Dispatch,
    pub(crate) provider: SdkTracerProvider,
    spans: InMemorySpanExporter,
    logs: InMemoryLogExporter,
}

impl Recording {
    pub(crate) fn new() -> Self {
        Self::sampled(Sampler::AlwaysOn)
    }

    pub(crate) fn sampled(sampler: Sampler) -> Self {
        let (spans, logs) = (InMemorySpanExporter::default(), InMemoryLogExporter::default());
        let provider = SdkTracerProvider::builder().with_id_generator(GivenOrRandom::default());
        let provider = provider.with_sampler(sampler).with_span_processor(Stamps);
        let provider = provider.with_simple_exporter(spans.clone()).build();
        let logger = SdkLoggerProvider::builder().with_log_processor(Stamps).with_simple_exporter(logs.clone()).build();
        let Subscribed { dispatch } = Subscribed::new(provider.tracer(SCOPE), &logger);
        Self { dispatch, provider, spans, logs }
    }

    /// Runs `work` under this subscriber, on this thread.
    pub(crate) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        tracing::dispatcher::with_default(&self.dispatch, work)
    }

    /// The ended span of this name. There must be exactly one.
    pub(crate) fn span(&self, name: &str) -> SpanData {
        let mut named: Vec<_> = self.spans().into_iter().filter(|span| span.name == name).collect();
        assert_eq!(named.len(), 1, "spans named {name} among {:?}", self.names());
        named.remove(0)
    }

    pub(crate) fn spans(&self) -> Vec<SpanData> {
        self.spans.get_finished_spans().unwrap()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.spans().iter().map(|span| span.name.to_string()).collect()
    }

    /// A text field of the only log record.
    pub(crate) fn log_field(&self, name: &str) -> Option<String> {
        let logs = self.logs.get_emitted_logs().unwrap();
        assert_eq!(logs.len(), 1);
        let found = logs[0].record.attributes_iter().find(|(key, _)| key.as_str() == name)?;
        match &found.1 {
            opentelemetry::logs::AnyValue::String(text) => Some(text.as_str().to_owned()),
            other => Some(format!("{other:?}")),
        }
    }

    /// When what the only log record tells happened, and when it was written.
    pub(crate) fn log_times(&self) -> (SystemTime, SystemTime) {
        let logs = self.logs.get_emitted_logs().unwrap();
        assert_eq!(logs.len(), 1);
        (logs[0].record.timestamp().unwrap(), logs[0].record.observed_timestamp().unwrap())
    }

    /// Event names and trace ids of the log records.
    pub(crate) fn logs(&self) -> Vec<(Option<&'static str>, Option<String>)> {
        let logs = self.logs.get_emitted_logs().unwrap();
        let trace_id =
            |log: &opentelemetry_sdk::logs::SdkLogRecord| log.trace_context().map(|c| c.trace_id.to_string());
        logs.iter().map(|log| (log.record.event_name(), trace_id(&log.record))).collect()
    }
}

/// The value of an attribute.
pub(crate) fn attribute(attributes: &[opentelemetry::KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key.as_str() == key);
    found.map(|attribute| match &attribute.value {
        Value::String(text) => text.as_str().to_owned(),
        other => other.to_string(),
    })
}
