//! The service on PostgreSQL: with one setting, by two replicas, and while the server is away or held.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Database, Postgres, Receiver, Service, Setup, Socket, eventually};

const SOON: Duration = Duration::from_secs(60);

/// What the migration of a newer program does, for older ones to go on.
const NEWER: &str = include_str!("../../actors/src/store/postgres/newer.sql");

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
    share_the_jobs(&database, None).await;
}

#[tokio::test]
async fn two_replicas_go_on_while_a_newer_program_changes_the_schema() {
    let Some(database) = Database::empty().await else { return };
    share_the_jobs(&database, Some(NEWER)).await;
    assert!(database.number("SELECT count(*) FROM moods").await > 200, "the newer program's trigger was passed by");
}

#[tokio::test]
async fn one_process_takes_jobs_for_a_queue_that_only_another_works_on() {
    let Some(database) = Database::empty().await else { return };
    let front = replica(&database).set("scheduler.queues_elsewhere", "slow").start();
    let worker = replica(&database).set("scheduler.queues", "slow").start();
    let (front, worker) = tokio::join!(front, worker);
    let job = |queue: &str| json!({"kind": "publish", "payload": {"topic": "t", "data": 1}, "queue": queue});
    let post = async |body| front.api().post("/v1/jobs", &body).await;
    let made = post(job("slow")).await.expect(201).json();
    front.job_in(made["id"].as_str().unwrap(), "done").await;
    let refused = post(job("fast")).await.expect(422).json();
    let reason = "is not served, must be one of: default, slow";
    assert_eq!(refused["errors"], json!([{"field": "queue", "reason": reason}]));
    assert_eq!(worker.stop().await.code, 0);
    let made = post(job("slow")).await.expect(201).json();
    let path = format!("/v1/jobs/{}/explain", made["id"].as_str().unwrap());
    let explained = front.api().get(&path).await.expect(200).json();
    assert_eq!(explained["reasons"][0]["code"], "queue_not_served", "{explained}");
}

