//! The service on PostgreSQL: with one setting, by two replicas, and while the server is away or held.

use std::time::Duration;

use serde_json::json;
use tests::{Database, Postgres, Receiver, Service, Setup, Socket, eventually};

const SOON: Duration = Duration::from_secs(60);

/// Failed jobs come back soon, so that the test does not wait for their backoff.
fn replica(database: &Database) -> Setup {
    Service::setup().set("store.url", database.url()).set("scheduler.retry_base_ms", 200)
}

#[tokio::test]
async fn with_one_setting_jobs_schedules_and_channels_live_in_postgres() {
    let Some(database) = Database::empty().await else { return };
    let service = replica(&database).start().await;
    let mut socket = Socket::open(service.api(), &["hello", "tick"]).await;
    let id = service.enqueue("publish", json!({"topic": "hello", "data": 7})).await;
    assert_eq!(socket.event().await["data"], 7);
    service.job_in(&id, "done").await;
    let body = json!({"kind": "publish", "payload": {"topic": "tick", "data": 1}, "every_ms": 1000});
    service.api().post("/v1/schedules", &body).await.expect(201);
    assert_eq!(socket.event().await["topic"], "tick");
    let receiver = Receiver::start().await;
    let (channel, _) = service.webhook(&receiver.url("/hook")).await;
    service.enqueue("notify", json!({"channel": channel, "data": 1})).await;
    receiver.await_calls(1, SOON).await;
    assert_eq!(service.stop().await.code, 0);
    assert!(!service.home().path().join("data").exists(), "there is a file of SQLite");
    let log = service.process().stderr().join("\n") + &service.process().stdout().join("\n");
    assert!(!log.contains("postgres@"), "the user of the address shows: {log}");
    assert_eq!(database.number("SELECT count(*) FROM channels").await, 1);
}

#[tokio::test]
async fn two_replicas_share_the_jobs_and_a_fire_happens_once() {
    let Some(database) = Database::empty().await else { return };
    // Both make the tables at the same time.
    let quick = || replica(&database).set("scheduler.interval_ms", 100);
    let (one, two) = tokio::join!(quick().start(), quick().start());
    for every_ms in [1000, 1500] {
        let body = json!({"kind": "publish", "payload": {"topic": "tick", "data": 1}, "every_ms": every_ms});
        one.api().post("/v1/schedules", &body).await.expect(201);
    }
    for n in 0..200 {
        let at = if n % 2 == 0 { &one } else { &two };
        at.enqueue("publish", json!({"topic": "t", "data": n})).await;
    }
    let ours = "SELECT count(*) FROM jobs_done WHERE schedule_id IS NULL AND state = 'done'";
    let fires = "SELECT count(*) FROM jobs_done WHERE schedule_id IS NOT NULL AND state = 'done'";
    eventually("all jobs and some fires are done", SOON, || async {
        (database.number(ours).await == 200 && database.number(fires).await >= 6).then_some(())
    })
    .await;
    assert_eq!(database.number("SELECT max(attempt) FROM jobs_done").await, 1, "a job ran twice");
    let twice =
        "SELECT count(*) - count(DISTINCT (schedule_id, fire_at_ms)) FROM jobs_done WHERE schedule_id IS NOT NULL";
    assert_eq!(database.number(twice).await, 0, "a fire happened twice");
    for service in [&one, &two] {
        let metrics = service.metrics().await;
        let claimed = |line: &str| line.starts_with("job_claimed_total") && !line.ends_with(" 0");
        assert!(metrics.text().lines().any(claimed), "one replica did everything: {}", metrics.text());
    }
}

#[tokio::test]
async fn a_server_that_stops_or_is_held_restarts_nobody_and_loses_no_job() {
    let Some(postgres) = Postgres::start().await else { return };
    let database = postgres.database();
    let service = replica(&database).set("store.deadline_ms", 1000).start().await;
    let mut ids = Vec::new();
    for outage in ["stopped", "held"] {
        for n in 0..20 {
            ids.push(service.enqueue("publish", json!({"topic": outage, "data": n})).await);
        }
        match outage {
            "stopped" => postgres.stop().await,
            _ => postgres.pause(),
        }
        let body = json!({"kind": "publish", "payload": {"topic": "t", "data": 1}});
        assert_eq!(service.api().post("/v1/jobs", &body).await.status, 503, "{outage}");
        tokio::time::sleep(Duration::from_secs(5)).await;
        match outage {
            "stopped" => postgres.restart().await,
            _ => postgres.resume(),
        }
        let back = eventually("jobs are taken again", SOON, || async {
            let answer = service.api().post("/v1/jobs", &body).await;
            (answer.status == 201).then(|| answer.json()["id"].as_str().unwrap().to_owned())
        });
        ids.push(back.await);
        for id in &ids {
            service.job_in(id, "done").await;
        }
    }
    for path in ["store", "scheduler", "scheduler.claimer", "scheduler.settler", "scheduler.firer", "channel_manager"] {
        assert_eq!(service.node(path).await["incarnation"], 1, "{path} was restarted");
    }
    let twice = "SELECT count(*) - count(DISTINCT id) FROM (SELECT id FROM jobs UNION ALL SELECT id FROM jobs_done) AS all_jobs";
    assert_eq!(database.number(twice).await, 0);
}
