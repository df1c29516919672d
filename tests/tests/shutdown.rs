//! The stop: its order, its budgets, its report, its exit codes, and what was accepted before it.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use tests::collector::{Behaviour, Span};
use tests::{Collector, Home, Protocol, Service, Socket, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn the_stop_is_one_trace_in_the_exact_reverse_of_the_start() {
    let collector = Collector::start().await;
    let service = Service::setup().telemetry(&collector, Protocol::HttpProtobuf).start().await;
    assert_eq!(service.stop().await.code, 0);
    let boot = collector.span("the boot", SOON, |span| span.name == "boot").await;
    let stop = collector.span("the stop, flushed before the end", SOON, |span| span.name == "shutdown").await;
    assert!(boot.is_root() && stop.is_root() && boot.trace_id != stop.trace_id);
    let started = paths(&collector, &boot.trace_id, "child.start", |span| span.start_ns);
    let mut stopped = paths(&collector, &stop.trace_id, "child.stop", |span| span.end_ns);
    stopped.reverse();
    assert!(started.len() > 9 && started.iter().any(|path| path == "scheduler.claimer"), "{started:?}");
    assert_eq!(started, stopped);
}

/// A supervisor begins to start before its children and is stopped after them.
fn paths(collector: &Collector, trace: &str, name: &str, order: impl Fn(&Span) -> u64) -> Vec<String> {
    let mut spans = collector.trace(trace);
    spans.retain(|span| span.name == name);
    spans.sort_by_key(order);
    spans.iter().map(|span| span.attribute("path").to_owned()).collect()
}

#[tokio::test]
async fn sigterm_and_sigint_both_end_with_0_and_say_how_each_child_ended() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let service = Service::start().await;
        service.process().signal(signal);
        let ended = service.process().wait(SOON).await;
        assert_eq!(ended.code, 0, "{}", ended.log());
        for child in ["api", "scheduler", "channel_manager", "broadcaster", "store", "admin"] {
            assert!(
                ended.log().lines().any(|line| line.contains("stopped") && line.contains(child)),
                "{}",
                ended.log()
            );
        }
        assert!(ended.took < Duration::from_secs(3), "nothing was running, and yet it took {:?}", ended.took);
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let service = Service::setup().set("shutdown.drain_delay_ms", 3000).start().await;
    service.process().signal(Signal::SIGTERM);
    is_unready(&service).await;
    service.process().signal(Signal::SIGTERM);
    let ended = service.process().wait(SOON).await;
    assert_eq!(ended.code, 143);
    assert!(ended.took < Duration::from_secs(1), "{:?}", ended.took);
}

#[tokio::test]
async fn while_it_drains_it_is_unready_and_still_serves_and_asks_to_close() {
    let service = Service::setup().set("shutdown.drain_delay_ms", 2000).start().await;
    let before = service.api().get("/v1/jobs/none").await;
    assert_eq!(before.header("connection"), "");
    let asked = Instant::now();
    service.process().signal(Signal::SIGTERM);
    is_unready(&service).await;
    assert_eq!(service.api().get("/readyz").await.status, 503);
    assert_eq!(service.api().get("/healthz").await.status, 200, "a restart would cure nothing");
    let body = json!({"kind": "publish", "payload": {"topic": "t", "data": 1}});
    let answer = service.api().post("/v1/jobs", &body).await.expect(201);
    assert_eq!(answer.header("connection"), "close");
    let ended = service.process().wait(SOON).await;
    assert_eq!(ended.code, 0);
    assert!(asked.elapsed() >= Duration::from_secs(2), "the whole delay");
}

#[tokio::test]
async fn an_open_socket_is_asked_to_reconnect_and_closed_with_1012() {
    let service = Service::start().await;
    let mut socket = Socket::open(service.api(), &["t"]).await;
    service.process().signal(Signal::SIGTERM);
    let (frames, closed) = socket.until_closed().await;
    let last = frames.last().expect("a frame before the close");
    assert_eq!(last["type"], "reconnect", "{last}");
    assert!(last["after_ms"].is_u64(), "{last}");
    assert_eq!(closed.code, 1012);
    assert_eq!(service.process().wait(SOON).await.code, 0);
}

