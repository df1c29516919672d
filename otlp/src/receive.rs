//! The two listeners.

use std::future::Future;
use std::io::{self, Read};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::routing::post;
use flate2::read::GzDecoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use prost::Message;
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::model::{self, Log, Point, Span};

/// Bytes of one request, packed or unpacked.
const REQUEST_MAX: usize = 16 << 20;

/// The ways in which telemetry may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Protobuf in a POST, the default of the service.
    HttpProtobuf,
    /// JSON in a POST.
    HttpJson,
    /// gRPC, by `OTEL_EXPORTER_OTLP_PROTOCOL=grpc`.
    Grpc,
}

/// What one request brought.
#[derive(Debug)]
pub enum Telemetry {
    /// Spans that have ended.
    Spans(Vec<Span>),
    /// Log records.
    Logs(Vec<Log>),
    /// Points of metrics.
    Points(Vec<Point>),
}

/// It is not taken now; the sender may try again.
#[derive(Debug)]
pub struct Refused;

/// Where it goes.
pub trait Sink: Send + Sync + 'static {
    /// Takes it; the sender waits for the answer.
    fn take(&self, telemetry: Telemetry, protocol: Protocol) -> impl Future<Output = Result<(), Refused>> + Send;
}

/// Serves HTTP, until it is dropped.
///
/// # Errors
/// The listener cannot be used.
pub async fn http<S: Sink>(listener: TcpListener, sink: Arc<S>) -> io::Result<()> {
    let router = Router::new()
        .route("/v1/traces", post(posted::<ExportTraceServiceRequest, S>))
        .route("/v1/metrics", post(posted::<ExportMetricsServiceRequest, S>))
        .route("/v1/logs", post(posted::<ExportLogsServiceRequest, S>))
        .layer(DefaultBodyLimit::max(REQUEST_MAX))
        .with_state(sink);
    axum::serve(listener, router).await
}

/// Serves gRPC, until it is dropped.
///
/// # Errors
/// The listener cannot be used.
pub async fn grpc<S: Sink>(listener: TcpListener, sink: Arc<S>) -> Result<(), tonic::transport::Error> {
    macro_rules! service {
        ($server:ident) => {
            $server::new(Service(sink.clone()))
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(REQUEST_MAX)
        };
    }
    let server = Server::builder().add_service(service!(TraceServiceServer));
    let server = server.add_service(service!(MetricsServiceServer)).add_service(service!(LogsServiceServer));
    server.serve_with_incoming(TcpIncoming::from(listener)).await
}

/// One of the three requests of OTLP.
trait Export: Message + Default + Sized + 'static {
    fn flattened(self) -> Telemetry;

    /// From JSON, if this build can read it.
    fn of_json(body: &[u8]) -> Result<Self, String>;
}

macro_rules! export {
    ($request:ty, $kind:ident, $flatten:path) => {
        impl Export for $request {
            fn flattened(self) -> Telemetry {
                Telemetry::$kind($flatten(self))
            }

            #[cfg(feature = "json")]
            fn of_json(body: &[u8]) -> Result<Self, String> {
                serde_json::from_slice(body).map_err(|error| error.to_string())
            }

            #[cfg(not(feature = "json"))]
            fn of_json(_: &[u8]) -> Result<Self, String> {
                Err("this build does not read JSON".to_owned())
            }
        }
    };
}

export!(ExportTraceServiceRequest, Spans, model::spans);
export!(ExportMetricsServiceRequest, Points, model::points);
export!(ExportLogsServiceRequest, Logs, model::logs);

async fn posted<E: Export, S: Sink>(State(sink): State<Arc<S>>, headers: HeaderMap, body: Bytes) -> HttpResponse {
    let is = |name, value: &str| headers.get(name).is_some_and(|found| found.as_bytes().starts_with(value.as_bytes()));
    let body = if is(CONTENT_ENCODING, "gzip") { unpacked(&body) } else { Ok(body.into()) };
    let (protocol, answer) = match is(CONTENT_TYPE, "application/json") {
        true => (Protocol::HttpJson, ([(CONTENT_TYPE, "application/json")], "{}")),
        false => (Protocol::HttpProtobuf, ([(CONTENT_TYPE, "application/x-protobuf")], "")),
    };
    let read = body.and_then(|body| match protocol {
        Protocol::HttpJson => E::of_json(&body),
        _ => E::decode(body.as_slice()).map_err(|error| error.to_string()),
    });
    match read {
        Err(fault) => (StatusCode::BAD_REQUEST, fault).into_response(),
        Ok(request) => match sink.take(request.flattened(), protocol).await {
            Ok(()) => answer.into_response(),
            Err(Refused) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        },
    }
}

/// Little may become much: it is cut off where a plain request would be.
fn unpacked(body: &[u8]) -> Result<Vec<u8>, String> {
    let mut plain = Vec::new();
    let read = GzDecoder::new(body).take(REQUEST_MAX as u64 + 1).read_to_end(&mut plain);
    match read.map_err(|error| error.to_string())? {
        bytes if bytes > REQUEST_MAX => Err(format!("more than {REQUEST_MAX} bytes")),
        _ => Ok(plain),
    }
}

struct Service<S>(Arc<S>);

impl<S: Sink> Service<S> {
    async fn take<R: Default>(&self, request: Request<impl Export>) -> Result<Response<R>, Status> {
        match self.0.take(request.into_inner().flattened(), Protocol::Grpc).await {
            Ok(()) => Ok(Response::new(R::default())),
            Err(Refused) => Err(Status::unavailable("not now")),
        }
    }
}

#[tonic::async_trait]
impl<S: Sink> TraceService for Service<S> {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take(request).await
    }
}

#[tonic::async_trait]
impl<S: Sink> MetricsService for Service<S> {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.take(request).await
    }
}

#[tonic::async_trait]
impl<S: Sink> LogsService for Service<S> {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.take(request).await
    }
}
