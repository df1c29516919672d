//! A small OTLP collector over HTTP and gRPC that keeps what it is sent.

#![allow(dead_code, reason = "each test uses a part of it")]

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::logs::v1 as logs;
use opentelemetry_proto::tonic::collector::metrics::v1 as metrics;
use opentelemetry_proto::tonic::collector::trace::v1 as trace;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tonic::{Request, Response, Status, async_trait};

/// What arrived.
#[derive(Clone, Default)]
pub struct Collector {
    pub traces: Arc<Mutex<Vec<trace::ExportTraceServiceRequest>>>,
    pub metrics: Arc<Mutex<Vec<metrics::ExportMetricsServiceRequest>>>,
    pub logs: Arc<Mutex<Vec<logs::ExportLogsServiceRequest>>>,
}

impl Collector {
    /// Serves OTLP over HTTP on a port of its own.
    pub async fn http() -> (Self, SocketAddr) {
        let collector = Self::default();
        let (listener, address) = listen().await;
        let routes = axum::Router::new()
            .route("/v1/traces", post(async |State(c): State<Self>, body: Bytes| keep(&c.traces, &body)))
            .route("/v1/metrics", post(async |State(c): State<Self>, body: Bytes| keep(&c.metrics, &body)))
            .route("/v1/logs", post(async |State(c): State<Self>, body: Bytes| keep(&c.logs, &body)))
            .with_state(collector.clone());
        on_own_thread(move || async move { axum::serve(adopt(listener), routes).await.unwrap() });
        (collector, address)
    }

    /// Serves OTLP over gRPC on a port of its own.
    pub async fn grpc() -> (Self, SocketAddr) {
        let collector = Self::default();
        let (listener, address) = listen().await;
        let server = tonic::transport::Server::builder()
            .add_service(trace::trace_service_server::TraceServiceServer::new(collector.clone()))
            .add_service(metrics::metrics_service_server::MetricsServiceServer::new(collector.clone()))
            .add_service(logs::logs_service_server::LogsServiceServer::new(collector.clone()));
        on_own_thread(move || async move {
            let incoming = tonic::transport::server::TcpIncoming::from(adopt(listener));
            server.serve_with_incoming(incoming).await.unwrap();
        });
        (collector, address)
    }

    pub fn spans(&self) -> Vec<Span> {
        let requests = self.traces.lock().unwrap();
        let scopes = requests.iter().flat_map(|r| &r.resource_spans).flat_map(|r| &r.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The span of this name. There must be exactly one.
    pub fn span(&self, name: &str) -> Span {
        let mut spans: Vec<_> = self.spans().into_iter().filter(|span| span.name == name).collect();
        assert_eq!(spans.len(), 1, "spans named {name}: {spans:?}");
        spans.remove(0)
    }

    pub fn log_records(&self) -> Vec<LogRecord> {
        let requests = self.logs.lock().unwrap();
        let scopes = requests.iter().flat_map(|r| &r.resource_logs).flat_map(|r| &r.scope_logs);
        scopes.flat_map(|scope| scope.log_records.clone()).collect()
    }

    pub fn metric(&self, name: &str) -> Option<Metric> {
        let requests = self.metrics.lock().unwrap();
        let scopes = requests.iter().flat_map(|r| &r.resource_metrics).flat_map(|r| &r.scope_metrics);
        scopes.flat_map(|scope| &scope.metrics).find(|metric| metric.name == name).cloned()
    }

    /// A resource attribute of the first trace request.
    pub fn resource(&self, key: &str) -> Option<String> {
        let requests = self.traces.lock().unwrap();
        let resource = requests.first()?.resource_spans.first()?.resource.clone()?;
        attribute(&resource.attributes, key)
    }
}

/// The text of an attribute.
pub fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        other => Some(format!("{other:?}")),
    }
}

fn keep<M: Message + Default>(kept: &Mutex<Vec<M>>, body: &Bytes) {
    kept.lock().unwrap().push(M::decode(body.clone()).unwrap());
}

async fn listen() -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn adopt(listener: std::net::TcpListener) -> tokio::net::TcpListener {
    tokio::net::TcpListener::from_std(listener).unwrap()
}

/// A collector is another process; it must not depend on the test's runtime.
#[allow(clippy::disallowed_methods, reason = "the collector of a test stands outside the supervised world")]
fn on_own_thread<F: Future<Output = ()>>(serve: impl FnOnce() -> F + Send + 'static) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(serve());
    });
}

macro_rules! service {
    ($service:path, $request:path, $response:path, $kept:ident) => {
        #[async_trait]
        impl $service for Collector {
            async fn export(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                self.$kept.lock().unwrap().push(request.into_inner());
                Ok(Response::new(<$response>::default()))
            }
        }
    };
}

service!(
    trace::trace_service_server::TraceService,
    trace::ExportTraceServiceRequest,
    trace::ExportTraceServiceResponse,
    traces
);
service!(
    metrics::metrics_service_server::MetricsService,
    metrics::ExportMetricsServiceRequest,
    metrics::ExportMetricsServiceResponse,
    metrics
);
service!(logs::logs_service_server::LogsService, logs::ExportLogsServiceRequest, logs::ExportLogsServiceResponse, logs);
