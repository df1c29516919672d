//! A collector of the test's own: it takes OTLP over http/protobuf (gzip or not) and over gRPC on free ports, keeps all
//! it was sent, and can be slow, refuse, and be killed.

mod story;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use otlp::{Refused, Sink, Telemetry};
use tokio::runtime::{Builder, Runtime};

pub use otlp::{Link, Log, Point, Protocol, Span, SpanEvent};
pub use story::Story;

use crate::{Port, eventually};

/// How the collector answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Keeps all and says so.
    Serve,
    /// Keeps all, but answers only after this long.
    Delay(Duration),
    /// Keeps nothing and answers that it is unavailable.
    Refuse,
}

/// The collector; it ends when it is dropped.
pub struct Collector {
    http: Port,
    grpc: Port,
    heap: Arc<Heap>,
    /// While it runs: a runtime of its own, as it would be a process of its own.
    serving: Mutex<Option<Runtime>>,
}

/// What arrived, in the order of its arrival.
struct Heap {
    behaviour: Mutex<Behaviour>,
    spans: Mutex<Vec<Span>>,
    logs: Mutex<Vec<Log>>,
    points: Mutex<Vec<Point>>,
    /// Which of the protocols was used, for each request.
    protocols: Mutex<Vec<Protocol>>,
}

impl Sink for Heap {
    /// Keeps it, or tells that this collector does not serve now.
    async fn take(&self, telemetry: Telemetry, protocol: Protocol) -> Result<(), Refused> {
        let behaviour = *self.behaviour.lock().unwrap();
        if behaviour == Behaviour::Refuse {
            return Err(Refused);
        }
        self.protocols.lock().unwrap().push(protocol);
        match telemetry {
            Telemetry::Spans(spans) => self.spans.lock().unwrap().extend(spans),
            Telemetry::Logs(logs) => self.logs.lock().unwrap().extend(logs),
            Telemetry::Points(points) => self.points.lock().unwrap().extend(points),
        }
        if let Behaviour::Delay(time) = behaviour {
            tokio::time::sleep(time).await;
        }
        Ok(())
    }
}

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(10);

