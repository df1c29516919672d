//! A story goes on without a gap: over two replicas and Redis, over the end of the process, and under a sampler.

use std::time::Duration;

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use tests::client::send;
use tests::collector::{Link, Span, Story};
use tests::{Answer, Collector, Database, Home, Protocol, Receiver, Redis, Service, Setup, Socket, eventually};

const SOON: Duration = Duration::from_secs(60);
const OURS: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

async fn post(service: &Service, body: &Value, flags: &str) -> Answer {
    let request = service.api().request(Method::POST, "/v1/jobs").json(body);
    send(request.header("traceparent", format!("00-{OURS}-{CALLER}-{flags}"))).await.expect(201)
}

fn links(span: &Span, to: &Span) -> bool {
    span.links.contains(&Link { trace_id: to.trace_id.clone(), span_id: to.span_id.clone() })
}

fn process(span: &Span) -> &str {
    span.resource.get("service.instance.id").unwrap()
}

/// The story when it has a span of each of these names, and no gap.
async fn whole(collector: &Collector, names: &[&str]) -> Story {
    eventually(&format!("{names:?} in one story without a gap"), SOON, || async {
        let story = collector.story(OURS);
        let is_whole = story.gaps(CALLER).is_empty() && names.iter().all(|name| story.span(name).is_some());
        is_whole.then_some(story)
    })
    .await
}

#[tokio::test]
async fn one_search_finds_what_two_replicas_did_for_a_request_down_to_the_receiver() {
    let (Some(database), Some(redis)) = (Database::empty().await, Redis::start().await) else { return };
    let (collector, receiver) = (Collector::start().await, Receiver::start().await);
    let replica = |name: &str| {
        let setup = Service::setup().telemetry(&collector, Protocol::HttpProtobuf).env("OTEL_SERVICE_NAME", name);
        // One of them is held, and stays so.
        setup
            .set("store.url", database.url())
            .set("bus.url", redis.url())
            .set("liveness_monitor.wedged_after_ms", 600_000)
    };
    let (asked, _runs) = tokio::join!(replica("asked").start(), replica("runs").start());
    let mut socket = Socket::open(asked.api(), &["t"]).await;
    let (channel, _) = asked.webhook(&receiver.url("/hook")).await;
    asked.make_hang("scheduler.claimer").await;
    asked.is_hanging("scheduler.claimer").await;

    post(&asked, &json!({"kind": "publish", "payload": {"topic": "t", "data": 1}}), "01").await;
    let event = socket.event().await;
    post(&asked, &json!({"kind": "notify", "payload": {"channel": channel, "data": 1}}), "01").await;
    let call = receiver.await_calls(1, SOON).await.remove(0);

    let story = whole(&collector, &["POST /v1/jobs", "job.run", "event.deliver", "channel.deliver", "POST"]).await;
    let deliver = story.span("event.deliver").unwrap();
    assert_eq!(
        (deliver.attribute("event.id"), &event["origin_trace_id"]),
        (event["id"].as_str().unwrap(), &json!(OURS))
    );
    let run = story.spans().find(|run| run.name == "job.run" && links(deliver, run)).expect("its run");
    let request = story.spans().find(|request| request.kind == 2 && links(run, request)).expect("its request");
    assert_eq!([request, run, deliver].map(|span| span.resource["service.name"].as_str()), ["asked", "runs", "asked"]);
    let sent = story.span("POST").unwrap();
    assert_eq!(call.header("traceparent"), format!("00-{}-{}-01", sent.trace_id, sent.span_id));
    let notified =
        story.spans().find(|run| run.name == "job.run" && links(story.span("channel.deliver").unwrap(), run));
    assert_eq!(sent.parent_id, story.span("channel.deliver").unwrap().span_id);
    assert!(notified.is_some_and(|run| run.attribute("job.kind") == "notify"), "{story:#?}");
}

/// A job that is accepted by one process, which then ends, and run by the next one.
async fn goes_on_after(signal: Signal) {
    let (home, collector, receiver) = (Home::empty(), Collector::start().await, Receiver::start().await);
    let setup = || Service::setup().home(&home).telemetry(&collector, Protocol::HttpProtobuf);
    let first = setup().start().await;
    let (channel, _) = first.webhook(&receiver.url("/hook")).await;
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(5);
    let body = json!({"kind": "notify", "payload": {"channel": channel, "data": 1}, "run_at": later.to_string()});
    post(&first, &body, "01").await;
    collector.span("of the request", SOON, |span| span.kind == 2 && span.trace_id == OURS).await;
    first.process().signal(signal);
    first.process().wait(SOON).await;

    let _second = setup().start().await;
    receiver.await_calls(1, SOON).await;
    let story = whole(&collector, &["POST /v1/jobs", "job.run", "channel.deliver", "POST"]).await;
    let (request, run) = (story.span("POST /v1/jobs").unwrap(), story.span("job.run").unwrap());
    assert!(links(run, request) && process(run) != process(request), "{run:#?}");
}