/// Amid the work the schema may be changed.
async fn share_the_jobs(database: &Database, change: Option<&'static str>) {
    // Both make the tables at the same time.
    let quick = || replica(database).set("scheduler.interval_ms", 100);
    let (one, two) = tokio::join!(quick().start(), quick().start());
    for every_ms in [1000, 1500] {
        let body = json!({"kind": "publish", "payload": {"topic": "tick", "data": 1}, "every_ms": every_ms});
        one.api().post("/v1/schedules", &body).await.expect(201);
    }
    for n in 0..200 {
        if let (100, Some(change)) = (n, change) {
            sqlx::raw_sql(change).execute(&mut database.connect().await).await.unwrap();
        }
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

/// The connections that listen, of all replicas.
const LISTENERS: &str = "FROM pg_stat_activity
                         WHERE application_name = 'perennial listener' AND datname = current_database()";

#[tokio::test]
async fn a_job_that_only_another_replica_may_run_does_not_wait_for_its_poll_also_after_the_line_was_cut() {
    let Some(database) = Database::empty().await else { return };
    // What is not told would wait for 48 s at least.
    let lazy =
        || replica(&database).set("scheduler.interval_ms", 60_000).set("liveness_monitor.wedged_after_ms", 600_000);
    let (one, two) = tokio::join!(lazy().start(), lazy().start());
    let told = async |what: &str, delay_ms: u64| {
        let asked = Instant::now();
        let delay = jiff::SignedDuration::from_millis(delay_ms.try_into().unwrap());
        let run_at = (jiff::Timestamp::now() + delay).to_string();
        let body = json!({"kind": "publish", "payload": {"topic": "t", "data": 1}, "run_at": run_at});
        let job = one.api().post("/v1/jobs", &body).await.expect(201).json();
        two.job_in(job["id"].as_str().unwrap(), "done").await;
        let took = asked.elapsed();
        assert!(took < Duration::from_millis(2_000 + delay_ms), "{what}: {took:?}");
    };
    let listen = async |since: &str| {
        let all = format!("SELECT count(*) {LISTENERS} AND backend_start > '{since}'");
        eventually("both listen", SOON, || async { (database.number(&all).await == 2).then_some(()) }).await;
    };
    listen("-infinity").await;
    // From its next look on, which the first job asks for.
    one.make_hang("scheduler.claimer").await;
    told("at once", 0).await;
    one.is_hanging("scheduler.claimer").await;
    told("for later", 1_500).await;
    for round in 0..2 {
        let now: String =
            sqlx::query_scalar("SELECT now()::text").fetch_one(&mut database.connect().await).await.unwrap();
        let cut = format!("SELECT count(pg_terminate_backend(pid)) {LISTENERS}");
        assert_eq!(database.number(&cut).await, 2);
        listen(&now).await;
        told(&format!("after cut {round}"), 0).await;
    }
    let metrics = two.metrics().await;
    assert!(metrics.text().lines().any(|line| line.starts_with("scheduler_line_lost_total") && line.ends_with(" 2")));
    for service in [&one, &two] {
        assert_eq!(service.node("scheduler.sweeper").await["incarnation"], 1);
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
    let actors = ["claimer", "settler", "firer", "sweeper"].map(|actor| format!("scheduler.{actor}"));
    for path in ["store", "scheduler", "channel_manager"].into_iter().chain(actors.iter().map(String::as_str)) {
        assert_eq!(service.node(path).await["incarnation"], 1, "{path} was restarted");
    }
    let twice = "SELECT count(*) - count(DISTINCT id) FROM (SELECT id FROM jobs UNION ALL SELECT id FROM jobs_done) AS all_jobs";
    assert_eq!(database.number(twice).await, 0);
}

#[tokio::test]
async fn with_tls_that_is_checked_only_a_server_with_the_right_certificate_is_spoken_to() {
    let Some(postgres) = Postgres::with_tls().await else { return };
    let database = postgres.database();
    let [authority, other] = postgres.authorities();
    let url = |host: &str, parameters: String| format!("{}?{parameters}", database.url().replace("127.0.0.1", host));
    let checked = |by: &Path| format!("sslmode=verify-full&sslrootcert={}", by.display());

    let service = Service::setup().set("store.url", url("127.0.0.1", checked(&authority))).start().await;
    let id = service.enqueue("publish", json!({"topic": "t", "data": 1})).await;
    service.job_in(&id, "done").await;
    let ours = |ssl: &str| {
        format!(
            "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
             WHERE application_name LIKE 'perennial%' AND ssl = {ssl}"
        )
    };
    // The one that listens, and those of the pool.
    eventually("it speaks TLS", SOON, || async { (database.number(&ours("true")).await >= 2).then_some(()) }).await;
    assert_eq!(database.number(&ours("false")).await, 0);
    assert_eq!(service.stop().await.code, 0);

    let Some(plain) = Postgres::start().await else { return };
    let refused = [
        ("UnknownIssuer", url("127.0.0.1", "sslmode=verify-full".to_owned())),
        ("UnknownIssuer", url("127.0.0.1", checked(&other))),
        ("not valid for name", url("localhost", checked(&authority))),
        ("does not support TLS", format!("{}?{}", plain.database().url(), checked(&authority))),
    ];
    futures_util::future::join_all(refused.map(|(why, url)| is_refused(why, url))).await;
}

async fn is_refused(why: &str, url: String) {
    let ended = Service::setup().set("store.url", url).run().await;
    assert_eq!(ended.code, 69, "{why}: {}", ended.log());
    assert!(
        ended.stderr.iter().any(|line| line.starts_with("could not start") && line.contains(why)),
        "{}",
        ended.log()
    );
}

/// What a newer program has done to the schema, seen by this one: it goes on, or it says that it may not.
#[tokio::test]
async fn replicas_of_an_older_version_go_on_until_the_schema_is_not_for_them_any_more() {
    let Some(database) = Database::empty().await else { return };
    let before = replica(&database).start().await;
    sqlx::raw_sql(NEWER).execute(&mut database.connect().await).await.unwrap();
    let after = replica(&database).start().await;
    assert!(after.process().stderr().iter().any(|line| line.contains("newer than this program, which may use it")));
    for service in [&before, &after] {
        let id = service.enqueue("publish", json!({"topic": "t", "data": 1})).await;
        service.job_in(&id, "done").await;
        service.admin().get("/readyz").await.expect(200);
    }

    let not_for_us = "UPDATE compatibility SET oldest_program = 999";
    sqlx::query(not_for_us).execute(&mut database.connect().await).await.unwrap();
    let told = "the store has schema version 999, this program knows up to";
    let refused = replica(&database).run().await;
    assert_eq!(refused.code, 69, "{}", refused.log());
    assert!(
        refused.stderr.iter().any(|line| line.starts_with("could not start") && line.contains(told)),
        "{}",
        refused.log()
    );
    for service in [&before, &after] {
        let unready = eventually("it is unready", SOON, || async {
            let answer = service.admin().get("/readyz").await;
            (answer.status == 503).then_some(answer.body)
        });
        assert!(unready.await.contains("store"), "the body names what it is");
        let log = service.process().stderr().join("\n");
        assert!(log.contains(told), "{log}");
    }
}
