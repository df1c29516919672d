//! A life of the service with all that can happen in it: what is asked of it, what fails, what is done to it from outside.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tests::client::send;
use tests::receiver::Reply;
use tests::stream::EventStream;
use tests::{Collector, Database, Protocol, Receiver, Redis, Service, Setup, Socket, eventually};

const SOON: Duration = Duration::from_secs(60);

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Lives it, and returns what stood on `/metrics` towards its end. Without the servers it needs there is nothing.
pub async fn of_the_service(collector: &Collector) -> Option<Vec<String>> {
    let (database, redis) = (Database::empty().await?, Redis::start().await?);
    let setup = |port_of: &str| told(collector).set("store.url", database.url()).set("bus.url", port_of);
    let service = setup(&redis.url())
        .fast_backoff()
        .set("scheduler.retry_base_ms", 100)
        .set("scheduler.restart.intensity", 2)
        .set("health_sweep.restart.intensity", 2)
        .set("channel_manager.retry_delays_ms", "10,10")
        .set("broadcaster.topics_per_socket_max", 4)
        .set("shutdown.drain_delay_ms", 500)
        .start()
        .await;
    tenants(collector, &database).await;
    requests(&service).await;
    jobs(&service).await;
    events(&service).await;
    schedules(&service).await;
    channels(&service).await;
    failures(&service).await;
    operators(&service).await;
    bus_is_away(&service, &redis).await;
    let mut pages = vec![service.metrics().await.text().to_owned()];
    let ended = service.stop().await;
    assert_eq!(ended.code, 0, "{}", ended.log());
    pages.push(alone(collector).await);
    Some(pages)
}

fn told(collector: &Collector) -> Setup {
    Service::setup().telemetry(collector, Protocol::HttpProtobuf)
}

/// The command line, where it changes something.
async fn tenants(collector: &Collector, database: &Database) {
    let command = Setup::bare().telemetry(collector, Protocol::HttpProtobuf).set("store.url", database.url());
    let ended = command.arg("tenant").arg("create").arg("acme").run().await;
    assert_eq!(ended.code, 0, "{}", ended.log());
}

async fn requests(service: &Service) {
    let body = json!({"kind": "publish", "payload": {"topic": "t", "data": 1}});
    let request = service.api().request(Method::POST, "/v1/jobs").json(&body).header("user-agent", "a test");
    let answer = send(request.header("traceparent", TRACEPARENT).header("idempotency-key", "once")).await.expect(201);
    service.job_in(answer.json()["id"].as_str().unwrap(), "done").await;
    service.api().get("/nowhere").await.expect(404);
    service.api().without_key().get("/v1/jobs").await.expect(401);
}

async fn jobs(service: &Service) {
    let body = json!({"kind": "panic", "payload": {}, "max_attempts": 2});
    let dead = service.api().post("/v1/jobs", &body).await.expect(201).json()["id"].as_str().unwrap().to_owned();
    service.job_in(&dead, "dead").await;
    service.api().post(&format!("/v1/jobs/{dead}/redrive"), &json!({})).await;
    let asleep = service.enqueue("sleep", json!({"ms": 600_000})).await;
    service.job_in(&asleep, "running").await;
    service.api().post(&format!("/v1/jobs/{asleep}/cancel"), &json!({})).await;
}