#[tokio::test]
async fn a_story_goes_on_in_the_next_process_when_one_is_killed() {
    goes_on_after(Signal::SIGKILL).await;
}

#[tokio::test]
async fn a_story_goes_on_in_the_next_process_when_one_is_stopped() {
    goes_on_after(Signal::SIGTERM).await;
}

/// A job that runs when its process ends: the run of the next process names the one that was cut off.
async fn the_next_run_names_what_was_cut_off_by(signal: Signal) {
    let (home, collector) = (Home::empty(), Collector::start().await);
    let setup = || {
        let setup = Service::setup().home(&home).telemetry(&collector, Protocol::HttpProtobuf);
        let setup = setup.set("scheduler.lease_ms", 1_000).set("scheduler.heartbeat_ms", 300);
        setup.set("scheduler.sweep_interval_ms", 200)
    };
    let first = setup().start().await;
    let answer = post(&first, &json!({"kind": "sleep", "payload": {"ms": 600_000}}), "01").await;
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let cut_off = open_run(&first, &id).await;
    first.process().signal(signal);
    first.process().wait(SOON).await;

    let second = setup().start().await;
    open_run(&second, &id).await;
    second.api().post(&format!("/v1/jobs/{id}/cancel"), &json!({})).await.expect(200);
    let is_next = |span: &Span| span.name == "job.run" && span.trace_id != cut_off.trace_id;
    let next = collector.span("of the next run", SOON, is_next).await;
    assert!(next.links.contains(&cut_off), "{cut_off:?} is not among {:?}", next.links);
    assert!(next.links_to(OURS) && next.attribute("origin.trace_id") == OURS, "{next:?}");
}

/// The span of a job that runs.
async fn open_run(service: &Service, job: &str) -> Link {
    eventually("it runs", SOON, || async {
        let open = service.admin().get("/admin/spans/open").await.expect(200).json();
        let run = open["items"].as_array().unwrap().iter().find(|span| span["attributes"]["job.id"] == job)?.clone();
        let text = |field: &str| run[field].as_str().unwrap().to_owned();
        Some(Link { trace_id: text("trace_id"), span_id: text("span_id") })
    })
    .await
}

#[tokio::test]
async fn a_run_names_the_one_that_was_given_back_when_its_process_stopped() {
    the_next_run_names_what_was_cut_off_by(Signal::SIGTERM).await;
}

/// It could tell nothing of its end, but what it did before bears its trace.
#[tokio::test]
async fn a_run_names_the_one_that_was_lost_when_its_process_was_killed() {
    the_next_run_names_what_was_cut_off_by(Signal::SIGKILL).await;
}

fn sampled(collector: &Collector, ratio: &str) -> Setup {
    let setup = Service::setup().telemetry(collector, Protocol::HttpProtobuf);
    setup.env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio").env("OTEL_TRACES_SAMPLER_ARG", ratio)
}

async fn publish_and_deliver(service: &Service, flags: &str) {
    let mut socket = Socket::open(service.api(), &["t"]).await;
    post(service, &json!({"kind": "publish", "payload": {"topic": "t", "data": 1}}), flags).await;
    socket.event().await;
}

#[tokio::test]
async fn what_follows_from_a_trace_that_the_caller_keeps_is_kept_by_a_sampler_that_keeps_nothing() {
    let collector = Collector::start().await;
    let service = sampled(&collector, "0").start().await;
    publish_and_deliver(&service, "01").await;
    whole(&collector, &["POST /v1/jobs", "job.run", "event.deliver"]).await;
    assert_eq!(service.stop().await.code, 0);
    let strangers: Vec<_> = collector.spans().into_iter().filter(|span| !collector.story(OURS).has(span)).collect();
    assert!(strangers.is_empty(), "{strangers:#?}");
}

#[tokio::test]
async fn what_follows_from_a_trace_that_the_caller_drops_is_dropped_by_a_sampler_that_keeps_all() {
    let collector = Collector::start().await;
    let service = sampled(&collector, "1").start().await;
    publish_and_deliver(&service, "00").await;
    assert_eq!(service.stop().await.code, 0);
    let names: Vec<_> = collector.spans().into_iter().map(|span| span.name).collect();
    assert!(names.iter().any(|name| name == "shutdown"), "{names:?}");
    assert!(
        !names.iter().any(|name| ["POST /v1/jobs", "job.run", "event.deliver"].contains(&name.as_str())),
        "{names:?}"
    );
}
