//! A panic in each kind of place of the running service, and all that is known of it afterwards: see [`told::Told`].
//!
//! Where no request makes the service panic, the variable `PANIC_AT` does, at one of its seams (`actors/src/seam.rs`).

mod told;

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tests::client::send;
use tests::stream::EventStream;
use tests::{Collector, Protocol, Receiver, Redis, Service, Setup, Socket};
use told::{CALLER, Told, bearing};

const SOON: Duration = Duration::from_secs(30);
const OURS: &str = "0af7651916cd43dd8448eb211c80319c";

fn told_to(collector: &Collector) -> Setup {
    Service::setup().telemetry(collector, Protocol::HttpProtobuf).fast_backoff()
}

/// A service that panics when it passes a seam for the so manieth time.
async fn panicking_at(seam: &str) -> (Collector, Service) {
    let collector = Collector::start().await;
    let service = told_to(&collector).env("PANIC_AT", seam).start().await;
    (collector, service)
}

async fn publish(service: &Service) -> String {
    service.enqueue("publish", json!({"topic": "hello", "data": 1})).await
}

#[tokio::test]
async fn a_message_in_the_hands_of_an_actor() {
    let (collector, service) = panicking_at("after_claim:1").await;
    publish(&service).await;
    let told = Told {
        component: "scheduler",
        actor: "scheduler.claimer",
        policy: "restart",
        phase: "handle",
        message_type: "claimer::Look",
        outcome: "restarted as incarnation 2 after",
        file: "actors/src/scheduler/claimer.rs",
        span: "panic.recovered",
        ..Told::default()
    };
    told.by(&service, &collector).await;
}

#[tokio::test]
async fn what_is_nobodys_span_is_told_also_where_next_to_no_trace_is_kept() {
    let collector = Collector::start().await;
    let setup = told_to(&collector).env("PANIC_AT", "inside_probe:2");
    let setup = setup.env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio").env("OTEL_TRACES_SAMPLER_ARG", 0);
    let service = setup.start().await;
    let span = collector.span("the panic's own span", SOON, |span| span.name == "panic.recovered").await;
    assert_eq!(span.event("panic.recovered").unwrap().attribute("actor"), "health_sweep");
    let ended = service.stop().await;
    assert_eq!(ended.code, 0, "{}", ended.log());
    assert!(collector.spans().iter().all(|span| span.name == "panic.recovered"), "and no other");
}

#[tokio::test]
async fn the_settler_of_jobs() {
    let (collector, service) = panicking_at("before_settle:1").await;
    let job = publish(&service).await;
    service.job_in(&job, "done").await;
    let told = Told {
        component: "scheduler",
        actor: "scheduler.settler",
        policy: "restart",
        phase: "handle",
        message_type: "settler::Look",
        outcome: "restarted as incarnation 2 after",
        file: "actors/src/scheduler/settler.rs",
        span: "panic.recovered",
        ..Told::default()
    };
    told.by(&service, &collector).await;
}

#[tokio::test]
async fn a_probe_of_the_health_sweep() {
    let (collector, service) = panicking_at("inside_probe:2").await;
    let told = Told {
        component: "health_sweep",
        actor: "health_sweep",
        policy: "restart",
        phase: "handle",
        message_type: "health_sweep::Beat",
        outcome: "restarted as incarnation 2 after",
        file: "actors/src/health_sweep/probes.rs",
        span: "panic.recovered",
        ..Told::default()
    };
    told.by(&service, &collector).await;
}

/// The first incarnation is sound; the second one fails to start.
async fn failing_start(seam: &str, phase: &str, file: &str) {
    let (collector, service) = panicking_at(seam).await;
    service.make_panic("scheduler.firer").await;
    let told = Told {
        component: "scheduler",
        actor: "scheduler.firer",
        policy: "restart",
        phase,
        outcome: "restarted as incarnation 3 after",
        file,
        span: "child.start",
        ..Told::default()
    };
    // The drill is the other one.
    told.among(2, &service, &collector).await;
}

#[tokio::test]
async fn the_start_of_an_actor() {
    failing_start("inside_start:2", "pre_start", "actors/src/scheduler/firer.rs").await;
}

/// The scheduler makes six children at the boot.
#[tokio::test]
async fn what_makes_an_actor_in_the_loop_of_its_supervisor() {
    failing_start("inside_make:7", "make", "actors/src/scheduler/mod.rs").await;
}

#[tokio::test]
async fn the_end_of_an_actor() {
    let (collector, service) = panicking_at("inside_stop:1").await;
    service.admin().post("/admin/tree/restart/scheduler.runners", &json!({})).await.expect(200);
    let told = Told {
        component: "scheduler",
        actor: "scheduler.runners",
        policy: "restart",
        phase: "post_stop",
        outcome: "restarted as incarnation 2 after",
        file: "actors/src/scheduler/runners.rs",
        span: "panic.recovered",
        ..Told::default()
    };
    told.by(&service, &collector).await;
}

