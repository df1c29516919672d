//! Whatever becomes of the collector while requests come in: none of them waits for it, what is lost is counted, little is
//! said about it, memory stays what it was, and the stop keeps its time.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;
use reqwest::Method;
use tests::client::send;
use tests::collector::Behaviour;
use tests::{Collector, Metrics, Protocol, Service, Setup, eventually};

const SOON: Duration = Duration::from_secs(30);
/// Requests while the collector is well, and while it is not.
const WARM: usize = 500;
const MANY: usize = 2_000;
/// Clients at a time.
const CLIENTS: usize = 8;
/// Spans that may wait, and that are sent together: few, so that little traffic is too much.
const QUEUE: usize = 512;
const BATCH: usize = 128;
/// An export that nobody answers takes 3 s, and a request that waits for one is not answered sooner.
const NOT_WAITED: Duration = Duration::from_secs(2);
/// Those that a busy machine may hold up for so long.
const HELD_UP_MAX: usize = MANY / 100;
/// Each failure is said once in this time.
const SAID_AGAIN: u64 = 30;
/// Kinds of failures that the exporters of three signals can have.
const FAILURES_MAX: u64 = 15;
/// What a process may take more, MiB: far less than all that it did not get rid of, with the debris of an allocator.
const GROWTH_MAX: u64 = 48;

fn exporting(collector: &Collector, protocol: Protocol) -> Setup {
    // The recorder has bounds and tests of its own.
    let setup = Service::setup().telemetry(collector, protocol).set("telemetry.recorder.enabled", false);
    let setup = setup.env("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE).env("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH);
    setup.set("tenants.requests_per_s", 1_000_000).set("tenants.requests_burst", 1_000_000)
}

/// Asks so often and returns how long each answer took, the quickest first.
async fn ask(service: &Service, times: usize) -> Vec<Duration> {
    let one = async |_| {
        let asked = Instant::now();
        service.api().get("/v1/jobs?limit=1").await.expect(200);
        asked.elapsed()
    };
    let mut took: Vec<_> = stream::iter(0..times).map(one).buffer_unordered(CLIENTS).collect().await;
    took.sort();
    took
}