async fn events(service: &Service) {
    let mut socket = Socket::open(service.api(), &["hello"]).await;
    let mut stream = EventStream::open(service.api(), &["hello"]).await;
    service.enqueue("publish", json!({"topic": "hello", "data": 1})).await;
    socket.event().await;
    stream.message().await;
    let many: Vec<String> = (0..9).map(|n| format!("t{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(Socket::try_open(service.api(), &many).await.is_err(), "more topics than one socket may have");
}

async fn schedules(service: &Service) {
    for overlap in ["skip", "buffer_one", "cancel_previous"] {
        let body = json!({"kind": "sleep", "payload": {"ms": 1_500}, "every_ms": 1_000, "overlap": overlap});
        service.api().post("/v1/schedules", &body).await.expect(201);
    }
    eventually("schedules have fired", SOON, || async {
        (service.metrics().await.value("schedule_fired_total", &[]) >= Some(3.0)).then_some(())
    })
    .await;
}

/// A receiver that is well, that fails, and that is not there any more; and calls of jobs.
async fn channels(service: &Service) {
    let receiver = Receiver::start().await;
    receiver.script([Reply::Status(200), Reply::Status(500), Reply::Status(200), Reply::Status(410)]);
    let (channel, _) = service.webhook(&receiver.url("/hook")).await;
    for calls in [1, 3, 4] {
        service.enqueue("notify", json!({"channel": channel, "data": calls})).await;
        receiver.await_calls(calls, SOON).await;
    }
    // The one is never sent, the other reaches nobody.
    for (link, end) in [("http://192.0.2.1:99999/", "done"), ("http://127.0.0.1:1/", "dead")] {
        let body = json!({"kind": "check_links", "payload": {"urls": [link]}, "max_attempts": 1});
        let job = service.api().post("/v1/jobs", &body).await.expect(201).json();
        service.job_in(job["id"].as_str().unwrap(), end).await;
    }
}

/// A child that fails, one that fails too often, one whose supervisor gives up, one that hangs and one that does not yield.
async fn failures(service: &Service) {
    panics(service, "health_sweep", 3).await;
    eventually("it is degraded", SOON, || async {
        (service.node("health_sweep").await["degraded"] == true).then_some(())
    })
    .await;
    panics(service, "scheduler.firer", 3).await;
    eventually("its supervisor is started again", SOON, || async {
        let node = service.node("scheduler").await;
        (node["status"] == "up" && node["incarnation"].as_u64() >= Some(2)).then_some(())
    })
    .await;
    service.make_hang("broadcaster.reaper").await;
    eventually("it is late", SOON, || async {
        let became = service.metrics().await.value("heartbeat_became_stuck_total", &[]);
        (became >= Some(1.0)).then_some(())
    })
    .await;
    service.admin().post("/admin/tree/restart/broadcaster", &json!({})).await.expect(200);
}

/// Lets the child fail so often, each time when it is up.
async fn panics(service: &Service, path: &str, times: u64) {
    for incarnation in 1..=times {
        eventually(&format!("{path} is up"), SOON, || async {
            let node = service.node(path).await;
            (node["status"] == "up" && node["incarnation"] == incarnation).then_some(())
        })
        .await;
        service.make_panic(path).await;
    }
}

async fn operators(service: &Service) {
    service.admin().post("/admin/tree/restart/channel_manager", &json!({})).await.expect(200);
    service.admin().post("/admin/tenants", &json!({"id": "made"})).await.expect(201);
}

/// An event is refused, the connection is lost, and a gap shown when it is back.
async fn bus_is_away(service: &Service, redis: &Redis) {
    redis.kill().await;
    let body = json!({"kind": "publish", "payload": {"topic": "t", "data": 1}, "max_attempts": 1});
    service.api().post("/v1/jobs", &body).await.expect(201);
    let counted = async |name: &str| {
        eventually(name, SOON, || async { (service.metrics().await.value(name, &[]) >= Some(1.0)).then_some(()) })
            .await;
    };
    counted("bus_redis_lost_total").await;
    counted("bus_refused_total").await;
    redis.restart().await;
}

/// Without other servers, with a message that an actor cannot bear, and with more failures than a log has room for.
async fn alone(collector: &Collector) -> String {
    let service = told(collector).env("PANIC_AT", "after_claim:1").fast_backoff().start().await;
    service.enqueue("publish", json!({"topic": "t", "data": 1})).await;
    eventually("it has panicked", SOON, || async {
        (service.metrics().await.value("panic_recovered_total", &[("actor", "scheduler.claimer")]) == Some(1.0))
            .then_some(())
    })
    .await;
    let lost = json!({"kind": "notify", "payload": {"channel": uuid::Uuid::nil(), "data": 1}});
    let ids = service.api().post("/v1/jobs/batch", &json!({"jobs": vec![lost; 150]})).await.expect(201).json();
    for id in ids["ids"].as_array().unwrap() {
        service.job_in(id.as_str().unwrap(), "dead").await;
    }
    eventually("those that the log had no room for are counted", SOON, || async {
        (service.metrics().await.value("log_suppressed_total", &[]) >= Some(1.0)).then_some(())
    })
    .await;
    let page = service.metrics().await.text().to_owned();
    assert_eq!(service.stop().await.code, 0);
    page
}
