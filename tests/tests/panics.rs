//! Each of the five subsystems made to panic: it comes back alone, and everything is on record.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use tests::service::SUBSYSTEMS;
use tests::wait::never;
use tests::{Collector, Protocol, Service, Socket, eventually};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn the_scheduler_comes_back_alone() {
    comes_back_alone("scheduler").await;
}

#[tokio::test]
async fn the_broadcaster_comes_back_alone() {
    comes_back_alone("broadcaster").await;
}

#[tokio::test]
async fn the_channel_manager_comes_back_alone() {
    comes_back_alone("channel_manager").await;
}

#[tokio::test]
async fn the_health_sweep_comes_back_alone() {
    comes_back_alone("health_sweep").await;
}

#[tokio::test]
async fn the_liveness_monitor_comes_back_alone() {
    comes_back_alone("liveness_monitor").await;
}

/// The whole promise for one subsystem.
async fn comes_back_alone(subsystem: &str) {
    let collector = Collector::start().await;
    let service = Service::setup().telemetry(&collector, Protocol::HttpProtobuf).start().await;
    let mut socket = Socket::open(service.api(), &["hello"]).await;
    let before = incarnations(&service).await;
    assert_eq!(panics(&service).await, counts(|_| 0.0), "every counter is born at 0");

    service.make_panic(subsystem).await;
    is_waiting_with_a_backoff_and_the_service_is_degraded_but_ready(&service, subsystem).await;
    is_up_again(&service, subsystem, before[subsystem] + 1).await;

    let expected = before.iter().map(|(name, n)| (name.clone(), n + u64::from(name == subsystem))).collect();
    assert_eq!(incarnations(&service).await, expected, "the others were not touched");
    assert_eq!(panics(&service).await, counts(|name| if name == subsystem { 1.0 } else { 0.0 }));
    the_panic_is_at_the_collector(&collector, subsystem).await;
    the_incident_is_kept(&service, subsystem).await;

    service.enqueue("publish", json!({"topic": "hello", "data": "still here"})).await;
    assert_eq!(socket.event().await["data"], "still here", "on the socket that was open all the time");
}

/// 1 s, of which a fifth may be left to chance.
async fn is_waiting_with_a_backoff_and_the_service_is_degraded_but_ready(service: &Service, subsystem: &str) {
    let node = eventually("it waits for its restart", SOON, || async {
        let node = service.node(subsystem).await;
        (node["status"] == "waiting").then_some(node)
    })
    .await;
    let delay = node["history"].as_array().unwrap().last().unwrap()["restart_in_ms"].as_u64().unwrap();
    assert!((800..=1000).contains(&delay), "{node:#}");
    let ready = service.admin().get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("degraded")), "{}", ready.body);
    assert_eq!(service.admin().get("/healthz").await.status, 200);
}

async fn is_up_again(service: &Service, subsystem: &str, incarnation: u64) {
    eventually(&format!("{subsystem} is up again"), SOON, || async {
        let node = service.node(subsystem).await;
        (node["status"] == "up" && node["incarnation"] == incarnation).then_some(())
    })
    .await;
}

async fn the_panic_is_at_the_collector(collector: &Collector, subsystem: &str) {
    let span = collector.span("with the panic", SOON, |span| span.event("panic.recovered").is_some()).await;
    assert!(span.failed, "{span:?}");
    assert_eq!(span.attribute("error.type"), "panic");
    let event = span.event("panic.recovered").unwrap();
    assert_eq!((event.attribute("component"), event.attribute("policy")), (subsystem, "restart"));
    let stack = event.attribute("exception.stacktrace");
    assert!(stack.lines().any(is_ours), "no line of ours in {stack}");
    let log = collector.log("of the panic", SOON, |log| log.name == "panic.recovered").await;
    assert_eq!((&log.trace_id, &log.span_id), (&span.trace_id, &span.span_id));
    assert_eq!(log.attribute("component"), subsystem);

    let panics: Vec<_> = collector.spans().into_iter().flat_map(|span| span.events).collect();
    assert_eq!(panics.iter().filter(|event| event.name == "panic.recovered").count(), 1, "recorded exactly once");
}

/// A place in this workspace: file and line.
fn is_ours(line: &str) -> bool {
    let place = line.trim().trim_start_matches("at ").trim_start_matches("./");
    ["supervision/src/", "actors/src/", "app/src/"].iter().any(|folder| {
        place.find(folder).is_some_and(|at| place[at..].split(':').nth(1).is_some_and(|n| n.parse::<u32>().is_ok()))
    })
}

