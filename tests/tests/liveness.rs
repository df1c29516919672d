//! What `/admin/liveness` and the probes say of loops that work, that are idle, and that are stuck.

use std::time::Duration;

use serde_json::json;
use tests::service::SUBSYSTEMS;
use tests::wait::never;
use tests::{Service, Store, eventually};

const SOON: Duration = Duration::from_secs(20);

async fn states(service: &Service, path: &str) -> Vec<String> {
    service.loops(path).await.iter().map(|found| found["state"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_subsystem_beats_and_says_when_it_did_so_last() {
    let service = Service::start().await;
    for subsystem in SUBSYSTEMS {
        let found = eventually(&format!("{subsystem} beats"), SOON, || async {
            let loops = service.loops(subsystem).await;
            let beating = !loops.is_empty() && loops.iter().all(|found| found["state"] == "beating");
            beating.then_some(loops)
        })
        .await;
        for found in found {
            assert!(found["last_tick_at"].as_str().unwrap().ends_with('Z'), "{found:#}");
            let (age, interval) = (found["seconds_ago"].as_f64().unwrap(), found["interval_ms"].as_f64().unwrap());
            assert!(age * 1000.0 <= 2.0 * interval, "{found:#}");
        }
    }
}

#[tokio::test]
async fn a_service_without_work_is_idle_and_never_stale() {
    let service = Service::setup().set("broadcaster.interval_ms", 500).start().await;
    every_loop_beats(&service).await;
    never("idle is not stuck", Duration::from_secs(5), || async {
        let stale = service.loops("").await.into_iter().find(|found| found["state"] != "beating");
        stale.map(|found| format!("{found:#}"))
    })
    .await;
}

/// The store answers nobody's writes: a real fault, made from outside. The claimer cannot finish its work, while its
/// actor still answers.
#[tokio::test]
async fn a_loop_that_cannot_finish_its_work_is_stale_after_twice_its_interval_and_recovers() {
    let service = Service::start().await;
    every_loop_beats(&service).await;
    let lock = Store::open(service.home()).await.lock().await;
    let claimer = eventually("the claimer is stale", SOON, || async {
        service.loops("scheduler.claimer").await.into_iter().find(|found| found["state"] == "stale")
    })
    .await;
    assert!(claimer["seconds_ago"].as_f64().unwrap() >= 2.0, "{claimer:#}");
    assert_eq!(states(&service, "health_sweep").await, ["beating"], "told apart from those that work");
    assert_eq!(service.admin().get("/healthz").await.status, 200, "stale is never a failed probe by itself");
    let scheduler = service.node("scheduler").await;
    assert_eq!((&scheduler["status"], &scheduler["restarts"]), (&json!("up"), &json!(0)), "parked, not crashed");
    lock.release().await;
    every_loop_beats(&service).await;
    let id = service.enqueue("publish", json!({"topic": "t", "data": 1})).await;
    service.job_in(&id, "done").await;
}

#[tokio::test]
async fn a_loop_that_hangs_in_the_middle_of_its_work_is_stale_while_all_else_still_answers() {
    let service = Service::start().await;
    every_loop_beats(&service).await;
    service.make_hang("scheduler.claimer").await;
    let claimer = eventually("the claimer is stale", SOON, || async {
        service.loops("scheduler.claimer").await.into_iter().find(|found| found["state"] == "stale")
    })
    .await;
    assert!(claimer["seconds_ago"].as_f64().unwrap() >= 2.0, "{claimer:#}");
    assert!(claimer["busy"]["message_type"].as_str().is_some(), "it says in which message: {claimer:#}");
    assert_eq!(states(&service, "scheduler.firer").await, ["beating"], "told apart from a loop that is idle");
    let id = service.enqueue("publish", json!({"topic": "t", "data": 1})).await;
    assert_eq!(service.job(&id).await["state"], "ready", "accepted, and waiting for the claimer");
    for probe in ["/readyz", "/healthz"] {
        assert_eq!(service.admin().get(probe).await.status, 200, "stale is never a failed probe by itself");
    }
    eventually("it is counted", SOON, || async {
        let stuck = service.metrics().await.value("heartbeat_stuck", &[("component", "scheduler")]);
        (stuck == Some(1.0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_critical_loop_that_hangs_for_too_long_is_wedged_and_fails_the_liveness_probe() {
    let setup = Service::setup().set("scheduler.interval_ms", 100).set("liveness_monitor.interval_ms", 100);
    let service = setup.set("liveness_monitor.wedged_after_ms", 5000).start().await;
    every_loop_beats(&service).await;
    service.make_hang("scheduler.claimer").await;
    let answer = eventually("the process asks to be restarted", SOON, || async {
        let answer = service.admin().get("/healthz").await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert!(answer.body.contains("scheduler"), "it names what is wedged: {}", answer.body);
}

#[tokio::test]
async fn a_child_that_keeps_its_thread_is_named_while_it_does_and_comes_back() {
    let service = Service::start().await;
    every_loop_beats(&service).await;
    service.make_block("scheduler.claimer").await;
    let answer = eventually("the watchdog names it", SOON, || async {
        let answer = service.admin().get("/healthz").await;
        answer.body.contains("has not yielded").then_some(answer)
    })
    .await;
    assert_eq!(answer.status, 200, "not yet for so long that a restart of the process is called for");
    assert!(answer.body.contains("scheduler.claimer has not yielded for "), "{}", answer.body);
    let found = service.metrics().await.value("supervision_not_yielding", &[]);
    assert_eq!(found, Some(1.0));
    eventually("it is back", SOON, || async {
        let body = service.admin().get("/healthz").await.body;
        let claimer = service.node("scheduler.claimer").await;
        (!body.contains("has not yielded") && claimer["incarnation"] == 2 && claimer["status"] == "up").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_critical_child_that_keeps_its_thread_for_too_long_fails_the_liveness_probe() {
    let setup = Service::setup().set("scheduler.interval_ms", 100).set("liveness_monitor.interval_ms", 100);
    let service = setup.set("liveness_monitor.wedged_after_ms", 3000).start().await;
    every_loop_beats(&service).await;
    service.make_block("scheduler.claimer").await;
    let answer = eventually("the process asks to be restarted", SOON, || async {
        let answer = service.admin().get("/healthz").await;
        (answer.status == 503 && answer.body.contains("has not yielded")).then_some(answer)
    })
    .await;
    assert!(answer.body.contains("scheduler.claimer"), "{}", answer.body);
}

#[tokio::test]
async fn a_store_that_is_away_makes_it_unready_after_three_sweeps_and_ready_again_after_two() {
    let setup = Service::setup().set("health_sweep.interval_ms", 200).set("health_sweep.probe_timeout_ms", 100);
    let service = setup.start().await;
    service.admin().get("/readyz").await.expect(200);
    let lock = Store::open(service.home()).await.lock().await;
    let answer = eventually("it is unready", SOON, || async {
        let answer = service.admin().get("/readyz").await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert!(answer.body.contains("store"), "{}", answer.body);
    assert_eq!(service.admin().get("/healthz").await.status, 200, "a restart would cure nothing");
    lock.release().await;
    eventually("it is ready again", SOON, || async {
        (service.admin().get("/readyz").await.status == 200).then_some(())
    })
    .await;
}

async fn every_loop_beats(service: &Service) {
    eventually("every loop beats", SOON, || async {
        service.loops("").await.iter().all(|found| found["state"] == "beating").then_some(())
    })
    .await;
}
