//! What operators do over the admin listener: only with the token where others could reach it, and never without a record.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tests::client::send;
use tests::{Answer, Collector, Protocol, Service, Setup, Socket, eventually};

const SOON: Duration = Duration::from_secs(30);
const TOKEN: &str = "a-token-of-our-own";

/// Every route of the admin listener but the probes.
const ROUTES: [(&str, &str); 34] = [
    ("GET", "/metrics"),
    ("GET", "/admin/liveness"),
    ("GET", "/admin/live"),
    ("GET", "/admin/tree"),
    ("POST", "/admin/tree/restart/broadcaster"),
    ("POST", "/admin/tree/stop/broadcaster"),
    ("POST", "/admin/tree/start/broadcaster"),
    ("GET", "/admin/incidents"),
    ("GET", "/admin/incidents/018f0000-0000-7000-8000-000000000000"),
    ("GET", "/admin/traces"),
    ("GET", "/admin/traces/0af7651916cd43dd8448eb211c80319c"),
    ("GET", "/admin/traces/0af7651916cd43dd8448eb211c80319c/otlp"),
    ("GET", "/admin/spans/open"),
    ("GET", "/admin/logs"),
    ("GET", "/debug/tasks"),
    ("GET", "/debug/pprof/heap"),
    ("GET", "/admin/tenants"),
    ("POST", "/admin/tenants"),
    ("GET", "/admin/tenants/demo"),
    ("GET", "/admin/work"),
    ("GET", "/admin/sockets"),
    ("GET", "/admin/backlog"),
    ("GET", "/admin/tenants/demo/jobs"),
    ("GET", "/admin/tenants/demo/schedules"),
    ("GET", "/admin/tenants/demo/channels"),
    ("POST", "/admin/tenants/demo/rotate-key"),
    ("POST", "/admin/tenants/demo/disable"),
    ("POST", "/admin/tenants/demo/enable"),
    ("PUT", "/admin/tenants/demo/quotas"),
    ("GET", "/admin/log-filter"),
    ("PUT", "/admin/log-filter"),
    ("DELETE", "/admin/log-filter"),
    ("POST", "/dev/panic/broadcaster"),
    ("POST", "/dev/hang/broadcaster"),
];

async fn ask(service: &Service, method: &str, path: &str, body: Value) -> Answer {
    send(service.admin().request(Method::from_bytes(method.as_bytes()).unwrap(), path).json(&body)).await
}

async fn operate(service: &Service, what: &str) -> Answer {
    ask(service, "POST", &format!("/admin/tree/{what}"), json!(null)).await
}

/// What was logged at the target `audit`, oldest first. The log is one JSON object for each line.
fn audited(log: &[String]) -> Vec<Value> {
    let records = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    records.filter(|record| record["target"] == "audit").collect()
}

#[tokio::test]
async fn a_listener_that_others_can_reach_is_refused_without_a_token() {
    let ended = Service::setup().set("admin.listen", "0.0.0.0:0").run().await;
    assert_eq!(ended.code, 78, "{}", ended.log());
    assert!(ended.log().contains("admin.token"), "{}", ended.log());
}

#[tokio::test]
async fn with_a_token_every_route_but_the_probes_asks_for_it_and_nothing_happens_without() {
    let reached = Service::setup().set("admin.listen", "0.0.0.0:0").set("admin.token", TOKEN);
    let service = reached.set("log.format", "json").start().await;
    for (method, path) in ROUTES {
        let answer = ask(&service, method, path, json!({"id": "acme", "filter": "debug"})).await.expect(401);
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"admin\"", "{method} {path}");
    }
    for probe in ["/startupz", "/readyz", "/healthz"] {
        service.admin().get(probe).await.expect(200);
    }
    let operator = service.admin().with_key(TOKEN);
    operator.get("/admin/tenants/acme").await.expect(404);
    assert_eq!(operator.get("/admin/tenants/demo").await.expect(200).json()["disabled_at"], json!(null));
    assert_eq!(operator.get("/admin/log-filter").await.expect(200).json()["reverts_in_ms"], json!(null));
    let records = audited(&service.process().stderr());
    assert_eq!(records.len(), ROUTES.len(), "each refusal leaves a record: {records:#?}");
    assert!(records.iter().all(|record| record["fields"]["outcome"] == "refused"), "{records:#?}");
}

#[tokio::test]
async fn guesses_of_the_token_are_429_after_some() {
    let service = Service::setup().set("admin.token", TOKEN).set("limits.auth_failures_per_min", 3).start().await;
    let guess = async |n: u32| service.admin().with_key(&format!("guess {n}")).get("/metrics").await;
    for n in 0..4 {
        guess(n).await.expect(401);
    }
    guess(4).await.expect(429);
    service.admin().get("/metrics").await.expect(401);
    service.admin().get("/healthz").await.expect(200);
}