/// A request whose head and half of whose body are there.
struct InFlight(TcpStream);

impl InFlight {
    const BODY: &str = r#"{"kind":"publish","payload":{"topic":"t","data":1}}"#;

    async fn begin(service: &Service) -> InFlight {
        let mut stream = TcpStream::connect(service.api().authority()).await.unwrap();
        let head = format!(
            "POST /v1/jobs HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            service.api().authority(),
            service.api().key().unwrap(),
            Self::BODY.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&Self::BODY.as_bytes()[..20]).await.unwrap();
        InFlight(stream)
    }

    /// Sends the rest and returns the id of the job.
    async fn finish(mut self) -> String {
        self.0.write_all(&Self::BODY.as_bytes()[20..]).await.unwrap();
        let mut answer = Vec::new();
        self.0.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        let body: serde_json::Value = serde_json::from_str(answer.rsplit("\r\n\r\n").next().unwrap()).unwrap();
        body["id"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn two_hundred_accepted_requests_are_all_answered_and_none_of_their_jobs_is_lost() {
    let home = Home::empty();
    let setup = Service::setup().home(&home).set("shutdown.drain_delay_ms", 500);
    let service = setup.set("tenants.requests_at_once", 200).start().await;
    let mut requests = Vec::new();
    for _ in 0..200 {
        requests.push(InFlight::begin(&service).await);
    }
    service.api().get("/readyz").await.expect(200);
    service.process().signal(Signal::SIGTERM);
    is_unready(&service).await;
    eventually("the listener is closed", SOON, || async {
        TcpStream::connect(service.api().authority()).await.is_err().then_some(())
    })
    .await;
    let mut accepted = Vec::new();
    for request in requests {
        accepted.push(request.finish().await);
    }
    let ended = service.process().wait(SOON).await;
    assert_eq!(ended.code, 0, "{}", ended.log());

    let next = Service::setup().home(&home).start().await;
    assert_eq!(accepted.len(), 200);
    for id in &accepted {
        next.job_in(id, "done").await;
    }
}

#[tokio::test]
async fn a_child_that_hangs_is_killed_at_its_budget_named_and_told_by_71() {
    let service = Service::start().await;
    service.make_hang("health_sweep").await;
    service.is_hanging("health_sweep").await;
    let ended = service.stop().await;
    assert_eq!(ended.code, 71, "{}", ended.log());
    let named = |line: &&String| line.contains("health_sweep") && line.to_lowercase().contains("killed");
    assert!(ended.stderr.iter().any(|line| named(&line)), "{}", ended.log());
    assert!(ended.took >= Duration::from_millis(500) && ended.took < Duration::from_secs(4), "{:?}", ended.took);
    assert!(ended.log().contains("admin"), "the others were stopped in order all the same");
}

#[tokio::test]
async fn a_request_that_never_ends_holds_up_the_stop_for_its_budget_and_no_longer() {
    let setup = Service::setup().set("api.stop_budget_ms", 1000);
    let service = setup.set("limits.request_ms", 60_000).set("idempotency.lease_ms", 61_000).start().await;
    let _never_finished = InFlight::begin(&service).await;
    service.api().get("/readyz").await.expect(200);
    let ended = service.stop().await;
    assert!(ended.took >= Duration::from_millis(900) && ended.took < Duration::from_secs(5), "{:?}", ended.took);
    assert!([0, 71].contains(&ended.code), "{} {}", ended.code, ended.log());
}

#[tokio::test]
async fn a_collector_that_hangs_gets_its_two_seconds_and_no_more() {
    let collector = Collector::start().await;
    let service = Service::setup().telemetry(&collector, Protocol::Grpc).start().await;
    collector.behave(Behaviour::Delay(Duration::from_secs(60)));
    let ended = service.stop().await;
    assert_eq!(ended.code, 0, "{}", ended.log());
    assert!(ended.took < Duration::from_secs(6), "{:?}", ended.took);
}

async fn is_unready(service: &Service) {
    eventually("it is unready", SOON, || async {
        (service.admin().try_get("/readyz").await?.status == 503).then_some(())
    })
    .await;
}