#[tokio::test]
async fn the_loop_of_a_supervisor() {
    let collector = Collector::start().await;
    let service = told_to(&collector).start().await;
    service.make_panic("scheduler").await;
    let told = Told {
        component: "scheduler",
        actor: "scheduler",
        policy: "restart",
        phase: "supervise",
        outcome: "restarted as incarnation 2 after",
        file: "supervision/src/process.rs",
        span: "panic.recovered",
        ..Told::default()
    };
    told.by(&service, &collector).await;
}

#[tokio::test]
async fn a_task_that_is_a_child() {
    let collector = Collector::start().await;
    let service = told_to(&collector).start().await;
    service.make_panic("api").await;
    let told = Told {
        component: "api",
        actor: "api",
        policy: "restart",
        phase: "task",
        outcome: "restarted as incarnation 2 after",
        file: "supervision/src/process.rs",
        span: "panic.recovered",
        ..Told::default()
    };
    told.by(&service, &collector).await;
}

#[tokio::test]
async fn a_task_of_an_actor() {
    let (collector, service) = panicking_at("after_handler:1").await;
    let job = publish(&service).await;
    service.job_in(&job, "done").await;
    let told = Told {
        component: "scheduler",
        actor: "scheduler.runners",
        policy: "keep_running",
        phase: "task",
        tenant: "demo",
        detail: vec![("task", "job"), ("job.id", &job), ("job.kind", "publish"), ("job.attempt", "1")],
        outcome: "the job is given back",
        file: "actors/src/jobs/run.rs",
        span: "job.run",
        ..Told::default()
    };
    told.by(&service, &collector).await;
}

#[tokio::test]
async fn the_handler_of_a_job() {
    let collector = Collector::start().await;
    let service = told_to(&collector).start().await;
    let body = json!({"kind": "panic", "payload": {}, "max_attempts": 1});
    let job = service.api().post("/v1/jobs", &body).await.expect(201).json();
    let job = job["id"].as_str().unwrap();
    let told = Told {
        component: "scheduler",
        actor: "scheduler.runners",
        policy: "keep_running",
        phase: "job",
        tenant: "demo",
        detail: vec![("job.id", job), ("job.kind", "panic"), ("job.attempt", "1")],
        outcome: "the job is dead: ",
        file: "actors/src/jobs/panic.rs",
        span: "job.run",
        ..Told::default()
    };
    told.by(&service, &collector).await;
}

#[tokio::test]
async fn the_handler_of_a_request() {
    let (collector, service) = panicking_at("after_enqueue:1").await;
    let body = json!({"kind": "publish", "payload": {"topic": "hello", "data": 1}});
    let request = service.api().request(Method::POST, "/v1/jobs").json(&body).header("x-request-id", "order-7");
    let answer = send(request.header("traceparent", format!("00-{OURS}-{CALLER}-01"))).await.expect(500);
    let told = Told {
        component: "api",
        actor: "api",
        policy: "keep_running",
        phase: "request",
        tenant: "demo",
        detail: vec![("route", "/v1/jobs"), ("request_id", "order-7")],
        outcome: "the request was answered 500",
        file: "actors/src/scheduler/mod.rs",
        span: "POST /v1/jobs",
        ..Told::default()
    };
    let incident = told.by(&service, &collector).await;
    assert_eq!((&incident["trace_id"], answer.header("x-trace-id")), (&json!(OURS), OURS));
    assert!(answer.body.contains(incident["id"].as_str().unwrap()), "{}", answer.body);
}

#[tokio::test]
async fn what_sends_to_a_receiver() {
    let (collector, service) = panicking_at("inside_send:1").await;
    let receiver = Receiver::start().await;
    let (channel, _) = service.webhook(&receiver.url("/hook")).await;
    service.enqueue("notify", json!({"channel": channel, "data": 1})).await;
    let told = Told {
        component: "channel_manager",
        actor: "channel_manager.channels.channel",
        policy: "keep_running",
        phase: "deliver",
        tenant: "demo",
        detail: vec![("channel", &channel), ("delivery", "")],
        outcome: "the delivery failed, and is tried again",
        file: "actors/src/channels/attempt.rs",
        span: "channel.deliver",
        ..Told::default()
    };
    told.by(&service, &collector).await;
}