#[tokio::test]
async fn guesses_of_keys_do_not_keep_the_operator_out() {
    let service = Service::setup().set("admin.token", TOKEN).set("limits.auth_failures_per_min", 3).start().await;
    let guess = async |n: u32| service.api().with_key(&format!("guess {n}")).get("/v1/jobs").await;
    for n in 0..4 {
        guess(n).await.expect(401);
    }
    guess(4).await.expect(429);
    service.admin().with_key(TOKEN).get("/metrics").await.expect(200);
}

#[tokio::test]
async fn a_child_is_restarted_stopped_and_started_by_its_path() {
    let service = Service::start().await;
    let mut socket = Socket::open(service.api(), &["hello"]).await;
    let restarted = operate(&service, "restart/broadcaster").await.expect(200).json();
    assert_eq!(restarted, json!({"path": "broadcaster", "outcome": "started", "incarnation": 2}));
    operate(&service, "stop/scheduler/claimer").await.expect(200);
    assert_eq!(service.node("scheduler.claimer").await["status"], "stopped_by_hand");
    let id = service.enqueue("publish", json!({"topic": "hello", "data": 7})).await;
    eventually("the jobs to be counted", SOON, || async {
        let metrics = service.metrics().await;
        (metrics.value("job_kept", &[("state", "ready")]) == Some(1.0)).then_some(())
    })
    .await;
    assert_eq!(service.job(&id).await["state"], "ready", "nobody claims");
    assert_eq!(operate(&service, "start/scheduler/claimer").await.expect(200).json()["incarnation"], 2);
    assert_eq!(socket.event().await["data"], 7, "on the socket that was open all the time");
    let refused = operate(&service, "start/scheduler/claimer").await.expect(409);
    assert_eq!(refused.json()["detail"], "`scheduler.claimer`: the child is running");
    operate(&service, "restart/no/such/child").await.expect(404);
    operate(&service, "stop/admin").await.expect(409);
}

#[tokio::test]
async fn the_log_filter_changes_the_log_for_its_time_and_leaves_the_spans_alone() {
    let collector = Collector::start().await;
    let setup = Service::setup().telemetry(&collector, Protocol::HttpProtobuf).set("log.format", "json");
    let service = setup.start().await;
    let debug = |log: &[String]| log.iter().filter(|line| line.contains("\"level\":\"DEBUG\"")).count();
    service.api().get("/v1/jobs/x").await.expect(404);
    assert_eq!(debug(&service.process().stderr()), 0);

    let body = json!({"filter": "info,app=debug,audit[{action}]=off", "for_ms": 3000});
    let changed = ask(&service, "PUT", "/admin/log-filter", body).await.expect(200).json();
    assert_eq!(
        (&changed["filter"], &changed["configured"]),
        (&json!("info,app=debug,audit[{action}]=off"), &json!("info"))
    );
    service.api().get("/v1/jobs/x").await.expect(404);
    eventually("a request is logged", SOON, || async { (debug(&service.process().stderr()) > 0).then_some(()) }).await;
    collector.log("a record of level DEBUG", SOON, |log| log.severity == "DEBUG").await;
    eventually("the filter is as before", SOON, || async {
        let state = service.admin().get("/admin/log-filter").await.expect(200).json();
        (state == json!({"filter": "info", "configured": "info", "reverts_in_ms": null})).then_some(())
    })
    .await;
    collector.log("that it is", SOON, |log| log.attribute("action") == "log_filter.revert").await;
    let unlogged = service.api().get("/v1/jobs/y").await.expect(404).header("x-trace-id").to_owned();
    ask(&service, "PUT", "/admin/log-filter", json!({"filter": "off"})).await.expect(200);
    let silent = service.api().get("/v1/jobs/z").await.expect(404);
    let trace = silent.header("x-trace-id").to_owned();
    collector.span("the span of a request nobody logs", SOON, |span| span.trace_id == trace).await;
    let refused = ask(&service, "PUT", "/admin/log-filter", json!({"filter": "info,app=loud"})).await.expect(422);
    assert_eq!(refused.json()["errors"][0]["field"], "filter");
    ask(&service, "DELETE", "/admin/log-filter", json!(null)).await.expect(200);
    eventually("five records, also of what was done while nothing else was logged", SOON, || async {
        (audited(&service.process().stderr()).len() == 5).then_some(())
    })
    .await;
    assert!(!service.process().stderr().iter().any(|line| line.contains(&unlogged)), "logged after the time was over");
}