/// Resident memory, MiB.
fn resident(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.process().pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

fn full(metrics: &Metrics) -> f64 {
    lost(metrics, "queue_full")
}

fn refused(metrics: &Metrics) -> f64 {
    lost(metrics, "refused")
}

fn lost(metrics: &Metrics, reason: &str) -> f64 {
    metrics.value("telemetry_export_lost_total", &[("signal", "traces"), ("reason", reason)]).expect("born at 0")
}

/// The lines on the failures of the exporters.
fn said(service: &Service) -> Vec<String> {
    service.process().stderr().into_iter().filter(|line| line.contains(" opentelemetry")).collect()
}

/// Requests before and while `fault` holds.
async fn rides_out(collector: &Collector, protocol: Protocol, fault: impl AsyncFnOnce()) -> Service {
    let service = exporting(collector, protocol).start().await;
    let before = ask(&service, WARM).await;
    let (began, memory) = (Instant::now(), resident(&service));
    let (meanwhile, ()) = tokio::join!(ask(&service, MANY), fault());
    let median = |took: &[Duration]| took[took.len() / 2];
    let (well, ill) = (median(&before), median(&meanwhile));
    println!("half of the answers within {well:?} before and {ill:?} meanwhile, all within {:?}", meanwhile[MANY - 1]);
    let held_up = meanwhile.iter().filter(|took| **took >= NOT_WAITED).count();
    assert!(held_up <= HELD_UP_MAX, "{held_up} of {MANY}, up to {:?}", meanwhile[MANY - 1]);
    assert!(ill < well * 10 + Duration::from_millis(50), "{well:?} before, {ill:?} meanwhile");

    let metrics = eventually("what is lost is counted", SOON, || async {
        let metrics = service.metrics().await;
        (full(&metrics) + refused(&metrics) > 0.0).then_some(metrics)
    })
    .await;
    println!("{} found no room, {} were sent in vain", full(&metrics), refused(&metrics));
    let grown = resident(&service).saturating_sub(memory);
    assert!(grown < GROWTH_MAX, "{grown} MiB more than before");
    let (said, for_s) = (said(&service), began.elapsed().as_secs());
    println!("{} lines in {for_s} s, {grown} MiB more", said.len());
    assert!(!said.is_empty() && said.len() as u64 <= FAILURES_MAX * (1 + for_s / SAID_AGAIN), "{said:#?}");
    service
}

/// The flush has 2 s, and all else is quick.
async fn stops_in_time(service: &Service) {
    let ended = service.stop().await;
    println!("stopped after {:?}", ended.took);
    assert_eq!(ended.code, 0, "{}", ended.log());
    assert!(ended.took < Duration::from_secs(6), "{:?}", ended.took);
}

async fn answers_as(behaviour: Behaviour, protocol: Protocol) {
    let collector = Collector::start().await;
    let service = rides_out(&collector, protocol, async || collector.behave(behaviour)).await;
    stops_in_time(&service).await;
}

#[tokio::test]
async fn a_collector_that_never_answers() {
    answers_as(Behaviour::Delay(Duration::from_secs(600)), Protocol::HttpProtobuf).await;
}

#[tokio::test]
async fn a_collector_that_never_answers_over_grpc() {
    answers_as(Behaviour::Delay(Duration::from_secs(600)), Protocol::Grpc).await;
}

#[tokio::test]
async fn a_collector_that_answers_each_time_after_two_seconds() {
    answers_as(Behaviour::Delay(Duration::from_secs(2)), Protocol::HttpProtobuf).await;
}

#[tokio::test]
async fn a_collector_that_answers_503() {
    answers_as(Behaviour::Refuse, Protocol::HttpProtobuf).await;
}

#[tokio::test]
async fn a_collector_that_is_killed_amid_the_traffic_and_gets_all_that_comes_after_its_return() {
    comes_back(Protocol::HttpProtobuf).await;
}

#[tokio::test]
async fn a_collector_that_is_killed_and_returns_over_grpc() {
    comes_back(Protocol::Grpc).await;
}

async fn comes_back(protocol: Protocol) {
    let collector = Collector::start().await;
    let service = rides_out(&collector, protocol, async || collector.kill()).await;
    collector.restart().await;
    eventually("what is new arrives", SOON, || async {
        let answer = service.api().get("/v1/jobs?limit=1").await.expect(200);
        let trace = answer.header("x-trace-id").to_owned();
        let arrives = collector.span("of the request", Duration::from_secs(5), |span| span.trace_id == trace);
        tokio::time::timeout(Duration::from_secs(4), arrives).await.ok()
    })
    .await;
    let mut traces = Vec::new();
    for _ in 0..BATCH {
        traces.push(service.api().get("/v1/jobs?limit=1").await.expect(200).header("x-trace-id").to_owned());
    }
    stops_in_time(&service).await;
    let arrived: HashSet<_> = collector.spans().into_iter().map(|span| span.trace_id).collect();
    let missing: Vec<_> = traces.iter().filter(|trace| !arrived.contains(*trace)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// What waits is bounded in bytes too: strangers say how long a head is.
#[tokio::test]
async fn a_collector_that_never_answers_while_clients_send_long_heads() {
    const LONG: usize = 60_000;
    let collector = Collector::start().await;
    collector.behave(Behaviour::Delay(Duration::from_secs(600)));
    // As many may wait as by default.
    let service = exporting(&collector, Protocol::HttpProtobuf).env("OTEL_BSP_MAX_QUEUE_SIZE", 8_192).start().await;
    ask(&service, WARM).await;
    let memory = resident(&service);
    let stranger = service.api().without_key();
    let one = async |_| {
        let request = stranger.request(Method::GET, "/v1/jobs").header("user-agent", "x".repeat(LONG));
        send(request).await.expect(401);
    };
    stream::iter(0..MANY).map(one).buffer_unordered(CLIENTS).collect::<Vec<()>>().await;
    let grown = resident(&service).saturating_sub(memory);
    println!("{} MiB were sent, {grown} MiB more", (MANY * LONG) >> 20);
    assert!(grown < GROWTH_MAX, "{grown} MiB more than before");
    assert!(full(&service.metrics().await) > 0.0);
    stops_in_time(&service).await;
}

#[tokio::test]
async fn a_collector_that_was_never_there() {
    let collector = Collector::start().await;
    collector.kill();
    let service = rides_out(&collector, Protocol::HttpProtobuf, async || ()).await;
    stops_in_time(&service).await;
}

/// Log records and spans of one second, of what happens within some.
async fn told_each_second(collector: &Collector) -> [f64; 2] {
    const SPAN: Duration = Duration::from_secs(6);
    let now = || u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos()).unwrap();
    let began = now();
    tokio::time::sleep(SPAN).await;
    let within = began..now();
    // Until the laziest has sent what it has.
    tokio::time::sleep(LAZY * 2).await;
    let logs = collector.logs().iter().filter(|log| within.contains(&log.time_ns)).count();
    let spans = collector.spans().iter().filter(|span| within.contains(&span.end_ns)).count();
    [logs, spans].map(|count| count as f64 / SPAN.as_secs_f64())
}

/// How often who is asked to export seldom does so.
const LAZY: Duration = Duration::from_secs(2);

/// Whoever asks for it is told all that exporters and what they stand on have to say.
const ALL: &str = "trace,opentelemetry=trace,reqwest=trace,hyper=trace,h2=trace,tonic=trace,tower=trace,rustls=trace";

/// One that exports a hundred times as often as another sends no more than that one does.
async fn no_line_breeds_another(protocol: Protocol) {
    let (often, seldom) = (Collector::start().await, Collector::start().await);
    let tells = |collector: &Collector, every: Duration| {
        let setup = Service::setup().telemetry(collector, protocol).set("log.filter", ALL);
        let names = ["OTEL_BSP_SCHEDULE_DELAY", "OTEL_BLRP_SCHEDULE_DELAY", "OTEL_METRIC_EXPORT_INTERVAL"];
        names.iter().fold(setup, |setup, name| setup.env(name, every.as_millis()))
    };
    let _services = tokio::join!(tells(&often, LAZY / 100).start(), tells(&seldom, LAZY).start());
    let (often, seldom) = tokio::join!(told_each_second(&often), told_each_second(&seldom));
    println!("log records and spans of a second: {often:?} if sent often, {seldom:?} if seldom");
    assert!(seldom[0] > 1.0, "at this level nothing is told at all");
    for (often, seldom) in often.into_iter().zip(seldom) {
        assert!(often < seldom * 1.5 + 10.0, "{often} a second, and {seldom} if it is sent seldom");
    }
}

#[tokio::test]
async fn at_level_trace_no_line_breeds_another() {
    no_line_breeds_another(Protocol::HttpProtobuf).await;
}

#[tokio::test]
async fn at_level_trace_no_line_breeds_another_over_grpc() {
    no_line_breeds_another(Protocol::Grpc).await;
}