fn bound(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Collector {
    /// Starts to listen for both protocols.
    pub async fn start() -> Collector {
        let heap = Arc::new(Heap {
            behaviour: Mutex::new(Behaviour::Serve),
            spans: Mutex::default(),
            logs: Mutex::default(),
            points: Mutex::default(),
            protocols: Mutex::default(),
        });
        let collector = Collector { http: Port::take(), grpc: Port::take(), heap, serving: Mutex::default() };
        collector.restart().await;
        collector
    }

    fn serve(&self, [http, grpc]: [TcpListener; 2]) {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = |bound| tokio::net::TcpListener::from_std(bound).unwrap();
        let heap = self.heap.clone();
        runtime.spawn(async move { otlp::http(listener(http), heap).await.unwrap() });
        let heap = self.heap.clone();
        runtime.spawn(async move { otlp::grpc(listener(grpc), heap).await.unwrap() });
        *self.serving.lock().unwrap() = Some(runtime);
    }

    /// Ends it as a crash would: its ports are closed, and every connection is cut. What it was sent is kept.
    pub fn kill(&self) {
        if let Some(runtime) = self.serving.lock().unwrap().take() {
            runtime.shutdown_background();
        }
    }

    /// Starts it again, on the same ports, as soon as those of its life before are closed.
    pub async fn restart(&self) {
        let free = |port: &Port| {
            let address = port.address();
            eventually("the port is free", SOON, move || async move { bound(address).ok() })
        };
        let listeners = tokio::join!(free(&self.http), free(&self.grpc));
        self.serve(listeners.into());
    }

    /// The variables that make a service send here, often enough for a test to wait for it.
    pub fn environment(&self, protocol: Protocol) -> Vec<(String, String)> {
        let (port, name) = match protocol {
            Protocol::HttpProtobuf => (&self.http, "http/protobuf"),
            Protocol::HttpJson => (&self.http, "http/json"),
            Protocol::Grpc => (&self.grpc, "grpc"),
        };
        [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", port.address())),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", name.to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
            ("OTEL_BLRP_SCHEDULE_DELAY", "100".to_owned()),
            ("OTEL_METRIC_EXPORT_INTERVAL", "500".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Changes how it answers from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.heap.behaviour.lock().unwrap() = behaviour;
    }

    /// All spans until now.
    pub fn spans(&self) -> Vec<Span> {
        self.heap.spans.lock().unwrap().clone()
    }

    /// All log records until now.
    pub fn logs(&self) -> Vec<Log> {
        self.heap.logs.lock().unwrap().clone()
    }

    /// All points of all metrics until now: each export repeats a cumulative counter.
    pub fn points(&self) -> Vec<Point> {
        self.heap.points.lock().unwrap().clone()
    }

    /// The protocol of each request until now.
    pub fn protocols(&self) -> Vec<Protocol> {
        self.heap.protocols.lock().unwrap().clone()
    }

    /// The spans of one trace, the earliest first.
    pub fn trace(&self, trace_id: &str) -> Vec<Span> {
        let mut spans: Vec<Span> = self.spans().into_iter().filter(|span| span.trace_id == trace_id).collect();
        spans.sort_by_key(|span| span.start_ns);
        spans
    }

    /// Waits for a span for which `wanted` holds.
    ///
    /// # Panics
    ///
    /// After `within`, with the names of all spans that came.
    pub async fn span(&self, what: &str, within: Duration, wanted: impl Fn(&Span) -> bool) -> Span {
        let _names = NamesOnFailure(self);
        eventually(&format!("a span: {what}"), within, || async { found(&self.heap.spans, &wanted) }).await
    }

    /// Waits for a log record for which `wanted` holds.
    ///
    /// # Panics
    ///
    /// After `within`.
    pub async fn log(&self, what: &str, within: Duration, wanted: impl Fn(&Log) -> bool) -> Log {
        eventually(&format!("a log record: {what}"), within, || async { found(&self.heap.logs, &wanted) }).await
    }

    /// Waits for a point of a metric for which `wanted` holds.
    ///
    /// # Panics
    ///
    /// After `within`.
    pub async fn point(&self, what: &str, within: Duration, wanted: impl Fn(&Point) -> bool) -> Point {
        eventually(&format!("a point: {what}"), within, || async { found(&self.heap.points, &wanted) }).await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Only what is wanted is cloned: there may be very many.
fn found<T: Clone>(kept: &Mutex<Vec<T>>, wanted: impl Fn(&T) -> bool) -> Option<T> {
    kept.lock().unwrap().iter().find(|one| wanted(one)).cloned()
}

/// Shows what came instead when a wait for a span fails.
struct NamesOnFailure<'a>(&'a Collector);

impl Drop for NamesOnFailure<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut names: Vec<String> = self.0.spans().into_iter().map(|span| span.name).collect();
            names.sort();
            names.dedup();
            eprintln!("spans that came: {names:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as Sent};
    use prost::Message;

    use super::*;
    use crate::Client;
    use crate::client::try_send;

    fn request(name: &str) -> ExportTraceServiceRequest {
        let spans = vec![Sent { name: name.into(), trace_id: vec![1; 16], span_id: vec![2; 8], ..Sent::default() }];
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
    }

    async fn post(collector: &Collector, name: &str) -> u16 {
        let client = Client::new(&format!("http://{}", collector.http.address()));
        let body = request(name).encode_to_vec();
        try_send(client.request(reqwest::Method::POST, "/v1/traces").body(body)).await.unwrap().status
    }

    #[tokio::test]
    async fn spans_come_in_over_both_protocols() {
        let collector = Collector::start().await;
        assert_eq!(post(&collector, "by http").await, 200);
        let mut client = TraceServiceClient::connect(format!("http://{}", collector.grpc.address())).await.unwrap();
        client.export(request("by grpc")).await.unwrap();
        collector.span("over http", SOON, |span| span.name == "by http").await;
        collector.span("over grpc", SOON, |span| span.name == "by grpc").await;
        assert_eq!(collector.protocols(), [Protocol::HttpProtobuf, Protocol::Grpc]);
    }

    #[tokio::test]
    async fn a_collector_that_is_killed_cuts_its_connections_and_comes_back_where_it_was() {
        let collector = Collector::start().await;
        let client = Client::new(&format!("http://{}", collector.http.address()));
        let send = async |name: &str| {
            let body = request(name).encode_to_vec();
            try_send(client.request(reqwest::Method::POST, "/v1/traces").body(body)).await.map(|answer| answer.status)
        };
        assert_eq!(send("before").await.unwrap(), 200);
        collector.kill();
        eventually("nobody answers", SOON, || async { send("meanwhile").await.is_err().then_some(()) }).await;
        collector.restart().await;
        assert_eq!(send("after").await.unwrap(), 200);
        assert!(["before", "after"].iter().all(|name| collector.spans().iter().any(|span| span.name == *name)));
    }

    #[tokio::test]
    async fn a_collector_that_refuses_keeps_nothing() {
        let collector = Collector::start().await;
        collector.behave(Behaviour::Refuse);
        assert_eq!(post(&collector, "lost").await, 503);
        assert!(collector.spans().is_empty());
    }
}