#[tokio::test]
async fn each_action_leaves_one_record_with_its_subject_and_no_secret() {
    let service = Service::setup().set("log.format", "json").start().await;
    let created = ask(&service, "POST", "/admin/tenants", json!({"id": "acme"})).await.expect(201).json();
    let rotated = ask(&service, "POST", "/admin/tenants/acme/rotate-key", json!(null)).await.expect(200);
    ask(&service, "POST", "/admin/tenants/acme/disable", json!(null)).await.expect(200);
    ask(&service, "POST", "/admin/tenants/nobody/enable", json!(null)).await.expect(404);
    ask(&service, "PUT", "/admin/tenants/acme/quotas", json!({"sockets": "many"})).await.expect(422);
    operate(&service, "restart/health_sweep").await.expect(200);
    operate(&service, "start/health_sweep").await.expect(409);
    ask(&service, "PUT", "/admin/log-filter", json!({"filter": "off"})).await.expect(200);
    service.make_panic("health_sweep").await;

    let records = eventually("nine records", SOON, || async {
        let records = audited(&service.process().stderr());
        (records.len() >= 9).then_some(records)
    })
    .await;
    let told: Vec<_> = records
        .iter()
        .map(|record| ["action", "subject", "outcome"].map(|field| record["fields"][field].as_str().unwrap()))
        .collect();
    let expected = [
        ["tenant.create", "acme", "done"],
        ["tenant.rotate_key", "acme", "done"],
        ["tenant.disable", "acme", "done"],
        ["tenant.enable", "nobody", "refused"],
        ["tenant.set_quotas", "acme", "refused"],
        ["tree.restart", "health_sweep", "done"],
        ["tree.start", "health_sweep", "refused"],
        ["log_filter.set", "off", "done"],
        ["dev.panic", "health_sweep", "done"],
    ];
    assert_eq!(told, expected);
    for record in &records {
        assert_eq!((&record["level"], &record["fields"]["client"]), (&json!("INFO"), &json!("127.0.0.1")));
    }
    let of_rotation = &records[1];
    assert_eq!(of_rotation["fields"]["request_id"], rotated.header("x-request-id"));
    assert_eq!(of_rotation["trace_id"], rotated.header("x-trace-id"));
    let log = service.process().stderr().join("\n");
    for secret in [created["key"].as_str().unwrap(), rotated.json()["key"].as_str().unwrap()] {
        assert!(!log.contains(secret), "a key is in the log");
    }
}

#[tokio::test]
async fn each_command_on_tenants_leaves_a_record_too_also_a_refused_one() {
    let service = Service::start().await;
    let told = async |arguments: &[&str]| {
        let setup = Setup::bare().home(service.home()).set("log.format", "json").set("log.filter", "error");
        let ended = arguments.iter().fold(setup.arg("tenant"), |setup, argument| setup.arg(argument)).run().await;
        let records = audited(&ended.stderr);
        let fields = ["action", "subject", "outcome", "client"];
        let told = records.iter().map(|record| {
            assert!(record["trace_id"].is_string(), "{record}");
            fields.map(|field| record["fields"][field].as_str().unwrap().to_owned())
        });
        let key = ended.stdout.iter().find_map(|line| line.split_whitespace().find(|word| word.starts_with("pk_")));
        assert!(key.is_none_or(|key| !ended.log().contains(key)), "a key is in the log");
        told.collect::<Vec<_>>()
    };
    assert_eq!(told(&["create", "acme"]).await, [["tenant.create", "acme", "done", "command line"]]);
    assert_eq!(told(&["create", "acme"]).await, [["tenant.create", "acme", "refused", "command line"]]);
    assert_eq!(told(&["rotate-key", "acme"]).await, [["tenant.rotate_key", "acme", "done", "command line"]]);
    assert_eq!(told(&["disable", "acme"]).await, [["tenant.disable", "acme", "done", "command line"]]);
    assert_eq!(told(&["enable", "nobody"]).await, [["tenant.enable", "nobody", "refused", "command line"]]);
    assert!(told(&["list"]).await.is_empty());
}

#[tokio::test]
async fn an_incident_tells_everything_there_is_to_know() {
    let service = Service::start().await;
    let body = json!({"kind": "panic", "payload": {}, "max_attempts": 1});
    let job = service.api().post("/v1/jobs", &body).await.expect(201).json();
    service.job_in(job["id"].as_str().unwrap(), "dead").await;
    service.make_panic("scheduler.claimer").await;
    let incident = async |of: &str| {
        let items = service.admin().get("/admin/incidents").await.expect(200).json()["items"].clone();
        let found = items.as_array().unwrap().iter().find(|item| item["policy"] == of).cloned()?;
        let path = format!("/admin/incidents/{}", found["id"].as_str().unwrap());
        let whole = service.admin().get(&path).await.expect(200).json();
        whole["backtrace"].is_string().then_some(whole)
    };
    let of_job = eventually("the job's incident with its backtrace", SOON, || incident("keep_running")).await;
    assert_eq!((&of_job["tenant"], &of_job["component"]), (&json!("demo"), &json!("scheduler")));
    for field in ["at", "phase", "message", "location", "thread", "trace_id", "span_id"] {
        assert!(of_job[field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {of_job:#}");
    }
    let of_actor = eventually("the actor's incident with its backtrace", SOON, || incident("restart")).await;
    assert_eq!(of_actor["actor"], "scheduler.claimer");
    // A drill is no message; that an incident names the message is held where messages can be made to panic.
    for field in ["phase", "location", "trace_id"] {
        assert!(of_actor[field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {of_actor:#}");
    }
}
