//! The three providers with their exporters.

use super::StartError;
use super::client::Clients;
use super::pipeline::Pipeline;
use super::plan::{Certificates, Plan, Route, Signal, Transport};
use super::prometheus::Page;
use super::room::{Bounded, Lossy, Room};
use super::stamps::Stamps;
use crate::context::GivenOrRandom;
use crate::recorder::Recorder;
use crate::recorder::sampler::Recorded;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig, Identity};
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
    WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{BatchConfigBuilder as LogBatch, BatchLogProcessor, SdkLoggerProvider};
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{BatchConfigBuilder as SpanBatch, BatchSpanProcessor, SdkTracerProvider};
use std::sync::Arc;

/// The providers, cheap to clone. Traces and metrics are there even if they go nowhere: ids and `/metrics` need them.
#[derive(Debug, Clone)]
pub(super) struct Providers {
    pub(super) metrics: SdkMeterProvider,
    pub(super) traces: SdkTracerProvider,
    pub(super) logs: Option<SdkLoggerProvider>,
    pub(super) page: Page,
    rooms: Rooms,
}

/// What waits, of the signals that wait.
#[derive(Debug, Clone, Default)]
struct Rooms {
    traces: Option<Arc<Room>>,
    logs: Option<Arc<Room>>,
}

impl Providers {
    /// Call it inside the exporters' runtime: gRPC starts its tasks where it is built.
    pub(super) fn build(plan: &Plan, resource: Resource, recorder: Option<&Recorder>) -> Result<Self, StartError> {
        let mut clients = Clients::default();
        let (metrics, page) = metrics(plan, resource.clone(), &mut clients)?;
        // Before the others are built: they look for it to report their own losses.
        opentelemetry::global::set_meter_provider(metrics.clone());
        let mut rooms = Rooms::default();
        let traces = traces(plan, resource.clone(), recorder, &mut clients, &mut rooms.traces)?;
        let logs = logs(plan, resource, recorder, &mut clients, &mut rooms.logs)?;
        Ok(Self { metrics, traces, logs, page, rooms })
    }

    /// How many items of a signal have not been taken by the collector yet.
    pub(super) fn waiting(&self, signal: Signal) -> usize {
        let room = match signal {
            Signal::Traces => &self.rooms.traces,
            Signal::Logs => &self.rooms.logs,
            Signal::Metrics => &None,
        };
        room.as_ref().map_or(0, |room| room.waiting())
    }
}

fn metrics(plan: &Plan, resource: Resource, clients: &mut Clients) -> Result<(SdkMeterProvider, Page), StartError> {
    let (page, reader) = Page::new()?;
    let mut builder = SdkMeterProvider::builder().with_resource(resource).with_reader(reader);
    if let Some(route) = &plan.metrics {
        let exporter = metric_exporter(route, clients).map_err(failed(Signal::Metrics))?;
        builder = builder.with_reader(PeriodicReader::builder(exporter).build());
    }
    Ok((builder.build(), page))
}

fn traces(
    plan: &Plan,
    resource: Resource,
    recorder: Option<&Recorder>,
    clients: &mut Clients,
    room: &mut Option<Arc<Room>>,
) -> Result<SdkTracerProvider, StartError> {
    let sampler = plan.sampler.clone();
    let builder = SdkTracerProvider::builder().with_resource(resource).with_id_generator(GivenOrRandom::default());
    let builder = match recorder {
        Some(_) => builder.with_sampler(Recorded(sampler)),
        None => builder.with_sampler(sampler),
    };
    let exports = plan.traces.as_ref().map(|route| span_batches(plan, route, clients)).transpose()?;
    *room = exports.as_ref().map(|exports| exports.room.clone());
    Ok(builder.with_span_processor(Pipeline { exports, recorder: recorder.cloned() }).build())
}

fn span_batches(plan: &Plan, route: &Route, clients: &mut Clients) -> Result<Bounded<BatchSpanProcessor>, StartError> {
    let room = Room::new(Lossy::Traces, plan.span_queue_max);
    let inner = span_exporter(route, clients).map_err(failed(Signal::Traces))?;
    let batches = BatchSpanProcessor::builder(Bounded { inner, room: room.clone() });
    let config = SpanBatch::default().with_max_queue_size(plan.span_queue_max);
    Ok(Bounded { inner: batches.with_batch_config(config.build()).build(), room })
}

fn logs(
    plan: &Plan,
    resource: Resource,
    recorder: Option<&Recorder>,
    clients: &mut Clients,
    place: &mut Option<Arc<Room>>,
) -> Result<Option<SdkLoggerProvider>, StartError> {
    if plan.logs.is_none() && recorder.is_none() {
        return Ok(None);
    }
    let mut builder = SdkLoggerProvider::builder().with_resource(resource).with_log_processor(Stamps);
    if let Some(recorder) = recorder {
        builder = builder.with_log_processor(recorder.clone());
    }
    if let Some(route) = &plan.logs {
        let room = Room::new(Lossy::Logs, plan.log_queue_max);
        let inner = log_exporter(route, clients).map_err(failed(Signal::Logs))?;
        let batches = BatchLogProcessor::builder(Bounded { inner, room: room.clone() });
        let config = LogBatch::default().with_max_queue_size(plan.log_queue_max);
        let inner = batches.with_batch_config(config.build()).build();
        *place = Some(room.clone());
        builder = builder.with_log_processor(Bounded { inner, room });
    }
    Ok(Some(builder.build()))
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn failed(signal: Signal) -> impl FnOnce(BoxError) -> StartError {
    move |source| StartError::Exporter { signal, source }
}

/// The same few lines for three exporters that share no trait for them.
macro_rules! exporter {
    ($name:ident -> $exporter:ident) => {
        fn $name(route: &Route, clients: &mut Clients) -> Result<$exporter, BoxError> {
            let built: Result<_, ExporterBuildError> = match route.transport {
                Transport::Http => $exporter::builder()
                    .with_http()
                    .with_http_client(clients.client(route)?)
                    .with_protocol(Protocol::HttpBinary)
                    .with_endpoint(&route.url)
                    .with_timeout(route.timeout)
                    .build(),
                Transport::Grpc => {
                    let builder = $exporter::builder().with_tonic();
                    let builder = match route.is_tls() {
                        true => builder.with_tls_config(tls(&route.certificates)),
                        false => builder,
                    };
                    builder.with_endpoint(&route.url).with_timeout(route.timeout).build()
                }
            };
            Ok(built?)
        }
    };
}

fn tls(Certificates { authority, own }: &Certificates) -> ClientTlsConfig {
    let config = match authority {
        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
        None => ClientTlsConfig::new().with_enabled_roots(),
    };
    match own {
        Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
        None => config,
    }
}

exporter!(span_exporter -> SpanExporter);
exporter!(metric_exporter -> MetricExporter);
exporter!(log_exporter -> LogExporter);