async fn the_incident_is_kept(service: &Service, subsystem: &str) {
    let list = service.admin().get("/admin/incidents").await.expect(200).json();
    let items = list["items"].as_array().unwrap_or_else(|| panic!("items in {list}"));
    let incident = items.iter().find(|item| item["component"] == subsystem).unwrap_or_else(|| panic!("{list:#}"));
    let path = format!("/admin/incidents/{}", incident["id"].as_str().unwrap());
    let whole = eventually("its backtrace is resolved", SOON, || async {
        let whole = service.admin().get(&path).await.expect(200).json();
        whole["backtrace"].as_str().is_some_and(|text| text.lines().any(is_ours)).then_some(whole)
    })
    .await;
    assert_eq!(whole["policy"], "restart");
    assert!(whole["trace_id"].as_str().is_some_and(|id| id.len() == 32), "{whole:#}");
}

#[tokio::test]
async fn a_leaf_that_panics_leaves_its_brothers_alone() {
    let service = Service::setup().fast_backoff().start().await;
    let children = |node: serde_json::Value| node["children"].as_array().unwrap().clone();
    let before = children(service.node("scheduler").await);
    assert!(before.len() > 1);
    service.make_panic("scheduler.claimer").await;
    is_up_again(&service, "scheduler.claimer", 2).await;
    for child in children(service.node("scheduler").await) {
        let expected = if child["id"] == "claimer" { 2 } else { 1 };
        assert_eq!(child["incarnation"], expected, "{child:#}");
    }
    assert_eq!(service.node("scheduler").await["incarnation"], 1);
    let metrics = service.metrics().await;
    let labels = [("component", "scheduler"), ("actor", "scheduler.claimer"), ("policy", "restart")];
    assert_eq!(metrics.value("panic_recovered_total", &labels), Some(1.0));
    let id = service.enqueue("publish", json!({"topic": "t", "data": 1})).await;
    service.job_in(&id, "done").await;
}

/// What is not a child, or is one only while there is work for it.
const NOT_IN_THE_TREE: [&str; 3] = ["root", "watchdog", "channel_manager.channels.channel"];

#[tokio::test]
async fn who_may_panic_is_counted_from_0_and_is_called_in_all_metrics_as_in_the_tree() {
    fn paths(node: &Value) -> Vec<&str> {
        let below = node["children"].as_array().into_iter().flatten().flat_map(paths);
        node["path"].as_str().into_iter().filter(|path| *path != "/").chain(below).collect()
    }
    let service = Service::start().await;
    let tree = service.admin().get("/admin/tree").await.expect(200).json();
    let metrics = service.metrics().await;
    let all: Vec<&str> = paths(&tree).into_iter().chain(NOT_IN_THE_TREE).collect();
    for actor in &all {
        let count = metrics.value("panic_recovered_total", &[("actor", actor), ("policy", "keep_running")]);
        assert_eq!(count, Some(0.0), "of the tasks of {actor}");
    }
    for actor in paths(&tree) {
        let count = metrics.value("panic_recovered_total", &[("actor", actor), ("policy", "restart")]);
        assert_eq!(count, Some(0.0), "of {actor} itself");
    }
    let told = metrics.text().split("actor=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let strangers: BTreeSet<&str> = told.filter(|actor| !all.contains(actor)).collect();
    assert!(strangers.is_empty(), "{strangers:?} are nobody");
}

#[tokio::test]
async fn every_subsystem_may_panic_at_once_and_no_socket_is_closed() {
    let service = Service::setup().fast_backoff().start().await;
    let mut sockets = Vec::new();
    for _ in 0..10 {
        sockets.push(Socket::open(service.api(), &["hello"]).await);
    }
    for subsystem in SUBSYSTEMS {
        service.make_panic(subsystem).await;
    }
    for subsystem in SUBSYSTEMS {
        is_up_again(&service, subsystem, 2).await;
    }
    service.enqueue("publish", json!({"topic": "hello", "data": 1})).await;
    for socket in &mut sockets {
        assert_eq!(socket.event().await["data"], 1);
    }
    never("ready all the time", Duration::from_millis(500), || async {
        let answer = service.admin().get("/readyz").await;
        (answer.status != 200).then_some(answer.body)
    })
    .await;
}

#[tokio::test]
async fn a_path_that_names_no_child_is_404_and_breaks_nothing() {
    let service = Service::start().await;
    let answer = service.admin().post("/dev/panic/no/such/child", &json!(null)).await;
    assert_eq!((answer.status, answer.header("content-type")), (404, "application/problem+json"));
    assert_eq!(panics(&service).await, counts(|_| 0.0));
}

async fn incarnations(service: &Service) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for name in SUBSYSTEMS {
        found.insert(name.to_owned(), service.node(name).await["incarnation"].as_u64().unwrap());
    }
    found
}

async fn panics(service: &Service) -> BTreeMap<String, f64> {
    let metrics = service.metrics().await;
    let value = |name: &str| metrics.value("panic_recovered_total", &[("component", name)]).unwrap_or(-1.0);
    counts(value)
}

fn counts(value: impl Fn(&str) -> f64) -> BTreeMap<String, f64> {
    SUBSYSTEMS.iter().map(|name| ((*name).to_owned(), value(name))).collect()
}
