//! One search finds the whole story: from a request's trace to its job, its event, its delivery and the receiver.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tests::client::send;
use tests::collector::Span;
use tests::{Answer, Collector, Protocol, Receiver, Service, Socket};

const SOON: Duration = Duration::from_secs(20);
const OURS: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

async fn traced_service() -> (Collector, Service) {
    let collector = Collector::start().await;
    let service = Service::setup().telemetry(&collector, Protocol::HttpProtobuf).start().await;
    (collector, service)
}

async fn post_traced(service: &Service, body: &Value) -> Answer {
    let request = service.api().request(Method::POST, "/v1/jobs").json(body);
    send(request.header("traceparent", format!("00-{OURS}-{CALLER}-01"))).await.expect(201)
}

#[tokio::test]
async fn a_request_goes_on_with_the_callers_trace_and_says_which_it_is() {
    let (collector, service) = traced_service().await;
    let answer = post_traced(&service, &json!({"kind": "publish", "payload": {"topic": "t", "data": 1}})).await;
    assert_eq!(answer.header("x-trace-id"), OURS);
    assert_eq!(answer.json()["origin_trace_id"], OURS);
    let request = collector.span("of the request", SOON, |span| span.kind == 2 && span.trace_id == OURS).await;
    assert_eq!((request.name.as_str(), request.parent_id.as_str()), ("POST /v1/jobs", CALLER));
    assert_eq!(request.attribute("http.response.status_code"), "201");
    assert_eq!(request.attribute("request.id"), answer.header("x-request-id"));
}

#[tokio::test]
async fn job_and_event_are_new_traces_that_link_back_and_name_their_origin() {
    let (collector, service) = traced_service().await;
    let mut socket = Socket::open(service.api(), &["t"]).await;
    let body = json!({"kind": "publish", "payload": {"topic": "t", "data": 1}});
    let answer = post_traced(&service, &body).await;
    let event = socket.event().await;
    assert_eq!(event["origin_trace_id"], OURS);

    let request = collector.span("of the request", SOON, |span| span.kind == 2 && span.trace_id == OURS).await;
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let job = collector.span("of the job", SOON, |span| follows(span) && span.attribute("job.id") == id).await;
    assert!(job.links.iter().any(|link| link.trace_id == OURS && link.span_id == request.span_id), "{job:?}");
    assert_eq!(job.kind, 5, "a consumer of what the request produced");

    let relay = collector.span("of the event", SOON, |span| follows(span) && span.attribute("event.id") == event["id"]);
    assert!(relay.await.links_to(&job.trace_id), "reached from the job that published it");
}

#[tokio::test]
async fn a_delivery_links_back_names_its_origin_and_carries_its_trace_to_the_receiver() {
    let (collector, service) = traced_service().await;
    let receiver = Receiver::start().await;
    let (channel, _) = service.webhook(&receiver.url("/hook")).await;
    let answer = post_traced(&service, &json!({"kind": "notify", "payload": {"channel": channel, "data": 1}})).await;
    let call = receiver.await_calls(1, SOON).await.remove(0);

    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let job = collector.span("of the job", SOON, |span| follows(span) && span.attribute("job.id") == id).await;
    let is_it = |span: &Span| follows(span) && span.attribute("delivery.id") == call.id();
    let delivery = collector.span("of the delivery", SOON, is_it).await;
    assert!(delivery.links_to(&job.trace_id), "reached from the job that asked for it: {delivery:?}");
    let sent = collector.trace(&delivery.trace_id);
    let parent = call.header("traceparent").split('-').nth(2).unwrap_or_default().to_owned();
    assert!(sent.iter().any(|span| span.span_id == parent), "{} is none of {sent:#?}", call.header("traceparent"));
    assert_eq!(service.deliveries(&channel).await[0]["origin_trace_id"], OURS);
}

#[tokio::test]
async fn a_retry_is_a_new_trace_of_the_same_origin() {
    let collector = Collector::start().await;
    let setup = Service::setup().telemetry(&collector, Protocol::HttpProtobuf);
    let service = setup.start().await;
    let body = json!({"kind": "panic", "payload": {}, "max_attempts": 2});
    post_traced(&service, &body).await;
    let attempt = |n: &'static str| move |span: &Span| follows(span) && span.attribute("job.attempt") == n;
    let first = collector.span("of the first attempt", SOON, attempt("1")).await;
    let second = collector.span("of the second attempt", Duration::from_secs(60), attempt("2")).await;
    assert_ne!(first.trace_id, second.trace_id);
    let names = |span: &Span, other: &Span| {
        span.links.iter().any(|link| (&link.trace_id, &link.span_id) == (&other.trace_id, &other.span_id))
    };
    assert!(names(&second, &first) && !names(&first, &second), "a retry names the run before: {second:?}");
    assert!(first.event("panic.recovered").is_some() && second.event("panic.recovered").is_some());
}

#[tokio::test]
async fn a_bad_traceparent_is_no_trace_and_no_error() {
    let service = Service::start().await;
    for bad in ["", "nonsense", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-xyz-abc-01"] {
        let request = service.api().request(Method::GET, "/v1/jobs/none").header("traceparent", bad);
        let answer = send(request).await;
        assert_eq!(answer.header("x-trace-id").len(), 32, "{bad}");
        assert_eq!(answer.status, 404);
    }
}

#[tokio::test]
async fn a_request_id_is_taken_if_it_is_harmless_and_made_if_not() {
    let service = Service::start().await;
    let ask =
        async |id: &str| send(service.api().request(Method::GET, "/v1/jobs/none").header("x-request-id", id)).await;
    assert_eq!(ask("order-7").await.header("x-request-id"), "order-7");
    for bad in ["", "with space", &"x".repeat(5000)] {
        let answer = ask(bad).await;
        let made = answer.header("x-request-id");
        assert!(!made.is_empty() && made != bad, "{bad} {made}");
    }
    let answer = ask("order-7").await;
    assert_eq!(answer.json()["instance"], "order-7");
}

/// A root of its own that bears the origin of the request above.
fn follows(span: &Span) -> bool {
    span.is_root() && span.trace_id != OURS && span.attribute("origin.trace_id") == OURS
}
