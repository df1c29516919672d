//! The two listeners of the collector.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use flate2::read::GzDecoder;
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
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::{Behaviour, Heap, Protocol, model};

/// Listens for protobuf over HTTP.
pub(super) async fn http(heap: Arc<Heap>) -> (SocketAddr, JoinHandle<()>) {
    let router = Router::new()
        .route("/v1/traces", post(take::<ExportTraceServiceRequest>))
        .route("/v1/metrics", post(take::<ExportMetricsServiceRequest>))
        .route("/v1/logs", post(take::<ExportLogsServiceRequest>))
        .with_state(heap);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
}

/// Listens for gRPC.
pub(super) async fn grpc(heap: Arc<Heap>) -> (SocketAddr, JoinHandle<()>) {
    let gzip = CompressionEncoding::Gzip;
    let server = Server::builder()
        .add_service(TraceServiceServer::new(Service(heap.clone())).accept_compressed(gzip))
        .add_service(MetricsServiceServer::new(Service(heap.clone())).accept_compressed(gzip))
        .add_service(LogsServiceServer::new(Service(heap)).accept_compressed(gzip));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, tokio::spawn(async move { server.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap() }))
}

/// One of the three requests of OTLP.
trait Export: Message + Default {
    fn keep(self, heap: &Heap);
}

impl Export for ExportTraceServiceRequest {
    fn keep(self, heap: &Heap) {
        heap.spans.lock().unwrap().extend(model::spans(self));
    }
}

impl Export for ExportMetricsServiceRequest {
    fn keep(self, heap: &Heap) {
        heap.points.lock().unwrap().extend(model::points(self));
    }
}

impl Export for ExportLogsServiceRequest {
    fn keep(self, heap: &Heap) {
        heap.logs.lock().unwrap().extend(model::logs(self));
    }
}

impl Heap {
    /// Keeps a request, or tells that this collector does not serve now.
    async fn admit(&self, protocol: Protocol, request: impl Export) -> Result<(), ()> {
        let behaviour = *self.behaviour.lock().unwrap();
        if behaviour == Behaviour::Refuse {
            return Err(());
        }
        self.protocols.lock().unwrap().push(protocol);
        request.keep(self);
        if let Behaviour::Delay(time) = behaviour {
            tokio::time::sleep(time).await;
        }
        Ok(())
    }
}

async fn take<E: Export>(State(heap): State<Arc<Heap>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let body = match headers.get("content-encoding") {
        Some(encoding) if encoding == "gzip" => unzip(&body),
        _ => body.to_vec(),
    };
    match heap.admit(Protocol::HttpProtobuf, E::decode(body.as_slice()).unwrap()).await {
        Ok(()) => StatusCode::OK,
        Err(()) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn unzip(body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(body).read_to_end(&mut plain).unwrap();
    plain
}

struct Service(Arc<Heap>);

impl Service {
    async fn admit<R: Default>(&self, request: Request<impl Export>) -> Result<Response<R>, Status> {
        match self.0.admit(Protocol::Grpc, request.into_inner()).await {
            Ok(()) => Ok(Response::new(R::default())),
            Err(()) => Err(Status::unavailable("the collector of the test refuses")),
        }
    }
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.admit(request).await
    }
}

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.admit(request).await
    }
}

#[tonic::async_trait]
impl LogsService for Service {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.admit(request).await
    }
}
