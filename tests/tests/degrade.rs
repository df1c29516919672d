//! A child that gives up: a critical one ends the process by name, any other is shown, counted and tried for ever.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Service, Setup, Socket, eventually};

const SOON: Duration = Duration::from_secs(30);

/// Two restarts in a minute, after 10 ms each; then it has given up.
fn gives_up_soon(child: &str) -> Setup {
    let setup = Service::setup().fast_backoff();
    setup.set(&format!("{child}.restart.intensity"), 2).set(&format!("{child}.backoff.degraded_cap_ms"), 3000)
}

/// Uses up the restart budget: three panics, each in an incarnation that is up.
async fn use_up_the_budget(service: &Service, child: &str) {
    for incarnation in 1..=3 {
        eventually(&format!("{child} is up"), SOON, || async {
            let node = service.node(child).await;
            (node["status"] == "up" && node["incarnation"] == incarnation).then_some(())
        })
        .await;
        service.make_panic(child).await;
    }
}

#[tokio::test]
async fn a_critical_child_that_gives_up_ends_the_process_with_70_and_its_name() {
    let service = gives_up_soon("scheduler").start().await;
    use_up_the_budget(&service, "scheduler").await;
    let ended = service.process().wait(SOON).await;
    assert_eq!(ended.code, 70, "{}", ended.log());
    assert!(ended.log().lines().any(|line| line.contains("gave up") && line.contains("scheduler")), "{}", ended.log());
}

#[tokio::test]
async fn the_store_is_critical_too() {
    let service = Service::start().await;
    for incarnation in 1..=6 {
        let up = async || {
            let answer = service.admin().try_get("/admin/tree").await?.json();
            let node = tests::service::node_of(&answer, "store")?.clone();
            (node["status"] == "up" && node["incarnation"] == incarnation).then_some(())
        };
        eventually("the store is up", Duration::from_secs(60), up).await;
        service.make_panic("store").await;
    }
    let ended = service.process().wait(SOON).await;
    assert_eq!(ended.code, 70, "{}", ended.log());
    assert!(ended.log().lines().any(|line| line.contains("gave up") && line.contains("store")), "{}", ended.log());
}

async fn degrades_and_comes_back(child: &str) {
    let service = gives_up_soon(child).start().await;
    let mut socket = Socket::open(service.api(), &["hello"]).await;
    use_up_the_budget(&service, child).await;

    let node = degraded(&service, child).await;
    let due = node["due_in_ms"].as_u64().unwrap();
    assert!((1..=3000).contains(&due), "tried again at the slow cap: {node:#}");
    let ready = service.admin().get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("degraded")), "{}", ready.body);
    assert!(ready.body.contains(child), "{}", ready.body);
    assert_eq!(service.metrics().await.value("supervisor_degraded", &[("actor", child)]), Some(1.0));

    eventually("it is tried again", SOON, || async {
        let node = service.node(child).await;
        (node["status"] == "up" && node["incarnation"] == 4).then_some(())
    })
    .await;
    service.enqueue("publish", json!({"topic": "hello", "data": 1})).await;
    assert_eq!(socket.event().await["data"], 1, "on the socket that was open all the time");
}

async fn degraded(service: &Service, child: &str) -> Value {
    eventually(&format!("{child} is degraded and waits for its next try"), SOON, || async {
        let node = service.node(child).await;
        (node["degraded"] == true && node["status"] == "waiting").then_some(node)
    })
    .await
}

#[tokio::test]
async fn the_broadcaster_degrades_and_comes_back() {
    degrades_and_comes_back("broadcaster").await;
}

#[tokio::test]
async fn the_channel_manager_degrades_and_comes_back() {
    degrades_and_comes_back("channel_manager").await;
}

#[tokio::test]
async fn the_health_sweep_degrades_and_comes_back() {
    degrades_and_comes_back("health_sweep").await;
}

#[tokio::test]
async fn the_liveness_monitor_degrades_and_comes_back() {
    degrades_and_comes_back("liveness_monitor").await;
}

#[tokio::test]
async fn a_critical_childs_end_is_seen_in_the_log_of_the_stop_too() {
    let service = gives_up_soon("scheduler").start().await;
    use_up_the_budget(&service, "scheduler").await;
    let ended = service.process().wait(SOON).await;
    for child in ["api", "broadcaster", "store", "admin"] {
        assert!(ended.log().lines().any(|line| line.contains("stopped") && line.contains(child)), "{}", ended.log());
    }
}
