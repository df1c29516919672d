//! From nothing to ready: what it says, what it makes, what it sends, and how it refuses to start.

use std::time::Duration;

use tests::collector::Behaviour;
use tests::{Client, Collector, Home, Protocol, Service, eventually};

const SOON: Duration = Duration::from_secs(20);

/// The children of the root in the order in which they start.
const TREE: [&str; 9] =
    ["admin", "store", "bus", "health_sweep", "liveness_monitor", "broadcaster", "channel_manager", "scheduler", "api"];

#[tokio::test]
async fn an_empty_directory_becomes_a_ready_service_that_says_where_it_is() {
    let service = Service::start().await;
    let banner = service.process().stdout();
    let has = |part: &str| assert!(banner.iter().any(|line| line.contains(part)), "no `{part}` in {banner:#?}");
    assert!(banner[0].ends_with(", profile development"), "{banner:#?}");
    has("store  sqlite://data/");
    has("bus  memory:");
    has("otlp  off (set OTEL_EXPORTER_OTLP_ENDPOINT)");
    has(&format!("api    {}", service.api().base()));
    has(&format!("admin  {}", service.admin().base()));
    has("tenant demo, key pk_demo_development_only");
    has(&format!("tree   {}", TREE.join(" > ")));
    assert!(banner.last().unwrap().starts_with("ready in "), "{banner:#?}");
    assert!(service.home().path().join("data").is_dir());
}

#[tokio::test]
async fn both_listeners_answer_the_three_probes() {
    let service = Service::start().await;
    for client in [service.admin().clone(), service.api().without_key()] {
        for probe in ["/startupz", "/readyz", "/healthz"] {
            assert_eq!(client.get(probe).await.status, 200, "{}{probe}", client.base());
        }
    }
    let details = service.admin().get("/readyz").await.json();
    assert_eq!(details["status"], "ready", "{details}");
}

#[tokio::test]
async fn the_tree_shows_every_child_up_in_its_first_incarnation() {
    let service = Service::start().await;
    let tree = service.admin().get("/admin/tree").await.expect(200).json();
    let children: Vec<_> = tree["children"].as_array().unwrap().iter().map(|child| child["id"].clone()).collect();
    assert_eq!(children, TREE);
    for path in TREE {
        let node = service.node(path).await;
        assert_eq!((&node["status"], &node["incarnation"]), (&"up".into(), &1.into()), "{node:#}");
    }
}

#[tokio::test]
async fn a_boot_without_trouble_logs_no_warning() {
    let service = Service::start().await;
    let complaints: Vec<_> =
        service.process().stderr().into_iter().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

async fn the_boot_is_one_trace(protocol: Protocol) {
    let collector = Collector::start().await;
    let _service = Service::setup().telemetry(&collector, protocol).start().await;
    let boot = collector.span("the root of the boot", SOON, |span| span.name == "boot" && span.is_root()).await;
    let in_order = eventually("a span for the start of each child", SOON, || async {
        let trace = collector.trace(&boot.trace_id);
        let starts = trace.iter().filter(|span| span.name == "child.start").map(|span| span.attribute("path"));
        let starts: Vec<String> = starts.filter(|path| TREE.contains(path)).map(str::to_owned).collect();
        (starts.len() == TREE.len()).then_some(starts)
    })
    .await;
    assert_eq!(in_order, TREE, "the earliest first");
    assert!(collector.protocols().iter().all(|used| *used == protocol));
    assert_eq!(boot.resource["service.name"], "perennial");
    assert!(["service.version", "service.instance.id"].iter().all(|name| boot.resource.contains_key(*name)));
}

#[tokio::test]
async fn the_boot_is_one_trace_over_http_protobuf() {
    the_boot_is_one_trace(Protocol::HttpProtobuf).await;
}

#[tokio::test]
async fn the_boot_is_one_trace_over_grpc() {
    the_boot_is_one_trace(Protocol::Grpc).await;
}

#[tokio::test]
async fn metrics_and_logs_arrive_too_with_their_times_and_every_panic_counter_at_zero() {
    let collector = Collector::start().await;
    let service = Service::setup().telemetry(&collector, Protocol::HttpProtobuf).start().await;
    for component in TREE {
        let labels = [("component", component)];
        let is_it = |point: &tests::collector::Point| point.name == "panic_recovered_total" && point.bears(&labels);
        assert_eq!(collector.point(component, SOON, is_it).await.value, 0.0);
        assert_eq!(service.metrics().await.value("panic_recovered_total", &labels), Some(0.0), "{component}");
    }
    let log = collector.log("any", SOON, |log| log.resource.get("service.name").is_some()).await;
    assert!(log.time_ns > 1_700_000_000_000_000_000, "viewers would show 1970: {log:?}");
}

#[tokio::test]
async fn a_collector_that_is_away_or_hangs_holds_up_nothing() {
    let collector = Collector::start().await;
    for behaviour in [Behaviour::Refuse, Behaviour::Delay(Duration::from_secs(60))] {
        collector.behave(behaviour);
        let service = Service::setup().telemetry(&collector, Protocol::HttpProtobuf).start().await;
        service.enqueue("publish", serde_json::json!({"topic": "hello", "data": 1})).await;
        let ended = service.stop().await;
        assert_eq!(ended.code, 0);
        assert!(ended.took < Duration::from_secs(10), "{behaviour:?}: {:?}", ended.took);
    }
}

#[tokio::test]
async fn an_address_in_use_ends_the_start_with_69_and_is_named() {
    let first = Service::start().await;
    for listener in ["api", "admin"] {
        let taken = if listener == "api" { first.api().authority() } else { first.admin().authority() };
        let ended = Service::setup().set(&format!("{listener}.listen"), taken).run().await;
        assert_eq!(ended.code, 69, "{}", ended.log());
        assert!(ended.log().contains(taken), "{}", ended.log());
        assert!(!ended.stdout.iter().any(|line| line.starts_with("ready")), "{:?}", ended.stdout);
    }
    first.admin().get("/readyz").await.expect(200);
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_ends_the_start_with_69_and_is_named() {
    let home = Home::empty();
    std::fs::write(home.path().join("data"), "a file where a folder should be").unwrap();
    let ended = Service::setup().home(&home).run().await;
    assert_eq!(ended.code, 69, "{}", ended.log());
    assert!(ended.log().contains("store") && ended.log().contains("data"), "{}", ended.log());
}

#[tokio::test]
async fn a_second_start_finds_what_the_first_one_kept() {
    let home = Home::empty();
    let first = Service::setup().home(&home).start().await;
    let id = first.enqueue("publish", serde_json::json!({"topic": "hello", "data": {"n": 1}})).await;
    first.job_in(&id, "done").await;
    assert_eq!(first.stop().await.code, 0);
    let second = Service::setup().home(&home).start().await;
    assert_eq!(second.job(&id).await["state"], "done");
}

#[tokio::test]
async fn production_has_no_demo_key_and_nothing_to_break_it_with() {
    let service = Service::setup().set("profile", "production").set("otel.endpoint", "off").start().await;
    assert_eq!(service.api().get("/v1/jobs/0").await.status, 401);
    let admin: &Client = service.admin();
    assert_eq!(admin.post("/dev/panic/scheduler", &serde_json::Value::Null).await.status, 404);
    assert!(!service.process().stdout().iter().any(|line| line.contains("pk_demo")));
    assert_eq!(service.node("scheduler").await["incarnation"], 1);
}
