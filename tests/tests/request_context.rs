//! What a request brings along reaches everything that follows from it: its id and its trace go through jobs, events and
//! deliveries to the receiver; its deadline binds whoever works for it, and ends with it.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tests::client::send;
use tests::collector::Span;
use tests::receiver::Reply;
use tests::{Answer, Collector, Protocol, Receiver, Service, Socket, Store};
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(20);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const ID: &str = "order-7";
const TIMEOUT: &str = "x-request-timeout-ms";

/// What one delivery may take here.
const ATTEMPT_MS: u64 = 4_000;

async fn told_service() -> (Collector, Service) {
    let collector = Collector::start().await;
    let setup = Service::setup().telemetry(&collector, Protocol::HttpProtobuf);
    let service = setup.set("channel_manager.request_timeout_ms", ATTEMPT_MS).start().await;
    (collector, service)
}

/// Posts a job with everything that a caller can bring along.
async fn post(service: &Service, body: &Value) -> Answer {
    let request = service.api().request(Method::POST, "/v1/jobs").json(body).header("x-request-id", ID);
    send(request.header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01")).header(TIMEOUT, 5_000)).await
}

fn of_the_request(span: &Span) -> bool {
    span.attribute("request.id") == ID
}

#[tokio::test]
async fn a_receiver_hears_the_requests_id_a_trace_that_leads_back_and_less_time_than_we_have() {
    let (collector, service) = told_service().await;
    let receiver = Receiver::start().await;
    let (channel, _) = service.webhook(&receiver.url("/secret-hook")).await;
    let answer =
        post(&service, &json!({"kind": "notify", "payload": {"channel": channel, "data": 1}})).await.expect(201);
    assert_eq!(answer.header("x-request-id"), ID);

    let call = receiver.await_calls(1, SOON).await.remove(0);
    assert_eq!(call.header("x-request-id"), ID);
    let left: u64 = call.header(TIMEOUT).parse().unwrap();
    assert!(left < ATTEMPT_MS && left > ATTEMPT_MS / 2, "the attempt's time, not the request's: {left}");

    let parent = call.header("traceparent").split('-').nth(2).unwrap_or_default().to_owned();
    let client = collector.span("of the call", SOON, |span| span.span_id == parent).await;
    assert_eq!((client.kind, client.attribute("server.address")), (3, "127.0.0.1"));
    assert_eq!(client.attribute("http.response.status_code"), "200");
    assert!(of_the_request(&client) && !format!("{client:?}").contains("secret-hook"), "{client:?}");
    let is_root = |span: &Span| span.trace_id == client.trace_id && span.is_root();
    let delivery = collector.span("of the delivery", SOON, is_root).await;
    assert_eq!((delivery.attribute("origin.trace_id"), of_the_request(&delivery)), (TRACE, true));
    let job = collector.span("of the job", SOON, |span| span.name == "job.run" && of_the_request(span)).await;
    assert!(delivery.links_to(&job.trace_id) && job.links_to(TRACE), "{delivery:?} {job:?}");

    let labels = &[("http_request_method", "POST"), ("http_response_status_code", "200")];
    assert_eq!(service.metrics().await.value("http_client_request_duration_seconds_count", labels), Some(1.0));
}

#[tokio::test]
async fn log_lines_of_what_follows_bear_the_requests_id() {
    let (collector, service) = told_service().await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Status(500)]);
    let (channel, _) = service.webhook(&receiver.url("/hook")).await;
    post(&service, &json!({"kind": "notify", "payload": {"channel": channel, "data": 1}})).await.expect(201);
    let failed = collector.log("of the failed delivery", SOON, |log| log.body == "delivery failed").await;
    assert_eq!(failed.attributes.get("request.id").map(String::as_str), Some(ID));
    let line = service.process().stderr().into_iter().find(|line| line.contains("delivery failed"));
    assert!(line.as_ref().is_some_and(|line| line.contains(&format!("request.id={ID}"))), "{line:?}");
}

#[tokio::test]
async fn an_event_keeps_the_requests_id_and_its_frame_does_not_show_it() {
    let (collector, service) = told_service().await;
    let mut socket = Socket::open(service.api(), &["t"]).await;
    post(&service, &json!({"kind": "publish", "payload": {"topic": "t", "data": 1}})).await.expect(201);
    let event = socket.event().await;
    assert!(!event.to_string().contains(ID), "{event}");
    let is_relay = |span: &Span| span.attribute("event.id") == event["id"] && of_the_request(span);
    collector.span("of the event", SOON, is_relay).await;
}

#[tokio::test]
async fn a_store_that_is_too_slow_for_the_caller_is_408_at_the_callers_deadline() {
    let service = Service::start().await;
    let job = json!({"kind": "publish", "payload": {"topic": "t", "data": 1}});
    // The key is looked up before the store is made to wait.
    service.api().post("/v1/jobs", &job).await.expect(201);
    let lock = Store::open(service.home()).await.lock().await;
    let began = Instant::now();
    let late = send(service.api().request(Method::POST, "/v1/jobs").json(&job).header(TIMEOUT, 500)).await;
    let took = began.elapsed();
    lock.release().await;
    assert_eq!((late.status, &late.json()["title"]), (408, &json!("Request Timeout")), "{}", late.body);
    assert!(
        late.body.contains("the time that was given is up"),
        "the store knew, and not only the gate: {}",
        late.body
    );
    assert!((400..3_000).contains(&took.as_millis()), "neither at once nor at our own limit: {took:?}");
    service.api().post("/v1/jobs", &job).await.expect(201);
}

#[tokio::test]
async fn a_job_outlives_the_deadline_of_its_request() {
    let service = Service::start().await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Late(Duration::from_millis(800), 200)]);
    let (channel, _) = service.webhook(&receiver.url("/hook")).await;
    let job = json!({"kind": "notify", "payload": {"channel": channel, "data": 1}});
    let answer =
        send(service.api().request(Method::POST, "/v1/jobs").json(&job).header(TIMEOUT, 600)).await.expect(201);
    service.job_in(answer.json()["id"].as_str().unwrap(), "done").await;
    tests::eventually("the delivery is sent", SOON, || async {
        (service.deliveries(&channel).await[0]["state"] == "sent").then_some(())
    })
    .await;
    assert_eq!(receiver.calls().len(), 1, "the slow answer was waited for");
}

#[tokio::test]
async fn a_time_that_cannot_be_read_is_400_and_names_the_header() {
    let service = Service::start().await;
    for bad in ["", "0", "-1", "1.5", "5s", "soon", "99999999999999999999999"] {
        let answer = send(service.api().request(Method::GET, "/v1/jobs/none").header(TIMEOUT, bad)).await;
        assert_eq!(answer.status, 400, "{bad}: {}", answer.body);
        assert!(answer.json()["detail"].as_str().unwrap().contains(TIMEOUT), "{bad}: {}", answer.body);
    }
    let twice = service.api().request(Method::GET, "/v1/jobs/none").header(TIMEOUT, 5).header(TIMEOUT, 6);
    assert_eq!(send(twice).await.status, 400);
}