#[tokio::test]
async fn what_writes_down_that_it_was_sent() {
    let (collector, service) = panicking_at("after_send:1").await;
    let receiver = Receiver::start().await;
    let (channel, _) = service.webhook(&receiver.url("/hook")).await;
    service.enqueue("notify", json!({"channel": channel, "data": 1})).await;
    let told = Told {
        component: "channel_manager",
        actor: "channel_manager.channels.channel",
        policy: "keep_running",
        phase: "task",
        tenant: "demo",
        detail: vec![("task", "deliver"), ("channel", &channel), ("delivery", "")],
        outcome: "nothing is written down, the delivery is made again",
        file: "actors/src/channels/attempt.rs",
        span: "channel.deliver",
        ..Told::default()
    };
    told.by(&service, &collector).await;
}

#[tokio::test]
async fn what_makes_a_frame_of_an_event() {
    let (collector, service) = panicking_at("inside_encode:1").await;
    let mut socket = Socket::open(service.api(), &["hello"]).await;
    let lost = publish(&service).await;
    service.job_in(&lost, "done").await;
    service.enqueue("publish", json!({"topic": "hello", "data": 2})).await;
    assert_eq!(socket.event().await["data"], 2, "the one behind it goes on");
    drop(socket);
    let told = Told {
        component: "broadcaster",
        actor: "broadcaster.relay",
        policy: "keep_running",
        phase: "encode",
        message_type: "Event",
        tenant: "demo",
        detail: vec![("topic", "hello"), ("event", "")],
        outcome: "the event was given up",
        file: "actors/src/broadcast/pump.rs",
        span: "event.deliver",
    };
    told.by(&service, &collector).await;
}

/// What a tenant's connection is told of, whatever it speaks.
fn of_a_connection(task: &'static str) -> Told<'static> {
    Told {
        component: "api",
        actor: "api",
        policy: "keep_running",
        phase: "task",
        tenant: "demo",
        detail: vec![("task", task)],
        outcome: "the connection was closed",
        file: "actors/src/broadcast/subscriber.rs",
        span: "panic.recovered",
        ..Told::default()
    }
}

#[tokio::test]
async fn a_socket() {
    let (collector, service) = panicking_at("inside_socket:2").await;
    let mut socket = Socket::open(service.api(), &["hello"]).await;
    publish(&service).await;
    socket.event().await;
    of_a_connection("socket").by(&service, &collector).await;
}

#[tokio::test]
async fn a_stream_of_events() {
    let (collector, service) = panicking_at("inside_socket:2").await;
    let mut stream = EventStream::open(service.api(), &["hello"]).await;
    publish(&service).await;
    stream.message().await;
    of_a_connection("sse").by(&service, &collector).await;
}

#[tokio::test]
async fn what_carries_the_bus() {
    let (collector, service) = panicking_at("inside_carry:1").await;
    let told = Told {
        component: "bus",
        actor: "bus",
        policy: "keep_running",
        phase: "carry",
        outcome: "the bus is carried again in 1000 ms",
        file: "actors/src/bus/actor.rs",
        span: "panic.recovered",
        ..Told::default()
    };
    told.by(&service, &collector).await;
}

#[tokio::test]
async fn what_hears_the_bus() {
    let Some(redis) = Redis::start().await else { return };
    let collector = Collector::start().await;
    let setup = told_to(&collector).set("bus.url", redis.url()).env("PANIC_AT", "inside_receive:1");
    let service = setup.start().await;
    let told = Told {
        component: "bus",
        actor: "bus",
        policy: "keep_running",
        phase: "receive",
        outcome: "the message was given up",
        file: "actors/src/bus/redis/link.rs",
        span: "panic.recovered",
        ..Told::default()
    };
    told.by(&service, &collector).await;
}

/// It costs the process, and all is told before its end.
#[tokio::test]
async fn a_migration() {
    let collector = Collector::start().await;
    let process = told_to(&collector).env("PANIC_AT", "inside_migration:1").spawn();
    let ended = process.wait(SOON).await;
    assert_eq!(ended.code, 134, "{}", ended.log());
    let told = Told {
        component: "store",
        actor: "store",
        policy: "crash_process",
        phase: "prepare",
        file: "actors/src/store/keeper.rs",
        ..Told::default()
    };
    let log = collector.log("of the panic", SOON, |log| log.name == "panic.recovered").await;
    told.is_said_in(|key| log.attribute(key));
    let spans = collector.spans();
    let span = bearing(&spans, log.attribute("incident.id"));
    assert_eq!((&span.trace_id, &span.span_id), (&log.trace_id, &log.span_id));
    told.is_told_on(span);
    assert_eq!(span.links.len(), 1, "the boot, whose span never ends: {span:?}");
    let labels = [("component", "store"), ("actor", "store"), ("policy", "crash_process")];
    let is_it = |point: &tests::collector::Point| point.name == "panic_recovered_total" && point.bears(&labels);
    assert_eq!(collector.point("of the panic", SOON, |point| is_it(point) && point.value > 0.0).await.value, 1.0);
}
